"""The reward: DAPO's eq. 13 and the weighted sum of the parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.recipe import RewardTable
from aftershock.verify.reward import compose, overlong_penalty
from aftershock.verify.verdict import Verdict


@pytest.mark.parametrize(
    ("length", "penalty"), [(0, 0), (80, 0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1), (200, -1)]
)
def test_overlong_penalty_known_values(length, penalty):
    assert overlong_penalty(length, max_tokens=100, buffer=20) == pytest.approx(penalty)
    assert overlong_penalty(length, max_tokens=100, buffer=0) == 0


@given(st.integers(0, 300), st.integers(1, 200), st.integers(1, 200))
def test_overlong_penalty_never_rises_with_length(length, max_tokens, buffer):
    here, longer = (overlong_penalty(size, max_tokens, buffer) for size in (length, length + 1))
    assert -1 <= longer <= here <= 0


@given(st.floats(-3, 3), st.floats(-3, 3), st.booleans(), st.sampled_from(["right", "wrong"]), st.integers(1, 120))
def test_the_total_is_the_weighted_sum_of_its_parts(accuracy, form, formatted, outcome, length):
    table = RewardTable(accuracy=accuracy, format=form, overlong_buffer=50)
    reward = compose(Verdict(outcome), formatted, length, 100, table)
    assert reward.parts["accuracy"] == (outcome == "right")
    assert reward.parts["format"] == formatted
    assert reward.total == pytest.approx(
        accuracy * (outcome == "right") + form * formatted + overlong_penalty(length, 100, 50)
    )
    assert reward.counted


def test_an_unverifiable_verdict_is_neither_a_0_nor_a_1():
    reward = compose(Verdict("unverifiable", "crashed"), True, 5, 100, RewardTable())
    assert not reward.counted
    assert "accuracy" not in reward.parts
