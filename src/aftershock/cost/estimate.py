"""A number that is not known yet: what is likely, between what bounds, and what it rests on."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, hypot, log


@dataclass(frozen=True)
class Estimate:
    """A range with what it rests on, in words that a reader can check."""

    low: float
    likely: float
    high: float
    rests_on: tuple[str, ...] = ()

    def times(self, factor: float) -> "Estimate":
        """Return the range in another unit; `factor` is known for certain.

        >>> Estimate(1.0, 2.0, 4.0).times(2)
        Estimate(low=2.0, likely=4.0, high=8.0, rests_on=())
        """
        return Estimate(self.low * factor, self.likely * factor, self.high * factor, self.rests_on)

    def unsure(self, factor: float, ground: str) -> "Estimate":
        """Return the range with one more error, of `factor` times at most, that is independent of the others.

        >>> round(Estimate(1.0, 4.0, 4.0).unsure(3, "guessed").high, 6)
        12.0
        """
        low, high = (exp(hypot(log(ratio), log(factor))) for ratio in (self.likely / self.low, self.high / self.likely))
        return Estimate(self.likely / low, self.likely, self.likely * high, (*self.rests_on, ground))


def added(estimates: Iterable[Estimate]) -> Estimate:
    """Return the sum of ranges that go wrong together: bounds add, as what they rest on is mostly shared."""
    found = list(estimates)
    grounds = tuple(dict.fromkeys(ground for each in found for ground in each.rests_on))
    return Estimate(
        sum(each.low for each in found), sum(each.likely for each in found), sum(each.high for each in found), grounds
    )
