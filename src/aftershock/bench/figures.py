"""What a bench's page draws: scores with their intervals, lengths, and accuracy against length."""

from collections.abc import Sequence
from typing import Any

from aftershock.bench.measure import accuracy
from aftershock.bench.types import Row
from aftershock.pages import COLOURS, SIZE, svg
from aftershock.stats import Interval, Measurement

BINS = 20  # of the histogram
GROUPS = 6  # of accuracy against length


def forest(scores: Sequence[Measurement], number: int) -> str:
    """Draw one line a score: its value and its 95% interval, in percent."""

    def paint(axes: Any) -> None:
        """Draw an interval and its middle for each score."""
        for place, one in enumerate(reversed(scores)):
            axes.plot([100 * one.low, 100 * one.high], [place, place], color=COLOURS["accent"], linewidth=2)
            axes.plot(100 * one.value, place, "o", color=COLOURS["accent"], markersize=6, clip_on=False)
        axes.set_yticks(range(len(scores)), [one.suite.replace("$", r"\$") for one in reversed(scores)])
        axes.set_ylim(-0.6, len(scores) - 0.4)
        axes.set_xlim(0, 100)
        axes.set_xlabel("pass@1, %")
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")

    said = "; ".join(f"{s.suite} {100 * s.value:.1f}%, {100 * s.low:.1f} to {100 * s.high:.1f}" for s in scores)
    return svg(paint, number, f"pass@1 with 95% intervals: {said}", (SIZE[0], 0.7 + 0.25 * len(scores)))


def lengths(rows: Sequence[Row], number: int) -> str:
    """Draw how long the answers are, right ones in colour on top of the others."""
    tokens = [[row.answer.tokens for row in rows if row.right is right] for right in (True, False)]

    def paint(axes: Any) -> None:
        """Draw the lengths."""
        top = max(map(max, filter(None, tokens)))
        colours = [COLOURS["accent"], COLOURS["muted"]]
        axes.hist(tokens, bins=min(BINS, top + 1), range=(0, max(1, top)), stacked=True, color=colours, linewidth=0)
        axes.set_xlabel("tokens")
        axes.set_ylabel("answers")
        axes.locator_params(integer=True)
        axes.margins(x=0)

    said = ", ".join(f"{len(part)} {name}" for part, name in zip(tokens, ("right", "not right")))
    return svg(paint, number, f"lengths of {said} answers, at most {max(map(max, filter(None, tokens)))} tokens")


def length_groups(rows: Sequence[Row]) -> list[tuple[int, int, Interval]]:
    """Return (shortest, longest, accuracy) of groups of about equally many answers, of ever greater length.

    Answers of one length stay together. Intervals are clustered by question, so a group says how often answers of
    such a length are right, not what length does to a question.
    """
    ordered = sorted((row for row in rows if row.counted), key=lambda row: row.answer.tokens)
    groups: list[list[Row]] = []
    for row in ordered:
        full = groups and len(groups[-1]) * GROUPS >= len(ordered)
        if not groups or (full and row.answer.tokens > groups[-1][-1].answer.tokens):
            groups.append([])
        groups[-1].append(row)
    return [(part[0].answer.tokens, part[-1].answer.tokens, accuracy(part)) for part in groups]


def accuracy_by_length(groups: Sequence[tuple[int, int, Interval]], number: int) -> str:
    """Draw the accuracy of each of `length_groups` over the lengths it spans, with its 95% interval."""

    def paint(axes: Any) -> None:
        """Draw the groups."""
        for low, high, found in groups:
            middle = (low + high) / 2
            axes.plot([low, high], [100 * found.value] * 2, color=COLOURS["accent"], linewidth=2.4)
            axes.plot([middle] * 2, [100 * found.low, 100 * found.high], color=COLOURS["accent"], linewidth=1)
            axes.plot(middle, 100 * found.value, "o", color=COLOURS["accent"], markersize=4.5, clip_on=False)
        axes.set_xlabel("tokens")
        axes.set_ylabel("right, %")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 100)

    said = "; ".join(f"{low} to {high} tokens {100 * found.value:.1f}%" for low, high, found in groups)
    return svg(paint, number, f"accuracy by length: {said}", SIZE)
