"""Group-relative advantages: how much better a rollout did than the others of its problem."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, pvariance, stdev

EPSILON = 1e-6  # added to the standard deviation, as in DAPO's and verl's code; the papers leave it out


@dataclass(frozen=True)
class GroupAdvantages:
    """`values[g][i]` is the advantage of rollout i of group g, None where it isn't counted and must be left out.

    `signal[g]` is False where no two counted rewards differ, so that the group teaches nothing.
    """

    values: list[list[float | None]]
    signal: list[bool]


def widest(rewards: Sequence[float], count: int, spread: float = 0.0) -> list[int]:
    """Return, ascending, which `count` of the rewards, or all, have the greatest variance.

    They are some of the lowest and some of the highest [PODS, arXiv 2504.13818]: of equal choices the most even one.
    Among equal rewards the order decides, which in a group means nothing. With `spread` they are fewer where it takes
    that for their variance to be this share of the two extremes' alone, which no choice surpasses.
    """
    order = sorted(range(len(rewards)), key=rewards.__getitem__)
    if not order:
        return []
    low, high = _ends(tuple(rewards[i] for i in order), min(count, len(order)), spread)
    return sorted(order[:low] + order[len(order) - high :])


@lru_cache(maxsize=1024)  # rules give few different groups, and a variance takes fractions
def _ends(ascending: tuple[float, ...], count: int, spread: float) -> tuple[int, int]:
    """Return how many of the lowest and of the highest are taken."""

    def variance(ends: tuple[int, int]) -> float:
        return pvariance(ascending[: ends[0]] + ascending[len(ascending) - ends[1] :])

    least = spread * pvariance((ascending[0], ascending[-1]))
    for size in range(count, 2, -1):
        lows = sorted(range(size + 1), key=lambda low: abs(2 * low - size))
        ends = max(((low, size - low) for low in lows), key=variance)
        if variance(ends) >= least:
            return ends
    return (1, min(1, count - 1))


def group_advantages(
    kind: str, rewards: Sequence[Sequence[float]], counted: Sequence[Sequence[bool]]
) -> GroupAdvantages:
    """Return the advantages of groups of rewards, from the counted rollouts alone.

    (r - mean) / (std + 1e-6) within the group [DeepSeekMath, arXiv 2402.03300, 4.1.2], with the sample standard
    deviation; for `dr_grpo` r - mean [arXiv 2503.20783, section 3.2].
    """
    pairs = list(zip(rewards, counted, strict=True))
    kept = [[reward for reward, counts in zip(*pair, strict=True) if counts] for pair in pairs]
    signal = [len(set(group)) > 1 for group in kept]
    values: list[list[float | None]] = []
    for (group, counts), known, teaches in zip(pairs, kept, signal):
        centre, spread = _moments(tuple(known)) if teaches else (0.0, 0.0)
        scale = spread + EPSILON if teaches and kind != "dr_grpo" else 1.0
        values.append([((r - centre) / scale if teaches else 0.0) if c else None for r, c in zip(group, counts)])
    return GroupAdvantages(values, signal)


@lru_cache(maxsize=1024)  # as above
def _moments(known: tuple[float, ...]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation."""
    return fmean(known), stdev(known)
