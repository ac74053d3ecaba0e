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


def widest(rewards: Sequence[float], count: int) -> list[int]:
    """Return, ascending, which `count` of the rewards, or all, have the greatest variance.

    They are some of the lowest and some of the highest [PODS, arXiv 2504.13818]: of equal choices the most even one.
    Among equal rewards the order decides, which in a group means nothing.
    """
    order = sorted(range(len(rewards)), key=rewards.__getitem__)
    if count >= len(order):
        return sorted(order)
    low = _lows(tuple(rewards[i] for i in order), count)
    return sorted(order[:low] + order[len(order) - count + low :])


@lru_cache(maxsize=1024)  # rules give few different groups, and a variance takes fractions
def _lows(ascending: tuple[float, ...], count: int) -> int:
    """Return how many of the `count` are the lowest ones."""
    lows = sorted(range(count + 1), key=lambda low: abs(2 * low - count))
    return max(lows, key=lambda low: pvariance(ascending[:low] + ascending[len(ascending) - count + low :]))


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
