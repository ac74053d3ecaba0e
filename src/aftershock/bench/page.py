"""One self-contained page of a bench, made from its folder: scores, lengths, failures, and every answer to read."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aftershock import disk, pages
from aftershock.bench import published as table
from aftershock.bench.compare import HEADINGS as COMPARED
from aftershock.bench.compare import Compared
from aftershock.bench.contamination import HEADINGS as CONTAMINATED
from aftershock.bench.contamination import Contamination
from aftershock.bench.figures import accuracy_by_length, forest, length_groups, lengths
from aftershock.bench.measure import label, measure, questions_of, shown, told
from aftershock.bench.show import notes
from aftershock.bench.store import ROWS, Bench, folder_name, read
from aftershock.bench.types import Question, Row
from aftershock.stats import Measurement

BUDGET = 6_000_000  # characters of answers on a page; browsers grow slow beyond
LEAST = 300  # characters of an answer that stay, however many there are
EXAMPLES = 5
WORST_FIRST = ("failed", "unverifiable", "cut off", "no answer", "wrong")


@dataclass(frozen=True)
class Group:
    """Answers that weren't right for one reason: its `kind` and words, how many, and the questions to look at."""

    kind: str
    reason: str
    count: int
    examples: list[tuple[str, str]]  # id on the page, name


@dataclass(frozen=True)
class Asked:
    """A question with the samples shown of it, and how many there are."""

    anchor: str
    question: Question
    rows: list[Row]
    marks: str
    right: int
    samples: int


@dataclass(frozen=True)
class SuitePart:
    """One suite as the template wants it."""

    name: str
    title: str
    entry: Mapping[str, Any]
    expected: int
    rows: int
    scores: list[Measurement]
    figures: list[tuple[str, str, str]]
    groups: list[Group]
    asked: list[Asked]
    left_out: str

    @property
    def unfinished(self) -> bool:
        return self.rows < self.expected


def write(
    folder: Path,
    compared: Compared | None = None,
    published: Sequence[table.Beside] | None = None,
    contamination: Contamination | None = None,
) -> Path:
    """Make `folder/report.html` from what the bench has so far and what it is put beside, and return its path.

    The same files give the same bytes; nothing is loaded from elsewhere. Raises BenchError where the folder holds no
    bench, and AftershockError where matplotlib or jinja2 is missing.
    """
    pages.need(f"aftershock bench --out {folder}")
    page = render(read(folder), compared, published, contamination)
    disk.write_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def render(
    bench: Bench,
    compared: Compared | None = None,
    published: Sequence[table.Beside] | None = None,
    contamination: Contamination | None = None,
) -> str:
    """Return the page as HTML; everything that a model or a file says is escaped."""
    suites = [_suite(bench, entry, number) for number, entry in enumerate(bench.header["suites"])]
    measured = [one for suite in suites for one in suite.scores]
    leading = [one for one in measured if one.metric == "pass@1"]
    return pages.render(
        "bench",
        "page.html.j2",
        {"label": label, "told": told, "shown": shown},
        bench_css=(Path(__file__).parent / "bench.css").read_text(encoding="utf-8"),
        header=bench.header,
        model=_flat(bench.header["model"]),
        protocol=_flat(bench.header["protocol"]),
        versions=_flat(bench.header["versions"]),
        suites=suites,
        leading=leading,
        forest=forest(leading, 0) if leading else None,
        notes=notes(bench.header, measured),
        compared=compared,
        compared_headings=COMPARED,
        published=published,
        published_headings=table.HEADINGS,
        published_note=table.ALWAYS,
        contamination=contamination,
        contamination_headings=CONTAMINATED,
    )


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items() if value not in (None, "")]


def _suite(bench: Bench, entry: Mapping[str, Any], number: int) -> SuitePart:
    name, rows = entry["name"], bench.of(entry["name"])
    scores = measure(name, rows, entry["k"], bench.protocol.seed)
    asked, left_out = _asked(bench.questions[name], rows, number, name)
    return SuitePart(
        name=name,
        title=entry["title"],
        entry=entry,
        expected=entry["n"] * entry["k"],
        rows=len(rows),
        scores=scores,
        figures=_figures(rows, number, f"k = {entry['k']}, seed {bench.protocol.seed}"),
        groups=_groups(rows, {one.question.id: one.anchor for one in asked}),
        asked=asked,
        left_out=left_out,
    )


def _figures(rows: Sequence[Row], number: int, basis: str) -> list[tuple[str, str, str]]:
    """Return (title, figure, caption) for what came back."""
    back = [row for row in rows if row.answer.finish != "failed"]
    if not back:
        return []
    said = f"{len(back)} answers to {len({row.question for row in back})} questions, {basis}"
    figures = [("How long answers are", lengths(back, 2 * number + 1), f"Right ones in colour. {said}.")]
    groups = length_groups(back)
    if groups:
        note = f"Groups of about equally many answers: the shares with 95% intervals, clustered by question. {said}."
        figures.append(("Right answers by length", accuracy_by_length(groups, 2 * number + 2), note))
    return figures


def kind(row: Row) -> str:
    """Return how an answer fell short: one of WORST_FIRST, or "right"."""
    if row.answer.finish == "failed":
        return "failed"
    if row.outcome != "wrong":
        return row.outcome
    return "cut off" if row.answer.finish == "length" else "no answer" if row.extracted is None else "wrong"


def _groups(rows: Sequence[Row], anchors: Mapping[str, str]) -> list[Group]:
    """Return the answers that weren't right by kind and reason; numbers and quotations don't make another reason."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.outcome != "right":
            found[kind(row), _reason(row)].append(row)
    ordered = sorted(found.items(), key=lambda item: (WORST_FIRST.index(item[0][0]), -len(item[1]), item[0][1]))
    return [Group(*key, len(part), _examples(part, anchors)) for key, part in ordered]


def _examples(rows: Sequence[Row], anchors: Mapping[str, str]) -> list[tuple[str, str]]:
    ids = list(dict.fromkeys(row.question for row in rows))[:EXAMPLES]
    return [(anchors[name], name) for name in ids]


def _reason(row: Row) -> str:
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", row.reason or row.answer.error)
    return re.sub(r"(?<!HTTP )(?<!code: )(?<![\d.-])-?\d+(\.\d+)?", "#", text)[:160]  # a server's code is a reason


def _asked(questions: Sequence[Question], rows: Sequence[Row], number: int, suite: str) -> tuple[list[Asked], str]:
    """Return every question with as many samples as the page has room for, and what was left out, in words."""
    samples = questions_of(rows)
    depth = max(map(len, samples.values()), default=0)
    sizes = [sum(len(part[i].answer.text) for part in samples.values() if i < len(part)) for i in range(depth)]
    shown = max((i for i in range(1, depth + 1) if sum(sizes[:i]) <= BUDGET), default=min(depth, 1))
    room = BUDGET if sum(sizes[:shown]) <= BUDGET else max(LEAST, BUDGET // max(1, len(samples)))
    asked = [
        _one(f"s{number}-q{place}", question, samples.get(question.id, []), shown, room)
        for place, question in enumerate(questions)
    ]
    return asked, _left_out(shown, depth, room, f"{folder_name(suite)}/{ROWS}")


def _left_out(shown: int, depth: int, room: int, file: str) -> str:
    parts = [f"only the first {shown} of {depth} samples a question are shown"] if shown < depth else []
    parts += [f"answers longer than {room:,} characters are cut in the middle"] if room < BUDGET else []
    return f"To keep the page light, {' and '.join(parts)}; {file} holds everything." if parts else ""


def _one(anchor: str, question: Question, rows: list[Row], shown: int, room: int) -> Asked:
    marks = "".join({"right": "✓", "wrong": "✗", "cut off": "…", "no answer": "∅"}.get(kind(row), "?") for row in rows)
    cut = [_cut(row, room) for row in rows[:shown]]
    return Asked(anchor, question, cut, marks[:64], sum(row.right for row in rows), len(rows))


def _cut(row: Row, room: int) -> Row:
    reasoning, answer = _middle(row.answer.reasoning, room), _middle(row.answer.answer, room)
    return replace(row, answer=replace(row.answer, reasoning=reasoning, answer=answer))


def _middle(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return f"{text[: room // 2]}\n[… {len(text) - room:,} characters are left out here …]\n{text[-(room // 2) :]}"
