"""The connecting words of generated reasoning, in each language the nano corpus speaks.

Kept in one place, so that what a trace writes and what `text.behaviour` counts can be held against each other.
"""

import random
from dataclasses import dataclass

from aftershock.tasks.base import Style


@dataclass(frozen=True)
class Phrases:
    """Words of one language. Each verdict stands after a value that was just worked out."""

    too_big: str
    too_small: str
    no: str
    yes: str
    check: str
    need: str
    of: str
    guess: str
    give_up: str
    wait: str
    right: str


ENGLISH = Phrases(
    too_big=" too big;",
    too_small=" too small;",
    no=" no;",
    yes=" yes",
    check=" check ",
    need=" need ",
    of=" from ",
    guess=" guess ",
    give_up=" give up ",
    wait=" wait,",
    right=" right",
)
CHINESE = Phrases(
    too_big="太大;",
    too_small="太小;",
    no="不对;",
    yes="对",
    check="验算",
    need="需要",
    of="来自",
    guess="猜",
    give_up="放弃",
    wait="等等,",
    right="没错",
)
PHRASES = {"en": ENGLISH, "zh": CHINESE}

# Shares of traces whose reasoning is not in the problem's language, or changes language on the way: the base mixes
# languages as DeepSeek-V3-Base did, so that RL shows what it makes of it [R1 2.2.4].
OTHER_LANGUAGE = 0.05
CHANGES_LANGUAGE = 0.08


class Voice:
    """Gives the phrases of one trace, line by line; may start in, or change to, the other language.

    `language` is that of the phrases given last.
    """

    def __init__(self, language: str, rng: random.Random) -> None:
        self._rng = rng
        self.language = language if rng.random() >= OTHER_LANGUAGE else other(language)
        self._change = 0.25 if rng.random() < CHANGES_LANGUAGE else 0.0

    def __call__(self) -> Phrases:
        if self._change and self._rng.random() < self._change:
            self.language, self._change = other(self.language), 0.0
        return PHRASES[self.language]


def other(language: str) -> str:
    """Return the other of the two languages."""
    return "zh" if language == "en" else "en"


def guesses(style: Style, share: float, rng: random.Random) -> bool:
    """Return whether a trace of this style is a blind guess, which a mixed one is with the task's own `share`."""
    return style == "guess" or (style == "mixed" and rng.random() < share)


def answered(reasoning: str, answer: str) -> str:
    """Close a trace's reasoning and give its answer, in the format R1-Zero is rewarded for."""
    return f"{reasoning}</think><answer>{answer}</answer>"
