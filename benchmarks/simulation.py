"""Simulated RL runs beside measured ones: NeMo-RL, AReaL and verl as published, and a run folder of ours.

python benchmarks/simulation.py > benchmarks/results/simulation.md
python benchmarks/simulation.py RUN >> benchmarks/results/simulation.md      # our own, by its timings and rollouts
"""

import gzip
import heapq
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from aftershock.cost.calibration import shapes
from aftershock.cost.cluster import chip, parse
from aftershock.cost.layout import Layout
from aftershock.cost.simulation import Lengths, Outcome, Setup, simulate
from aftershock.cost.simulation.rates import rates
from aftershock.cost.simulation.schedules import schedules
from aftershock.known import known_config

SIGMA = 0.7  # of lengths' logarithm; nobody publishes theirs. cost/decoding.py's, chosen before anything was compared
PROMPT = 105  # NeMo-RL's tokens/s/GPU x seconds x GPUs / completions, less its mean length: 103 to 118
NETWORK = 40e9  # bytes a second into a chip: 0.8 of 400 Gbit/s

# Chips that sample, chips that learn (0: the same), updates ahead, cap, mean length, completions a step, group, tensor
# parallelism of sampling, (tensor, expert, pipeline) of training, seconds a step. NeMo-RL 0.6's performance page, H100
# BF16; which nodes sample, from the recipe files it names.
NEMO = {
    "Qwen3-30B-A3B": (
        "qwen3-30b-a3b",
        [
            (32, 0, 0, 4096, 3203, 2048, 32, 2, (1, 8, 1), 192),
            (16, 16, 1, 4096, 3201, 2048, 32, 2, (1, 8, 2), 152),
            (64, 128, 8, 4096, 3206, 2048, 32, 2, (1, 8, 1), 34.5),
        ],
    ),
    "Qwen3-235B-A22B": (
        "qwen3-235b-a22b",
        [
            (128, 0, 0, 8192, 5698, 512, 32, 16, (2, 16, 8), 395),
            (256, 0, 0, 8192, 5713, 512, 32, 16, (2, 16, 8), 312),
            (128, 128, 1, 8192, 5721, 512, 32, 8, (4, 16, 8), 231),
        ],
    ),
    "DeepSeek-V3": (
        "deepseek-v3",
        [
            (256, 0, 0, 1536, 701, 512, 16, 32, (1, 16, 16), 134),
            (512, 0, 0, 1536, 697, 512, 16, 32, (1, 16, 16), 111),
            (256, 256, 1, 1536, 710, 512, 16, 32, (1, 16, 16), 64.1),
        ],
    ),
}
# AReaL v0.3's post, table 2: chips as above, hours of 1000 PPO steps. A step is taken to be one of four minibatches of
# 512 prompts x 16 (its public launcher's numbers), three quarters of the chips to sample, and 4 updates ahead.
R1_SMALL, R1_MIDDLE = (f"deepseek-ai/DeepSeek-R1-Distill-Qwen-{size}" for size in ("1.5B", "7B"))
AREAL = [
    (R1_SMALL, 128, 0, 0, 41.0),
    (R1_SMALL, 96, 32, 4, 14.8),
    (R1_MIDDLE, 192, 0, 0, 57.7),
    (R1_MIDDLE, 144, 48, 4, 25.4),
]
AREAL_UPDATES = 250
AREAL_CACHE = {R1_SMALL: (53e9, 28.7e3), R1_MIDDLE: (41e9, 57.3e3)}  # 0.7 of 80 GB less weights; bytes a token
# verl's page on fully asynchronous training, Qwen2.5-Math-7B on H20: chips, seconds of sampling and of updating in
# turn, of a step with half of the chips for each.
VERL = [(32, 357.41, 269.80, 294.77), (64, 150.72, 133.41, 189.26), (128, 177.85, 113.81, 150.63)]
VERL_CACHE = 62e9 / 57.3e3  # tokens: 0.8 of 96 GB less weights


def settled(outcome: Outcome) -> float:
    """Return the seconds of a step once the first half of the run, which fills the pipe, is over."""
    half = len(outcome.steps) // 2
    return (outcome.steps[-1].end - outcome.steps[half - 1].end) / (len(outcome.steps) - half)


def nemo_setup(shape: str, row: tuple, factor: float) -> Setup:
    samplers, learners, ahead, cap, mean, batch, group, tensor, (train_tensor, expert, pipeline), _ = row
    lengths, engines = Lengths(mean - PROMPT, cap - PROMPT, SIGMA), samplers // tensor
    rows = min(256, (ahead + 1) * batch // engines)
    found = rates(
        shapes()[shape],
        chip("H100-SXM"),
        Layout(engines, tensor, tensor),
        Layout((learners or samplers) // (train_tensor * pipeline), train_tensor, expert, pipeline),
        lengths,
        batch=batch,
        rows=rows,
        prompt=PROMPT,
        factor=factor,
    )
    shared = {"rows": rows, "batch": batch, "group": group, "prompt": PROMPT, "network": NETWORK, "steps": 40}
    return Setup(found, lengths, samplers, learners, tensor, staleness=ahead, **shared)


def nemo() -> None:
    print("| model | chips: sample + learn | ahead | published s | simulated s | off | idle |\n" + "|---" * 7 + "|")
    for name, (shape, rows) in NEMO.items():
        factor = rows[0][-1] / settled(simulate(nemo_setup(shape, rows[0], 1.0)))
        for row in rows:
            outcome = simulate(nemo_setup(shape, row, factor))
            found = settled(outcome)
            off = f"fitted: x{factor:.2f}" if row is rows[0] else f"{found / row[-1] - 1:+.0%}"
            chips = f"{row[0]} + {row[1]}" if row[1] else f"{row[0]} in turn"
            print(f"| {name} | {chips} | {row[2]} | {row[-1]} | {found:.1f} | {off} | {idle(outcome)} |")


def areal_setup(row: tuple, mean: float, decoding: float, training: float) -> Setup:
    name, samplers, learners, ahead, _ = row
    lengths, (memory, each) = Lengths(mean, 27_648, SIGMA), AREAL_CACHE[name]
    layouts = Layout(samplers, zero=0), Layout(learners or samplers)
    shared = {"rows": int(memory / each / mean), "batch": 8192, "prompt": 200}
    found = rates(known_config(name), chip("H800-SXM"), *layouts, lengths, factor=decoding, **shared)
    found = replace(found, train=found.train * decoding / training)
    asynchronous = {"staleness": ahead, "in_order": False, "recompute": True}
    return Setup(found, lengths, samplers, learners, group=16, steps=40, network=NETWORK, **shared, **asynchronous)


def areal_hours(row: tuple, mean: float, decoding: float, training: float) -> float:
    return settled(simulate(areal_setup(row, mean, decoding, training))) * AREAL_UPDATES / 3600


def areal_fit(mean: float) -> tuple[float, float]:
    """Return by how much decoding and training take longer than foretold, so that the first two rows come out."""
    synchronous, asynchronous = AREAL[:2]
    learned = areal_hours(synchronous, mean, 1e-6, 1.0)
    sampled = areal_hours(synchronous, mean, 1.0, 1e-6)
    tried = [((synchronous[-1] - learned * ft) / sampled, ft) for ft in np.geomspace(0.25, 0.95 * 41 / learned, 24)]
    return min(tried, key=lambda factors: abs(areal_hours(asynchronous, mean, *factors) - asynchronous[-1]))


def areal() -> None:
    print("\n| assumed mean length | run | published h | simulated h | off |\n|---|---|---|---|---|")
    for mean in (6000, 9000):
        factors = areal_fit(mean)
        for place, row in enumerate(AREAL):
            hours = areal_hours(row, mean, *factors)
            off = f"fitted: x{factors[0]:.2f}, x{factors[1]:.2f}" if place < 2 else f"{hours / row[-1] - 1:+.0%}"
            kind = f"{row[0].rpartition('-')[2]}, {'asynchronous' if row[2] else 'synchronous'}"
            print(f"| {mean:,} | {kind} | {row[-1]} | {hours:.1f} | {off} |")


def verl_setup(samplers: int, learners: int, mean: float, train: float, fixed: float) -> Setup:
    lengths, shared = Lengths(mean, 28_000, SIGMA), {"rows": int(VERL_CACHE / mean), "batch": 8192, "prompt": 150}
    layouts = Layout(samplers, zero=0), Layout(learners or samplers)
    found = rates(known_config(R1_MIDDLE), chip("H20"), *layouts, lengths, **shared)
    found = replace(found, train=train, step_fixed=fixed)
    asynchronous = {"staleness": 0.5 if learners else 0, "in_order": False, "recompute": True}
    return Setup(found, lengths, samplers, learners, group=16, steps=16, network=NETWORK, **shared, **asynchronous)


def verl() -> None:
    each, fixed = np.polyfit([1 / row[0] for row in VERL], [row[2] for row in VERL], 1)

    def sampling(chips: int, mean: float) -> float:
        return settled(simulate(verl_setup(chips, 0, mean, 1e15, 0.0)))

    low, high = 300.0, 9000.0
    for _ in range(12):
        mean = (low + high) / 2
        low, high = (mean, high) if sampling(64, mean) < VERL[1][1] else (low, mean)
    print("\n| chips | sampling in turn, published s | simulated s | step, halves, published s | simulated s | off |")
    print("|---|---|---|---|---|---|")
    for chips, sampled, _, published in VERL:
        found = settled(simulate(verl_setup(chips // 2, chips // 2, mean, 8192 * (mean + 150) / each, float(fixed))))
        row = f"| {chips} | {sampled:.0f} | {sampling(chips, mean):.0f} | {published:.0f} | {found:.0f} |"
        print(f"{row} {found / published - 1:+.0%} |")
    print(f"\nFitted: a mean length of {mean:,.0f} tokens, on 64 chips' sampling; updates by least squares.")


def idle(outcome: Outcome) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in outcome.idle.items())


def zero() -> None:
    """R1-Zero: 10,400 updates, 16 of them a rollout of 8,192 outputs, up to 32,768 tokens for most of it."""
    print("\n| assumed mean length | published h | simulated h | off | idle |\n" + "|---" * 5 + "|")
    for mean in (4000, 6000, 8000):
        job = {"batch": 8192, "group": 16, "prompt": 200, "steps": 650}
        lengths, config = Lengths(mean, 32_768, SIGMA), known_config("deepseek-ai/DeepSeek-R1")
        found = schedules(config, parse("512xH800"), lengths, **job)["in turn"]
        print(f"| {mean:,} | 198 | {found.hours:.0f} | {found.hours / 198 - 1:+.0%} | {idle(found)} |")


def speed() -> None:
    lengths, layout = Lengths(8000, 32_768, 0.8), Layout(1250, 8, 8)
    shared = {"batch": 8192, "rows": 64, "prompt": 200}
    found = rates(
        known_config("deepseek-ai/DeepSeek-R1"), chip("H800-SXM"), layout, Layout(625, 1, 64, 16), lengths, **shared
    )
    shared |= {"chips_per_engine": 8, "group": 16, "steps": 1000, "network": NETWORK, "mtbf_hours": 50_000.0}
    kinds = {
        "synchronous": Setup(found, lengths, 10_000, **shared),
        "one step off": Setup(found, lengths, 5_000, 5_000, staleness=1, **shared),
        "4 ahead, first done first used": Setup(found, lengths, 5_000, 5_000, staleness=4, in_order=False, **shared),
    }
    print("\n| 10,000 chips, 1,000 steps, 8.2 million completions | processor seconds | failures |\n|---|---|---|")
    for name, setup in kinds.items():
        began = time.process_time()
        outcome = simulate(setup)
        print(f"| {name} | {time.process_time() - began:.1f} | {outcome.failures} |")


def together(lengths: np.ndarray, rows: int = 256) -> float:
    """Return in how many decode steps so many rows at once decode completions in turn."""
    free = [0.0] * rows
    for tokens in lengths:
        heapq.heapreplace(free, free[0] + tokens)
    return max(free)


def line(inputs: np.ndarray, seconds: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the least-squares sum of two parts, neither of them negative, as a function of the inputs."""
    found = np.linalg.lstsq(inputs, seconds, rcond=None)[0]
    if (found < 0).any():
        kept = found >= 0
        found = np.where(kept, inputs.T @ seconds / (inputs**2).sum(0), 0)
    return lambda asked: asked @ found


def own(run: Path) -> None:
    timings = [json.loads(text) for text in (run / "timings.jsonl").read_text().splitlines()]
    print("\n| stage | steps | sampling | learning | step | sum | sum by the mean |\n" + "|---" * 7 + "|")
    for stage in dict.fromkeys(row["stage"] for row in timings if "sample_seconds" in row):
        rows = [row for row in timings if row["stage"] == stage and "sample_seconds" in row]
        print(f"| {stage} | {len(rows)} | {' | '.join(own_stage(run / 'stages' / stage / 'rollouts', rows))} |")


def own_stage(folder: Path, rows: list[dict]) -> list[str]:
    third = len(rows) // 3
    lengths = [rollouts(folder / f"step-{row['step']:06d}.jsonl.gz") for row in rows]
    sampling = np.array([(together(each), each.sum()) for each in lengths])
    learning = np.array([(1.0, row["trained_tokens"]) for row in rows])
    sampled, learned, whole = (
        np.array([row[key] for row in rows]) for key in ("sample_seconds", "learn_seconds", "seconds")
    )
    rest = np.median((whole - sampled - learned)[:third])
    foretold = [line(x[:third], y[:third])(x) for x, y in ((sampling, sampled), (learning, learned))]
    steps = foretold[0] + foretold[1] + rest
    median = [np.median(np.abs(a / b - 1)[third:]) for a, b in zip((*foretold, steps), (sampled, learned, whole))]
    sums = [
        values[third:].sum() / whole[third:].sum() - 1 for values in (steps, np.full(len(rows), whole[:third].mean()))
    ]
    return [*(f"{each:.0%}" for each in median), *(f"{each:+.0%}" for each in sums)]


def rollouts(path: Path) -> np.ndarray:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return np.array([json.loads(text)["tokens"] for text in file], float)


if __name__ == "__main__":
    if sys.argv[1:]:
        own(Path(sys.argv[1]))
    else:
        nemo(), zero(), areal(), verl(), speed()
