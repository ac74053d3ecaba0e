"""What a learner's step costs by length, group, batch and model size, with the exponents of fitted power laws.

    python benchmarks/scaling.py [--only length] [--rounds 5] [--threads 1] [--json] [--out FILE]

Policy-gradient steps (DAPO) in float32 on made-up samples, the median of rounds in which all points of a sweep take
turns, in processor time over all threads. In each sweep all else stays: the shipped small-qwen, 16 prompts of 64
tokens with 8 completions of 64 each, `micro_tokens` 4,096. `size` is a family of dense models whose width grows with
64, 128, 192 and 256 (parameters without the embedding).
A row's `ours` is the exponent of seconds in the quantity, fitted over the sweep's points, `theirs` what arithmetic
leads to expect over the same points (FLOPs of tokens computed, a shared prompt counted once), `ratio` the one over the
other, with the percentile bootstrap over rounds.
"""

import random
import time
from collections.abc import Callable

import numpy as np
import paired
import torch

from aftershock.cost import flops, parameters
from aftershock.learn import Learner, Sample, pack
from aftershock.models import build, load
from aftershock.models.base import LanguageModel
from aftershock.recipe import LossTable, OptimTable
from aftershock.sources import shipped_base

PROMPT, GROUP, GROUPS, LENGTH = 64, 8, 16, 64
SWEEPS = {
    "length": (32, 64, 128, 256, 448),
    "group": (2, 4, 8, 16, 32),
    "batch": (4, 8, 16, 32),
    "size": (64, 128, 192, 256),
}
FAMILY = {
    "model_type": "qwen2",
    "vocab_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def samples(groups: int, group: int, length: int) -> list[Sample]:
    """Return a step's samples."""
    rng = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(700) for _ in range(count))

    prompts = [tokens(PROMPT) for _ in range(groups)]
    return [
        Sample(prompt, tokens(length), (-6.0,) * length, rng.uniform(-1, 1), number)
        for number, prompt in enumerate(prompts)
        for _ in range(group)
    ]


def model(width: int | None) -> LanguageModel:
    """Return the shipped model, or one of the family."""
    if width is None:
        return load(shipped_base("small-qwen"), dtype=torch.float32)
    return build({**FAMILY, "hidden_size": width, "intermediate_size": 3 * width}, seed=0)


def point(sweep: str, value: int) -> tuple[float, float, Callable[[], float]]:
    """Return a point's quantity, its FLOPs, and a call that tells the seconds of one step."""
    dials = {"batch": GROUPS, "group": GROUP, "length": LENGTH} | ({sweep: value} if sweep != "size" else {})
    policy = model(value if sweep == "size" else None)
    learner = Learner(policy, OptimTable(lr=1e-6), LossTable())
    batches = pack(samples(dials["batch"], dials["group"], dials["length"]), 4096)
    config = policy.config.to_dict()
    computed = sum(len(batch.tokens) for batch in batches)
    work = computed * flops.training(config, (PROMPT + dials["length"]) / 2)
    learner.step(batches)

    def run() -> float:
        began = time.process_time()
        learner.step(batches)
        return time.process_time() - began

    quantity = parameters.total(config) - config["vocab_size"] * config["hidden_size"] if sweep == "size" else value
    return float(quantity), work, run


def exponent(quantities: np.ndarray, values: np.ndarray) -> float:
    """Return the slope of a line through logarithms."""
    return float(np.polyfit(np.log(quantities), np.log(values), 1)[0])


def measure(sweep: str, rounds: int) -> tuple[paired.Row, dict[str, list[float]]]:
    """Return a sweep's row, and each point's quantity, FLOPs and seconds."""
    points = [point(sweep, value) for value in SWEEPS[sweep]]
    told = paired.alternate({str(value): run for value, (_, _, run) in zip(SWEEPS[sweep], points)}, rounds)
    quantities, work = (np.array([one[index] for one in points]) for index in (0, 1))
    seconds = np.array([*told.values()])
    draws = np.random.default_rng(0).integers(0, rounds, (paired.RESAMPLES, rounds))
    expected, found = exponent(quantities, work), exponent(quantities, np.median(seconds, axis=1))
    ends = np.percentile([exponent(quantities, np.median(seconds[:, draw], axis=1)) for draw in draws], (2.5, 97.5))
    low, high = (round(float(end) / expected, 3) for end in ends)
    row = paired.Row(
        f"scaling {sweep}",
        round(found, 3),
        round(expected, 3),
        round(found / expected, 3),
        low,
        high,
        "exponent",
        rounds,
    )
    kept = {"quantity": [*quantities], "gflop": [*(work / 1e9)], "seconds": [*np.median(seconds, axis=1)]}
    return row, {name: [float(f"{value:.4g}") for value in values] for name, values in kept.items()}


def main() -> None:
    given = paired.parser(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    before, found, points = paired.machine(given.threads), [], {}
    for sweep in SWEEPS:
        if given.only in sweep:
            row, points[sweep] = measure(sweep, given.rounds or 5)
            paired.tell(row)
            found.append(row)
            paired.report(found, given, before, done=False, points=points)
    paired.report(found, given, before, points=points)


if __name__ == "__main__":
    main()
