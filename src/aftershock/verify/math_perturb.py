"""Answers near a gold answer that must be judged wrong: they prove a verifier, and give benches their decoys."""

import re
from collections.abc import Iterator
from fractions import Fraction

from aftershock.verify.math_form import exact, quantity, shape, tidy, words

_NUMBER = re.compile(r"\d+")
_OTHER_UNIT = {"dollar": r"\text{ cents}", "degree": r"\text{ radians}", "%": r"\text{ dollars}"}


def perturbations(gold: str) -> dict[str, str]:
    r"""Return by name what a model that errs may write after its reasoning; a gold answer has the kinds that fit it.

    None of them means the same as the gold answer: the sign of a zero, the order of a set and the unit of a number
    stay as they are. `off by one` is there for every gold answer; words get another word instead.

    >>> perturbations("12")["hedge"]
    'It is \\boxed{12 or 13}.'
    """
    other = _off_by_one(gold)
    found = {kind: f"It is \\boxed{{{answer}}}." for kind, answer in (("off by one", other), *_by_kind(gold, other))}
    return found | {
        "second box": f"It is \\boxed{{{gold}}}. Or rather \\boxed{{{other}}}.",
        "no box": f"The answer is {gold}.",
        "box never closed": f"It is \\boxed{{{gold}",
        "empty box": f"It is {gold}: \\boxed{{}}.",
        "only in the reasoning": f"<think>It is \\boxed{{{gold}}}.</think>I am done.",
        "reasoning never ends": f"<think>It is \\boxed{{{gold}}}.",
    }


def _off_by_one(gold: str) -> str:
    said = words(tidy(gold))
    if said:
        return ("B" if said == "A" else "A") if len(said) == 1 else f"\\text{{not {said}}}"
    first = _NUMBER.search(gold)
    if not first:
        return f"{gold} + 1"
    return gold[: first.start()] + str(int(first[0]) + 1).zfill(len(first[0])) + gold[first.end() :]


def _by_kind(gold: str, other: str) -> Iterator[tuple[str, str]]:
    form, text = shape(tidy(gold)), tidy(gold)
    yield "hedge", f"{gold} or {other}"
    yield "hedge in words", rf"{gold} \text{{ or maybe }} {other}"
    yield "hedge as a list", f"{gold}, {other}"
    if form.ordered:
        yield from _ordered(form.brackets, list(form.parts))
    elif len(form.parts) > 1 and "\\pm" not in text:
        yield "one value less", ", ".join(form.parts[:-1])
    elif not words(text):
        yield from _single(text)


def _ordered(brackets: str, parts: list[str]) -> Iterator[tuple[str, str]]:
    if parts[0] != parts[-1]:
        yield "swapped", f"{brackets[0]}{', '.join([parts[-1], *parts[1:-1], parts[0]])}{brackets[1]}"
    yield "one value less", f"{brackets[0]}{', '.join(parts[:-1])}{brackets[1]}"
    yield "other bracket", f"{'[' if brackets[0] == '(' else '('}{', '.join(parts)}{brackets[1]}"


def _single(text: str) -> Iterator[tuple[str, str]]:
    value = quantity(text)
    number = exact(value.body.replace(",", ""))
    if number != 0 and not re.search(r"=|\\in(?![a-z])", text):
        yield "sign", text[1:] if number and number < 0 else f"-{text}" if number else f"-({text})"
    if number:
        yield from _number(text, value.body, number)
    if value.unit == "%":
        yield "percent dropped", value.body
    if value.unit:
        yield "other unit", value.body + _OTHER_UNIT.get(value.unit, r"\text{ km}")
    if value.base:
        yield "base dropped", value.body
        yield "other base", f"{value.body}_{{{value.base + 1}}}"
        yield "value in base ten", str(int(value.body, value.base))


def _number(text: str, body: str, number: Fraction) -> Iterator[tuple[str, str]]:
    longest = max(_NUMBER.findall(text), key=len)
    if len(longest) > 1:
        yield "digit dropped", text.replace(longest, longest[:-1] if longest.strip("0") else "1", 1)
    if "." in body:
        yield "point moved", text.replace(".", "")
    elif number.denominator > 1:
        yield "upside down", f"\\frac{{{number.denominator}}}{{{number.numerator}}}"
