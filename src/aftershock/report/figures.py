"""Curves as small SVGs that take the page's colours (light and dark) and text, the same bytes every time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aftershock.pages import COLOURS, SIZE, svg

Style = Literal["line", "dashed", "thin", "points", "dots"]
Colour = Literal["accent", "ink", "muted"]
Unit = Literal["share", "number"]

_LOOK: dict[str, dict[str, Any]] = {"line": {}, "dashed": {"linestyle": (0, (4, 2.5))}, "thin": {"linewidth": 0.8}}


@dataclass(frozen=True)
class Series:
    """One curve: a value at each step, with the bounds of its 95% interval where they are known."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    colour: Colour = "accent"
    style: Style = "line"


@dataclass(frozen=True)
class Chart:
    """A figure of one quantity over the steps of a stage; `note` is its caption: what, of how many, which seed."""

    title: str
    series: tuple[Series, ...]
    note: str
    unit: Unit = "number"
    log: bool = False
    floor: float | None = 0.0
    x_label: str = "step"
    x_names: tuple[str, ...] = ()  # of the places 0, 1, ... where x is no number
    marks: tuple[float, ...] = ()  # upright lines

    @property
    def alt(self) -> str:
        """What the figure shows, in words: the first and last value of each curve."""
        ends = [
            f"{s.label} from {_say(s.values[0], self.unit)} to {_say(s.values[-1], self.unit)}"
            for s in self.series
            if s.style != "dots"
        ]
        return f"{self.title}: " + "; ".join(ends) + "."


def _say(value: float, unit: Unit) -> str:
    return f"{100 * value:.1f}%" if unit == "share" else f"{value:.4g}"


def draw(chart: Chart, number: int) -> str:
    """Return the chart as an `<svg>` element whose ids begin with `f<number>-`, so that many can share a page."""

    def paint(axes: Any) -> None:
        for series in chart.series:
            _plot(axes, series)
        _finish_axes(axes, chart)

    return svg(paint, number, chart.alt)


def _plot(axes: Any, series: Series) -> None:
    colour = COLOURS[series.colour]
    if series.style == "dots":
        axes.plot(series.steps, series.values, "o", color=colour, markersize=2.4, alpha=0.55, markeredgewidth=0)
        return
    if series.low is not None and series.high is not None and series.style in ("line", "thin"):
        axes.fill_between(series.steps, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    if series.style == "points":
        bounds = None
        if series.low is not None and series.high is not None:
            rows = zip(series.values, series.low, series.high, strict=True)
            bounds = list(zip(*((max(0.0, v - a), max(0.0, b - v)) for v, a, b in rows), strict=True))
        axes.errorbar(
            series.steps, series.values, yerr=bounds, fmt="o", color=colour, markersize=4, elinewidth=1.4, clip_on=False
        )
        return
    marker = "o" if len(series.steps) <= 20 and series.style == "line" else None
    axes.plot(series.steps, series.values, color=colour, marker=marker, markersize=3.5, **_LOOK[series.style])


def _finish_axes(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    for mark in chart.marks:
        axes.axvline(mark, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set_xlabel(chart.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if chart.x_names:
        axes.set_xticks(range(len(chart.x_names)), chart.x_names)
    if chart.log:
        axes.set_yscale("log")
        return
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if chart.unit == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        top = max((v for s in chart.series for v in (s.high or s.values)), default=1.0)
        axes.set_ylim(0, 1 if top > 0.5 else None)
    elif chart.floor is not None:
        axes.set_ylim(bottom=chart.floor)


Place = tuple[float, float, float, Sequence[float]]  # value, low, high, each seed's own value


def forest(rows: Sequence[tuple[str, Sequence[tuple[Place, Colour]]]], x_label: str, number: int, mark: float) -> str:
    """Draw lines of values with their 95% intervals, each seed's value a small dot; several of a row lie below another.

    `mark` is where an upright line stands. Values are in the unit that `x_label` tells.
    """

    def paint(axes: Any) -> None:
        """Draw each value with its interval, and its seeds as small dots."""
        axes.axvline(mark, color=COLOURS["muted"], linewidth=0.9)
        for place, (_, values) in enumerate(reversed(rows)):
            for index, ((value, low, high, seeds), colour) in enumerate(values):
                y = place + 0.28 * ((len(values) - 1) / 2 - index)
                axes.plot([low, high], [y, y], color=COLOURS[colour], linewidth=1.6)
                axes.plot(value, y, "o", color=COLOURS[colour], markersize=5, clip_on=False)
                small = {"color": COLOURS[colour], "markersize": 2.4, "alpha": 0.55, "markeredgewidth": 0}
                axes.plot(seeds, [y - 0.13] * len(seeds), "o", clip_on=False, **small)
        axes.set_yticks(range(len(rows)), [label.replace("$", r"\$") for label, _ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(x_label)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")

    said = "; ".join(f"{label} {v:.1f}, {a:.1f} to {b:.1f}" for label, values in rows for (v, a, b, _), _ in values)
    most = max(len(values) for _, values in rows)
    return svg(
        paint, number, f"{x_label}, with 95% intervals: {said}", (SIZE[0], 0.8 + (0.24 + 0.13 * most) * len(rows))
    )


def smooth(values: Sequence[float], reach: int = 4) -> list[float]:
    """Return each value's mean with its neighbours up to `reach` steps away (fewer at the ends)."""
    parts = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [math.fsum(part) / len(part) for part in parts]
