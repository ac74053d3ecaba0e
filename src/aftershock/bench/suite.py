"""What a suite is: where its questions come from, how they are put, how answers are scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from aftershock.bench.types import Answer, Question
from aftershock.verify.verdict import Verdict


@dataclass(frozen=True)
class Source:
    """Where a suite's rows are: a dataset on the hub, and the names its original file may have in `--data`."""

    hub: str
    files: tuple[str, ...]
    split: str = "test"
    config: str | None = None
    revision: str | None = None


class Suite(ABC):
    """One benchmark. A subclass says where its `source` is, makes a `question` of a row, and scores answers.

    `samples` is k where the user gives none. `oracle` and `decoy` prove the scorer, as a task's gold and perturbed
    answers do: what a model that knows, and one that errs, would write after its reasoning.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # for readers: "MATH-500"
    source: ClassVar[Source]
    samples: ClassVar[int] = 4

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
