"""Measures what training steps and decoding hold at their fullest; run by test_memory.py in a process of its own.

Each case runs in a fork, and there twice: what oneDNN compiles for products of bfloat16, up to 140 MB here where the
processor has AMX, is the libraries' and not the model's. A peak is Linux's own count of resident memory, less what was
resident before the model was built. The caller sets glibc to give every large tensor pages of
its own and to give them back at once, so that resident is what is alive.
"""

import ctypes
import gc
import json
import os
import random
import sys

import torch
from small_configs import DENSE, MIXTURE

from aftershock.generate import Completion, Engine, SamplingParams
from aftershock.learn import Batch, Learner, Sample, lora, pack
from aftershock.learn.predictor import Predictor
from aftershock.models import build
from aftershock.recipe import LoraTable, LossTable, OptimTable
from aftershock.sources import shipped_base
from aftershock.text import Tokenizer

WIDE = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "vocab_size": 768}
LLAMA = {"model_type": "llama", **DENSE, **WIDE}
TIED = {**LLAMA, "model_type": "qwen2", "tie_word_embeddings": True, "vocab_size": 20_000}
HEAVY = {**LLAMA, "hidden_size": 512, "intermediate_size": 1400}  # state and activations of like size
TINY = {"model_type": "deepseek_v3", **MIXTURE, **WIDE, "q_lora_rank": 32, "moe_intermediate_size": 64}
AHEAD = {"num_nextn_predict_layers": 2, "vocab_size": 3000}
ROAD = json.loads((shipped_base("road-base") / "config.json").read_text(encoding="utf-8"))
SMALL = ROAD | {"hidden_size": 256, "moe_intermediate_size": 192, "n_routed_experts": 16, "num_experts_per_tok": 4}
TRAINED = {  # config, groups, precision, layers computed again, LoRA's rank, tokens of a batch
    "qwen3 in half": ({**LLAMA, "model_type": "qwen3", "head_dim": 32}, 4, "bfloat16", False, 0, 1 << 20),
    "large vocabulary": (TIED, 4, "float32", True, 0, 1 << 20),
    "heavy adapted": (HEAVY, 2, "float32", False, 8, 1 << 20),
    "tiny in half": (TINY, 4, "bfloat16", False, 0, 1 << 20),
    "road in half again": (ROAD, 4, "bfloat16", True, 0, 1 << 20),
    "road in batches": (ROAD, 4, "float32", False, 0, 1024),
    "small": (SMALL, 2, "float32", False, 0, 1 << 20),
    "two tokens ahead": ({**TINY, **AHEAD}, 4, "float32", False, 0, 1 << 20),
    "two ahead in half again": ({**TINY, **AHEAD}, 4, "bfloat16", True, 0, 1 << 20),
}
SAMPLED = {  # config, rows, prompts, their length, completions' length
    "sampling latents": ({**TINY, "kv_lora_rank": 256}, 256, 4, 96, 24),
    "road samples": (ROAD, 256, 4, 96, 40),
}
STAGES = {"a stage of RL": (ROAD, "float32")}
ROWS, GROUP, PROMPT, LONGEST = 64, 4, 60, 48  # of a stage: completions, and how many of them a prompt has


def resident(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def learner(config: dict, precision: str, again: bool = False, rank: int = 0) -> Learner:
    """One that trains prediction modules, where the model has any."""
    model = build({**config, "max_position_embeddings": 512}, seed=0)
    if rank:
        lora.attach(model, LoraTable(rank=rank), seed=0)
    optim = OptimTable(precision=precision, recompute="always" if again else "never")
    if config.get("num_nextn_predict_layers"):
        return Predictor(model, optim, 0.3)
    return Learner(model, optim, LossTable())


def rollouts(groups: int) -> list[Sample]:
    """Completions of a few tokens to many in groups of GROUP, whose prompts have PROMPT tokens."""
    draw = random.Random(0)
    lengths = [[draw.randint(20, 120) for _ in range(GROUP)] for _ in range(groups)]
    return [Sample((g + 2,) * PROMPT, (2,) * n, (0.0,) * n, 1.0, g) for g, group in enumerate(lengths) for n in group]


def batches(groups: int, micro_tokens: int = 1 << 20) -> list[Batch]:
    return pack(rollouts(groups), micro_tokens)


def completions(engine: Engine, prompts: int, length: int, longest: int) -> list[Completion]:
    """As many as the engine has rows; all but one go to the end."""
    never = {engine.tokenizer.eos: -float("inf")}
    params = SamplingParams(n=engine.max_rows // prompts, max_tokens=longest, logit_bias=never, seed=0)
    groups = engine.generate([(n + 2,) * length for n in range(prompts)], params)
    return [one for group in groups for one in group]


def stage(taught: Learner, rows: int) -> None:
    """Sample and learn, twice: sampling finds the gradients of the step before."""
    engine = Engine(taught.model, Tokenizer.load("src/aftershock/assets/nano"), max_rows=rows)
    for _ in range(2):
        drawn = completions(engine, rows // GROUP, PROMPT, LONGEST)
        taught.step(pack([Sample(one.prompt_tokens, one.tokens, one.logprobs, 1.0) for one in drawn], 1 << 20))


def run(name: str) -> None:
    """Do what the case says: a step after one that made the optimiser's state, or completions."""
    if name in SAMPLED:
        config, rows, *asked = SAMPLED[name]
        tokenizer = Tokenizer.load("src/aftershock/assets/nano")
        completions(Engine(learner(config, "float32").model, tokenizer, max_rows=rows), *asked)
    elif name in STAGES:
        stage(learner(*STAGES[name]), ROWS)
    else:
        config, groups, precision, again, rank, micro_tokens = TRAINED[name]
        taught = learner(config, precision, again, rank)
        taught.step(batches(1))
        taught.step(batches(groups, micro_tokens))


def peak(name: str) -> int:
    """Return the bytes that a case takes at its fullest the second time, when all its kernels are compiled."""
    run(name)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # VmHWM begins anew
    before = resident("VmRSS")
    run(name)
    return resident("VmHWM") - before


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, str(peak(name)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            print(json.dumps({"name": name, "bytes": int(pipe.read())}), flush=True)
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1:] or [*TRAINED, *SAMPLED, *STAGES])
