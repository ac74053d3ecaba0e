"""Tokens a second of the engine, beside a naive static batch and transformers' generate, on the same nano weights.

    python benchmarks/engine_speed.py [--rows 256] [--threads 2] [--json FILE]

32 prompts x 16 samples of a random deepseek_v3 (hidden 128, 4 layers, 4 heads). Lengths are mixed: a bias on the end
token makes each token the last one with a chance of about 2%, cut at `--max-tokens`. The naive loop has a KV cache and
samples as the engine does, but prefills every sample's prompt and keeps finished rows until the whole batch is done.
transformers is so slow here that it is given a quarter of the prompts (`--all` gives it all). Each is timed once after
a warm-up: by the clock, and in processor time, which other work on the machine disturbs less.
"""

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path

import paired
import torch

from aftershock.generate import Engine, SamplingParams
from aftershock.models import build, save
from aftershock.text import Tokenizer, train_tokenizer, zero_prompt

CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 384,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "max_position_embeddings": 1024,
    "num_nextn_predict_layers": 0,
    "tie_word_embeddings": True,
}
SHARE_ENDING = 0.02  # of tokens, so that a completion has 50 tokens on average where nothing cuts it


def make(folder):
    """Return the model and the tokenizer, and save both for transformers."""
    rng = random.Random(0)
    lines = [f"try {rng.randint(1, 99)}*{rng.randint(1, 99)}={rng.randint(1, 999)}, too big;" for _ in range(500)]
    tokenizer = train_tokenizer(lines, CONFIG["vocab_size"])
    model = build(CONFIG, seed=0)
    save(model, folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def engine_tokens(model, tokenizer: Tokenizer, prompts, params, rows):
    """The engine."""
    groups = Engine(model, tokenizer, max_rows=rows).generate(prompts, params)
    return [len(completion.tokens) for group in groups for completion in group]


@torch.inference_mode()
def naive_tokens(model, tokenizer: Tokenizer, prompts, params, rows):
    """Static batches, each run until its last row ends; the prompts are all of one length."""
    model.eval()
    requests = [tokenizer.encode(prompt) for prompt in prompts for _ in range(params.n)]
    lengths = []
    while requests:
        batch = requests[:rows]
        requests = requests[len(batch) :]
        tokens = torch.tensor(batch)
        cache = model.new_cache(len(batch), tokens.shape[1] + params.max_tokens)
        starts = torch.zeros(len(batch), dtype=torch.long)
        ended, count = torch.zeros(len(batch), dtype=torch.bool), torch.zeros(len(batch), dtype=torch.long)
        for _ in range(params.max_tokens):
            logits = model.logits(model.hidden(tokens, cache=cache, starts=starts)[:, -1])
            starts = starts + tokens.shape[1]
            logits[:, tokenizer.eos] += params.logit_bias[tokenizer.eos]
            tokens = torch.multinomial(logits.softmax(-1), 1)
            count += ~ended
            ended |= tokens[:, 0] == tokenizer.eos
            if ended.all():
                break
        lengths += count.tolist()
    return lengths


def theirs(folder):
    """Return a function like the others that runs transformers' own model and generate."""
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(_, tokenizer, prompts, params, rows):
        requests = [tokenizer.encode(prompt) for prompt in prompts for _ in range(params.n)]
        lengths = []
        for first in range(0, len(requests), rows):
            batch = requests[first : first + rows]
            longest = max(map(len, batch))
            tokens = torch.tensor([[tokenizer.eos] * (longest - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
            out = model.generate(
                tokens,
                attention_mask=mask,
                do_sample=True,
                max_new_tokens=params.max_tokens,
                sequence_bias={(tokenizer.eos,): params.logit_bias[tokenizer.eos]},
                eos_token_id=tokenizer.eos,
                pad_token_id=tokenizer.eos,
                top_k=0,
            )[:, longest:]
            ends = out == tokenizer.eos
            lengths += torch.where(ends.any(1), ends.int().argmax(1) + 1, out.shape[1]).tolist()
        return lengths

    return run


def measure(name, run, *args):
    """Time one run; only tokens up to each completion's end are counted."""
    wall, cpu = time.perf_counter(), time.process_time()
    lengths = run(*args)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = sum(lengths)
    result = {
        "completions": len(lengths),
        "tokens": total,
        "seconds": round(wall, 2),
        "tokens_per_second": round(total / wall),
    }
    result |= {"processor_seconds": round(cpu, 2), "tokens_per_processor_second": round(total / cpu)}
    result |= {"mean_length": round(total / len(lengths), 1), "longest": max(lengths)}
    print(f"{name:28} {result}")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--all", action="store_true", help="give transformers all of the prompts")
    parser.add_argument("--json", type=Path, help="where to keep the results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    before = paired.machine(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = make(folder)
        # random weights are near uniform over the vocabulary
        bias = math.log(SHARE_ENDING * (CONFIG["vocab_size"] - 1) / (1 - SHARE_ENDING))
        params = SamplingParams(n=16, max_tokens=args.max_tokens, logit_bias={tokenizer.eos: bias})
        prompts = [zero_prompt(f"make {10 + i} from 3, 7, {i % 10} and {100 + i}.") for i in range(32)]
        runs = {"aftershock engine": engine_tokens, "naive static batch": naive_tokens, "transformers": theirs(folder)}
        results = {}
        for name, run in runs.items():
            run(model, tokenizer, prompts[:4], SamplingParams(n=2, max_tokens=4, logit_bias=params.logit_bias), 8)
            share = prompts if args.all or name != "transformers" else prompts[::4]
            results[name] = measure(name, run, model, tokenizer, share, params, args.rows)
    if args.json:
        args.json.write_text(json.dumps({"machine": before, "rows": args.rows, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
