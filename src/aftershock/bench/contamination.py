"""Whether a bench's questions stand in given training data: the n-grams they share.

As in GPT-3's check (arXiv 2005.14165, appendix C) texts are lower-cased words without punctuation, and 13 words in a
row that stand in both are an overlap; a shorter question overlaps where all of it does. Differences from it: signs of
arithmetic are words, so 3+4 is not 3*4; a Chinese, Japanese or Korean character is a word, and where most are such, 26
in a row are wanted; and what all questions of a suite begin or end with is left out, as are n-grams of more than 2
questions (or of 1%), for they are the suite's wording, not the question's.
"""

import gzip
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from aftershock.address import key
from aftershock.bench.measure import accuracy
from aftershock.bench.store import Bench, read
from aftershock.bench.types import Question
from aftershock.errors import BenchError
from aftershock.stats import Interval

WORDS, CHARACTERS, SHORTEST = 13, 26, 5
SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".md")
HEADINGS = ("suite", "overlapping", "too short to tell", "pass@1, clean", "pass@1, overlapping")

_BATCH = 1 << 20  # characters looked at in one go
_CARRY = 800  # characters of a text that are looked at again with its next part
_BREAK = "\x01"  # stands between texts, so that no n-gram reaches from one into the next
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_SIGNS = "-+*/=<>^" + _BREAK
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[{_SIGNS}]")
_KEPT = b"abcdefghijklmnopqrstuvwxyz0123456789" + _SIGNS.encode()
_TO_LOWER = bytes(c if c in _KEPT else c + 32 if 65 <= c <= 90 else 32 for c in range(256))
_BASE, _BITS = np.uint64(0x9E3779B97F4A7C15), np.uint64(24)


_Text = tuple[str, str, int]  # with its file and line


@dataclass(frozen=True)
class Overlap:
    """A question that stands in the data: the share of its n-grams found, the first, and where (line from 1).

    Of a text file the line is where the part of a megabyte began that holds it.
    """

    suite: str
    question: str
    share: float
    span: str
    file: str
    line: int


@dataclass(frozen=True)
class SuiteOverlap:
    """How many questions of a suite overlap, of how many; and pass@1 on both kinds, where there are answers."""

    suite: str
    overlapping: int
    checked: int
    too_short: int
    clean: Interval | None
    dirty: Interval | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row for a table with `HEADINGS`."""
        scores = [
            f"{100 * one.value:.1f}% [{100 * one.low:.1f}, {100 * one.high:.1f}], n = {one.problems}" if one else "–"
            for one in (self.clean, self.dirty)
        ]
        return (self.suite, f"{self.overlapping} of {self.checked}", str(self.too_short), *scores)


@dataclass(frozen=True)
class Contamination:
    """What `files` share with a bench: one row a suite, and every overlapping question; `characters` were read."""

    files: list[str]
    characters: int
    rows: list[SuiteOverlap]
    overlaps: list[Overlap]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return asdict(self)


def check(folder: Path, files: Sequence[Path]) -> Contamination:
    """Look for a bench's questions in training data: JSON lines (every string in them) or text, or folders of such.

    The data are streamed once; memory grows with the bench, not with them. Raises BenchError for what can't be read.
    """
    bench = read(folder)
    paths = [path for given in files for path in _paths(Path(given))]
    index = _Index(bench.questions)
    index.search(_texts(paths))
    overlaps = [_overlap(entry) for entry in index.entries if entry.found]
    rows = [_summary(bench, suite, index.entries) for suite in bench.questions]
    return Contamination([str(path) for path in paths], index.characters, rows, overlaps)


def words(text: str) -> list[str]:
    """Return the words of a text as n-grams are made of.

    >>> words("What is 3+4, Bob?"), words("多少?")
    (['what', 'is', '3', '+', '4', 'bob'], ['多', '少'])
    """
    return _TOKEN.findall(text.lower())


@dataclass
class _Entry:
    """A question's own n-grams by hash, and what of them was found."""

    question: Question
    words: list[str]
    n: int
    grams: dict[int, int] = field(default_factory=dict)  # hash -> place of the first word
    found: set[int] = field(default_factory=set)
    first: _Text = ("", "", 0)  # the words first found, and where

    def span(self, gram: int) -> str:
        return " ".join(self.words[self.grams[gram] : self.grams[gram] + self.n])


def _overlap(entry: _Entry) -> Overlap:
    share = len(entry.found) / len(entry.grams)
    return Overlap(entry.question.suite, entry.question.id, share, *entry.first)


def _summary(bench: Bench, suite: str, entries: Sequence[_Entry]) -> SuiteOverlap:
    mine = [entry for entry in entries if entry.question.suite == suite]
    checked = [entry for entry in mine if entry.grams]
    dirty = {entry.question.id for entry in checked if entry.found}
    clean = {entry.question.id for entry in checked} - dirty
    scores = [_pass_at_1(bench, suite, part) for part in (clean, dirty)]
    return SuiteOverlap(suite, len(dirty), len(checked), len(mine) - len(checked), *scores)


def _pass_at_1(bench: Bench, suite: str, chosen: set[str]) -> Interval | None:
    rows = [row for row in bench.of(suite) if row.counted and row.question in chosen]
    return accuracy(rows) if rows else None


class _Index:
    """The n-grams of all questions, by length and hash, and the search for them."""

    def __init__(self, questions: Mapping[str, Sequence[Question]]) -> None:
        suites = [list(_entries(asked)) for asked in questions.values()]
        self.entries = [entry for mine in suites for entry in mine]
        self.vocabulary = {word: key(word) | 1 for entry in self.entries for word in entry.words}
        self._ascii = {word.encode(): code for word, code in self.vocabulary.items()}
        self.characters = 0
        self._owners: dict[int, dict[int, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
        for mine in suites:
            self._take(mine)
        self._likely = {n: _filter(owners) for n, owners in self._owners.items()}

    def _take(self, entries: Sequence[_Entry]) -> None:
        """Give each question of a suite the n-grams that are its own."""
        hashes = [_hashes(self._codes(" ".join(entry.words)), entry.n).tolist() for entry in entries]
        counts = Counter(value for mine in hashes for value in set(mine))
        bound = max(2, len(entries) // 100)
        for entry, mine in zip(entries, hashes):
            entry.grams = {value: place for place, value in reversed(list(enumerate(mine))) if counts[value] <= bound}
            for value in entry.grams:
                self._owners[entry.n][value].append(entry)

    def search(self, texts: Iterable[_Text]) -> None:
        """Note every n-gram of the questions in `texts`, which come with their file and line."""
        batches: dict[bool, list[_Text]] = {True: [], False: []}  # ASCII is faster apart
        sizes = {True: 0, False: 0}
        for text in texts:
            kind = text[0].isascii()
            batches[kind].append(text)
            sizes[kind] += len(text[0])
            if sizes[kind] >= _BATCH:
                self._scan(batches[kind])
                batches[kind], sizes[kind] = [], 0
        for batch in batches.values():
            self._scan(batch)

    def _scan(self, batch: Sequence[_Text]) -> None:
        joined = f" {_BREAK} ".join(text.replace(_BREAK, " ") for text, _, _ in batch)
        self.characters += len(joined)
        codes = self._codes(joined)
        for n, owners in self._owners.items():
            hashes = _hashes(codes, n)
            places = np.flatnonzero(self._likely[n][hashes >> (np.uint64(64) - _BITS)])
            for place, value in zip(places.tolist(), hashes[places].tolist()):
                for entry in owners.get(value, ()):
                    if not entry.found:
                        entry.first = (entry.span(value), *batch[words(joined)[:place].count(_BREAK)][1:])
                    entry.found.add(value)

    def _codes(self, text: str) -> np.ndarray:
        """Return one number a word, uint64[words]; 0 for a word that no question has."""
        if not text.isascii():
            found = words(text)
            return np.fromiter(map(self.vocabulary.get, found, repeat(0)), np.uint64, len(found))
        raw = text.encode().translate(_TO_LOWER)
        for sign in _SIGNS.encode():
            raw = raw.replace(bytes([sign]), bytes([32, sign, 32]))
        parts = raw.split()
        return np.fromiter(map(self._ascii.get, parts, repeat(0)), np.uint64, len(parts))


def _hashes(codes: np.ndarray, n: int) -> np.ndarray:
    """Return the polynomial hash of every n words in a row, uint64[words - n + 1]."""
    if not 0 < n <= len(codes):
        return codes[:0]
    total = codes
    for step in range(1, n):  # uint64 wraps round, as it should
        total = total[:-1] * _BASE + codes[step:]
    return total


def _entries(questions: Sequence[Question]) -> Iterator[_Entry]:
    texts = [words(question.prompt) for question in questions]
    start = end = 0
    if len(texts) > 1:
        start = _shared(texts)
        end = _shared([text[start:][::-1] for text in texts])
    for question, text in zip(questions, texts):
        own = text[start : len(text) - end]
        chinese = sum(len(word) == 1 and re.match(f"[{_CJK}]", word) is not None for word in own)
        n = min(len(own), CHARACTERS if 2 * chinese > len(own) else WORDS)
        yield _Entry(question, own, n if len(own) >= SHORTEST else 0)


def _shared(texts: Sequence[list[str]]) -> int:
    """Return how many words all texts begin with; the least and the greatest share no more than all do."""
    pairs = zip(min(texts), max(texts))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _filter(owners: Iterable[int]) -> np.ndarray:
    """Return which leading bits of a hash occur, bool[2^24]: most n-grams of a text end here."""
    found = np.zeros(1 << int(_BITS), bool)
    found[np.fromiter(owners, np.uint64) >> (np.uint64(64) - _BITS)] = True
    return found


def _paths(given: Path) -> list[Path]:
    """Return a file, or the files of a folder that can be read, in order."""
    found = sorted(given.rglob("*")) if given.is_dir() else [given]
    kept = [path for path in found if path.name.endswith(SUFFIXES) and path.is_file()]
    if not kept:
        raise BenchError(f"training data {given} is no file or folder with {', '.join(SUFFIXES)}: convert it to one")
    return kept


def _texts(paths: Iterable[Path]) -> Iterator[_Text]:
    """Yield every text with its file and line."""
    for path in paths:
        try:
            with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as raw:
                file = io.TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="\n")
                pieces = _json_lines(path, file) if ".jsonl" in path.name else _pieces(file)
                yield from ((text, str(path), line) for text, line in pieces)
        except (OSError, EOFError) as error:
            raise BenchError(f"training data {path} can't be read: {error}") from error


def _json_lines(path: Path, file: io.TextIOWrapper) -> Iterator[tuple[str, int]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise BenchError(f"training data {path}, line {number} is no JSON: {error}") from None
            yield from ((text, number) for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _pieces(file: io.TextIOWrapper) -> Iterator[tuple[str, int]]:
    """Yield a text in parts, each with the end of the one before."""
    carry, line = "", 1
    while part := file.read(_BATCH):
        yield carry + part, line
        line += part.count("\n")
        carry = part[-_CARRY:]
