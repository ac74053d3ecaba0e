"""IFEval: does a response follow every instruction that its prompt gives? (Zhou et al., arXiv 2311.07911)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aftershock.bench.suite import Source, Suite, unanswered
from aftershock.bench.suites.ifeval_compose import compose, disobey
from aftershock.bench.suites.ifeval_rules import Args, detector, follows
from aftershock.bench.types import Answer, Question
from aftershock.verify.verdict import Verdict


class IfEval(Suite):
    """541 prompts with one to three instructions each. The score is the strict one by prompt: all must be followed.

    A verdict's `extracted` says of each instruction in turn whether it was followed (`yes no yes`), for the score by
    instruction; votes on it mean nothing. There are no gold answers: `oracle` composes a response by rule, which
    follows its instructions for most prompts, and says nothing.
    """

    title = "IFEval"
    source = Source(
        "google/IFEval",
        ("ifeval_input_data.jsonl", "ifeval.jsonl", "input_data.jsonl"),
        split="train",
        revision="966cd89545d6b6acfd7638bc708b98261ca58e84",
    )

    def __init__(self, data: Path | None = None, option: str = "") -> None:
        super().__init__(data, option)
        detector()  # its lack is to be known before a model has answered

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Keep each instruction with its arguments; the hub's rows have a null for every argument not used."""
        kinds = list(row["instruction_id_list"])
        arguments = [{name: v for name, v in one.items() if v is not None} for one in row["kwargs"]]
        if len(kinds) != len(arguments):
            raise ValueError(f"{len(kinds)} instructions, but {len(arguments)} kwargs")
        data = {"kinds": kinds, "arguments": arguments}
        return Question(self.name, f"ifeval/{row['key']}", row["prompt"], ", ".join(kinds), data)

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Hold the whole response to every instruction; one that was cut off is wrong, as its end is unknown."""
        if answer.finish == "length" or not answer.answer.strip():
            return unanswered(answer, "response")
        followed = [follows(kind, args, answer.answer) for kind, args in _instructions(question)]
        flags = " ".join("yes" if one else "no" for one in followed)
        missed = [kind for (kind, _), one in zip(_instructions(question), followed) if not one]
        if missed:
            return Verdict("wrong", f"does not follow {', '.join(missed)}", flags)
        return Verdict("right", f"follows {len(followed)} of {len(followed)}", flags)

    def oracle(self, question: Question) -> str:
        """Return a response composed to follow the instructions."""
        return compose(_instructions(question))

    def decoy(self, question: Question) -> str:
        """Return a response that breaks one of the instructions."""
        return disobey(_instructions(question))


def _instructions(question: Question) -> Sequence[tuple[str, Args]]:
    return list(zip(question.data["kinds"], question.data["arguments"]))
