r"""The one answer that counts is in the last balanced \boxed{} after the reasoning."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.verify.boxed import LONGEST, boxed_answer

FOUND = {
    r"\boxed{5}": "5",
    r"thought \boxed{4}</think> \boxed{5}": "5",
    r"<think>\boxed{4}</think>It is $\boxed{ 5 }$.": "5",
    r"<think>a</think><think>b</think>\boxed{5}": "5",
    r"\boxed{4} no, \boxed{5}": "5",
    r"\boxed{5} and \boxed{6": "5",
    r"\boxed{\frac{1}{2}}": r"\frac{1}{2}",
    r"\boxed{\{1, 2\}}": r"\{1, 2\}",
    r"\boxed{\left\{ x \right.}": r"\left\{ x \right.",
    r"\boxed {5}": "5",
    "\\boxed\n{5}": "5",
    r"} } { \boxed{5} } }": "5",
    r"\boxed{ \boxed{5} }": r"\boxed{5}",
    r"\boxed{5 \boxed{6}": "6",
    r"a \\\boxed{5}": "5",
    r"\boxed{" + "x" * LONGEST + "}": "x" * LONGEST,
}
NOT_FOUND = {
    "5": "no answer",
    "": "no answer",
    r"\boxed 5": "no answer",
    r"\fbox{5}": "no answer",
    r"\boxed{5": "no answer",
    r"\boxed{5\}": "no answer",
    r"\boxed{{5}": "no answer",
    r"\boxedx{5}": "no answer",
    r"\\boxed{5}": "no answer",
    r"\boxed{5}</think>": "no answer",
    r"\boxed{5}</think> It is 5.": "no answer",
    r"<think>\boxed{5}": "never ends",
    r"a</think>\boxed{5}<think>wait": "never ends",
    r"\boxed{5} \boxed{ }": "empty",
    r"\boxed{" + "x" * (LONGEST + 1) + "}": "2,001 characters",
}


@pytest.mark.parametrize(("text", "answer"), FOUND.items())
def test_found(text, answer):
    assert boxed_answer(text) == (answer, "")


@pytest.mark.parametrize(("text", "reason"), NOT_FOUND.items())
def test_not_found(text, reason):
    answer, why = boxed_answer(text)
    assert answer is None
    assert reason in why


@given(st.text(alphabet="abc123\\{}\n $", max_size=80), st.text(alphabet="ab{}\\ ", max_size=40))
def test_whatever_stands_before_a_box_does_not_hide_it(before, after):
    """Nor does what follows, as long as it opens no other; a backslash just before would escape the box's own."""
    text = before.rstrip("\\") + r" \boxed{42} " + after
    answer, _ = boxed_answer(text)
    assert answer is not None
    assert "42" in answer


@pytest.mark.parametrize(
    "text",
    ["{" * 10**6, "}" * 10**6, r"\boxed{" * 150_000, r"\boxed " * 150_000, r"\boxed{" + "{}" * 500_000, "\\" * 10**6],
    ids=["open", "close", "boxes", "bare", "pairs", "slashes"],
)
def test_a_megabyte_takes_linear_time(text):
    began = time.monotonic()
    assert boxed_answer("<think>" + text + "</think>" + text)[0] is None
    assert time.monotonic() - began < 3


def test_spaces_before_a_brace_that_never_comes_take_linear_time():
    began = time.monotonic()
    assert boxed_answer((r"\boxed" + " " * 1000) * 1000)[0] is None
    assert time.monotonic() - began < 3
