"""How a question is put to a model: R1-Zero's conversation where it was trained on it, else its own template."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftershock.errors import BenchError
from aftershock.text import Tokenizer, zero_prompt
from aftershock.text.reasoning import THINK_OPEN
from aftershock.text.template import BOS


@dataclass(frozen=True)
class Frame:
    """A model's prompt form: `name` is "zero", "paper" or "chat", `template` the text that makes the prompt.

    `prefilled` says that the prompt ends inside a think block, so that the completion begins with reasoning.
    """

    name: str
    template: str
    prefilled: bool
    encode: Callable[[str], list[int]]  # question -> tokens of the whole prompt

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.template.encode()).hexdigest()


def frame(folder: Path, tokenizer: Tokenizer) -> Frame:
    """Return the prompt form of the model in `folder`. Raises BenchError where its chat template can't be rendered."""
    form = tokenizer.template
    if form == "chat":
        return _chat(folder, tokenizer)
    begin = [] if tokenizer.bos is None else [tokenizer.bos]

    def encode(question: str) -> list[int]:
        return begin + tokenizer.encode(zero_prompt(question, paper=form == "paper").removeprefix(BOS))

    return Frame(form, zero_prompt("{question}", paper=form == "paper"), True, encode)


def _chat(folder: Path, tokenizer: Tokenizer) -> Frame:
    """The model's own jinja template with one user turn: no system text but what the template itself puts in."""
    from transformers import PreTrainedTokenizerFast

    theirs: Any = PreTrainedTokenizerFast.from_pretrained(folder)  # reads files only; runs no code of the folder

    def render(question: str) -> str:
        """Put the question as one user turn; BenchError where the template can't."""
        turns = [{"role": "user", "content": question}]
        try:
            return theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # jinja's errors, and whatever a template may raise
            raise BenchError(
                f"{folder}: its chat template can't put one user turn ({error}); mend chat_template in "
                "tokenizer_config.json, or set prompt_template to paper there"
            ) from error

    prefilled = render("?").rstrip().endswith(THINK_OPEN)
    return Frame("chat", theirs.get_chat_template(), prefilled, lambda question: tokenizer.encode(render(question)))
