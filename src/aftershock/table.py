"""Tables of plain text: columns of equal width, and what each stage of a run added and cost."""

from collections.abc import Mapping, Sequence
from typing import Any


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows, the heads first, in columns two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def stages(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's stages (entries of summary.json) as a table: pass@1 before and after, seconds, dollars.

    pass@1 is that of all tasks together, with its 95% interval; n and k are those of the measurement after.
    """
    heads = ["stage", "kind", "pass@1 before", "after", "n", "k", "seconds", "usd"]
    return columns([heads, *map(_stage, summaries)])


def _stage(summary: Mapping[str, Any]) -> list[str]:
    found = {m["when"]: m for m in summary["evals"] if m["metric"] == "pass@1"}  # the last suite is "all", or the only
    after = found.get("after", {})
    shown = [_measured(found.get(when)) for when in ("before", "after")]
    counts = [str(after.get(name, "")) for name in ("n", "k")]
    return [summary["name"], summary["kind"], *shown, *counts, f"{summary['seconds']:,.0f}", f"{summary['usd']:.4f}"]


def _measured(m: Mapping[str, Any] | None) -> str:
    return f"{100 * m['value']:.1f}% [{100 * m['low']:.1f}, {100 * m['high']:.1f}]" if m else "-"
