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
from aftershock.verify.language import consistency

Row = Mapping[str, Any]
Cleaner = Callable[[Row], str | None]

_RELATIVE = "its path is relative to the recipe"
LONGEST_PARAGRAPH = 2000  # characters without an empty line; past that it is a run-on
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")


def one_language(row: Row) -> str | None:
    """Drop reasoning with a word in another language than the problem's."""
    return row["text"] if consistency(row["reasoning"], row["language"]) == 1.0 else None


def no_code_block(row: Row) -> str | None:
    """Drop what holds a fenced block of code."""
    return None if "```" in row["text"] else row["text"]


def short_paragraphs(row: Row) -> str | None:
    """Drop reasoning with a paragraph of more than LONGEST_PARAGRAPH characters."""
    paragraphs = _PARAGRAPH_BREAK.split(row["reasoning"])
    return row["text"] if max(map(len, paragraphs)) <= LONGEST_PARAGRAPH else None


_BUILT_IN: dict[str, Cleaner] = {c.__name__: c for c in (one_language, no_code_block, short_paragraphs)}


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
