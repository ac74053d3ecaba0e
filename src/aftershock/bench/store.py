"""A bench's folder: what was asked, by which protocol, and every judged row, whole lines only, so that it can go on.

bench.json              model, protocol, suites and versions: what a resume must agree with; the command
SUITE/questions.jsonl   one Question a line, in the order asked
SUITE/rows.jsonl        one Row a line, in the order they ended; a later one of the same sample counts
scores.json             the measurements with all that made them; the same seed gives the same bytes
timings.json            seconds and tokens of each session
logs/                   inspect's logs: inspect view --log-dir OUT/logs
report.html             the page
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aftershock import disk
from aftershock.bench.types import Answer, Protocol, Question, Row
from aftershock.errors import BenchError

SCHEMA = 1
HEADER, SCORES, TIMINGS, LOGS = "bench.json", "scores.json", "timings.json", "logs"
QUESTIONS, ROWS = "questions.jsonl", "rows.jsonl"
SPEC = ("schema", "model", "protocol", "suites", "versions")  # what must be the same for a bench to go on
Header = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """A bench as it lies in its folder, finished or not.

    `questions` are by suite, in the order asked; `rows` are sorted by suite, question and sample, one for each sample
    that has ended.
    """

    folder: Path
    header: Header
    questions: Mapping[str, list[Question]]
    rows: list[Row]

    @property
    def protocol(self) -> Protocol:
        return Protocol(**self.header["protocol"])

    def of(self, suite: str) -> list[Row]:
        """Return the rows of one suite, by question and sample."""
        return [row for row in self.rows if row.suite == suite]


def read(folder: Path) -> Bench:
    """Read a bench's folder, also one that is being written. Raises BenchError where there is none or it is damaged."""
    header = _header(folder)
    questions, rows = {}, []
    for entry in header["suites"]:
        name = entry["name"]
        place = folder / folder_name(name)
        questions[name] = [Question(**value) for value in _values(place / QUESTIONS)]
        order = {question.id: number for number, question in enumerate(questions[name])}
        latest = _latest(place / ROWS)
        rows += [latest[key] for key in sorted(latest, key=lambda key: (order[key[0]], key[1]))]
    return Bench(folder, header, questions, rows)


def _header(folder: Path) -> Header:
    header = disk.read_json(folder / HEADER)
    if header is None:
        raise BenchError(f"{folder} holds no {HEADER}, so it is no bench; name what `aftershock bench --out` was given")
    if header.get("schema") != SCHEMA:
        raise BenchError(f"{folder / HEADER} has schema {header.get('schema')!r}; this aftershock reads {SCHEMA}")
    return header


def folder_name(suite: str) -> str:
    """Return a suite's name as a file name; one that had to change carries a hash, so that no two are the same."""
    safe = re.sub(r"[^\w.@+-]", "_", suite)[:80].lstrip(".")
    return safe if safe == suite else f"{safe}-{hashlib.sha256(suite.encode()).hexdigest()[:8]}"


def _latest(path: Path) -> dict[tuple[str, int], Row]:
    """Return the last row of every (question, sample)."""
    rows = (Row(**{**value, "answer": Answer(**value["answer"])}) for value in _values(path))
    return {(row.question, row.sample): row for row in rows}


def _values(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the values of a file of JSON lines; what stands after the last line's end was torn and is left out."""
    if not path.is_file():
        return
    with open(path, "rb") as file:  # a kill may cut within a character, so only whole lines are decoded
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line.decode())
            except ValueError as error:
                raise BenchError(
                    f"{path}, line {number} is no JSON ({error}): delete that line and run again"
                ) from None


class Store:
    """Writes a bench's folder, for one process alone. A context manager; `add` may be called from any thread.

    Raises BenchError where the folder holds something else, or a bench that asked otherwise.
    """

    def __init__(self, folder: Path, header: Header, questions: Mapping[str, Sequence[Question]]) -> None:
        self.folder = folder
        self._mutex = threading.Lock()
        if folder.exists() and not (folder / HEADER).exists() and any(_foreign(folder)):
            raise BenchError(f"{folder} is not empty and holds no bench: give a new or empty folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
        self._handle = disk.lock(folder)
        try:
            self._agree(header)
            self._done = {name: self._mend(name, asked) for name, asked in questions.items()}
            disk.write_json(folder / HEADER, header)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder free."""
        os.close(self._handle)

    def done(self, suite: str) -> dict[tuple[str, int], Row]:
        """Return what was answered before, by question and sample; failed requests are not among it."""
        return self._done[suite]

    def add(self, row: Row) -> None:
        """Append a row, whole or not at all."""
        line = json.dumps(asdict(row), ensure_ascii=False)
        with self._mutex:
            disk.append_line(self.folder / folder_name(row.suite) / ROWS, line)

    def _agree(self, header: Header) -> None:
        """Raise BenchError where there is a bench already that asked otherwise."""
        if not (self.folder / HEADER).exists():
            return
        before = _header(self.folder)
        changes = [change for part in SPEC for change in differences(part, before.get(part), header.get(part))]
        if changes:
            raise BenchError(
                f"{self.folder} holds a bench that asked otherwise: {'; '.join(changes[:8])}. "
                "Repeat its command to go on with it, or begin anew with another --out"
            )

    def _mend(self, suite: str, questions: Sequence[Question]) -> dict[tuple[str, int], Row]:
        """Write the questions, cut off a torn last row, and return the rows that need no second asking."""
        place = self.folder / folder_name(suite)
        lines = (json.dumps(asdict(question), ensure_ascii=False) + "\n" for question in questions)
        disk.write_bytes(place / QUESTIONS, "".join(lines).encode())
        _cut_torn(place / ROWS)
        return {key: row for key, row in _latest(place / ROWS).items() if row.answer.finish != "failed"}


def _foreign(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.name != ".lock" and not path.name.startswith(disk.STRAY))


def _cut_torn(path: Path) -> None:
    """Cut off what follows the last line's end."""
    if path.exists():
        with open(path, "rb") as file:
            whole = sum(len(line) for line in file if line.endswith(b"\n"))
        os.truncate(path, whole)


def differences(name: str, old: Any, new: Any) -> list[str]:
    """Return where two JSON values differ, in words: `protocol.k was 4, is 8`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [change for key in keys for change in differences(f"{name}.{key}", old.get(key), new.get(key))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new))
        return [change for number, (a, b) in pairs for change in differences(f"{name}[{number}]", a, b)]
    return [] if old == new else [f"{name} was {json.dumps(old)[:120]}, is {json.dumps(new)[:120]}"]
