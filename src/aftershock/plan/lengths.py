"""How long completions of the shipped models are, and how often right, by assets/curves.csv: three seeds each.

What nobody measured isn't told: a model from elsewhere has no curve.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp

from aftershock.recipe import TaskTable

SETTLING = 7  # steps of RL in which length goes 63% of its way: by eye on both bases' curves
FULL = "all"  # the row of all tasks together


@dataclass(frozen=True)
class Point:
    """pass@1 after so many steps: mean of three seeds, the lowest and the highest of them."""

    steps: int
    likely: float
    low: float
    high: float


@dataclass(frozen=True)
class Lineage:
    """A shipped model, and what has been made of it: `before` any training, `zero` by RL alone, or `taught`."""

    model: str
    when: str = "before"

    def tokens(self, tasks: Sequence[TaskTable], weighted: bool = False) -> float | None:
        """Return the mean length of its completions; None where a task's was not measured."""
        kinds = [self.when, "zero", "before"] if self.when == "taught" else [self.when, "before"]
        known = _lengths()
        found = [next((known[key] for key in self._keys(task.name, kinds) if key in known), None) for task in tasks]
        weights = [task.weight if weighted else 1.0 for task in tasks]
        measured = [length for length in found if length is not None]
        if not tasks or len(measured) < len(found):
            return None
        return sum(length * weight for length, weight in zip(measured, weights)) / sum(weights)

    def _keys(self, task: str, kinds: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return where a task's length may stand; of a task that was measured before, also in a mean of all tasks."""
        names = (task, FULL) if (self.model, task, "before") in _lengths() else (task,)
        return [(self.model, name, kind) for kind in kinds for name in names]

    def during(self, tasks: Sequence[TaskTable], steps: int) -> float | None:
        """Return the mean length over so many steps of RL from here."""
        start, end = self.tokens(tasks, True), self.trained.tokens(tasks, True)
        if start is None or end is None:
            return None
        return end - (end - start) * SETTLING / steps * (1 - exp(-steps / SETTLING))

    @property
    def signal(self) -> float | None:
        """Share of RL's groups, not all right nor all wrong, that teach something; None where it wasn't measured."""
        wanted = (self.model, FULL, self.trained.when)
        found = [row["signal"] for row in _rows() if (row["model"], row["task"], row["when"]) == wanted]
        return float(found[0]) if found and found[0] else None

    @property
    def trained(self) -> "Lineage":
        """What RL makes of it."""
        return Lineage(self.model, "zero" if self.when == "before" else self.when)

    @property
    def taught(self) -> "Lineage":
        """What fine-tuning on reasoning makes of it."""
        return Lineage(self.model, "taught")


def curve(model: str, stage: str = "zero") -> list[Point]:
    """Return pass@1 of all tasks by steps of `stage`, from the base's own on; empty where nothing was measured."""
    whens = ("before", "zero") if stage == "zero" else (stage,)
    rows = [row for row in _rows() if row["pass1"] and row["when"] in whens]
    chosen = [row for row in rows if (row["model"], row["task"]) == (model, FULL)]
    return [Point(int(row["steps"]), *(float(row[key]) for key in ("pass1", "low", "high"))) for row in chosen]


def after(model: str, steps: int) -> Point | None:
    """Return pass@1 to expect after so many steps of RL alone, between measured steps; None where nothing is known."""
    points = curve(model)
    if not points or steps > points[-1].steps:
        return None
    right = next(point for point in points if point.steps >= steps)
    left = max((point for point in points if point.steps <= steps), key=lambda point: point.steps)
    way = (steps - left.steps) / (right.steps - left.steps) if right.steps > left.steps else 0.0
    a, b = ((point.likely, point.low, point.high) for point in (left, right))
    return Point(steps, *(x + way * (y - x) for x, y in zip(a, b)))


@cache
def _rows() -> list[dict[str, str]]:
    text = (files("aftershock") / "assets" / "curves.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _lengths() -> dict[tuple[str, str, str], float]:
    rows = (row for row in _rows() if row["mean_tokens"])
    return {(row["model"], row["task"], row["when"]): float(row["mean_tokens"]) for row in rows}
