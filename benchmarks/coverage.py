"""How often 95% intervals hold the truth, and how often exact tests cry wolf: simulated benches over a grid.

    python benchmarks/coverage.py [--benches 2000] [--json FILE]

Each bench has n questions with k samples. "alike": every question is right with probability p. "mixed" and "extreme":
question rates from Beta distributions of mean p and strength 1 and 0.3 (a variance of rates of p(1-p)/2 and
p(1-p)/1.3). "fixed": mixed rates, drawn once, of which the mean is the truth: the questions are all there are, and
only the samples are new, so an interval for more questions of their kind must cover it more often than 95%. Pairs: two
models asked the same questions, of mixed difficulty; the second's chance is moved by `gap` where there is room for it.
"""

import argparse
import json
import math
import time

import numpy as np

from aftershock.address import key
from aftershock.stats import mean_interval, paired_interval, sign_flip

SIZES, SAMPLES, RATES = (30, 100, 200, 500), (1, 4, 16), (0.02, 0.1, 0.37, 0.7, 0.95)
KINDS = {"alike": math.inf, "mixed": 1.0, "extreme": 0.3, "fixed": 1.0}
GAPS = (0.0, 0.1)


def rates(rng: np.random.Generator, n: int, p: float, strength: float) -> np.ndarray:
    """Return the chance of each of n questions, float64[n]."""
    return np.full(n, p) if math.isinf(strength) else rng.beta(strength * p, strength * (1 - p), n)


def single(n: int, k: int, p: float, kind: str, benches: int) -> dict:
    """Return how often the interval of pass@1 holds the truth, and on which side it lies where not."""
    rng = np.random.default_rng(key("coverage", n, k, str(p), kind))
    fixed = rates(rng, n, p, KINDS[kind]) if kind == "fixed" else None
    truth = p if fixed is None else float(fixed.mean())
    above = below = 0
    widths = []
    for _ in range(benches):
        right = rng.binomial(k, rates(rng, n, p, KINDS[kind]) if fixed is None else fixed)
        found = mean_interval([[1.0] * r + [0.0] * (k - r) for r in right.tolist()])
        above += found.low > truth
        below += found.high < truth
        widths.append(found.high - found.low)
    return {
        "n": n,
        "k": k,
        "p": p,
        "kind": kind,
        "covered": 1 - (above + below) / benches,
        "above": above / benches,
        "below": below / benches,
        "width": float(np.mean(widths)),
    }


def paired(n: int, k: int, gap: float, benches: int) -> dict:
    """Return how often the interval of a difference holds it, and how often the exact test finds one at p < 0.05."""
    rng = np.random.default_rng(key("paired", n, k, str(gap)))
    # The truth over all questions: E[min(rate + gap, 1)] - E[rate], by a large sample of its own.
    many = np.random.default_rng(key("truth", str(gap))).beta(0.37, 0.63, 2_000_000)
    truth = float(np.mean(np.minimum(many + gap, 1.0) - many))
    held = found = 0
    for _ in range(benches):
        chances = rng.beta(0.37, 0.63, n)
        differences = rng.binomial(k, np.minimum(chances + gap, 1.0)) - rng.binomial(k, chances)
        interval = paired_interval([value / k for value in differences.tolist()])
        held += interval.low <= truth <= interval.high
        found += sign_flip(differences.tolist()) < 0.05
    return {"n": n, "k": k, "difference": truth, "covered": held / benches, "p_below_0.05": found / benches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benches", type=int, default=2000)
    parser.add_argument("--json", help="write the rows here")
    options = parser.parse_args()
    began = time.perf_counter()
    grid = [(n, k, p, kind) for kind in KINDS for p in RATES for n in SIZES for k in SAMPLES]
    rows = [single(*cell, options.benches) for cell in grid]
    pairs = [paired(n, k, gap, options.benches) for gap in GAPS for n in SIZES for k in SAMPLES]
    print(
        f"{options.benches} benches a row, {time.perf_counter() - began:.0f} s; covered in %, the interval's mean width"
    )
    for kind in KINDS:
        mine = [row for row in rows if row["kind"] == kind]
        told = [f"{100 * row['covered']:.1f}" for row in mine]
        print(f"\n{kind}: lowest {min(told, key=float)}, median {np.median([float(t) for t in told]):.1f}, "
              f"within 93 to 97: {sum(93 <= float(t) <= 97 for t in told)} of {len(told)}")  # fmt: skip
        print("| p | n | " + " | ".join(f"k = {k}" for k in SAMPLES) + " |\n|---|---|" + "---|" * len(SAMPLES))
        for p in RATES:
            for n in SIZES:
                cells = [row for row in mine if (row["p"], row["n"]) == (p, n)]
                print(
                    f"| {p} | {n} | " + " | ".join(f"{100 * c['covered']:.1f} ({c['width']:.3f})" for c in cells) + " |"
                )
    print("\npairs\n| n | k | difference | interval covers | exact test below 0.05 |\n|---|---|---|---|---|")
    for row in pairs:
        print(f"| {row['n']} | {row['k']} | {row['difference']:.3f} | {100 * row['covered']:.1f} "
              f"| {100 * row['p_below_0.05']:.1f} |")  # fmt: skip
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"benches": options.benches, "single": rows, "paired": pairs}, file, indent=1)


if __name__ == "__main__":
    main()
