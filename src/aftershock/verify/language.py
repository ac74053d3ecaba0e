"""Is the reasoning in the problem's language? The share of its words that are: R1's consistency reward [R1 2.3.2]."""

import re

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
