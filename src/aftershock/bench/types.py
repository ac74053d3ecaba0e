"""What travels through a bench: a question, the protocol it is asked by, what the model wrote, and the judged row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aftershock.verify.verdict import Outcome

Finish = Literal["stop", "length", "failed"]


@dataclass(frozen=True)
class Question:
    """One question of a suite. `prompt` is all that the model is told; `gold` is for readers, `data` for the scorer."""

    suite: str
    id: str
    prompt: str
    gold: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How every question is asked. The defaults are R1's (arXiv 2501.12948, section 3): T 0.6, top-p 0.95.

    `n` questions of a suite (None: all), `k` samples of each (None: the suite's own number); `seed` keys the sampling.
    """

    n: int | None = None
    k: int | None = None
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32768
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model wrote: `text` whole; `reasoning` and `answer` are it split at the end of thinking.

    `finish` is "length" where it was cut off, and "failed" where nothing came back: `error` then says why.
    """

    text: str
    reasoning: str
    answer: str
    tokens: int
    finish: Finish = "stop"
    error: str = ""


@dataclass(frozen=True)
class Row:
    """One sample of one question, judged: a line of `rows.jsonl`."""

    suite: str
    question: str
    sample: int
    answer: Answer
    outcome: Outcome
    reason: str
    extracted: str | None

    @property
    def counted(self) -> bool:
        """Whether it says something of the model: neither a failed request nor an answer that couldn't be judged."""
        return self.answer.finish != "failed" and self.outcome != "unverifiable"

    @property
    def right(self) -> bool:
        return self.outcome == "right"
