"""Telling the reasoning from the answer, in a whole text or while it is being written."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Part = Literal["reasoning", "answer"]

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
_TAG = re.compile(r"(</?think>)")
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Parts(NamedTuple):
    """A completion's `reasoning` and `answer`, neither with a think tag; `closed` where a `</think>` ended it."""

    reasoning: str
    answer: str
    closed: bool


@dataclass(frozen=True)
class Piece:
    """Some new text of a stream and the part it belongs to."""

    text: str
    part: Part


def split(text: str, prefilled: bool) -> Parts:
    """Split a completion at the end of thinking; `prefilled` says that the prompt already ended in `<think>`.

    What stands in think blocks is the reasoning, all else the answer; each is stripped. A nested `<think>` waits for
    its own `</think>` where the tags balance; one that only repeats the opening never does. A `</think>` that nothing
    opened ends a reasoning that began with the text. Thinking that nothing ends is all reasoning.

    >>> split("2+2=4</think> 4", prefilled=True)
    Parts(reasoning='2+2=4', answer='4', closed=True)
    """
    if prefilled and THINK_OPEN not in text:
        reasoning, closed, answer = text.partition(THINK_CLOSE)
        if THINK_CLOSE not in answer:  # as nearly all are: told in a quarter of the time
            return Parts(reasoning.strip(), answer.strip(), bool(closed))
    chunks = _TAG.split(text)
    texts, tags = chunks[::2], chunks[1::2]
    opened = prefilled or tags[:1] == [THINK_CLOSE]
    depths = _depths(texts, tags, opened, deepest=len(tags) + 1)
    if depths[-1]:  # unbalanced: a model that mentions "<think>" while it thinks; any `</think>` then closes
        depths = _depths(texts, tags, opened, deepest=1)
    reasoning = "".join(text for text, depth in zip(texts, depths) if depth)
    answer = "".join(text for text, depth in zip(texts, depths) if not depth)
    return Parts(reasoning.strip(), answer.strip(), THINK_CLOSE in tags and not depths[-1])


def _depths(texts: list[str], tags: list[str], opened: bool, deepest: int) -> list[int]:
    """Return how many think blocks each text stands in; text i is followed by tag i."""
    depths = [int(opened)]
    fresh = opened  # nothing but space since the block was opened
    for text, tag in zip(texts, tags):
        fresh = fresh and not text.strip()
        if tag == THINK_CLOSE:
            depths.append(max(depths[-1] - 1, 0))
            fresh = False
        else:
            depths.append(depths[-1] if fresh else min(depths[-1] + 1, deepest))
            fresh = True
    return depths


def answer_tag(answer: str) -> str | None:
    """Return what stands inside the one `<answer>...</answer>` of `answer`, stripped; None if there isn't just one."""
    if answer.count("<answer>") != 1 or answer.count("</answer>") != 1:
        return None
    found = _ANSWER.search(answer)
    return found.group(1).strip() if found else None


class StreamSplitter:
    """`split` for text that comes bit by bit: `push` returns what can already be said of it.

    What may yet prove to be a tag, and space that may be the last, is held back. The pieces' texts add up to `split`'s
    parts but for two cases that only the whole text can tell: nested blocks, and a missing `<think>` not prefilled.
    """

    def __init__(self, prefilled: bool) -> None:
        self.part: Part = "reasoning" if prefilled else "answer"
        self._held = ""  # may be the beginning of a tag
        self._space = {"reasoning": "", "answer": ""}  # may be the end of the part
        self._begun = {"reasoning": False, "answer": False}

    def push(self, text: str) -> list[Piece]:
        """Take the next bit of text and return the pieces that are now certain."""
        chunks = _TAG.split(self._held + text)
        pieces: list[Piece] = []
        for chunk, tag in zip(chunks[::2], chunks[1::2]):
            pieces += self._emit(chunk)
            self.part = "reasoning" if tag == THINK_OPEN else "answer"
        sure = len(chunks[-1]) - held_back(chunks[-1], (THINK_OPEN, THINK_CLOSE))
        self._held = chunks[-1][sure:]
        return pieces + self._emit(chunks[-1][:sure])

    def finish(self) -> list[Piece]:
        """Return what was held back, once no more text comes."""
        rest, self._held = self._held, ""
        return self._emit(rest)

    def _emit(self, text: str) -> list[Piece]:
        text = self._space[self.part] + text
        body = text.rstrip()
        self._space[self.part] = text[len(body) :]
        if not self._begun[self.part]:
            body = body.lstrip()
        if not body:
            return []
        self._begun[self.part] = True
        return [Piece(body, self.part)]


def held_back(text: str, marks: Iterable[str]) -> int:
    """Return the length of the longest end of `text` that may be the beginning of one of `marks`."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest
