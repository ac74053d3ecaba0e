"""The figures of the findings: curves over steps, values with intervals, and the rungs of the road."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from aftershock.report.evidence import Curve, Evidence, Number
from aftershock.report.figures import Chart, Colour, Series
from aftershock.report.verdicts import PAPER, Forest


def curves(
    evidence: Evidence,
    title: str,
    metric: str,
    stages: Sequence[tuple[str, Colour]],
    what: str,
    unit: Literal["share", "number"] = "number",
) -> list[Chart]:
    """Return a chart of a metric over the steps of stages, each in its colour; none where no run has it."""
    found = [(stage, colour, evidence.curve(stage, metric)) for stage, colour in stages]
    made = [series for stage, colour, curve in found for series in _series(curve, stage, colour)]
    curves = [curve for *_, curve in found if curve is not None]
    return [Chart(title, tuple(made), f"{what}. {_bins(*curves)}", unit)] if made else []


def _series(curve: Curve | None, label: str, colour: Colour) -> list[Series]:
    """Return the pooled line with its band, and the seeds' dots."""
    if curve is None:
        return []
    value, low, high = ([getattr(one, end) for one in curve.values] for end in ("value", "low", "high"))
    dots = Series(label, [step for step, _ in curve.dots], [one for _, one in curve.dots], colour=colour, style="dots")
    return [Series(label, curve.steps, value, low, high, colour), *([dots] if len(curve.seeds) > 1 else [])]


def _bins(*curves: Curve | None) -> str:
    """Say what stands behind the points of curves."""
    told = [
        f"Means of {curve.size} steps with 95% intervals over the steps{_seeds(curve.seeds)}"
        for curve in curves
        if curve is not None
    ]
    return " ".join(dict.fromkeys(told))


def _seeds(seeds: Collection[str]) -> str:
    if len(seeds) == 1:
        return f"; seed {next(iter(seeds))}."
    return f"; seeds {', '.join(seeds)}, each a small dot."


def forest(
    title: str,
    rows: Sequence[tuple[str, list[tuple[Number, Colour]]]],
    key: list[tuple[Colour, str]],
    x_label: str,
    mark: float = 0.0,
) -> list[Forest]:
    """Return a figure of the rows that have numbers, with what stands behind it; none where there are none."""
    kept = [(label, values) for label, values in rows if values]
    told = [one for _, values in kept for one, _ in values]
    n = ", ".join(dict.fromkeys(str(one.n) for one in told))
    note = f"95% intervals, clustered by problem; n = {n} problems" + _seeds({s: 0 for one in told for s in one.seeds})
    return [Forest(title, kept, key, x_label, note, mark)] if kept else []


def ladder(
    name: str, bench: str, levels: Sequence[Number | None], there: Mapping[tuple[str, str], str], road: Sequence[str]
) -> Chart:
    """Return one ability over the rows of the road, the paper\'s benchmark beside it where it has one."""
    ours = [(place, one) for place, one in enumerate(levels) if one is not None]
    value, low, high = ([getattr(one, end) for _, one in ours] for end in ("value", "low", "high"))
    theirs = [(i, float(there[row, bench]) / 100) for i, row in enumerate(PAPER[: len(road)]) if (row, bench) in there]
    places = [float(place) for place, _ in ours]
    dots = [(place - 0.12, one) for place, level in ours for one in level.seeds.values()]
    made = [Series("ours", places, value, low, high, "accent", "points")]
    made += [Series("ours, seeds", [p for p, _ in dots], [v for _, v in dots], colour="accent", style="dots")]
    if theirs:
        line = [float(i) for i, _ in theirs], [value for _, value in theirs]
        made.append(Series(f"the paper's {bench}", *line, colour="muted", style="dashed"))
    n = ", ".join(dict.fromkeys(str(one.n) for _, one in ours))
    note = f"Ours with 95% intervals, clustered by problem; n = {n} problems{_seeds(ours[0][1].seeds)}"
    return Chart(name.capitalize(), tuple(made), note, "share", x_label="", x_names=tuple(road))


def pleasing(evidence: Evidence, stage: str, task: str, marks: tuple[float, ...]) -> list[Chart]:
    """Return a chart of what reward models say of an open task against how good it truly is; alarms at `marks`."""
    made = [
        *_series(evidence.curve(stage, f"quality/{task}"), "true quality", "accent"),
        *_series(evidence.curve(stage, f"preference/{task}"), "reward models' score", "ink"),
    ]
    note = f"{_bins(evidence.curve(stage, f'quality/{task}'))} Upright: where the alarm rings, a seed each."
    return [Chart(f"Pleasing or good: {task}", tuple(made), note, marks=marks, floor=None)] if made else []
