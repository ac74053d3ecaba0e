"""The share of words in the problem's language, and the reward's part made of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.recipe import RewardTable
from aftershock.verify.language import LONGEST_PARAGRAPH, consistency, readable
from aftershock.verify.reward import compose
from aftershock.verify.verdict import Verdict


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("too small; try again", "en", 1.0),
        ("too small; try again", "zh", 0.0),
        ("太小 check", "zh", 2 / 3),
        ("7*2=14", "zh", 1.0),
        ("x=3 对", "zh", 1.0),  # a single letter is a name, not a word
        ("whatever", "fr", 1.0),
        ("", "en", 1.0),
    ],
)
def test_shares(text: str, language: str, share: float):
    assert consistency(text, language) == pytest.approx(share)


@given(st.text(), st.text())
def test_the_two_shares_add_up_to_one_where_there_are_words(a: str, b: str):
    text = f"{a} word {b}"
    assert consistency(text, "en") + consistency(text, "zh") == pytest.approx(1.0)


def test_it_is_a_part_of_the_reward_only_where_it_is_on():
    right = Verdict("right")
    off = compose(right, True, 5, 10, RewardTable(format=0.0), 0.25)
    assert (off.total, "language" in off.parts) == (1.0, False)
    on = compose(right, True, 5, 10, RewardTable(format=0.0, language=2.0), 0.25)
    assert (on.total, on.parts["language"]) == (1.5, 0.25)


@pytest.mark.parametrize(
    ("text", "language", "can_be_read"),
    [
        ("2*3=6;\n6+1=7</think>\n\nThe value is <answer>7</answer>", "en", True),
        ("</think>\n\n<answer>7</answer>", "en", True),  # nothing was reasoned, so there is nothing to sum up
        ("2*3=6</think><answer>7</answer>", "en", False),
        ("太大;2*3=6</think>\n\nThe value is <answer>7</answer>", "en", False),
        ("2*3=6</think>\n\n结果是<answer>7</answer>", "en", False),
        ("2*3=6</think>\n\n结果是<answer>7</answer>", "zh", True),
        ("2*3=6</think>\n\n结果是<answer>seven</answer>", "zh", True),  # an answer may be in any language
        ("2*3=6 The value is <answer>7</answer>", "en", False),
        ("```\n2*3\n```</think>\n\nThe value is <answer>7</answer>", "en", False),
        ("1;" * LONGEST_PARAGRAPH + "</think>\n\nThe value is <answer>7</answer>", "en", False),
    ],
)
def test_what_can_be_read_with_ease(text: str, language: str, can_be_read: bool):
    assert readable(text, language) is can_be_read
