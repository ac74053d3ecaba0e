"""What a simulated run came to, in numbers and in words."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Step:
    """One update: the second at which it ended, the tokens it learned from, completions by staleness int[updates]."""

    end: float
    tokens: float
    staleness: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """A run of so many steps; `idle` is the share of time without work, by kind of chip.

    `failures` are whole where they were played, and an average where a run is foretold from its first part.
    """

    steps: tuple[Step, ...]
    chips: int
    usd: float
    idle: dict[str, float]
    lost_chip_hours: float
    failures: float

    @property
    def hours(self) -> float:
        """By the clock, failures among them."""
        return self.steps[-1].end / 3600

    @property
    def steps_per_hour(self) -> float:
        """Updates that count; those which failures undid don't."""
        return len(self.steps) / self.hours

    @property
    def tokens_per_second(self) -> float:
        """Prompts' and completions' tokens learned from, a second and a chip, as NeMo-RL counts them."""
        return sum(step.tokens for step in self.steps) / self.steps[-1].end / self.chips

    @property
    def staleness(self) -> np.ndarray:
        """Return the share of completions by how many updates the policy was ahead of them, float64[updates]."""
        counts = np.zeros(max(len(step.staleness) for step in self.steps))
        for step in self.steps:
            counts[: len(step.staleness)] += step.staleness
        return counts / counts.sum()

    @property
    def step_seconds(self) -> float:
        """Return the median time from one update to the next."""
        return float(np.median(np.diff([0.0, *(step.end for step in self.steps)])))

    def as_dict(self) -> dict[str, Any]:
        """Return the sums as JSON-able values."""
        names = ("hours", "steps_per_hour", "tokens_per_second", "step_seconds", "usd", "idle", "failures")
        plain = {name: getattr(self, name) for name in names}
        return plain | {"lost_chip_hours": self.lost_chip_hours, "staleness": self.staleness.tolist()}


def describe(outcome: Outcome) -> list[str]:
    """Return the outcome in lines for people, the most wanted first."""
    stale = outcome.staleness
    idle = ", ".join(f"{kind} {share:.0%}" for kind, share in outcome.idle.items())
    mean = float(stale @ np.arange(stale.size))
    return [
        f"{len(outcome.steps)} steps on {outcome.chips:,} chips: {outcome.hours:,.1f} hours, ${outcome.usd:,.0f}",
        f"a step takes {outcome.step_seconds:,.1f} seconds (median); {outcome.tokens_per_second:,.1f} tokens/s/chip",
        f"without work: {idle} of the time",
        f"staleness: {mean:.1f} updates on average, {stale.size - 1} at most",
        f"{outcome.failures:.3g} failures cost {outcome.lost_chip_hours:,.1f} chip-hours",
    ]
