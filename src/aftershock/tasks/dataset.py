"""Problems from a dataset: mathematics judged by the last box (`dataset:gsm8k`, `dataset:math`, `dataset:FILE`), and
prompts that no rule judges (`prompts:FILE`). FILE may also be `hub:ORG/NAME[:SPLIT]`.

A row is a question (`prompt`, `question` or `problem`) with its answer: in `answer` (after ####, where it has one, as
GSM8K's) or in the last box of `solution`, as MATH's. `level`, as in MATH, is what the difficulty looks at.
"""

import random
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from aftershock.errors import TaskError
from aftershock.own import nearest
from aftershock.sources import HUB, hub_rows, read_rows
from aftershock.tasks.base import Problem, Split, Task
from aftershock.verify.boxed import boxed_answer
from aftershock.verify.verdict import Verdict

# What DeepSeek advises to add to a question (the R1 release's usage recommendations).
ASK = "Please reason step by step, and put your final answer within \\boxed{}."
# GSM8K: Cobbe et al., arXiv 2110.14168. MATH: Hendrycks et al., arXiv 2103.03874, its own 7,500 training problems.
KNOWN = {"gsm8k": ("openai/gsm8k", "main"), "math": ("DigitalLearningGmbH/MATH-lighteval", "default")}
UNREADABLE = 0.01  # share of rows whose answer can't be judged that are left out without a word
_QUESTIONS = ("prompt", "question", "problem")
_INSTEAD = "or name a file that holds it: dataset:path/to/file.jsonl"


class Item(NamedTuple):
    """One usable row: `number` counts from 1, `level` is 1 where the dataset has none."""

    number: int
    question: str
    gold: str
    level: int


class DatasetTask(Task):
    """The training split of one dataset; right is what `math_answer` says of the last box after the reasoning.

    Answer tags around the box are welcome and not needed: R1-Zero's form has them, R1's hasn't. Difficulty n leaves
    out problems below level n. Problems are drawn with replacement; rows are read when the first is drawn.
    """

    kind: ClassVar[str] = "dataset"
    boxed: ClassVar[bool] = True

    def __init__(self, source: str, difficulty: int = 1, languages: tuple[str, ...] = ("en",)) -> None:
        super().__init__(difficulty, languages)
        self._source = source
        self.name = f"{self.kind}:{Path(source).name if is_file(source) else source}"
        if len(languages) != 1:
            raise TaskError(f"task {self.name!r} has languages={list(languages)}; name the one that it is written in")
        if is_file(source) and not Path(source).is_file():
            raise TaskError(f"task {self.name!r}: there is no file {source}; its path is relative to the recipe")
        if not is_file(source) and not source.startswith(HUB) and source not in KNOWN:
            raise TaskError(
                f"no dataset is known as {source!r}{nearest(source, KNOWN)}. There are {', '.join(KNOWN)}; others are "
                f"{self.kind}:path/to/file.jsonl and {self.kind}:hub:ORG/NAME[:SPLIT]"
            )

    @cached_property
    def _items(self) -> list[Item]:
        found = [item for item in items(self._source, answered=not self.open) if item.level >= self.difficulty]
        if not found:
            raise TaskError(f"task {self.name!r} has no problem of level {self.difficulty} or harder: lower difficulty")
        return found

    def make(self, rng: random.Random) -> Problem:
        """Return the row that `rng` draws."""
        item = rng.choice(self._items)
        prompt = f"{item.question}\n\n{ASK}"
        data = {"answer": item.gold}
        identity = f"{self.name}-{item.number}"
        return Problem(self.name, identity, prompt, f"\\boxed{{{item.gold}}}", self.languages[0], self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """The question itself, from whichever dataset: two that hold it agree on its split."""
        return f"dataset:{problem.prompt}"

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Judge the last box of `answer`."""
        from aftershock.verify.math import math_answer

        return math_answer(answer, problem.data["answer"])

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Return a box with an answer off by one."""
        from aftershock.verify.math_perturb import perturbations

        return perturbations(problem.data["answer"])["off by one"]


class Prompts(DatasetTask):
    """Prompts alone, for reward models to judge [R1 2.3.4]: there is no answer to hold one against.

    So every answer's verdict is wrong, which is rewarded nowhere, and `validate` can't prove anything.
    """

    kind = "prompts"
    boxed = False
    open = True

    def make(self, rng: random.Random) -> Problem:
        """Return the row that `rng` draws, as it stands."""
        item = rng.choice(self._items)
        return Problem(
            self.name, f"{self.name}-{item.number}", item.question, "", self.languages[0], self.difficulty, {}
        )

    def distinct(self, split: Split, count: int) -> list[Problem]:
        """Return nothing that is held out: there is nothing to measure an answer by."""
        return [] if split == "heldout" else super().distinct(split, count)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Return that no rule tells."""
        return Verdict("wrong", "no rule judges an open prompt", answer)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Return nothing: no answer is right that another could be near to."""
        return ""


def is_file(source: str) -> bool:
    """Return whether a dataset's name is that of a file."""
    return not source.startswith(HUB) and "." in Path(source).name


@lru_cache(maxsize=8)
def items(source: str, answered: bool = True) -> tuple[Item, ...]:
    """Return a dataset's usable rows; TaskError where one has no question, where too many have no answer that can be
    judged (and `answered` asks for one), and where none can be had.
    """
    rows = list(_rows(source))
    found = [_item(row, number, source, answered) for number, row in enumerate(rows, 1)]
    usable = tuple(item for item in found if not answered or _judged(item.gold))
    if len(found) - len(usable) > UNREADABLE * len(found) or not usable:
        lost = next((item for item in found if not _judged(item.gold)), None)
        told = f"; the first is row {lost.number}, with {_shown(rows[lost.number - 1])}" if lost else ""
        raise TaskError(
            f"dataset:{source} has {len(found):,} rows, and {len(found) - len(usable):,} have no answer that can be "
            f"judged{told}. Wanted in `answer`, or in the last box of `solution`: a number, an expression or a word"
        )
    return usable


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {str(value)[:60]!r}" for key, value in row.items())


def _rows(source: str) -> Any:
    if is_file(source):
        return read_rows(Path(source), TaskError)
    if source in KNOWN:
        return hub_rows(KNOWN[source][0], TaskError, _INSTEAD, KNOWN[source][1], split="train")
    repository, _, split = source.removeprefix(HUB).partition(":")
    return hub_rows(repository, TaskError, _INSTEAD, split=split or "train")


def _item(row: Mapping[str, Any], number: int, source: str, answered: bool) -> Item:
    question = next((row[key] for key in _QUESTIONS if isinstance(row.get(key), str)), None)
    if not question:
        raise TaskError(
            f"dataset:{source}, row {number}: wanted a question in {', '.join(_QUESTIONS)}; its fields are "
            f"{', '.join(row) or 'none'}"
        )
    level = re.search(r"\d+", str(row.get("level", "")))
    return Item(number, question.strip(), (answered and gold_answer(row)) or "", int(level[0]) if level else 1)


def gold_answer(row: Mapping[str, Any]) -> str | None:
    """Return the answer that a row gives, without a box; None where it gives none.

    >>> gold_answer({"answer": "12*100=1200 #### 1,200"}), gold_answer({"solution": "So \\\\boxed{x+1}."})
    ('1200', 'x+1')
    """
    if row.get("answer") is None:
        return boxed_answer(str(row.get("solution", "")))[0]
    answer = str(row["answer"])
    return answer.rpartition("####")[2].replace(",", "").strip() if "####" in answer else answer.strip()


def _judged(gold: str) -> bool:
    from aftershock.verify.math import math_answer

    return math_answer(f"\\boxed{{{gold}}}", gold).outcome == "right"
