"""The format reward: exactly reasoning, </think>, one answer in tags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.text.reasoning import answer_tag, split
from aftershock.verify.format import follows_format

PLAIN = st.text(st.characters(exclude_characters="<>"), max_size=30)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@settings(deadline=None)
@given(PLAIN, st.text(" \n\t", max_size=3), PLAIN.filter(str.strip))
def test_the_exact_form_is_kept_with_and_without_prefill(reasoning, space, answer):
    completion = f"{reasoning}</think>{space}<answer>{answer}</answer>"
    assert follows_format(completion)
    assert follows_format("<think>" + completion, prefilled=False)
    assert not follows_format(completion, prefilled=False)
    assert not follows_format("<think>" + completion)


@settings(deadline=None)
@given(PLAIN, PLAIN.filter(str.strip), st.sampled_from(TAGS), st.data())
def test_one_tag_more_anywhere_breaks_it(reasoning, answer, tag, data):
    completion = f"{reasoning}</think> <answer>{answer}</answer>"
    where = data.draw(st.integers(0, len(completion)))
    assert not follows_format(completion[:where] + tag + completion[where:])


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from([*TAGS, " ", "7"])), max_size=9).map("".join), st.booleans())
def test_what_keeps_the_format_has_an_answer_to_check(completion, prefilled):
    if follows_format(completion, prefilled):
        parts = split(completion, prefilled)
        assert parts.closed
        assert answer_tag(parts.answer)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "12",
        "a</think>",
        "a</think> 12",
        "a <answer>12</answer>",
        "a</think> <answer></answer>",
        "a</think> <answer>  </answer>",
        "a</think> <answer>12",
        "a</think> <answer>",
        "a</think> so <answer>12</answer>",
        "a</think> <answer>12</answer> .",
        "a</think> <answer>12</answer>\n",
        "a</think> <Answer>12</Answer>",
        "a</think> </answer>12<answer>",
    ],
)
def test_what_is_near_the_form_is_not_the_form(completion):
    assert not follows_format(completion)
