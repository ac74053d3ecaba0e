"""What is kept of right completions for fine-tuning [R1 2.3.3]: cleaners that let one by, change it, or drop it.

A cleaner takes a row as in the stage's rollouts (`problem`, `task`, `language`, `prompt`, `gold`, `text`, `reasoning`,
`answer`, `tokens` ...) and returns the text to train on, or None to drop it. A user's own is `my_file.py:function`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aftershock.errors import DataError
from aftershock.own import nearest, own_module
from aftershock.tasks.phrases import PHRASES
from aftershock.text.reasoning import answer_tag
from aftershock.verify.language import consistency, run_on

Row = Mapping[str, Any]
Cleaner = Callable[[Row], str | None]

_RELATIVE = "its path is relative to the recipe"
_STEP_END = re.compile(r";\s*")
_GUESSES = {phrases.guess.strip() for phrases in PHRASES.values()}
# How a summary leads to the answer, in English and Chinese; None stands for every other task.
SUMMARIES: dict[str | None, tuple[str, str]] = {
    "countdown": ("It can be made so:", "可以这样算:"),
    "arithmetic": ("The value is", "结果是"),
    "remainders": ("The least n is", "最小的n是"),
    "programs": ("The function is", "函数是"),
    "instructions": ("As you asked:", "照你说的:"),
    None: ("The answer is", "答案是"),
}


def one_language(row: Row) -> str | None:
    """Drop reasoning with a word in another language than the problem's."""
    return row["text"] if consistency(row["reasoning"], row["language"]) == 1.0 else None


def no_code_block(row: Row) -> str | None:
    """Drop what holds a fenced block of code."""
    return None if "```" in row["text"] else row["text"]


def short_paragraphs(row: Row) -> str | None:
    """Drop reasoning with a run-on paragraph."""
    return None if run_on(row["reasoning"]) else row["text"]


def summarised(row: Row) -> str | None:
    """Turn R1-Zero's form into R1's readable one: reasoning, a step a line; a sentence with the answer [R1 2.3.1].

    Mere guesses are dropped. Where there is no reasoning the answer stands alone.

    >>> row = {"task": "arithmetic", "language": "en", "reasoning": "2*3=6;6+1=7", "answer": "<answer>7</answer>"}
    >>> summarised(row)
    '2*3=6;\\n6+1=7</think>\\n\\nThe value is <answer>7</answer>'
    """
    answer, reasoning = answer_tag(row["answer"]), row["reasoning"].strip()
    if answer is None or reasoning in _GUESSES:
        return None
    english, chinese = SUMMARIES.get(row["task"], SUMMARIES[None])
    sentence = chinese if row["language"] == "zh" else f"{english} "
    lines = _STEP_END.sub(";\n", reasoning).rstrip()
    return f"{lines}</think>\n\n{sentence if reasoning else ''}<answer>{answer}</answer>"


_BUILT_IN: dict[str, Cleaner] = {c.__name__: c for c in (one_language, no_code_block, short_paragraphs, summarised)}


def cleaners(names: Sequence[str], base: Path) -> list[tuple[str, Cleaner]]:
    """Return the named cleaners; a user's file is looked for beside the recipe. DataError for one that isn't there."""
    return [(name, _cleaner(name, base)) for name in names]


def _cleaner(name: str, base: Path) -> Cleaner:
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        if name not in _BUILT_IN:
            raise DataError(
                f"no cleaner is named {name!r}{nearest(name, _BUILT_IN)}; there are {', '.join(_BUILT_IN)}, "
                "and your own as my_file.py:function"
            )
        return _BUILT_IN[name]
    found = getattr(own_module((base / path).resolve(), "cleaner", DataError, _RELATIVE), function, None)
    if not callable(found):
        raise DataError(f"{path} has no function {function!r} to clean rows with")
    return found


def clean(row: Row, chosen: Sequence[tuple[str, Cleaner]]) -> tuple[str | None, str]:
    """Pass a row through the cleaners in order; return (text, "") or (None, the name of the one that dropped it)."""
    for name, cleaner in chosen:
        text = cleaner(row)
        if text is None:
            return None, name
        if not isinstance(text, str):
            raise DataError(f"cleaner {name!r} returned a {type(text).__name__}; wanted the text, or None to drop it")
        row = {**row, "text": text}
    return row["text"], ""
