"""Is a completion in the problem's language, and laid out for a reader? R1's consistency reward [R1 2.3.2], and a rule
for what R1 means by readable: one language, no run-on paragraphs, a summary after the reasoning [R1 2.3.1, 2.3.3].
"""

import re

from aftershock.text.reasoning import split

# Runs of Latin letters are words; single ones are names of numbers. A Chinese character counts as a word.
_WORD = re.compile(r"(?P<zh>[\u3400-\u9fff])|(?P<en>[A-Za-z]{2,})")


def consistency(reasoning: str, language: str) -> float:
    """Return the share, in [0, 1], of the reasoning's words that are in `language` ("en" or "zh").

    1 where it has no words at all: numbers and signs belong to every language. So it is for other languages, which
    this can't tell apart.

    >>> consistency("7*2=14 too small;太大", "en")
    0.5
    """
    words = [match.lastgroup for match in _WORD.finditer(reasoning)]
    if not words or language not in ("en", "zh"):
        return 1.0
    return words.count(language) / len(words)


def worded(reasoning: str) -> bool:
    """Return whether the reasoning has any word, so that its consistency says something."""
    return _WORD.search(reasoning) is not None


LONGEST_PARAGRAPH = 2000  # characters without an empty line; past that it is a run-on
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_TAGGED = re.compile(r"<answer>.*?</answer>", re.DOTALL)


def run_on(reasoning: str) -> bool:
    """Return whether some paragraph is of more than LONGEST_PARAGRAPH characters."""
    return max(map(len, _PARAGRAPH_BREAK.split(reasoning))) > LONGEST_PARAGRAPH


def readable(text: str, language: str) -> bool:
    """Return whether a completion (after a prompt that opened `<think>`) can be read with ease.

    Its words are all in `language`, no paragraph runs on, no fenced code stands in it, the reasoning is closed, and
    where there is reasoning a sentence leads to the answer's tags.

    >>> readable("2*3=6;\\n6+1=7</think>\\n\\nThe value is <answer>7</answer>", "en")
    True
    """
    parts = split(text, prefilled=True)
    summary = _TAGGED.sub("", parts.answer).strip()
    return (
        parts.closed
        and bool(summary or not parts.reasoning)
        and "```" not in text
        and not run_on(parts.reasoning)
        and consistency(f"{parts.reasoning} {summary}", language) == 1.0
    )
