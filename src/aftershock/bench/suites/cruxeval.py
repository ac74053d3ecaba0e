"""CRUXEval: what does this function return, or what makes it return that? (Gu et al., arXiv 2401.03065)."""

import ast
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from aftershock.bench.suite import Source, Suite, unanswered
from aftershock.bench.suites.programs import fenced, last_block
from aftershock.bench.types import Answer, Question
from aftershock.verify.program import CallTest
from aftershock.verify.verdict import Verdict

_LONGEST = 20_000  # characters of an answer that are read
_UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class _Crux(Suite):
    source = Source(
        "cruxeval-org/cruxeval",
        ("cruxeval.jsonl", "test.jsonl", "cruxeval.parquet"),
        revision="b96af0450242eb4da433032b90998f25588a5d0f",
    )
    gold_field: str
    ask: str
    wanted_block: str

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Show the function and the half of the pair that is given."""
        data = {"code": row["code"], "input": row["input"], "output": row["output"]}
        prompt = f"{fenced(row['code'])}\n\n{self.ask.format(**data)}"
        identity = f"{self.name.partition('@')[0]}/{row.get('id', index)}"
        return Question(self.name, identity, prompt, row[self.gold_field], data)

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Judge the last block of the answer."""
        found = (last_block(answer.answer) or "").strip()
        if not found:
            return unanswered(answer, f"closed ```python block with {self.wanted_block}")
        if len(found) > _LONGEST:
            return Verdict("wrong", f"{len(found)} characters; no answer takes more than {_LONGEST}", found[:200])
        try:
            wanted = ast.literal_eval(question.data["output"])
        except _UNREADABLE as error:
            return Verdict("unverifiable", f"the dataset's output is no Python literal: {error}", found)
        return self.judge(question, found, wanted)

    @abstractmethod
    def judge(self, question: Question, found: str, wanted: Any) -> Verdict:
        """Judge the text of the last block; `wanted` is what f returns."""


class CruxOutput(_Crux):
    """800 functions with an input: give the value returned. Compared as values; one that must be worked out is none."""

    title = "CRUXEval-O"
    gold_field = "output"
    wanted_block = "one value"
    ask = (
        "What does f({input}) return? Please reason step by step, and put the value alone, as a Python literal, in one "
        "```python block."
    )

    def judge(self, question: Question, found: str, wanted: Any) -> Verdict:
        """Compare the literal with the output, by ==; equal values vote together."""
        try:
            value = ast.literal_eval(found)
        except _UNREADABLE as error:
            return Verdict("wrong", f"no Python literal: {type(error).__name__}", found)
        return Verdict(
            "right" if value == wanted else "wrong", f"{value!r:.100}, and it is {wanted!r:.100}", repr(value)
        )

    def oracle(self, question: Question) -> str:
        """Return the output."""
        return fenced(question.gold)

    def decoy(self, question: Question) -> str:
        """Return the output in a list."""
        return fenced(f"[{question.gold}]")


class CruxInput(_Crux):
    """800 functions with an output: give a call that returns it. Any call that does is right; it is run."""

    title = "CRUXEval-I"
    gold_field = "input"
    wanted_block = "one call of f"
    ask = (
        "Find arguments for which f returns {output}. Please reason step by step, and put the call alone, with Python "
        "literals as arguments, as in `f(1, 'a')`, in one ```python block."
    )

    def judge(self, question: Question, found: str, wanted: Any) -> Verdict:
        """Run the dataset's function on the arguments of the call: nothing that a model wrote is run."""
        from aftershock.verify import run_code

        try:
            test = _call(found, wanted)
        except _UNREADABLE as error:
            return Verdict("wrong", f"no call of f with literals: {error}"[:200], found)
        verdict = run_code(question.data["code"], [test])
        return Verdict(verdict.outcome, verdict.reason, found)

    def oracle(self, question: Question) -> str:
        """Return the call with the dataset's input."""
        return fenced(f"f({question.gold})")

    def decoy(self, question: Question) -> str:
        """Return the call with more arguments than any function of the dataset takes."""
        return fenced(f"f({question.gold}, 'and', 'some', 'more', 'of', 'them')")


def _call(text: str, wanted: Any) -> CallTest:
    """Return the test that a call of f with literals makes; ValueError or SyntaxError where it is no such call."""
    call = ast.parse(text.strip(), mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "f"):
        raise ValueError("it is no call of f")
    named = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    return CallTest("f", tuple(ast.literal_eval(one) for one in call.args), wanted, named)
