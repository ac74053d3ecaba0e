"""A Python function from its description: HumanEval and MBPP, and EvalPlus' more thorough tests for both."""

from collections.abc import Mapping, Sequence
from typing import Any

from aftershock.bench.suite import Source
from aftershock.bench.suites.programs import ASK, ProgramSuite, fenced
from aftershock.bench.types import Question
from aftershock.verify.program import AssertTests, Limits, ProgramTest

# EvalPlus' tests compare floats by numpy.allclose, and the sandbox has no numpy: this has as much of it as they use.
NUMPY = """
import sys, types
def _close(a, b, rtol=1e-05, atol=1e-08):
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_close(x, y, rtol, atol) for x, y in zip(a, b))
    return a == b or abs(a - b) <= atol + rtol * abs(b)
class _ndarray: pass
sys.modules["numpy"] = types.SimpleNamespace(allclose=_close, ndarray=_ndarray, float32=float, float64=float)
"""


class FunctionSuite(ProgramSuite):
    """Tests are the dataset's own assertions, which run apart from the program: it can't touch them."""

    def tests(self, question: Question) -> Sequence[ProgramTest]:
        """Return the assertions, in one piece."""
        return [AssertTests(question.data["test"], question.data["entry_point"], question.data["setup"])]

    def oracle(self, question: Question) -> str:
        """Return the dataset's reference solution."""
        return fenced(question.gold)

    def decoy(self, question: Question) -> str:
        """Return the reference solution with every result put in a list."""
        return fenced(
            f"{question.gold}\n\n{_LISTED.format(name=question.data['entry_point'] or question.data['name'])}"
        )


_LISTED = "_right = {name}\n\n\ndef {name}(*args, **kwargs):\n    return [_right(*args, **kwargs)]"


class HumanEval(FunctionSuite):
    """164 functions to complete from signature and docstring (Chen et al., arXiv 2107.03374).

    The program run is what stands before the function in the prompt (imports and helpers), then the answer's code.
    """

    title = "HumanEval"
    source = Source("openai/openai_humaneval", ("HumanEval.jsonl.gz", "HumanEval.jsonl", "humaneval.parquet"))

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Keep the prompt as the tester's setup, so that helpers in it are the tests' own."""
        head, start, name = row["prompt"], f"def {row['entry_point']}(", row["entry_point"]
        if start not in head:
            raise ValueError(f"'prompt' holds no {start!r}")
        prompt = f"Complete this Python function.\n\n{fenced(head)}\n\n{ASK}"
        data = {"test": row["test"], "entry_point": name, "preamble": head[: head.index(start)]}
        data["setup"] = f"{self.prelude}{head.rstrip()}\n    pass\n"
        return Question(self.name, row["task_id"], prompt, head + row["canonical_solution"], data)

    prelude = ""

    def program(self, question: Question, code: str) -> str:
        """Put the prompt's imports and helpers first: a model that leaves them out has still written the function."""
        return f"{question.data['preamble']}\n{code}"


class HumanEvalPlus(HumanEval):
    """HumanEval with about 80 times its tests (Liu et al., arXiv 2305.01210), in the form that has a `test` field."""

    title = "HumanEval+"
    source = Source(
        "evalplus/humanevalplus",
        ("HumanEvalPlus-OriginFmt.jsonl", "HumanEvalPlus-OriginFmt.jsonl.gz", "humanevalplus.parquet"),
    )
    prelude = NUMPY
    limits = Limits(cpu_seconds=30.0, wall_seconds=60.0)


class Mbpp(FunctionSuite):
    """Short functions from a sentence and three assertions (Austin et al., arXiv 2108.07732): 257, sanitized.

    The full file is read as well: of either, task ids 11 to 510, the paper's test split.
    """

    title = "MBPP"
    source = Source(
        "google-research-datasets/mbpp", ("sanitized-mbpp.json", "mbpp.jsonl", "mbpp.parquet"), config="sanitized"
    )

    def wanted(self, row: Mapping[str, Any]) -> bool:
        """Take the test split."""
        return 11 <= int(row["task_id"]) <= 510

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Show the assertions, since the sentence alone doesn't name the function."""
        asserted = list(row["test_list"])
        shown = "\n".join(asserted)
        says = row["prompt"] if "prompt" in row else row["text"]
        prompt = f"{says.strip()}\n\nThese must hold:\n\n{fenced(shown)}\n\n{ASK}"
        imports = row.get("test_imports") or [row.get("test_setup_code") or ""]
        data = {"test": row.get("test") or shown, "entry_point": None, "setup": self.prelude + "\n".join(imports)}
        data["name"] = called(asserted[0])
        return Question(self.name, f"mbpp/{row['task_id']}", prompt, row["code"], data)

    prelude = ""


class MbppPlus(Mbpp):
    """378 of MBPP's functions with about 35 times the tests (Liu et al., arXiv 2305.01210)."""

    title = "MBPP+"
    source = Source("evalplus/mbppplus", ("mbppplus.jsonl", "MbppPlus-OriginFmt.jsonl", "mbppplus.parquet"))
    prelude = NUMPY
    limits = Limits(cpu_seconds=30.0, wall_seconds=60.0)

    def wanted(self, row: Mapping[str, Any]) -> bool:
        """Take all: its rows are chosen already."""
        return True


def called(assertion: str) -> str:
    """Return the name of the function that an assertion is about: the first it calls that isn't a builtin.

    >>> called("assert set(similar_elements((3, 4), (5, 4))) == set((4,))")
    'similar_elements'
    """
    import ast
    import builtins

    calls = [node.func for node in ast.walk(ast.parse(assertion.strip())) if isinstance(node, ast.Call)]
    own = [call.id for call in calls if isinstance(call, ast.Name) and not hasattr(builtins, call.id)]
    if not own:
        raise ValueError(f"{assertion!r} calls no function")
    return own[0]
