"""How long completions get: the one distribution that estimates and simulations share."""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from math import erfc, exp, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIGMAS = (0.4, 0.7, 1.0)  # of lengths' logarithm: least, likely, most. Assumed; a run's own rollouts tell yours
GRID = 64  # parts in which a batch empties


@dataclass(frozen=True)
class Lengths:
    """Completions' lengths: lognormal, `sigma` of the logarithm, cut at `cap`; `mean` is that of what is left."""

    mean: float
    cap: float
    sigma: float = SIGMAS[1]

    @property
    def mu(self) -> float:
        """The logarithm's mean before the cut, at which the cut lengths have theirs."""
        return _mu(self.mean, self.cap, self.sigma)

    def alive(self, position: float) -> float:
        """Return the share of completions that are longer than so many tokens; none is longer than `cap`.

        >>> Lengths(100, 1000).alive(0), Lengths(100, 1000).alive(1000)
        (1.0, 0.0)
        """
        if position <= 0:
            return 1.0
        return _above(log(position), self.mu, self.sigma) if position < self.cap else 0.0

    @cached_property
    def context(self) -> float:
        """The mean position of a sampled token: past the half of the mean length, as long completions have more."""
        found = [(place, width * self.alive(place)) for place, width in self.cells()]
        return sum(place * tokens for place, tokens in found) / sum(tokens for _, tokens in found)

    def cells(self) -> list[tuple[float, float]]:
        """Return middles and widths of parts of the positions that completions reach, narrower where most of them end.

        All but one in a few million end within five deviations of the middle.
        """
        end = min(self.cap, exp(self.mu + 5 * self.sigma))
        edges = [end * (index / GRID) ** 3 for index in range(GRID + 1)]
        return [((low + high) / 2, high - low) for low, high in pairwise(edges)]

    def quantiles(self, count: int) -> list[float]:
        """Return `count` lengths that stand for all, in order: the middles of parts of equal weight."""
        normal = NormalDist(self.mu, self.sigma)
        return [min(self.cap, exp(normal.inv_cdf((index + 0.5) / count))) for index in range(count)]

    def longest(self, count: int) -> float:
        """Return the expected longest of `count`: the integral of one minus the distribution's power."""
        import numpy as np

        at = np.linspace(0, self.cap, 20_001)
        below = 1 - np.array([self.alive(place) for place in at.tolist()])
        return float(np.trapezoid(1 - below**count, at))

    def draw(self, keys: "np.ndarray", nth: "np.ndarray") -> "np.ndarray":
        """Return the `nth` length of each key, float64[n] of whole tokens (Box and Muller, 1958)."""
        import numpy as np

        from aftershock.address import uniforms

        first, second = uniforms(keys, 2 * nth), uniforms(keys, 2 * nth + 1)
        normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
        return np.clip(np.rint(np.exp(self.mu + self.sigma * normal)), 1, self.cap)


@cache
def _mu(mean: float, cap: float, sigma: float) -> float:
    """Return the mean of the logarithm before the cut, that gives the mean after it: by halving."""
    low, high = log(mean) - sigma**2, log(cap) + 20 * sigma + 1
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _cut_mean(middle, cap, sigma) < mean else (low, middle)
    return (low + high) / 2


def _cut_mean(mu: float, cap: float, sigma: float) -> float:
    body = exp(mu + sigma**2 / 2) * (1 - _above(log(cap), mu + sigma**2, sigma))
    return body + cap * _above(log(cap), mu, sigma)


def _above(value: float, mean: float, deviation: float) -> float:
    """Return the share of a normal distribution that lies above a value; all or nothing of one without width."""
    if not deviation:
        return float(value < mean)
    return erfc((value - mean) / deviation / sqrt(2)) / 2
