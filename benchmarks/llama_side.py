"""llama.cpp's side of decode.py, in an interpreter of its own: greedy decoding through llama-cpp-python's C functions.

    python -m venv ../llama
    CMAKE_ARGS="-DLLAMA_BUILD_COMMON=OFF -DGGML_OPENMP=OFF" ../llama/bin/pip install llama-cpp-python gguf safetensors
    python benchmarks/decode.py --llama-python ../llama/bin/python

Building takes about half an hour of one core. The weights of a qwen2 folder are written as GGUF in float32, tensor by
tensor; keys and values are float32 too. Rows are sequences of one batch, so that a step is one `llama_decode`.
"""

import contextlib
import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

TENSORS = {  # of a layer: our name, theirs
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    **{f"self_attn.{a}_proj.{part}": f"attn_{a}.{part}" for a in "qkv" for part in ("weight", "bias")},
    **{f"mlp.{a}_proj.weight": f"ffn_{a}.weight" for a in ("gate", "up", "down")},
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a qwen2 tensor."""
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{TENSORS[rest]}"


def convert(folder: Path, to: Path) -> None:
    """Write the weights and the tokenizer of a Hugging Face qwen2 folder as one GGUF file in float32."""
    import gguf
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(to, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), config)
    with safe_open(folder / "model.safetensors", "np") as weights:
        for name in weights.keys():  # noqa: SIM118 not a dict
            writer.add_tensor(gguf_name(name), weights.get_tensor(name).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer: dict, config: dict) -> None:
    """Add a byte-level BPE tokenizer; only tokens are exchanged here, but llama.cpp loads no model without one."""
    import gguf

    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    by_id = {number: text for text, number in (tokenizer["model"]["vocab"] | special).items()}
    numbers, kinds = range(config["vocab_size"]), gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([by_id.get(number, f"[unused{number}]") for number in numbers])
    writer.add_token_types([kinds.CONTROL if n in special.values() else kinds.NORMAL for n in numbers])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


class Decoder:
    """A model and a context for some rows."""

    def __init__(self, model: Path, rows: int, places: int, threads: int) -> None:
        import llama_cpp.llama_cpp as api

        self.api, most = api, max(512, rows * places)
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(str(model).encode(), api.llama_model_default_params())
        asked = api.llama_context_default_params()
        asked.n_ctx, asked.n_seq_max = rows * -(-places // 256) * 256, rows
        asked.n_batch = most
        asked.n_threads = asked.n_threads_batch = threads
        asked.type_k = asked.type_v = api.GGML_TYPE_F32
        asked.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED  # 1.7 times as quick without on nano's many rows
        self.context = api.llama_init_from_model(self.model, asked)
        if not self.model or not self.context:
            raise RuntimeError(f"llama.cpp made no model or context of {model}; what it printed says why")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(most, 0, 1)

    def greedy(self, prompts: list[list[int]], length: int, withheld: int) -> list[list[int]]:
        """Return each row's `length` likeliest tokens in turn, never the `withheld` one."""
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        made = [self._decode(prompts, 0, withheld)]
        for step in range(length - 1):
            made.append(self._decode(made[-1][:, None].tolist(), len(prompts[0]) + step, withheld))
        return np.stack(made, axis=1).tolist()

    def _decode(self, rows: list[list[int]], start: int, withheld: int) -> np.ndarray:
        batch, count = self.batch, 0
        for row, tokens in enumerate(rows):
            for number, token in enumerate(tokens):
                batch.token[count], batch.pos[count] = token, start + number
                batch.n_seq_id[count], batch.seq_id[count][0] = 1, row
                batch.logits[count] = number == len(tokens) - 1
                count += 1
        batch.n_tokens = count
        if code := self.api.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode gave {code} for {count} tokens of {len(rows)} rows, wanted 0")
        logits = np.ctypeslib.as_array(
            ctypes.cast(self.api.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float)),
            (len(rows), self.vocabulary),
        )
        logits[:, withheld] = -np.inf
        return logits.argmax(axis=1)


def main() -> None:
    """Convert, then answer every line on stdin with the tokens and the seconds of one call."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what llama.cpp prints goes to stderr
    asked = json.loads(sys.argv[1])
    if not (model := Path(asked["gguf"])).exists():
        convert(Path(asked["folder"]), model)
    prompts, length = asked["prompts"], asked["length"]
    decoder = Decoder(model, len(prompts), len(prompts[0]) + length, asked["threads"])
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        made = decoder.greedy(prompts, length, asked["withheld"])
        seconds = time.perf_counter() - began, time.process_time() - used
        print(json.dumps({"tokens": made, "seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
