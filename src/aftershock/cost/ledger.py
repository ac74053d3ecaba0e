"""What a stage has used up: time, tokens, arithmetic, dollars, energy."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SECONDS_PER_HOUR = 3600.0


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

    @property
    def tokens(self) -> int:
        """Tokens worked on: a sampled one that is then trained on counts as both."""
        return self.trained_tokens + self.sampled_tokens


def total(lines: Iterable[Mapping[str, Any]]) -> Ledger:
    """Add up lines of `timings.jsonl`; a key that a line lacks is 0."""
    rows = list(lines)
    return Ledger(
        seconds=sum(row.get("seconds", 0.0) for row in rows),
        trained_tokens=sum(row.get("trained_tokens", 0) for row in rows),
        sampled_tokens=sum(row.get("sampled_tokens", 0) for row in rows),
        flops=sum(row.get("flops", 0.0) for row in rows),
        usd=sum(row.get("usd", 0.0) for row in rows),
        kwh=sum(row.get("kwh", 0.0) for row in rows),
    )
