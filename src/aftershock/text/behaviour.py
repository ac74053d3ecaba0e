"""What a piece of reasoning does, counted by rule: how often it checks, retries and changes language.

The rule is a list of marks in English and Chinese; it reads the words, not the mind. It is the same for every step of
every run, so that a curve of it shows change (R1 shows the same for words such as "wait" [R1v2, supplement]).
"""

import itertools
import re
from dataclasses import dataclass

RETRY_MARKS = (
    "too big",
    "too small",
    "no;",
    "no,",
    "no.",
    "wait",
    "try again",
    "太大",
    "太小",
    "不对",
    "等等",
    "再试",
)
CHECK_MARKS = ("check", "verify", "验算", "检查", "验证")

_RETRY = re.compile("|".join(rf"\b{re.escape(m)}" if m.isascii() else m for m in RETRY_MARKS), re.IGNORECASE)
_CHECK = re.compile("|".join(rf"\b{m}" if m.isascii() else m for m in CHECK_MARKS), re.IGNORECASE)
_WORD = re.compile(r"(?P<zh>[㐀-鿿]+)|(?P<en>[A-Za-z]{2,})")


@dataclass(frozen=True)
class Behaviour:
    """Counts in one reasoning: `checks`, `retries`, and `switches` from one language to the other."""

    checks: int
    retries: int
    switches: int

    @property
    def checks_or_retries(self) -> bool:
        return self.checks + self.retries > 0


def behaviour(reasoning: str) -> Behaviour:
    """Count the marks of checking, of retrying, and the changes between runs of Latin words and Chinese characters.

    >>> behaviour("7*2=14 too small;太大;check 7*3=21")
    Behaviour(checks=1, retries=2, switches=2)
    """
    languages = [match.lastgroup for match in _WORD.finditer(reasoning)]
    switches = sum(a != b for a, b in itertools.pairwise(languages))
    return Behaviour(len(_CHECK.findall(reasoning)), len(_RETRY.findall(reasoning)), switches)
