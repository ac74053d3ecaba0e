"""How an answer is judged. `math_answer` and `run_code` are loaded when first asked for: workers import this often."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aftershock.verify.code import run_code
    from aftershock.verify.math import math_answer
    from aftershock.verify.program import AssertTests, CallTest, Limits, StdioTest
    from aftershock.verify.verdict import Verdict

_HOMES = {
    "math_answer": "math",
    "run_code": "code",
    "AssertTests": "program",
    "CallTest": "program",
    "Limits": "program",
    "StdioTest": "program",
    "Verdict": "verdict",
}
__all__ = ["AssertTests", "CallTest", "Limits", "StdioTest", "Verdict", "math_answer", "run_code"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
