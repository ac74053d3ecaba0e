"""Talking to a model in the terminal: the reasoning dimmed, the answer plain, both as they are written."""

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console

from aftershock.errors import CheckpointError
from aftershock.generate import Completion, Engine, SamplingParams
from aftershock.models import load
from aftershock.sources import SHIPPED, shipped_base
from aftershock.text import Message, Piece, Template, Tokenizer, chat_prompt, prompt_for

TemplateChoice = Literal["auto", "zero", "paper", "chat"]

# DeepSeek-R1's usage recommendations: temperature 0.6, top-p 0.95.
TEMPERATURE = 0.6
TOP_P = 0.95


def chat(
    model_folder: str | Path,
    *,
    once: str | None = None,
    template: TemplateChoice = "auto",
    temperature: float = TEMPERATURE,
    top_p: float = TOP_P,
    max_tokens: int = 256,
    seed: int = 0,
    console: Console | None = None,
) -> None:
    """Answer `once`, or else each line of standard input until it ends or Ctrl-C is pressed at the prompt.

    `model_folder` is a Hugging Face folder, or "base" for the nano model that ships with aftershock.
    `template` "auto" takes the form that the model was trained with (`Tokenizer.template`). A "chat" model is shown
    the turns before; the R1-Zero forms have no turns, so each question stands alone. Turn i draws with seed + i.
    """
    folder = shipped_base(str(model_folder)) if str(model_folder) in SHIPPED else Path(model_folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give a model's, such as runs/demo/stages/zero/model, or base")
    tokenizer = Tokenizer.load(folder)
    engine = Engine(load(folder), tokenizer, max_rows=1)
    form: Template = tokenizer.template if template == "auto" else template
    console = console or Console(highlight=False)
    turns: list[Message] = []
    for turn, question in enumerate(_questions(once, console)):
        turns.append({"role": "user", "content": question})
        prompt = chat_prompt(turns) if form == "chat" else prompt_for(form, question)
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed + turn)
        try:
            completion = show(engine.stream(prompt, params), console.print)
        except KeyboardInterrupt:  # stops this answer, not the talk
            console.print("\n[dim](stopped)[/dim]")
            turns.pop()
            continue
        turns.append({"role": "assistant", "content": completion.answer})


def _questions(once: str | None, console: Console) -> Iterator[str]:
    """Yield `once`, or the lines of standard input; a prompt is shown only to a person."""
    if once is not None:
        yield once
        return
    person = sys.stdin.isatty()
    if person:
        console.print("[dim]Ask away; Ctrl-C stops an answer, Ctrl-D ends the talk.[/dim]")
    while True:
        try:
            line = console.input("[bold]> [/bold]") if person else input()
        except (EOFError, KeyboardInterrupt):
            if person:
                console.print("\n[dim]Goodbye.[/dim]")
            return
        if line.strip():
            yield line.strip()


def show(stream: Generator[Piece, None, Completion], write: Callable[..., None]) -> Completion:
    """Write pieces as they come, a blank line between the reasoning and the answer; return the completion."""
    part = None
    while True:
        try:
            piece = next(stream)
        except StopIteration as end:
            completion: Completion = end.value
            break
        if part not in (None, piece.part):
            write("\n")
        part = piece.part
        write(piece.text, end="", markup=False, soft_wrap=True, style="dim" if part == "reasoning" else None)
    write()
    if completion.finish_reason == "length":
        write(f"[dim](cut off after {len(completion.tokens)} tokens; --max-tokens gives more)[/dim]")
    return completion
