"""Proof that a task's check can be trusted, before anything is trained on it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from aftershock.address import generator
from aftershock.errors import TaskError
from aftershock.tasks.base import Problem, Split, Task

# What models write when they are lost: none of it may score right, or break the check.
JUNK = ("?", "-", "--5", "1/0", "9" * 5000, "(" * 300, "9**9**9", "\x00", "٣", "½", "</answer>", "[1, {", "x" * 20000)
_SHOWN = 3  # counterexamples in the error


@dataclass(frozen=True)
class Report:
    """What `validate` went through: so many problems, of which so many different ones, in each split."""

    task: str
    difficulty: int
    problems: dict[Split, int]
    distinct: dict[Split, int]


def validate(task: Task, n: int = 50, seed: int = 0) -> Report:
    """Draw `n` problems of each split and hold the task to its word; raises TaskError with the first counterexamples.

    Each problem must be drawn the same twice, lie in its split, carry the task's name and dials, and have `data` that
    JSON can keep. Its gold answer must score right; the perturbed one, an empty one and junk must score wrong.
    """
    problems: dict[Split, int] = {}
    distinct: dict[Split, int] = {}
    faults: list[str] = []
    for split in get_args(Split):
        drawn = list(task.problems(split, n, seed))
        problems[split], distinct[split] = n, len({task.content(problem) for problem in drawn})
        for index, problem in enumerate(drawn):
            faults += [f"{split} problem {index} ({problem.id!r}): {fault}" for fault in _faults(task, problem, seed)]
            if task.draw(split, index, seed) != problem:
                faults.append(
                    f"{split} problem {index}: a second draw gives another problem; use no randomness but `rng`"
                )
    if faults:
        listed = "\n  ".join(faults[:_SHOWN])
        raise TaskError(
            f"task {task.name!r} does not hold: {len(faults)} faults in {2 * n} problems, such as\n  {listed}"
        )
    return Report(task.name, task.difficulty, problems, distinct)


def _faults(task: Task, problem: Problem, seed: int) -> Iterator[str]:
    yield from _dial_faults(task, problem)
    yield from _answer_faults(task, problem, "the gold answer", problem.gold, "right")
    try:
        perturbed = task.perturb(problem, generator(seed, "validate", problem.id))
    except Exception as error:
        yield f"perturb raised {type(error).__name__}: {error}"
    else:
        yield from _answer_faults(task, problem, "the perturbed answer", perturbed, "wrong")
    for answer in ("", *JUNK):
        yield from _answer_faults(task, problem, "an answer of junk" if answer else "an empty answer", answer, "wrong")


def _dial_faults(task: Task, problem: Problem) -> Iterator[str]:
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


def _answer_faults(task: Task, problem: Problem, what: str, answer: str, wanted: str) -> Iterator[str]:
    try:
        verdict = task.check(problem, answer)
    except Exception as error:
        yield f"{what} {answer[:80]!r} makes the check raise {type(error).__name__}: {error}"
        return
    if verdict.outcome != wanted:
        yield f"{what} {answer[:80]!r} scores {verdict.outcome}, not {wanted} ({verdict.reason})"
