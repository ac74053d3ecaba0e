"""Examples to fine-tune on: prompts with their completions, from earlier stages, JSONL files or the hub."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, TypeVar

from aftershock.address import generator, key
from aftershock.errors import DataError
from aftershock.pipeline.context import Context
from aftershock.pipeline.corpus import Document
from aftershock.sources import HUB, Row, hub_rows, read_rows
from aftershock.text import Message, Tokenizer, chat_prompt, prompt_for
from aftershock.text.reasoning import THINK_OPEN
from aftershock.text.template import BOS

DATA = "data.jsonl"  # what a stage that makes data leaves in its folder


@dataclass(frozen=True)
class Example:
    """What a model is told and what it should write: `prompt` holds the turns, `completion` the last assistant's."""

    prompt: tuple[Message, ...]
    completion: str


def examples(names: Sequence[str], context: Context) -> list[Example]:
    """Return the examples of all the named sources, in order; DataError names the source and line of what won't do."""
    return [
        _example(row, f"{name}, row {number}") for name in names for number, row in enumerate(rows(name, context), 1)
    ]


def rows(name: str, context: Context) -> Iterator[Row]:
    """Yield the rows of one source: an earlier stage's data, a file, or a split of a hub dataset."""
    if name.startswith(HUB):
        repository, _, split = name.removeprefix(HUB).partition(":")
        instead = "or download it and name its file"
        yield from hub_rows(repository, DataError, instead, split=split or "train")
        return
    made = name in context.recipe.stage
    path = context.run.stage(name, context.recipe.stage[name]).folder / DATA if made else context.recipe.locate(name)
    yield from read_rows(path, DataError)


def _example(row: Row, where: str) -> Example:
    """Read one row in either of the two forms that trainers share: `messages`, or `prompt` and `completion`."""
    turns = row.get("messages")
    if turns is None and isinstance(row.get("completion"), str):
        prompt = row.get("prompt")
        turns = [*as_turns(prompt), {"role": "assistant", "content": row["completion"]}]
    if not is_conversation(turns) or len(turns) < 2:
        raise DataError(
            f"{where}: wanted `prompt` and `completion`, or `messages` that end with an assistant's turn; "
            f"its fields are {', '.join(row) or 'none'}"
        )
    return Example(tuple(turns[:-1]), turns[-1]["content"])


def as_turns(prompt: object) -> list[Any]:
    """Return a prompt's turns: its own, or the user's one turn that a text is."""
    return prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]


def is_conversation(turns: object) -> TypeGuard[list[Any]]:
    """Return whether these are messages of which the last is an assistant's."""
    return isinstance(turns, list) and bool(turns) and all(map(_is_message, turns)) and turns[-1]["role"] == "assistant"


def _is_message(turn: object) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("content"), str) and isinstance(turn.get("role"), str)


def encode(example: Example, tokenizer: Tokenizer) -> Document:
    """Return prompt, completion and end token in the model's own prompt form.

    A prompt form that begins the reasoning (`<think>`) takes it from the completion's head; in the chat form a
    completion that doesn't think gets a prompt that doesn't ask for it.
    """
    completion = example.completion
    thinks = THINK_OPEN[:-1] in completion or "</think>" in completion
    if tokenizer.taught_template == "chat":
        prompt = chat_prompt(example.prompt, prefill_think=thinks)
    else:
        prompt = prompt_for(tokenizer.taught_template, example.prompt[-1]["content"])
    if thinks:
        completion = completion.lstrip().removeprefix(THINK_OPEN).lstrip("\n")
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    head = [*start, *tokenizer.encode(prompt.removeprefix(BOS))]
    return Document([*head, *tokenizer.encode(completion), tokenizer.eos], len(head))


class Prompted(Protocol):
    """Whatever is trained on that has a prompt."""

    @property
    def prompt(self) -> tuple[Message, ...]: ...


P = TypeVar("P", bound=Prompted)


def split(examples: Sequence[P], share: float) -> tuple[list[P], list[P]]:
    """Return (train, validation); a hash of the prompt decides, so that equal prompts are never in both."""
    kept = [key("validation", json.dumps(e.prompt, sort_keys=True)) / 2**64 < share for e in examples]
    return [e for e, v in zip(examples, kept) if not v], [e for e, v in zip(examples, kept) if v]


def batches(documents: Sequence[Document], tokens: int, epochs: int, *address: int | str) -> list[list[int]]:
    """Return the documents' indices step by step, about `tokens` tokens each, every epoch in an order of its own."""
    steps: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(len(documents)))
        generator(*address, epoch).shuffle(order)
        filled = tokens  # an epoch begins a step of its own
        for index in order:
            if filled >= tokens:
                steps.append([])
                filled = 0
            steps[-1].append(index)
            filled += len(documents[index].tokens)
    return steps
