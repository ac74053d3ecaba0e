"""A model that is right with probability 0.37: how often the interval of pass@1 holds 0.37. Seeds 0 to 99, fixed.

`benchmarks/coverage.py` measures the same over a grid with thousands of benches, free of the luck of 100 seeds.
"""

import pytest
from bench_rows import scripted

from aftershock.address import generator
from aftershock.bench.measure import measure

P, QUESTIONS, K, SEEDS = 0.37, 200, 4, 100


def spread(seed, strength):
    """Question rates from a Beta whose mean is P; the smaller `strength`, the wider."""
    draw = generator(seed, "rates")
    return [draw.betavariate(strength * P, strength * (1 - P)) for _ in range(QUESTIONS)]


def covered(rates_of, k=K):
    found = 0
    for seed in range(SEEDS):
        score = measure("sums", scripted("right", rates_of(seed), k, seed), k, seed)[0]
        assert score.metric == "pass@1"
        found += score.low <= P <= score.high
    return found


@pytest.mark.parametrize("rates_of", [lambda seed: [P] * QUESTIONS, lambda seed: spread(seed, 1.0)],
                         ids=["all questions alike", "easy and hard ones"])  # fmt: skip
def test_the_interval_covers_the_truth_in_93_to_97_of_100_seeds(rates_of):
    assert 93 <= covered(rates_of) <= 97
