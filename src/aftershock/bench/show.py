"""A bench in the terminal: how it gets on, and its numbers at the end."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from aftershock.bench.measure import caveats, label, shown, told
from aftershock.bench.store import Header
from aftershock.bench.types import Row
from aftershock.stats import Measurement


class Bar:
    """One line a suite on standard error, for a person; silent where nobody sits before it. A context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._lines: dict[str, TaskID] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._began: dict[str, float] = {}
        self._tokens = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def begin(self, suites: Mapping[str, tuple[int, list[Row]]]) -> None:
        """Show every suite, with what is known of it from before."""
        for name, (total, rows) in suites.items():
            self._counts[name] = Counter()
            for row in rows:
                self._count(row)
            self._lines[name] = self._progress.add_task(name, total=total, completed=len(rows), start=False, note="")

    def hear(self, row: Row) -> None:
        """Count a row, and say how many are right so far and how fast tokens come."""
        line, counts = self._lines[row.suite], self._counts[row.suite]
        if row.suite not in self._began:
            self._began[row.suite], self._tokens = time.perf_counter(), 0
            self._progress.start_task(line)
        self._count(row)
        self._tokens += row.answer.tokens
        right = f"{counts['right'] / counts['counted']:.1%} right" if counts["counted"] else "none judged"
        speed = self._tokens / max(time.perf_counter() - self._began[row.suite], 0.1)
        self._progress.update(line, completed=counts["rows"], note=f"{right}, {speed:,.0f} tokens/s")

    def _count(self, row: Row) -> None:
        self._counts[row.suite].update(rows=1, counted=int(row.counted), right=int(row.right))


def scores_table(measured: Sequence[Measurement]) -> Table:
    """Return every number with its interval, n, k and seed; shares of what never happened are left out."""
    return table(
        ("suite", "metric", "value [95% interval]", "n", "k", "seed"),
        ((one.suite, label(one), told(one), str(one.n), str(one.k), str(one.seed)) for one in shown(measured)),
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a plain table; long cells fold."""
    made = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        made.add_row(*row)
    return made


def notes(header: Header, measured: Sequence[Measurement]) -> list[str]:
    """Return what a reader of the table must know: answers cut sooner than asked, and scores with too much missing."""
    wanted, positions = header["protocol"]["max_tokens"], header["model"].get("positions")
    found = []
    for entry in header["suites"]:
        least, most = entry["max_tokens"]
        if least < wanted:
            given = f"{least} to {most}" if least < most else f"{most}"
            found.append(
                f"{entry['name']}: answers were given {given} tokens, not {wanted}: the model has {positions} positions"
            )
    return found + [f"{suite}: {sentence}" for suite, sentence in caveats(measured).items()]
