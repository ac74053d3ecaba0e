"""The one rule that stated ranges follow: how far results of people whom a fit has never seen may lie from it.

A range is the foretold value over and times a factor, exp(t s). s^2 is the mean over groups of people of their mean
squared log of hours published over hours foretold from all others' runs (calibration.held_out), so that a group counts
once however much it publishes; t is Student's, with as many degrees of freedom as there are groups. Only rows whose
layout is said and whose model has no experts count. A mixture's s^2 has in addition what mixtures' rows miss beyond
that, and its freedom is Satterthwaite's (1946). Where a source doesn't say the layout, all that fit are tried, and what
they differ by is added as an independent error.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from math import atan, cos, exp, hypot, lgamma, log, pi, sqrt
from statistics import mean, stdev

from aftershock.cost import time
from aftershock.cost.calibration import Run

LEVEL = 0.99  # of results by others that a range is meant to hold
LOOP_LEVEL = 0.9  # of RL steps: so few of them, all one framework's, that a range of 99% says nothing
Ratios = Mapping[Run, float]
PARTS = 1000  # of Simpson's rule


def factor(ratios: Ratios, mixture: bool, level: float = LEVEL) -> float:
    """Return by how much hours may be more, or less, than foretold; `ratios` are published over foretold, held out."""
    plain = [row for row in ratios if not (row.mixture or row.others)]
    groups = [mean(_square(ratios, row) for row in plain if row.group == group) for group in {r.group for r in plain}]
    square, freedom = mean(groups), float(len(groups))
    mixed = [_square(ratios, row) for row in ratios if row.mixture]
    if mixture and (more := mean(mixed) - square) > 0:
        freedom = (square + more) ** 2 / (square**2 / freedom + more**2 / len(mixed))
        square += more
    return exp(students(level, freedom) * sqrt(square))


def held_out(ratios: Ratios, level: float = LEVEL) -> dict[Run, tuple[float, float]]:
    """Return each row's range of published over foretold hours, made from the rows of all other groups."""
    return {row: _range(row, _without(ratios, row.group), level) for row in ratios}


def loop(factors: Iterable[float], level: float = LOOP_LEVEL) -> tuple[float, float]:
    """Return the range of one more factor of which these were drawn: Student's prediction interval of its log.

    It begins at 1 at least: a step takes no less than its parts.
    """
    logs = [log(each) for each in factors]
    half = students(level, len(logs) - 1) * stdev(logs) * sqrt(1 + 1 / len(logs))
    return max(1.0, exp(mean(logs) - half)), exp(mean(logs) + half)


@cache
def students(level: float, freedom: float) -> float:
    """Return how far from 0 a share `level` of Student's t distribution reaches, by halving.

    >>> round(students(0.99, 3), 3), round(students(0.95, 10), 3)
    (5.841, 2.228)
    """
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return low


def _within(reach: float, freedom: float) -> float:
    """Return the share of Student's t within `reach` of 0: with t = sqrt(freedom) tan(a) its density is a cosine's."""
    step = atan(reach / sqrt(freedom)) / PARTS
    heights = [cos(index * step) ** (freedom - 1) for index in range(PARTS + 1)]
    area = heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
    return 2 * exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(pi) * step / 3 * area


def _range(row: Run, others: Ratios, level: float) -> tuple[float, float]:
    known, told = log(factor(others, row.mixture, level)), row.parts.seconds(time.FITTED)
    unsaid = [0.0, *(log(parts.seconds(time.FITTED) / told) for parts in row.others)]
    return exp(-hypot(known, min(unsaid))), exp(hypot(known, max(unsaid)))


def _without(ratios: Ratios, group: str) -> Ratios:
    return {row: ratio for row, ratio in ratios.items() if row.group != group}


def _square(ratios: Ratios, row: Run) -> float:
    return log(ratios[row]) ** 2
