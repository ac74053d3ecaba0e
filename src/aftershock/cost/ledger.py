"""What a stage has used up, time, tokens, arithmetic, dollars, energy, and what it gained for that."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aftershock.cost.energy import ESTIMATED

SECONDS_PER_HOUR = 3600.0
# Of electricity, the world's mean of 2023: Ember, data of July 2024, as Statista gives it. Countries: 0.03 to 0.7.
GRID_KG_PER_KWH = 0.481


def price(seconds: float, usd_per_hour: float, watts: float) -> tuple[float, float]:
    """Return (usd, kWh) of `seconds` on a machine that costs `usd_per_hour` and draws `watts`.

    >>> price(1800, usd_per_hour=2.0, watts=700)
    (1.0, 0.35)
    """
    hours = seconds / SECONDS_PER_HOUR
    return hours * usd_per_hour, hours * watts / 1000


@dataclass(frozen=True)
class Work:
    """What was done between two lines of `timings.jsonl`: tokens, and the FLOPs of the model behind them."""

    trained_tokens: int = 0
    sampled_tokens: int = 0
    flops: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """Totals of a stage. `tokens` counts those trained on and those sampled; time lost to a kill is in the seconds.

    Tokens and FLOPs are those behind the weights as they stand: work that was done over after a kill counts once.
    """

    seconds: float = 0.0
    trained_tokens: int = 0
    sampled_tokens: int = 0
    flops: float = 0.0
    usd: float = 0.0
    kwh: float = 0.0
    kwh_by: Mapping[str, float] = field(default_factory=dict)  # what measured how much of it

    @property
    def kwh_source(self) -> str:
        """What measured the energy, or "estimated" and why; where it was several, with the share of each.

        >>> Ledger(kwh=4.0, kwh_by={"RAPL": 3.0, "estimated: run.watts": 1.0}).kwh_source
        'RAPL 75%, estimated: run.watts 25%'
        """
        several = len(self.kwh_by) > 1
        shares = {name: f" {kwh / self.kwh:.0%}" if several and self.kwh else "" for name, kwh in self.kwh_by.items()}
        return ", ".join(name + share for name, share in shares.items()) or ESTIMATED

    @property
    def tokens(self) -> int:
        """Tokens worked on: a sampled one that is then trained on counts as both."""
        return self.trained_tokens + self.sampled_tokens


def total(lines: Iterable[Mapping[str, Any]]) -> Ledger:
    """Add up lines of `timings.jsonl`; a key that a line lacks is 0, and energy without a source was estimated."""
    rows = list(lines)
    by = Counter[str]()
    for row in rows:
        if row.get("kwh"):
            by.update(row.get("kwh_by") or {row.get("kwh_source", ESTIMATED): row["kwh"]})
    return Ledger(
        seconds=sum(row.get("seconds", 0.0) for row in rows),
        trained_tokens=sum(row.get("trained_tokens", 0) for row in rows),
        sampled_tokens=sum(row.get("sampled_tokens", 0) for row in rows),
        flops=sum(row.get("flops", 0.0) for row in rows),
        usd=sum(row.get("usd", 0.0) for row in rows),
        kwh=sum(row.get("kwh", 0.0) for row in rows),
        kwh_by=dict(by),
    )


def gain(evals: Iterable[Mapping[str, Any]]) -> list[float] | None:
    """Return [value, low, high] of the points of pass@1 that a stage gained on held-out problems, all tasks pooled.

    None where `evals` (as in summary.json) don't have it before and after. The bounds are at 95%, by the two
    intervals' own distances (Newcombe 1998, method 10): made for independent samples, so too wide rather than too
    narrow, as the problems are the same.
    """
    found = {m["when"]: m for m in evals if m["metric"] == "pass@1"}  # the last suite has all tasks, or is the only one
    if not {"before", "after"} <= found.keys():
        return None
    (a, a_low, a_high), (b, b_low, b_high) = (
        [100 * found[when][key] for key in _BOUNDS] for when in ("before", "after")
    )
    return [b - a, b - a - math.hypot(b - b_low, a_high - a), b - a + math.hypot(b_high - b, a - a_low)]


_BOUNDS = ("value", "low", "high")


def per_point(cost: float, points: list[float] | None) -> list[float | None] | None:
    """Return [value, low, high] of the cost of one point of `gain`; a bound is None where that has none.

    None where nothing was gained, or nothing is known.

    >>> per_point(6.0, [3.0, -1.0, 6.0])
    [2.0, 1.0, None]
    """
    if points is None or points[0] <= 0:
        return None
    value, low, high = points
    return [cost / value, cost / high, cost / low if low > 0 else None]
