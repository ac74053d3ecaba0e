"""What suites of programs share: the last block of code after the reasoning, run in the sandbox."""

import re
from abc import abstractmethod
from collections.abc import Sequence

from aftershock.bench.suite import Suite, unanswered
from aftershock.bench.types import Answer, Question
from aftershock.verify.program import Limits, ProgramTest
from aftershock.verify.verdict import Verdict

ASK = "Give the whole program, with its imports, in one ```python block."
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[ \t]*$", re.MULTILINE)


def last_block(answer: str) -> str | None:
    """Return the inside of the last closed fenced block that is Python or names no language; None without one.

    >>> last_block("First:\\n```python\\na = 1\\n```\\nBetter:\\n```python\\na = 2\\n```\\nRun it: ```bash")
    'a = 2\\n'
    """
    found, opened = None, None
    for fence in _FENCE.finditer(answer):
        if opened is None or fence.group(1):  # one that names a language only opens: the block before was never closed
            opened = fence
            continue
        if opened.group(1).lower() in ("", "python", "python3", "py"):
            found = answer[opened.end() + 1 : fence.start()]
        opened = None
    return found


def fenced(code: str) -> str:
    """Return code as the answer that holds it."""
    return f"```python\n{code.rstrip()}\n```"


class ProgramSuite(Suite):
    """Asks for a program and runs it against tests. `limits` hold for a program with all its tests."""

    limits = Limits()

    @abstractmethod
    def tests(self, question: Question) -> Sequence[ProgramTest]:
        """Return what the program must pass."""

    def program(self, question: Question, code: str) -> str:
        """Return what is run for the code in an answer: that code, where a suite adds nothing."""
        return code

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Run the last block of code. What counts as the answer in a vote is the code as it is written."""
        from aftershock.verify import run_code

        code = last_block(answer.answer)
        if code is None or not code.strip():
            return unanswered(answer, "closed ```python block")
        verdict = run_code(self.program(question, code), self.tests(question), self.limits)
        return Verdict(verdict.outcome, verdict.reason, code)
