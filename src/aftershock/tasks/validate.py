"""Proof that a task's check can be trusted, before anything is trained on it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from aftershock.address import generator
from aftershock.errors import TaskError
from aftershock.tasks.base import Problem, Split, Task
from aftershock.verify.pool import Pool
from aftershock.verify.verdict import Outcome, Verdict

# What models write when they are lost: none of it may score right, break the check or keep it busy.
JUNK = ("?", "-", "--5", "1/0", "9" * 5000, "(" * 300, "9**9**9", "\x00", "²", "½", "</answer>", "[1, {", "x" * 20000)
SECONDS = 5.0  # for one check, as in a recipe that doesn't say
_SHOWN = 3  # counterexamples in the error; no more are looked for


@dataclass(frozen=True)
class Report:
    """What `validate` went through: so many problems, of which so many different ones, in each split."""

    task: str
    difficulty: int
    problems: dict[Split, int]
    distinct: dict[Split, int]


@dataclass(frozen=True)
class _Trial:
    """An answer and what the check must say of it; `label` names the problem and the kind of answer."""

    label: str
    problem: Problem
    answer: str
    wanted: Outcome


def validate(task: Task, n: int = 50, seed: int = 0) -> Report:
    """Draw `n` problems of each split and hold the task to its word; raises TaskError with the first counterexamples.

    Each problem must be drawn the same twice, lie in its split, carry the task's name and dials, and have `data` that
    JSON can keep. Its gold answer must score right; the perturbed one, an empty one and junk must score wrong. The
    checks run in a worker process, as in training, with `SECONDS` for each.
    """
    drawn: dict[Split, list[Problem]] = {split: list(task.problems(split, n, seed)) for split in get_args(Split)}
    faults: list[str] = []
    trials: list[_Trial] = []
    for split, problems in drawn.items():
        for index, problem in enumerate(problems):
            label = f"{split} problem {index} ({problem.id!r})"
            faults += [f"{label}: {fault}" for fault in _faults(task, problem, split)]
            if task.draw(split, index, seed) != problem:
                faults.append(f"{label}: a second draw gives another problem; use no randomness but `rng`")
            trials += _trials(task, problem, label, seed)
    if not faults:
        faults = _failed(task, trials)
    if faults:
        raise TaskError("\n  ".join([f"task {task.name!r} does not hold:", *faults[:_SHOWN]]))
    counts: dict[Split, int] = {split: len(problems) for split, problems in drawn.items()}
    distinct = {split: len({task.content(problem) for problem in problems}) for split, problems in drawn.items()}
    return Report(task.name, task.difficulty, counts, distinct)


def _faults(task: Task, problem: Problem, split: Split) -> Iterator[str]:
    if task.split_of(problem) != split:
        yield f"it belongs to {task.split_of(problem)}"
    if problem.task != task.name:
        yield f"its task is {problem.task!r}, not {task.name!r}"
    if problem.language not in task.languages:
        yield f"its language is {problem.language!r}, not one of {list(task.languages)}"
    if problem.difficulty != task.difficulty:
        yield f"its difficulty is {problem.difficulty}, not {task.difficulty}"
    if not problem.prompt.strip():
        yield "its prompt is empty"
    try:
        kept = json.loads(json.dumps(dict(problem.data)))
    except (TypeError, ValueError) as error:
        yield f"its data can't be kept as JSON: {error}"
    else:
        if kept != dict(problem.data):
            yield "its data comes back from JSON changed: use lists for tuples, and text for keys"


def _trials(task: Task, problem: Problem, label: str, seed: int) -> Iterator[_Trial]:
    yield _Trial(f"{label}: the gold answer", problem, problem.gold, "right")
    perturbed = task.perturb(problem, generator(seed, "validate", problem.id))
    yield _Trial(f"{label}: the perturbed answer", problem, perturbed, "wrong")
    yield _Trial(f"{label}: an empty answer", problem, "", "wrong")
    for junk in JUNK:
        if junk != problem.gold:
            yield _Trial(f"{label}: the junk answer", problem, junk, "wrong")


def _failed(task: Task, trials: list[_Trial]) -> list[str]:
    """Run the trials' checks; return the first failures in words."""
    failed: list[str] = []

    class Enough(Exception):
        pass

    def settle(number: int, verdict: Verdict) -> None:
        """Note a trial that scored otherwise than it should; stop once enough are there to show."""
        trial = trials[number]
        if verdict.outcome != trial.wanted:
            found = f"scores {verdict.outcome}, not {trial.wanted} ({verdict.reason})"
            failed.append(f"{trial.label} {trial.answer[:80]!r} {found}")
            if len(failed) == _SHOWN:
                raise Enough

    pool = Pool([task], workers=1, seconds=SECONDS)
    try:
        pool.run([(0, trial.problem, trial.answer) for trial in trials], settle)
    except Enough:
        pass
    finally:
        pool.close()
    return failed
