"""The nano base's corpus: documents generated from the tasks' traces, each a pure function of its address."""

import random
from collections.abc import Iterator, Sequence

from aftershock.address import generator
from aftershock.errors import RecipeError
from aftershock.tasks import Problem, Task
from aftershock.text import Tokenizer, zero_prompt


def draw_problems(
    tasks: Sequence[Task], weights: Sequence[float], count: int, *address: int | str
) -> list[tuple[Task, Problem]]:
    """Draw `count` training problems at an address, tasks chosen by weight.

    Every problem has an address of its own, so a longer draw begins with the shorter one.
    """
    drawn = []
    for number in range(count):
        rng = generator(*address, number)
        chosen = rng.choices(tasks, weights)[0]
        drawn.append((chosen, chosen.draw("train", rng.getrandbits(48))))
    return drawn


def trace(task: Task, problem: Problem, rng: random.Random) -> str:
    """Return a trace of a problem; RecipeError where the task can't write any."""
    text = task.trace(problem, rng)
    if text is None:
        raise RecipeError(f"task {task.name!r} writes no traces, so nothing can be pretrained on it; give it a trace()")
    return text


def texts(
    tasks: Sequence[Task], weights: Sequence[float], count: int, *address: int | str
) -> Iterator[tuple[str, str]]:
    """Yield `count` (question, completion) pairs at an address."""
    for number, (task, problem) in enumerate(draw_problems(tasks, weights, count, *address)):
        yield problem.prompt, trace(task, problem, generator(*address, number, "trace"))


def documents(
    tasks: Sequence[Task], weights: Sequence[float], tokenizer: Tokenizer, tokens: int, *address: int | str
) -> list[list[int]]:
    """Return documents (prompt, completion, end token) of about `tokens` tokens altogether at an address."""
    found: list[list[int]] = []
    size, part = 0, 0
    while size < tokens:
        for question, completion in texts(tasks, weights, 32, *address, part):
            if size >= tokens:
                break
            document = [*tokenizer.encode(zero_prompt(question) + completion), tokenizer.eos]
            found.append(document)
            size += len(document)
        part += 1
    return found
