"""Tokens a second of a whole training step on a nano deepseek_v3, and where the time goes.

    python benchmarks/learn_speed.py [--threads 1] [--steps 3]

A step takes 16,384 tokens in sequences of 60 to 140, half prompt, half completion, with the DAPO loss. The least of
some steps is told, in seconds of processor time over all threads, which a busy machine changes little, and by the
clock. Forward is the model and the log-probabilities; optimiser is clipping, AdamW, expert balance and the checks.
The second table is one layer's attention, forward and backward, in C and by PyTorch: over groups of an RL step that
share their prompts, over documents and over one long sequence. The third is the memory that log-probabilities of 1,024
tokens over DeepSeek's vocabulary of 129,280 take.
"""

import argparse
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from models_speed import NANO, TOKENS

from aftershock.learn import Batch, Learner, Sample, pack
from aftershock.learn.logprobs import CHUNK_BYTES, chunked
from aftershock.models import build
from aftershock.models.base import Segments
from aftershock.models.layers import Packing, causal_attention
from aftershock.models.native.attend import Spans, attend
from aftershock.recipe import LossTable, OptimTable

VOCAB, WIDTH, POSITIONS = 129280, 64, 1024  # of the memory table
LAYERS = {  # lengths, children of each segment, heads, key heads, width, values' width
    "24 x 16 samples of 16 tokens": ([21, *[16] * 16] * 24, 16, 4, 2, 24, 24),
    "the same, latent": ([21, *[16] * 16] * 24, 16, 4, 4, 48, 32),
    "64 documents of 300": ([300] * 64, 0, 4, 2, 24, 24),
    "one of 2,048": ([2048], 0, 14, 2, 64, 64),
}


class TimedLearner(Learner):
    """A learner that adds up the seconds of its parts."""

    def __init__(self, precision: str) -> None:
        optim = OptimTable(precision=precision)
        super().__init__(build(NANO, seed=0), optim, LossTable(), 100)
        self.seconds = {"forward": 0.0, "backward": 0.0}

    def _forward(self, *args):
        start = time.process_time()
        found = super()._forward(*args)
        self.seconds["forward"] += time.process_time() - start
        return found

    def _backward(self, batch: Batch):
        start, before = time.process_time(), self.seconds["forward"]
        value = super()._backward(batch)
        self.seconds["backward"] += time.process_time() - start - (self.seconds["forward"] - before)
        return value


def samples() -> list[Sample]:
    """Return samples of about `TOKENS` tokens in all."""
    rng, made, left = random.Random(0), [], TOKENS
    while left > 0:
        half = rng.randint(30, 70)
        tokens = [tuple(rng.randrange(512) for _ in range(half)) for _ in range(2)]
        made.append(Sample(*tokens, (-6.2,) * half, rng.uniform(-1, 1), len(made)))
        left -= 2 * half
    return made


def measure(precision: str, micro_tokens: int, steps: int) -> str:
    """Return a line of the table: the fastest of `steps` steps after one to warm up."""
    learner, batches = TimedLearner(precision), pack(samples(), micro_tokens)
    tokens = sum(len(batch.tokens) for batch in batches)
    learner.step(batches)
    best, clock, parts = float("inf"), float("inf"), {}
    for _ in range(steps):
        learner.seconds = dict.fromkeys(learner.seconds, 0.0)
        start, wall = time.process_time(), time.perf_counter()
        learner.step(batches)
        taken, clock = time.process_time() - start, min(clock, time.perf_counter() - wall)
        if taken < best:
            best, parts = taken, learner.seconds | {"optimiser": taken - sum(learner.seconds.values())}
    shares = "  ".join(f"{name} {seconds / best:4.0%}" for name, seconds in parts.items())
    speeds = f"{tokens / best:8,.0f} a processor second {tokens / clock:8,.0f} by the clock"
    return f"{precision:9}{micro_tokens:7} {speeds}   {shares}"


def attention(lengths: list[int], children: int, heads: int, kv_heads: int, dim: int, value: int) -> str:
    """Return medians of seven passes in turn, native and by PyTorch, each of a forward and a backward."""
    first = torch.arange(len(lengths)) // (children + 1) * (children + 1)
    parents = torch.where(torch.arange(len(lengths)) == first, -1, first) if children else None
    segments = Segments(torch.tensor([0, *lengths]).cumsum(0), 0, parents)
    sizes, spans = ((heads, dim), (kv_heads, dim), (kv_heads, value)), Spans.of(segments)
    packing = Packing.of(segments, sum(lengths))
    q, k, v = (torch.randn(1, sum(lengths), *size).requires_grad_() for size in sizes)
    forms = (lambda: attend(q, k, v, dim**-0.5, spans), lambda: causal_attention(q, k, v, dim**-0.5, packing))
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(7):
        for form, seconds in zip(forms, taken):
            start = time.process_time()
            form().sum().backward()
            seconds.append(1000 * (time.process_time() - start))
    ours, theirs = map(statistics.median, taken)
    return f"{ours:8.1f} ms in C {theirs:8.1f} by PyTorch"


def peak_mib() -> float:
    """Return the most memory this process has held, in MiB (Linux); getrusage would tell its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def logprob_memory(form: str) -> float:
    """Return MiB that a forward and backward of log-probabilities adds to this process, plain or chunked."""
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, WIDTH, generator=rng, requires_grad=True)
    head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
    targets = torch.randint(VOCAB, (POSITIONS,), generator=rng)
    before = peak_mib()
    if form == "plain":
        logprobs = head(hidden).log_softmax(-1).gather(-1, targets[:, None])
    else:
        logprobs = chunked(head, hidden, targets)[0]
    logprobs.sum().backward()
    return peak_mib() - before


def in_its_own_process(form: str) -> float:
    """Run `logprob_memory` where nothing else has raised the peak."""
    done = subprocess.run([sys.executable, __file__, "--memory", form], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory", choices=["plain", "chunked"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.memory:
        print(logprob_memory(asked.memory))
        return
    print(f"torch {torch.__version__}, {asked.threads} threads, {TOKENS} tokens a step, least of {asked.steps} steps")
    for precision in ("float32", "bfloat16"):
        for micro_tokens in (2048, 4096, 16384):
            print(measure(precision, micro_tokens, asked.steps), flush=True)
    for name, layer in LAYERS.items():
        print(f"{name:30}{attention(*layer)}", flush=True)
    logits = POSITIONS * VOCAB * 4 / 2**20
    print(f"{POSITIONS} tokens over {VOCAB}: {logits:,.0f} MiB of logits, {CHUNK_BYTES >> 20} a chunk")
    for form in ("plain", "chunked"):
        print(f"{form:9}{in_its_own_process(form):8,.0f} MiB at the peak")


if __name__ == "__main__":
    main()
