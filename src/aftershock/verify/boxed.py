"""Finding the one answer that counts: the last box after the reasoning."""

import re

from aftershock.text.reasoning import THINK_CLOSE, THINK_OPEN

LONGEST = 2000  # characters of an answer that is still looked at
_TOKEN = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
_BOX = "\\boxed"


def boxed_answer(completion: str) -> tuple[str | None, str]:
    r"""Return what stands in the last balanced `\boxed{...}` after the last `</think>`, stripped; or None and why not.

    Nothing else counts as an answer: no `\fbox`, no box without braces, no text beside the box, nothing in or after a
    `<think>` that is never closed. Escaped braces (`\{`) are text. Takes linear time.

    >>> boxed_answer(r"2+2=4</think> So \boxed{4}.")
    ('4', '')
    """
    text = completion[completion.rfind(THINK_CLOSE) + len(THINK_CLOSE) :] if THINK_CLOSE in completion else completion
    if THINK_OPEN in text:
        return None, "the reasoning never ends: no </think>"
    before, box, _ = text.partition(_BOX)
    answer = _last_box(text[len(before.rstrip("\\")) :]) if box else None  # with the slashes that may escape it
    if answer is None:
        return None, "no answer in a \\boxed{...} after the reasoning"
    if not answer.strip():
        return None, "the last box is empty"
    if len(answer) > LONGEST:
        return None, f"the last box holds {len(answer):,} characters, more than {LONGEST:,}"
    return answer.strip(), ""


def _last_box(text: str) -> str | None:
    opened: list[int] = []  # where each open brace's content begins; -1 for one that isn't a box's
    last = None
    for token in _TOKEN.finditer(text):
        if token[0] == "}":
            start = opened.pop() if opened else -1
            last = (start, token.start()) if start >= 0 else last
        elif token[0][-1] == "{" and token[0] != "\\{":
            opened.append(-1 if token[0] == "{" else token.end())
    return text[slice(*last)] if last else None
