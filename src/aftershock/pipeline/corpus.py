"""The nano base's corpus: documents generated from the tasks' traces, each a pure function of its address."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aftershock.address import generator
from aftershock.errors import RecipeError
from aftershock.learn import Batch, pack_documents
from aftershock.pipeline.clean import summarised
from aftershock.pipeline.evaluate import prompt_tokens
from aftershock.tasks import Problem, Split, Style, Task
from aftershock.text import Tokenizer
from aftershock.text import split as split_reasoning


@dataclass(frozen=True)
class Corpus:
    """What a corpus is drawn from: tasks with their weights, the share of traces that are thorough, by task the share
    of the others that are guesses over those of the task's own mix, the share that another language is used in, and
    the share rewritten a step a line with a summary, as `clean.summarised` does.
    """

    tasks: Sequence[Task]
    weights: Sequence[float]
    thorough: float = 0.0
    guesses: Mapping[str, float] = field(default_factory=dict)
    foreign: float = 0.0
    readable: float = 0.0

    def style(self, task: Task, rng: random.Random) -> Style:
        """Draw the style of one trace of a task."""
        if rng.random() < self.thorough:
            return "thorough"
        share = self.guesses.get(task.name, 0.0)
        return "guess" if share and rng.random() < share else "mixed"

    def heard(self, task: Task, problem: Problem, rng: random.Random) -> Problem:
        """Return the problem as the writer of its trace takes it: now and then as if it were in another language."""
        others = [language for language in task.languages if language != problem.language]
        if others and self.foreign and rng.random() < self.foreign:
            return replace(problem, language=rng.choice(others))
        return problem

    def written(self, task: Task, problem: Problem, completion: str, rng: random.Random) -> str:
        """Return a trace as it is written down: now and then in the readable form, where it has one."""
        if not self.readable or rng.random() >= self.readable:
            return completion
        parts = split_reasoning(completion, prefilled=True)
        row = {"task": task.name, "language": problem.language, "reasoning": parts.reasoning, "answer": parts.answer}
        return summarised(row) or completion


class Document(NamedTuple):
    """Prompt, completion and end token; the first `prompt` tokens are the question's."""

    tokens: list[int]
    prompt: int


def draw_problems(
    tasks: Sequence[Task], weights: Sequence[float], count: int, *address: int | str, split: Split = "train"
) -> list[tuple[Task, Problem]]:
    """Draw `count` problems of a split at an address, tasks chosen by weight.

    Every problem has an address of its own, so a longer draw begins with the shorter one.
    """
    drawn = []
    for number in range(count):
        rng = generator(*address, number)
        chosen = rng.choices(tasks, weights)[0]
        drawn.append((chosen, chosen.draw(split, rng.getrandbits(48))))
    return drawn


def trace(task: Task, problem: Problem, rng: random.Random, style: Style) -> str:
    """Return a trace of a problem; RecipeError where the task can't write any."""
    text = task.trace(problem, rng, style)
    if text is None:
        raise RecipeError(f"task {task.name!r} writes no traces, so nothing can be pretrained on it; give it a trace()")
    return text


def texts(corpus: Corpus, count: int, *address: int | str, split: Split = "train") -> Iterator[tuple[str, str]]:
    """Yield `count` (question, completion) pairs at an address."""
    drawn = draw_problems(corpus.tasks, corpus.weights, count, *address, split=split)
    for number, (task, problem) in enumerate(drawn):
        rng = generator(*address, number, "trace")
        style = corpus.style(task, rng)
        heard = corpus.heard(task, problem, rng)
        yield problem.prompt, corpus.written(task, heard, trace(task, heard, rng, style), rng)


def documents(
    corpus: Corpus, tokenizer: Tokenizer, tokens: int, *address: int | str, split: Split = "train"
) -> list[Document]:
    """Return documents of about `tokens` tokens altogether at an address, prompts in the tokenizer's taught form."""
    found: list[Document] = []
    size, part = 0, 0
    while size < tokens:
        for question, completion in texts(corpus, 32, *address, part, split=split):
            if size >= tokens:
                break
            prompt = prompt_tokens(tokenizer, question)
            found.append(Document([*prompt, *tokenizer.encode(completion), tokenizer.eos], len(prompt)))
            size += len(found[-1].tokens)
        part += 1
    return found


def pack_traces(documents: Sequence[Document], micro_tokens: int) -> list[Batch]:
    """Pack documents for training on what follows the prompts: a question's numbers are random, and predicting them
    teaches nothing.
    """
    masks = [[position >= d.prompt for position in range(len(d.tokens))] for d in documents]
    return pack_documents([d.tokens for d in documents], micro_tokens, masks)
