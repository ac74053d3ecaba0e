"""Models whose score is known beforehand, to prove the harness: a bench of one must report it as what it is."""

import re
from collections.abc import Mapping, Sequence

from aftershock.address import generator
from aftershock.bench.suite import Suite
from aftershock.bench.target import Asked, Local, Tell, answer_of, failed
from aftershock.bench.types import Answer, Protocol, Question
from aftershock.errors import BenchError

THOUGHT = "I have seen this before, and I recall how it ends."


class Scripted(Local):
    """Answers by a rule instead of by weights; `suites` are by name.

    `knows` always gives the oracle's answer, `never` the decoy's; `p=0.37` knows with probability 0.37, each sample
    by its own address; `truncated` is cut off while it thinks; `flaky` knows, but half of its requests fail.
    """

    def __init__(self, kind: str, suites: Mapping[str, Suite]) -> None:
        share = re.fullmatch(r"p=(0?\.\d+|[01](?:\.0*)?)", kind)
        if share is None and kind not in ("knows", "never", "truncated", "flaky"):
            raise BenchError(f"there is no scripted model {kind!r}: take knows, never, p=0.37, truncated or flaky")
        self.kind, self.suites = kind, suites
        self.share = float(share[1]) if share else float(kind != "never")
        nothing = dict.fromkeys(("weights_sha256", "template_sha256", "template", "dtype"))
        self.identity = {"name": f"scripted:{kind}", "kind": "scripted", **nothing}

    def answer(self, asked: Sequence[Asked], protocol: Protocol, tell: Tell) -> None:
        for number, (question, sample) in enumerate(asked):
            tell(number, self._one(question, sample, protocol.seed))

    def _one(self, question: Question, sample: int, seed: int) -> Answer:
        chance = generator(seed, "scripted", question.suite, question.id, sample).random()
        if self.kind == "flaky" and chance < 0.5:
            return failed("the scripted endpoint answered 500")
        if self.kind == "truncated":
            return _said(f"<think>\n{THOUGHT}", cut=True)
        suite = self.suites[question.suite]
        knows = chance < self.share or self.kind == "flaky"
        return _said(f"<think>\n{THOUGHT}\n</think>\n{suite.oracle(question) if knows else suite.decoy(question)}")


def _said(text: str, cut: bool = False) -> Answer:
    return answer_of(text, len(text.split()), cut)
