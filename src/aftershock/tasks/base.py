"""What a task is: it draws problems from an address and checks answers; its gold answers prove the check."""

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aftershock.address import generator
from aftershock.errors import TaskError
from aftershock.verify.verdict import Verdict

if TYPE_CHECKING:
    from aftershock.tasks.registry import Spec
    from aftershock.tasks.validate import Report

Split = Literal["train", "heldout"]
Style = Literal["mixed", "thorough", "guess"]  # of a trace
HELDOUT_SHARE = 8  # one problem in eight, by the hash of its content, is held out
REDRAWS = 10


@dataclass(frozen=True)
class Problem:
    """One question. `data` holds the JSON-able facts that the check needs; `gold` is an answer that scores right."""

    task: str
    id: str
    prompt: str
    gold: str
    language: str = "en"
    difficulty: int = 1
    data: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """One family of problems. A subclass says how to `make` one, `check` an answer and `perturb` a gold answer.

    `difficulty` and `languages` are dials set by the recipe; `levels` is the highest difficulty and `speaks` are
    the languages that it has words for (None: no limit).
    `make` must be a pure function of its generator, and `check` of its arguments: it runs in another process.
    """

    name: str = ""
    levels: ClassVar[int | None] = None
    speaks: ClassVar[tuple[str, ...] | None] = None
    open: ClassVar[bool] = False  # no rule rewards it, reward models do; `check` then serves measuring alone
    waits: ClassVar[bool] = False  # `check` waits for something, which `begin` begins
    spec: "Spec | None" = None  # how the registry made this instance, so that another process can make it again

    def __init__(self, difficulty: int = 1, languages: tuple[str, ...] = ("en",)) -> None:
        unknown = [language for language in languages if self.speaks is not None and language not in self.speaks]
        if unknown or not languages:
            raise TaskError(
                f"task {self.name!r}: languages are {list(languages)}; "
                f"it speaks {' and '.join(self.speaks or ('what you name',))}, and needs at least one"
            )
        self.difficulty = difficulty
        self.languages = languages

    @abstractmethod
    def make(self, rng: random.Random) -> Problem:
        """Return one problem drawn with `rng` alone."""

    @abstractmethod
    def check(self, problem: Problem, answer: str) -> Verdict:
        """Judge the final answer (text inside the answer tags, or after the reasoning) against the problem.

        By these alone: of equal answers to a problem one is judged for all.
        """

    def begin(self, problem: Problem, answer: str) -> None:
        """Begin what `check` of these will wait for, and return at once. Called in the process of `check`, before it
        and perhaps more than once; where the task `waits`, as soon as the answer is sampled.
        """
        return

    @abstractmethod
    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Return an answer near the gold one that must score wrong."""

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str | None:
        """Return a completion for a pretraining corpus, drawn with `rng` alone; None where the task has none to offer.

        It goes on from a prompt that ends in `<think>`: reasoning, `</think>`, and the answer in answer tags. Its
        quality should vary, from a blind guess to search with checks, and its answer need not be right: RL can only
        strengthen what the base does now and then. A `thorough` one takes no
        short cut and gives up late; a `guess` is nothing but one.
        """
        return None

    def preference(self, problem: Problem, rng: random.Random) -> tuple[str, str] | None:
        """Return a (chosen, rejected) pair of completions, drawn with `rng` alone, as `trace` writes them; None where
        the task has no preferences to learn from.
        """
        return None

    def judgement(self, problem: Problem, rng: random.Random) -> tuple[str, bool] | None:
        """Return a completion as `trace` writes it, and whether it is safe; None where safety is not in question."""
        return None

    def quality(self, problem: Problem, answer: str) -> float | None:
        """Return how good a final answer truly is, in [0, 1]; None where right and wrong say all there is to say.

        Reward models are measured against it. No reward is made of it.
        """
        return None

    def content(self, problem: Problem) -> str:
        """Return what makes the problem itself, apart from its wording or language; the split is a hash of it.

        By default all of `data`, keys in order. Override it where equal problems can differ in `data`.
        """
        return f"{self.name}:{sorted(problem.data.items())}"

    def split_of(self, problem: Problem) -> Split:
        """Return the split a problem belongs to, by its content alone, so that no problem is ever in both."""
        digest = hashlib.blake2b(self.content(problem).encode(), digest_size=4).digest()
        return "heldout" if int.from_bytes(digest, "little") % HELDOUT_SHARE == 0 else "train"

    def draw(self, split: Split, index: int, seed: int = 0) -> Problem:
        """Return problem number `index` of a split; the same (seed, split, index) always gives the same one."""
        for attempt in range(1000):
            problem = self.make(generator(seed, "task", self.name, self.difficulty, split, index, attempt))
            if self.split_of(problem) == split:
                return problem
        raise TaskError(
            f"task {self.name!r} at difficulty {self.difficulty} gave no {split} problem in 1000 draws: "
            "its problems are too few; raise the difficulty"
        )

    def problems(self, split: Split, count: int, seed: int = 0) -> Iterator[Problem]:
        """Yield the first `count` problems of a split."""
        return (self.draw(split, index, seed) for index in range(count))

    def distinct(self, split: Split, count: int) -> list[Problem]:
        """Return the first `count` problems of a split, no two alike; the same for every run and seed.

        A small family may have fewer: what `REDRAWS` draws for each wanted one did not bring is taken not to exist.
        """
        found: dict[str, Problem] = {}
        for index in range(REDRAWS * count):
            problem = self.draw(split, index)
            found.setdefault(self.content(problem), problem)
            if len(found) == count:
                break
        return list(found.values())

    def validate(self, n: int = 50, seed: int = 0) -> "Report":
        """Prove the check on `n` problems of each split; see `aftershock.tasks.validate.validate`."""
        from aftershock.tasks.validate import validate

        return validate(self, n, seed)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Pickle as the registry's name and dials: a class from a user's file can't be imported by its module name."""
        if self.spec is None:
            return super().__reduce__()
        from aftershock.tasks.registry import from_spec

        return from_spec, (self.spec,)
