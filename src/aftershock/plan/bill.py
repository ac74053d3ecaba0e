"""DeepSeek's published bills beside what our model of cost foretells, line by line; and what a repeat costs today."""

from collections.abc import Sequence
from typing import Any

from aftershock.cost import published
from aftershock.cost.cluster import parse
from aftershock.cost.published import LEFT_OUT, Line
from aftershock.errors import CapacityError
from aftershock.plan.page import dollars
from aftershock.table import columns

BILLS = tuple(published.CHIPS)
TODAY = ("H100", "H200", "H20")
HEADS = ["part", "published GPU hours", "usd", "estimated GPU hours", "least", "most", "usd", "estimated / published"]


def bill(name: str, on: str | None = None) -> tuple[dict[str, Any], str]:
    """Return a published bill beside the estimate as JSON-able values and as text; `on` is a cluster of another kind.

    Without one, what a repeat costs on each of `TODAY` follows. RecipeError, CapacityError as `published.bill`.
    """
    lines = published.bill(name, parse(on) if on else None)
    repeats = {} if on else {chip: _repeat(name, chip) for chip in TODAY}
    kept = ("name", "published_gpu_hours", "estimated_gpu_hours", "low", "high", "usd", "published_usd")
    data: dict[str, Any] = {
        "lines": [{key: getattr(line, key) for key in kept} for line in lines],
        "repeat_usd": repeats,
        "left_out": [{"what": what, "source": source} for what, source in LEFT_OUT],
        "rests_on": list(dict.fromkeys(ground for line in lines for ground in line.rests_on)),
    }
    return data, _page(name, lines, data, on)


def _repeat(name: str, chip: str) -> float | str:
    try:
        return sum(line.usd for line in published.bill(name, parse(chip)))
    except CapacityError as error:
        return str(error)


def _page(name: str, lines: Sequence[Line], data: dict[str, Any], on: str | None) -> str:
    where = f"estimated on {parse(on).chip.name}" if on else "estimated on H800s at DeepSeek's $2 an hour"
    costs = [
        f"  {chip:<5} {usd if isinstance(usd, str) else '$' + dollars(usd)}" for chip, usd in data["repeat_usd"].items()
    ]
    total = [sum(getattr(line, key) for line in lines) for key in _SUMMED]
    rows = [_row(line.name, [getattr(line, key) for key in _SUMMED]) for line in lines]
    return "\n".join(
        [
            f"{name}: the published bill; {where}, never fitted on these lines",
            columns([HEADS, *rows, _row("all", total)]),
            *(["a repeat today, at the table's prices:", *costs] if costs else []),
            "left out of the published sum:",
            *(f"  {what} ({source})" for what, source in LEFT_OUT),
            "the estimates rest on:",
            *(f"  {ground}" for ground in data["rests_on"]),
            "next: aftershock plan RECIPE --on 8xH100 for a run of your own; docs/cost.md says how this is worked out",
        ]
    )


_SUMMED = ("published_gpu_hours", "published_usd", "estimated_gpu_hours", "low", "high", "usd")


def _row(name: str, values: Sequence[float]) -> list[str]:
    hours, usd, estimated, low, high, cost = values
    cells = [f"{hours:,.0f}", f"{usd:,.0f}", *(f"{value:,.0f}" for value in (estimated, low, high)), f"{cost:,.0f}"]
    return [name, *cells, f"{estimated / hours:.2f}"]
