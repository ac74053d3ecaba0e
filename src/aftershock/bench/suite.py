"""What a suite is: where its questions come from, how they are put, how answers are scored."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from aftershock.bench.types import Answer, Question
from aftershock.errors import BenchError
from aftershock.verify.verdict import Verdict


@dataclass(frozen=True)
class Source:
    """Where a suite's rows are: a dataset on the hub, and the names its original file may have in `--data`.

    The first of `files` that is there is read. `parts` are for a source in several files: all are read from the hub,
    and of a folder those that are there.
    """

    hub: str
    files: tuple[str, ...]
    split: str = "test"
    config: str | None = None
    revision: str | None = None
    parts: tuple[str, ...] = ()


class Suite(ABC):
    """One benchmark. A subclass says where its `source` is, makes a `question` of a row, and scores answers.

    `samples` is k where the user gives none. `oracle` and `decoy` prove the scorer, as a task's gold and perturbed
    answers do: what a model that knows, and one that errs, would write after its reasoning. `instruction` is told
    after the prompt to models whose own template doesn't ask for answer tags, as R1-Zero's does.

    `data` is the folder of `--data`, `option` what stands behind `@` in the name it was asked for by.
    """

    name: str = ""
    title: str = ""  # for readers: "MATH-500"
    source: Source
    samples: ClassVar[int] = 4
    instruction: ClassVar[str] = ""

    def __init__(self, data: Path | None = None, option: str = "") -> None:
        if option:
            raise BenchError(f"suite {self.name!r} was asked for with @{option}, but has no such option: leave it out")
        self.data = data
        self.origin = ""  # where the questions came from: known once they are loaded
        self.data_hash = ""  # sha256 of the questions asked, likewise

    @abstractmethod
    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Return the question of row number `index` of the source."""

    @abstractmethod
    def score(self, question: Question, answer: Answer) -> Verdict:
        """Judge what follows the reasoning; called from several threads at once, and may take seconds."""

    @abstractmethod
    def oracle(self, question: Question) -> str:
        """Return an answer that must score right."""

    @abstractmethod
    def decoy(self, question: Question) -> str:
        """Return an answer near the right one that must score wrong."""

    def wanted(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of the source belongs to the suite; all do where a subclass doesn't say."""
        return True

    def rows(self) -> Iterable[Mapping[str, Any]]:
        """Return the rows of the source and note their `origin`. BenchError where they can't be had."""
        from aftershock.bench import sources

        table = sources.load(self.source, self.data)
        self.origin = table.origin
        return table.rows

    def questions(self, n: int | None = None) -> list[Question]:
        """Return the `n` questions whose ids have the smallest hashes, in the source's order; None: all of them.

        So a part is the same for every model, run and machine. BenchError names a row that can't be used.
        """
        everything = list(self._questions())
        first = sorted(everything, key=lambda question: hashlib.blake2b(question.id.encode()).digest())[:n]
        chosen = {question.id for question in first}
        return self._ask([question for question in everything if question.id in chosen])

    def close(self) -> None:  # noqa: B027 - most suites hold nothing
        """Give back what scoring holds, such as worker processes."""

    def _questions(self) -> Iterator[Question]:
        seen: dict[str, int] = {}
        for index, row in enumerate(self.rows()):
            try:
                if not self.wanted(row):
                    continue
                question = self.question(row, index)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise BenchError(
                    f"row {index} of {self.origin} is no row of {self.title}: {type(error).__name__} {error}; it has "
                    f"{', '.join(map(str, row))}. Wanted are the fields of {self.source.hub}"
                ) from error
            if question.id in seen:
                raise BenchError(f"rows {seen[question.id]} and {index} of {self.origin} are both {question.id!r}")
            seen[question.id] = index
            yield question

    def _ask(self, questions: Sequence[Question]) -> list[Question]:
        if not questions:
            raise BenchError(f"suite {self.name!r} has no question in {self.origin}: nothing would be measured")
        text = json.dumps([asdict(question) for question in questions], sort_keys=True, separators=(",", ":"))
        self.data_hash = hashlib.sha256(text.encode()).hexdigest()
        return list(questions)


def unanswered(answer: Answer, wanted: str) -> Verdict:
    """Return the verdict on an answer that has no `wanted`, such as "answer in a box": wrong, and why."""
    if answer.finish == "length":
        return Verdict("wrong", f"cut off after {answer.tokens} tokens, before an answer")
    if answer.reasoning and not answer.answer:
        return Verdict("wrong", "nothing follows the reasoning")
    return Verdict("wrong", f"no {wanted} after the reasoning")
