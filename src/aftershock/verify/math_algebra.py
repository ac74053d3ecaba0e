"""Algebra for answers, by math-verify on sympy: slow, without a time limit of its own, so only for check workers."""

import logging
import re
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Expr, I, MatrixBase, MatrixExpr, Rational

from aftershock.verify.math_form import tidy
from aftershock.verify.math_same import differs, rounds_to
from aftershock.verify.verdict import Verdict

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that nothing limits its time: the pool does
# Nothing is dropped, guessed or taken from another place: `tidy` has mended what may be mended.
_AS_WRITTEN = [
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="none", equations=False
        )
    )
]
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_DEGREES = re.compile(r"(\d+)\s*\^\\circ")


class GoldError(ValueError):
    """A gold answer that isn't understood, so that nothing can be said of any answer."""


class MathTask:
    """The check of one answer against its gold answer, which stands in the problem's place."""

    def check(self, gold: str, answer: str) -> Verdict:
        """Return the verdict; unverifiable where the gold answer can't be read as mathematics."""
        try:
            difference = differs(tidy(gold), tidy(answer), equal)
        except GoldError as error:
            return Verdict("unverifiable", str(error), answer)
        return Verdict("wrong" if difference else "right", difference, answer)


def equal(gold: str, answer: str) -> bool:
    """Whether two expressions, equations, relations, sets or matrices are equal; decimals count as exact fractions."""
    wanted, given = _parsed(gold), _parsed(answer)
    if wanted is None:
        raise GoldError(f"the gold answer {gold!r} can't be read as mathematics")
    if given is None:
        return False
    if _rounds(gold, given):
        return True
    if _far_apart(wanted, given):
        return False
    same = verify([wanted], [given], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    return bool(same)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    exactly = _DECIMAL.sub(lambda m: f"{{\\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}}}", text)
    radians = _DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", exactly)
    primed = radians.replace("'", r"^{\prime}")  # or math-verify drops it
    found = parse(f"${primed}$", _AS_WRITTEN, "no_fallback", "first_match", parsing_timeout=None)
    if not found or not isinstance(found[0], Basic | MatrixBase):
        return None
    value = found[0].doit() if isinstance(found[0], MatrixExpr) else found[0]  # or math-verify recurses without end
    imaginary = {symbol: I for symbol in value.free_symbols if symbol.name == "i"}
    return value.xreplace(imaginary) if imaginary else value


def _far_apart(wanted: Any, given: Any) -> bool:
    """Whether two expressions have plainly different values at one point: spares the algebra on most wrong answers."""
    if not (isinstance(wanted, Expr) and isinstance(given, Expr)):
        return False
    point = {s: Rational(sum(s.name.encode()), 101) for s in wanted.free_symbols | given.free_symbols}
    try:
        values = [complex(side.subs(point).evalf()) for side in (wanted, given)]
    except (TypeError, AttributeError):  # no number even there
        return False
    return abs(values[0] - values[1]) > 1e-6 * (1 + abs(values[0]))


def _rounds(gold: str, given: Any) -> bool:
    try:
        return not _DECIMAL.search(str(given)) and rounds_to(gold, float(given))
    except TypeError:  # no number
        return False
