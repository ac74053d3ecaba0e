"""Measures what training steps and decoding hold at their fullest; run by test_memory.py in a process of its own.

Each case runs in a fork, which first warms libraries up on another model. Its peak is Linux's own count of resident
memory, less what was resident before the model was built. The caller sets glibc to give every large tensor pages of
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

from aftershock.generate import Engine, SamplingParams
from aftershock.learn import Learner, Sample, lora, pack
from aftershock.models import build
from aftershock.recipe import LoraTable, LossTable, OptimTable
from aftershock.text import Tokenizer

WIDE = {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 2, "vocab_size": 768}
LLAMA = {"model_type": "llama", **DENSE, **WIDE}
LATENT = {"model_type": "deepseek_v3", **MIXTURE, **WIDE, "q_lora_rank": 32, "moe_intermediate_size": 64}
HEAVY = {**LLAMA, "hidden_size": 512, "intermediate_size": 1400}  # state and activations of like size
TRAINED = {  # config, sequences, precision, layers computed again, LoRA's rank
    "llama": (LLAMA, 40, "float32", False, 0),
    "qwen3 in half": ({**LLAMA, "model_type": "qwen3", "head_dim": 32}, 40, "bfloat16", False, 0),
    "llama again": ({**LLAMA, "num_hidden_layers": 6}, 30, "float32", True, 0),
    "heavy adapted": (HEAVY, 10, "float32", False, 8),
    "latent in half": (LATENT, 40, "bfloat16", False, 0),
}
SAMPLED = {"sampling": {**LLAMA, "num_hidden_layers": 4}, "sampling latents": {**LATENT, "kv_lora_rank": 256}}
ROWS, PROMPT, LONGEST = 256, 96, 24


def lengths(count: int) -> list[int]:
    """Of completions: from a few tokens to many, as they come in RL."""
    draw = random.Random(0)
    return [draw.randint(20, 120) for _ in range(count)]


def resident(key: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def learner(config: dict, precision: str, again: bool, rank: int) -> Learner:
    model = build(config, seed=0)
    if rank:
        lora.attach(model, LoraTable(rank=rank), seed=0)
    return Learner(model, OptimTable(precision=precision, recompute="always" if again else "never"), LossTable())


def steps(taught: Learner, count: int) -> None:
    samples = [Sample((i,) * PROMPT, (2,) * n, (0.0,) * n, 1.0) for i, n in enumerate(lengths(count))]
    taught.step(pack(samples, 1 << 20))


def sample(config: dict, rows: int, longest: int) -> None:
    tokenizer = Tokenizer.load("src/aftershock/assets/nano")
    engine = Engine(build({**config, "max_position_embeddings": 512}, seed=0), tokenizer, max_rows=rows)
    never = {tokenizer.eos: -float("inf")}
    engine.generate([(5,) * PROMPT] * 4, SamplingParams(n=rows // 4, max_tokens=longest, logit_bias=never, seed=0))


def run(name: str) -> int:
    """Return the bytes that one case takes at its fullest: a step after one that made the optimiser's state."""
    steps(learner(LATENT, "bfloat16", True, 2), 2)
    sample(LLAMA, 8, 4)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    if name in SAMPLED:
        sample(SAMPLED[name], ROWS, LONGEST)
    else:
        config, count, *how = TRAINED[name]
        taught = learner(config, *how)
        steps(taught, 2)
        steps(taught, count)
    return resident("VmHWM") - before


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, str(run(name)).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            print(json.dumps({"name": name, "bytes": int(pipe.read())}), flush=True)
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1:] or [*TRAINED, *SAMPLED])
