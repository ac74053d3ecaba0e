"""What is shown at a bench's end: scores, and where asked for a comparison, published scores and contamination."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from aftershock.bench import compare, contamination, published
from aftershock.bench.page import write
from aftershock.bench.run import measurements
from aftershock.bench.show import notes, scores_table, table
from aftershock.bench.store import Bench, read
from aftershock.stats import Measurement


@dataclass(frozen=True)
class Outcome:
    """A bench's numbers, and what they were put beside; None for what wasn't asked for."""

    bench: Bench
    measured: list[Measurement]
    compared: compare.Compared | None
    published: list[published.Beside] | None
    contamination: contamination.Contamination | None
    report: Path

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "folder": str(self.bench.folder),
            **self.bench.header,
            "measurements": [asdict(one) for one in self.measured],
            "notes": notes(self.bench.header, self.measured),
            "compared": self.compared and self.compared.as_dict(),
            "published": self.published and [asdict(one) for one in self.published],
            "contamination": self.contamination and self.contamination.as_dict(),
            "report": str(self.report),
        }

    def print(self) -> None:
        """Print tables on stdout, and what to do next."""
        console = Console(highlight=False)
        console.print(scores_table(self.measured))
        if self.compared is not None:
            console.print(f"\n{self.compared.this} less {self.compared.other}", markup=False)
            console.print(table(compare.HEADINGS, [row.cells for row in self.compared.rows]))
            for suite, reason in self.compared.refused.items():
                console.print(f"not compared: {suite}: {reason}", markup=False)
            for note in self.compared.notes:
                console.print(f"note: {note}", markup=False, soft_wrap=True)
        if self.published is not None:
            console.print()
            rows, footnotes = published.footnoted(self.published)
            console.print(table(published.NARROW, rows))
            for footnote in footnotes:
                console.print(footnote, markup=False)
            console.print(published.ALWAYS if self.published else "none of these suites has published scores here")
        if self.contamination is not None:
            console.print(f"\nquestions found in {', '.join(self.contamination.files)}", markup=False)
            console.print(table(contamination.HEADINGS, [row.cells for row in self.contamination.rows]))
        for note in notes(self.bench.header, self.measured):
            console.print(f"note: {note}", markup=False, soft_wrap=True)
        again = f"aftershock bench --out {shlex.quote(str(self.bench.folder))} --against ITS_FOLDER"
        console.print(f"next: open {self.report}; bench another model, then: {again}", markup=False, soft_wrap=True)


def outcome(folder: Path, against: Path | None, beside_published: bool, train: Sequence[Path]) -> Outcome:
    """Read a bench's folder, put it beside what is asked for, and write its page.

    Raises BenchError where that can't be had.
    """
    bench = read(folder)
    compared = compare.compare(bench, read(against)) if against is not None else None
    beside = published.compare_published(bench) if beside_published else None
    overlap = contamination.check(folder, train) if train else None
    report = write(folder, compared, beside, overlap)
    return Outcome(bench, measurements(bench), compared, beside, overlap, report)
