import math
from itertools import combinations
from statistics import pvariance

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.learn import group_advantages, widest

member = st.tuples(st.sampled_from([0.0, 0.1, 1.0, 1.1, -0.5]), st.booleans())
groups = st.lists(st.lists(member, min_size=1, max_size=8), min_size=1, max_size=5)


def compute(kind, drawn):
    return group_advantages(kind, [[r for r, _ in g] for g in drawn], [[c for _, c in g] for g in drawn])


@pytest.mark.parametrize("kind", ["grpo", "dapo", "gspo", "cispo", "dr_grpo"])
@settings(deadline=None, max_examples=40)
@given(groups)
def test_advantages_follow_the_definition_over_counted_rollouts(kind, drawn):
    got = compute(kind, drawn)
    for group, values, signal in zip(drawn, got.values, got.signal, strict=True):
        kept = [r for r, counted in group if counted]
        assert [value is None for value in values] == [not counted for _, counted in group]
        assert signal == (len(set(kept)) > 1)
        mean = sum(kept) / max(1, len(kept))
        std = math.sqrt(sum((r - mean) ** 2 for r in kept) / (len(kept) - 1)) if signal else 1.0
        scale = 1.0 if kind == "dr_grpo" else std + 1e-6
        for (reward, counted), value in zip(group, values, strict=True):
            assert not counted or value == pytest.approx((reward - mean) / scale if signal else 0.0, abs=1e-9)


def test_equal_rewards_give_exactly_zero_whatever_rounding_does():
    got = group_advantages("grpo", [[0.1, 0.1, 0.1]], [[True, True, True]])
    assert got.values == [[0.0, 0.0, 0.0]]
    assert got.signal == [False]


def test_an_uncounted_reward_moves_nobody():
    two = group_advantages("grpo", [[1.0, 0.0]], [[True, True]]).values[0]
    three = group_advantages("grpo", [[1.0, 0.0, 99.0]], [[True, True, False]]).values[0]
    assert three == [*two, None]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 1.1, -0.5]), max_size=9), st.integers(2, 9))
def test_the_widest_of_all_choices_is_taken(rewards, count):
    chosen = widest(rewards, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(rewards))
    if rewards:
        best = max(pvariance(choice) for choice in combinations(rewards, len(chosen)))
        assert pvariance([rewards[i] for i in chosen]) == pytest.approx(best)


def test_of_equal_choices_the_most_even_is_taken():
    assert widest([0, 1, 0, 1, 0, 1, 0, 1], 4) == [0, 2, 5, 7]
    assert widest([1, 0, 0, 0, 0, 0, 0, 0], 4) == [0, 1, 2, 7]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.1, 1.0, 1.1]), min_size=1, max_size=9), st.integers(2, 9), st.floats(0, 1))
def test_with_a_spread_the_most_that_keep_it_are_taken(rewards, count, spread):
    chosen = widest(rewards, count, spread)
    least = spread * pvariance([min(rewards), max(rewards)])
    sizes = range(min(2, len(rewards)), min(count, len(rewards)) + 1)
    keeping = [n for n in sizes if max(map(pvariance, combinations(rewards, n))) >= least - 1e-12]
    assert len(chosen) == max(keeping)
    assert pvariance([rewards[i] for i in chosen]) >= least - 1e-12


@pytest.mark.parametrize(("wrong", "taken"), [(0, 8), (1, 3), (2, 6), (3, 8), (8, 8), (14, 6), (15, 3)])
def test_two_of_one_kind_for_one_of_the_other(wrong, taken):
    rewards = [0.0] * wrong + [1.0] * (16 - wrong)
    assert len(widest(rewards, 8, 0.88)) == taken
