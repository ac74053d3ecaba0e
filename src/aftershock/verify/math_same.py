"""Whether an answer means the gold answer: by form where that decides, by algebra where it doesn't."""

import re
from collections.abc import Callable

from aftershock.verify.math_form import Quantity, exact, quantity, shape, words

Algebra = Callable[[str, str], bool]  # (gold, answer) -> whether they are equal
_SPACE = re.compile(r"(?<!\d) | (?!\d)")  # all but what parts two numbers
_RELATION = re.compile(r"[<>]|\\(?:leq?|geq?|lt|gt|neq?)(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!:\\])=|\\in(?![A-Za-z])")
_IN_BRACKETS = re.compile(r"\([^()]*\)|_\s*\{[^{}]*\}|_\s*\w")
_NAME = re.compile(r"[A-Za-z\\{}(),'+ -]*[A-Za-z)}][A-Za-z\\{}(),'+ -]*")
_ENVIRONMENT = re.compile(r"\\(?:begin|end|operatorname)\s*\{[a-zA-Z*]+\}")
_PRECISE = 5  # digits from which a decimal gold stands for the exact value it was rounded from


def differs(gold: str, answer: str, algebra: Algebra) -> str:
    """Return what sets tidy `answer` apart from tidy `gold`; "" where they mean the same."""
    if _SPACE.sub("", gold) == _SPACE.sub("", answer):
        return ""
    names, sides = _equation(gold), _equation(answer)
    if len(names) > 1 or len(sides) > 1:
        return _differ_as_equations(gold, names, answer, sides, algebra)
    if _RELATION.search(gold) or _RELATION.search(answer):
        return "" if algebra(gold, answer) else _unlike(gold, answer)
    wanted, given = shape(gold), shape(answer)
    if len(wanted.parts) != len(given.parts):
        return f"{_count(given.parts)} where the gold answer has {len(wanted.parts)}"
    bare_tuple = wanted.brackets == "()" and not given.brackets
    if wanted.brackets != given.brackets and (wanted.ordered or given.ordered) and not bare_tuple:
        return f"{given.brackets or 'no brackets'} where the gold answer has {wanted.brackets or 'none'}"
    if wanted.ordered:
        return next(filter(None, (differs(a, b, algebra) for a, b in zip(wanted.parts, given.parts))), "")
    if len(wanted.parts) == 1:
        return _differ_as_values(wanted.parts[0], given.parts[0], algebra)
    left = list(given.parts)
    for part in wanted.parts:
        match = next((other for other in left if not differs(part, other, algebra)), None)
        if match is None:
            return f"nothing equals the gold answer's {part}"
        left.remove(match)
    return ""


def _equation(text: str) -> list[str]:
    """Return an equation's sides; its only side for what is none (commas outside brackets make a list)."""
    if len(shape(text).parts) > 1 and "\\pm" not in text:
        return [text]
    return [side.strip() for side in _EQUALS.split(text)]


def _is_name(side: str) -> bool:
    """Whether `x`, `f(2)`, `a_1 + b`, `\\angle ABC`, `(x, y)`: what an equation may define."""
    return bool(_NAME.fullmatch(_IN_BRACKETS.sub("x", side)))


def _differ_as_equations(gold: str, golds: list[str], answer: str, answers: list[str], algebra: Algebra) -> str:
    if len(answers) == 1:
        named = len(golds) == 2 and _is_name(golds[0])
        return differs(golds[1], answer, algebra) if named else "no equation, as the gold answer is"
    if len(golds) == 1:  # every side but the name must be the gold answer
        sides = answers[1:] if _is_name(answers[0]) else answers
        return next(filter(None, (differs(gold, side, algebra) for side in sides)), "")
    same_name = len(golds) == len(answers) == 2 and golds[0].replace(" ", "") == answers[0].replace(" ", "")
    if same_name and _is_name(golds[0]):
        return differs(golds[1], answers[1], algebra)
    return "" if algebra(gold, answer) else _unlike(gold, answer)


def _differ_as_values(gold: str, answer: str, algebra: Algebra) -> str:
    said, saying = words(gold), words(answer)
    if said and saying:
        return "" if said == saying else _unlike(gold, answer)
    if len(said) > 1 or len(saying) > 1 or ("\\text" in gold + answer and (said or saying)):
        return _unlike(gold, answer)
    wanted, given = quantity(gold), quantity(answer)
    if wanted.base != given.base:
        return f"base {given.base or 10} where the gold answer has base {wanted.base or 10}"
    if wanted.unit and given.unit and wanted.unit != given.unit:
        return f"{given.unit} where the gold answer has {wanted.unit}"
    if wanted.unit == "%" != given.unit:
        wanted = Quantity(f"\\frac{{{wanted.body}}}{{100}}")
    if strange := _spoken(given.body) - _spoken(wanted.body):
        return f"words that the gold answer doesn't have: {', '.join(sorted(strange))}"
    bodies = [given.body]
    if given.unit == "%" != wanted.unit:  # the question may have named the percent, or the answer be a share
        bodies.append(f"\\frac{{{given.body}}}{{100}}")
    return "" if any(_equal(wanted.body, body, algebra) for body in bodies) else _unlike(gold, answer)


def _spoken(text: str) -> set[str]:
    """Return the words in an expression, which algebra would take for variables; functions and environments aren't."""
    return set(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", _ENVIRONMENT.sub("", text)))


def _equal(gold: str, answer: str, algebra: Algebra) -> bool:
    wanted, given = exact(gold), exact(answer)
    if wanted is None or given is None:
        return algebra(gold, answer)
    return wanted == given or (re.search(r"[\\/]", answer) is not None and rounds_to(gold, float(given)))


def rounds_to(gold: str, value: float) -> bool:
    """Whether `gold` is a decimal of at least five digits, and `value` rounds to it."""
    digits = gold.lstrip("+-0.").replace(".", "")
    if len(digits) < _PRECISE or not re.fullmatch(r"[+-]?\d*\.\d+", gold):
        return False
    return round(value, len(gold.partition(".")[2])) == float(gold)


def _unlike(gold: str, answer: str) -> str:
    return f"{answer} is not {gold}"


def _count(parts: tuple[str, ...]) -> str:
    return f"{len(parts)} values" if len(parts) != 1 else "one value"
