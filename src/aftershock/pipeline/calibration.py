"""How far a reward model can be believed: is it right as often as its scores say?"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aftershock.address import key
from aftershock.pipeline.preference import sigmoid
from aftershock.stats import Interval, Measurement, mean_interval

BINS = 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Forecast:
    """What a reward model said of one held-out pair (or judgement) of the prompt `group`.

    `margin` is the log odds it gave to what is true being so for `label` 1, and not so for `label` 0.
    """

    group: str
    margin: float
    label: bool

    @property
    def confidence(self) -> float:
        """The chance, in [0.5, 1], that it gave to the side it took."""
        return sigmoid(abs(self.margin))

    @property
    def right(self) -> bool:
        """Whether it took the side of the truth; a margin of 0 takes none."""
        return self.margin > 0 if self.label else self.margin < 0

    @property
    def bin(self) -> int:
        """In which of `BINS` equal parts of [0.5, 1] the confidence lies."""
        return min(BINS - 1, int((self.confidence - 0.5) * 2 * BINS))


def measure(forecasts: Sequence[Forecast], suite: str, seed: int) -> list[Measurement]:
    """Return accuracy, expected calibration error and Brier score with 95% intervals clustered by prompt."""
    brier = [(f.group, (sigmoid(f.margin) - f.label) ** 2) for f in forecasts]
    found = {
        "accuracy": mean_interval(_grouped([(f.group, float(f.right)) for f in forecasts])),
        "calibration_error": _error_interval(forecasts, seed),
        "brier": mean_interval(_grouped(brier)),
    }
    n = len({f.group for f in forecasts})
    return [Measurement(suite, name, "after", one.value, one.low, one.high, n, 1, seed) for name, one in found.items()]


def reliability(forecasts: Sequence[Forecast]) -> list[dict[str, float]]:
    """Return the filled bins by confidence: mean `confidence`, the share that was right with its interval, and n."""
    rows = []
    for number in range(BINS):
        inside = [f for f in forecasts if f.bin == number]
        if inside:
            right = mean_interval(_grouped([(f.group, float(f.right)) for f in inside]))
            mean = sum(f.confidence for f in inside) / len(inside)
            rows.append({"confidence": mean, "right": right.value, "low": right.low, "high": right.high, "n": right.n})
    return rows


def _grouped(values: Sequence[tuple[str, float]]) -> list[list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for group, value in values:
        groups[group].append(value)
    return list(groups.values())


def _error_interval(forecasts: Sequence[Forecast], seed: int) -> Interval:
    """Return the expected calibration error (Guo et al., arXiv 1706.04599, eq. 3) and its bootstrap interval.

    The mean over bins, by their size, of |share right - mean confidence|; prompts are drawn anew with replacement.
    Chance alone makes it larger than 0.
    """
    places = {group: place for place, group in enumerate(dict.fromkeys(f.group for f in forecasts))}
    gaps = np.zeros((len(places), BINS))  # by prompt and bin: how many were right, less how many said they would be
    for f in forecasts:
        gaps[places[f.group], f.bin] += f.right - f.confidence
    sizes = np.bincount([places[f.group] for f in forecasts], minlength=len(places))
    draw = np.random.default_rng(key(seed, "calibration"))
    weights = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), RESAMPLES)
    value = float(np.abs(gaps.sum(0)).sum() / len(forecasts))
    low, high = np.quantile(np.abs(weights @ gaps).sum(1) / (weights @ sizes), (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value), len(forecasts), len(places))
