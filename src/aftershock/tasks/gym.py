"""Any dataset of reasoning-gym as a task: `gym:DATASET` (Stojanovski et al., arXiv 2505.24760)."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from aftershock.address import key
from aftershock.errors import TaskError
from aftershock.own import nearest
from aftershock.tasks.base import Problem, Task
from aftershock.verify.verdict import Verdict

_ENTRIES = 1 << 31  # a dataset's entries are numbered; a problem is one of so many
# These build or reckon with all their entries when they are made: so they are made small, anew for each entry.
_EAGER = ("acre", "gsm_symbolic", "list_functions", "word_ladder")
_SMALL = 10
# Where many answers are right, `answer` is None and one of these in the metadata holds one of them.
_EXAMPLES = ("example_answer", "example_correct_answer", "possible_answer")


class GymTask(Task):
    """One dataset. Right is a score of 1; partial credit, which many datasets give, is wrong.

    Difficulty n is level n of the dataset's curriculum, where it has one; else there is only 1, its default settings.
    A problem's `data` holds the number of its entry alone: the entry is made again from it when an answer is checked.
    """

    def __init__(self, dataset: str, difficulty: int = 1, languages: tuple[str, ...] = ("en",)) -> None:
        super().__init__(difficulty, languages)
        self.name = f"gym:{dataset}"
        if tuple(languages) != ("en",):
            raise TaskError(f"task {self.name!r} has languages={list(languages)}; reasoning-gym speaks only ['en']")
        self._dataset = _open(dataset, difficulty)
        self._eager = dataset if dataset in _EAGER else None
        self._entry = lru_cache(maxsize=256)(self._make_entry)

    def make(self, rng: random.Random) -> Problem:
        """Return the entry whose number `rng` draws."""
        number = rng.randrange(_ENTRIES)
        entry = self._entry(number)
        identity = f"{self.name}-{self.difficulty}-{number}"
        return Problem(
            self.name, identity, entry["question"], _gold(entry, self.name), "en", self.difficulty, {"entry": number}
        )

    def content(self, problem: Problem) -> str:
        """The question itself: two numbers may give the same one."""
        return f"{self.name}:{problem.prompt}"

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right at a score of 1 or more by the dataset's own `score_answer`, else wrong.

        So is an answer that it can't read: `score_answer` then raises ValueError or SyntaxError, as parsers do. Any
        other error is the dataset's own and goes through.
        """
        entry = self._entry(problem.data["entry"])
        if entry["question"] != problem.prompt:
            raise TaskError(
                f"problem {problem.id!r} of {self.name} comes out otherwise than when it was drawn: "
                "another version of reasoning-gym, or a dataset that is not reproducible"
            )
        try:
            with _addressed(self.name, "score", problem.data["entry"]):
                score = float(self._dataset.score_answer(answer, entry))
        except (ValueError, SyntaxError) as error:
            return Verdict("wrong", f"can't be read: {error}", answer)
        return Verdict("right" if score >= 1.0 else "wrong", f"scores {score:g} of 1", answer)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Return the first of several changes to the gold answer that the dataset scores below 1."""
        for candidate in _changes(problem.gold, rng):
            if self.check(problem, candidate).outcome == "wrong":
                return candidate
        raise TaskError(f"every change of the gold answer {problem.gold[:80]!r} of {problem.id!r} scores right")

    def _make_entry(self, number: int) -> dict[str, Any]:
        with _addressed(self.name, self.difficulty, number):
            if self._eager is None:
                entry: dict[str, Any] = self._dataset[number]
            else:
                entry = _open(self._eager, self.difficulty, number // _SMALL)[number % _SMALL]
        return entry


@contextmanager
def _addressed(*address: int | str) -> Iterator[None]:
    """Seed the global generator by address for a while: some datasets draw from it beside their own."""
    state = random.getstate()
    random.seed(key(*address))
    try:
        yield
    finally:
        random.setstate(state)


def _gold(entry: dict[str, Any], name: str) -> str:
    candidates = [entry["answer"], *(entry["metadata"].get(example) for example in _EXAMPLES)]
    for gold in candidates:
        if gold is not None:
            return json.dumps(gold) if isinstance(gold, dict | list) else str(gold)
    raise TaskError(f"{name} gives no answer to its own problem, so its check can't be proved; choose another dataset")


def _changes(gold: str, rng: random.Random) -> Iterator[str]:
    digits = [i for i, character in enumerate(gold) if character.isdigit()]
    if digits:
        where = rng.choice(digits)
        yield f"{gold[:where]}{(int(gold[where]) + rng.randint(1, 8)) % 10}{gold[where + 1 :]}"
    middle = len(gold) // 2
    yield gold[:middle] + gold[middle + 1 :]
    yield gold[::-1]
    yield f"{gold} 1"
    yield f"not {gold}"
    yield "no answer"


def _open(name: str, difficulty: int, seed: int = 0) -> Any:
    """Return reasoning-gym's dataset at a difficulty."""
    try:
        from reasoning_gym import factory
    except ImportError as error:
        raise TaskError(f'task "gym:{name}" needs reasoning-gym: pip install "aftershock[gym]"') from error
    if name not in factory.DATASETS:
        raise TaskError(f"reasoning-gym has no dataset {name!r}{nearest(name, factory.DATASETS)}")
    dataset_class, config_class = factory.DATASETS[name]
    settings = {"seed": seed, "size": _SMALL if name in _EAGER else _ENTRIES}
    try:
        if not factory.has_curriculum(name):
            _refuse_above(name, difficulty, 1)
            return dataset_class(config_class(**settings))
        curriculum = factory.create_curriculum(name)
        _refuse_above(name, difficulty, max((len(dial.levels) for dial in curriculum.attributes.values()), default=1))
        curriculum.set_global_level(difficulty - 1)
        return dataset_class(curriculum.generate_configuration(settings))
    except (AssertionError, TypeError, ValueError) as error:
        raise TaskError(f"reasoning-gym refuses {name!r} at difficulty={difficulty}: {error}; try another") from error


def _refuse_above(name: str, difficulty: int, levels: int) -> None:
    if difficulty > levels:
        raise TaskError(f"task 'gym:{name}' has difficulty={difficulty}; it goes from 1 to {levels}")
