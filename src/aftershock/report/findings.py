"""The findings page: what R1's paper found, and whether these runs found it too, as HTML and as JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aftershock import disk, pages
from aftershock.report import figures
from aftershock.report.claims import claims
from aftershock.report.evidence import Evidence, Number, gather
from aftershock.report.figures import Chart
from aftershock.report.verdicts import Finding, Forest


@dataclass(frozen=True)
class Shown:
    """A drawn figure: the SVG, its key as (colour, style, label), and what stands around it."""

    title: str
    key: list[tuple[str, str, str]]
    svg: Any
    note: str


def write(folder: Path) -> Path:
    """Make `folder/findings.html` and `folder/findings.json` of a run's folder, or of a folder of seed-N runs.

    Returns the page's path. Raises RunError where there is no run or its recipe has no [findings] table, and
    AftershockError where matplotlib or jinja2 is missing.
    """
    pages.need(f"aftershock report {folder}")
    evidence = gather(Path(folder))
    found = claims(evidence)
    disk.write_json(folder / "findings.json", as_dict(evidence, found))
    disk.write_bytes(folder / "findings.html", render(evidence, found).encode())
    return folder / "findings.html"


def as_dict(evidence: Evidence, found: list[Finding]) -> dict[str, Any]:
    """Return every number of the page as JSON has it."""
    return {
        "schema": 1,
        "seeds": list(evidence.runs),
        "missing": evidence.missing,
        "findings": [
            {
                "name": one.name,
                "title": one.title,
                "verdict": one.verdict,
                "rule": one.rule,
                "checks": [asdict(check) for check in one.checks],
                "numbers": [asdict(number) for number in one.numbers],
                "notes": one.notes,
                "figures": [asdict(figure) for figure in one.figures],
                "paper": one.paper,
            }
            for one in found
        ],
    }


def render(evidence: Evidence, found: list[Finding]) -> str:
    """Return the page as HTML."""
    drawn: dict[str, list[Shown]] = {}
    for one in found:
        first = sum(map(len, drawn.values()))
        drawn[one.name] = [_show(figure, first + index) for index, figure in enumerate(one.figures)]
    run = next(iter(evidence.runs.values()))
    return pages.render(
        "report",
        "findings.html.j2",
        {},
        name=run.name,
        seeds=list(evidence.runs),
        unfinished=[seed for seed, one in evidence.runs.items() if not one.finished],
        missing=list(dict.fromkeys(evidence.missing)),
        found=found,
        drawn=drawn,
    )


def _show(figure: Chart | Forest, number: int) -> Shown:
    from markupsafe import Markup  # it comes with jinja2

    if isinstance(figure, Chart):
        key: list[tuple[str, str, str]]
        key = [(s.colour, s.style, s.label) for s in figure.series if s.style != "dots"]
        return Shown(figure.title, key, Markup(figures.draw(figure, number)), figure.note)
    rows = [(label, [(_place(one), colour) for one, colour in values]) for label, values in figure.rows]
    drawn = figures.forest(rows, figure.x_label, number, figure.mark)
    return Shown(figure.title, [(colour, "points", label) for colour, label in figure.key], Markup(drawn), figure.note)


def _place(one: Number) -> figures.Place:
    low, value, high = (one.scale * end for end in (one.low, one.value, one.high))
    return value, low, high, [one.scale * each for each in one.seeds.values()] if len(one.seeds) > 1 else []
