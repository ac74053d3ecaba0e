"""Statistics against known values, against enumeration, and for what must hold whatever the sample."""

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.stats import (
    level_interval,
    majority,
    majority_at_k,
    mcnemar,
    mean_interval,
    paired_interval,
    pass_at_k,
    ratio_interval,
    shift_interval,
    sign_flip,
    wilson,
)

ANSWERS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=12)


def judged(pairs):
    """Make equal answers equally right, as they are of one problem; no answer is wrong."""
    right = dict(pairs)
    return [answer for answer, _ in pairs], [answer is not None and right[answer] for answer, _ in pairs]


@settings(deadline=None)
@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations(range(n), k))
    share = Fraction(sum(any(i < c for i in subset) for subset in subsets), len(subsets))
    assert pass_at_k(n, c, k) == pytest.approx(float(share))


def test_pass_at_k_known_values():
    assert pass_at_k(200, 20, 1) == pytest.approx(0.1)
    assert pass_at_k(10, 3, 5) == pytest.approx(1 - 21 / 252)
    assert pass_at_k(100_000, 1, 1000) == pytest.approx(0.01)
    for wrong in ((0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)):
        with pytest.raises(ValueError, match=f"n={wrong[0]}, c={wrong[1]}, k={wrong[2]}"):
            pass_at_k(*wrong)


@given(ANSWERS)
def test_majority_is_fair_and_deaf_to_order(pairs):
    answers, rights = judged(pairs)
    vote = majority(answers, rights)
    assert 0 <= vote <= 1
    assert vote == pytest.approx(majority(answers[::-1], rights[::-1]))
    renamed = [answer and answer.translate(str.maketrans("abc", "cab")) for answer in answers]
    assert vote == pytest.approx(majority(renamed, rights))
    if not any(rights):
        assert vote == 0


def test_majority_known_values():
    assert majority(["7", "7", "3"], [True, True, False]) == 1
    assert majority(["7", "3", "3"], [True, False, False]) == 0
    assert majority(["7", "3"], [True, False]) == 0.5
    assert majority(["7", "3", "5"], [True, False, False]) == pytest.approx(1 / 3)
    assert majority([None, None, "7"], [False, False, True]) == 1, "no answer has no vote"
    assert majority([None], [False]) == 0
    with pytest.raises(ValueError, match="2 and 1"):
        majority(["7", "3"], [True])


@given(ANSWERS, st.data())
def test_majority_at_k_at_its_ends(pairs, data):
    answers, rights = judged(pairs)
    assert majority_at_k(answers, rights, len(answers)) == pytest.approx(majority(answers, rights))
    assert majority_at_k(answers, rights, 1) == pytest.approx(sum(rights) / len(rights))
    with pytest.raises(ValueError, match="majority_at_k wants"):
        majority_at_k(answers, rights, data.draw(st.sampled_from([0, len(answers) + 1])))


def test_majority_at_k_takes_disjoint_groups_and_leaves_the_rest():
    answers, rights = list("aabbba") + ["a"], [True, True, False, False, False, True, True]
    assert majority_at_k(answers, rights, 3) == 0.5


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_known_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.floats(0.5, 1e6), st.floats(0, 1))
def test_wilson_holds_the_share_and_mirrors(n, share):
    low, high = wilson(n * share, n)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    mirrored = wilson(n * (1 - share), n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-7)


@given(st.lists(st.lists(st.integers(0, 1).map(float), max_size=5), min_size=1, max_size=20).filter(any))
def test_the_interval_of_shares_holds_its_mean_and_has_width(clusters):
    found = mean_interval(clusters)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low
    assert found.n == sum(map(len, clusters))
    assert found.problems == sum(bool(values) for values in clusters)
    flipped = mean_interval([[1 - value for value in values] for values in clusters])
    assert (1 - flipped.high, 1 - flipped.low) == pytest.approx((found.low, found.high), abs=1e-9)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=2, max_size=10), st.floats(2, 50))
def test_the_interval_of_lengths_moves_and_scales_with_them(clusters, factor):
    clusters = [[value + 5000 for value in values] for values in clusters]
    found, scaled = mean_interval(clusters), mean_interval([[value * factor for value in c] for c in clusters])
    assert found.low <= found.value <= found.high
    assert (scaled.low, scaled.high) == pytest.approx((found.low * factor, found.high * factor), rel=1e-9)


def test_mean_interval_known_values():
    # Three clusters of one: the plain t interval of 10, 20, 60 (t with 2 degrees of freedom is 4.3027).
    half = 4.3027 * math.sqrt(700) / math.sqrt(3)
    assert mean_interval([[10], [20], [60]]).high - 30 == pytest.approx(half, rel=0.01)
    nothing = mean_interval([[0.0] * 16] * 50)
    assert (nothing.low, nothing.high) == pytest.approx(wilson(0, 50)), "as many as problems, not samples"
    assert mean_interval([[5.0]]).low == 5.0
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([[], []])


def test_samples_that_repeat_their_problem_add_nothing():
    once = mean_interval([[1.0]] * 30 + [[0.0]] * 30)
    often = mean_interval([[1.0] * 16] * 30 + [[0.0] * 16] * 30)
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)


@pytest.mark.parametrize(
    ("problems", "samples", "a", "b"), [(100, 8, 0.5, 0.5), (100, 8, 0.02, 1), (60, 4, 9, 1), (200, 1, 2, 6)]
)
def test_intervals_cover_the_truth_19_times_in_20(problems, samples, a, b):
    """Problems with rates from Beta(a, b): the truth is a / (a + b)."""
    hits, trials = 0, 200
    for trial in range(trials):
        rng = random.Random(trial)
        rates = [rng.betavariate(a, b) for _ in range(problems)]
        found = mean_interval([[float(rng.random() < rate) for _ in range(samples)] for rate in rates])
        hits += found.low <= a / (a + b) <= found.high
    assert hits / trials >= 0.92


def flips(differences):
    """Two-sided p by writing out every sign."""
    sums = [
        sum(s * d for s, d in zip(signs, differences)) for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(abs(value) >= abs(sum(differences)) for value in sums) / len(sums)


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_sign_flip_is_what_enumeration_gives(differences):
    assert sign_flip(differences) == pytest.approx(flips(differences), abs=1e-12)
    assert sign_flip([-value for value in differences]) == pytest.approx(sign_flip(differences))
    assert sign_flip([*differences, 0, 0]) == pytest.approx(sign_flip(differences)), "problems alike say nothing"


@given(st.integers(0, 300), st.integers(0, 300))
def test_sign_flip_of_single_samples_is_mcnemar(won, lost):
    assert sign_flip([1] * won + [-1] * lost) == pytest.approx(mcnemar(won, lost), rel=1e-9)


def test_mcnemar_known_values():
    assert mcnemar(6, 0) == mcnemar(0, 6) == 0.03125
    assert mcnemar(9, 0) == pytest.approx(0.0039, abs=1e-4)
    # Fagerland, Lydersen and Laake 2013 (BMC Med Res Methodol 13:91), table 1: 1 against 7.
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=1e-4)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0
    assert 0 < mcnemar(6000, 5500) < 1e-5


def test_a_large_bench_is_tested_exactly_and_soon():
    assert 0 < sign_flip([4] * 700 + [-3] * 600 + [0] * 19) < 1e-9


@given(st.lists(st.integers(-4, 4).map(lambda d: d / 4), min_size=1, max_size=30))
def test_paired_interval_holds_the_difference_and_mirrors(differences):
    found = paired_interval(differences)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    mirrored = paired_interval([-value for value in differences])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_paired_interval_is_bonett_and_price_for_shares():
    # 1 and 7 of 21 differ: (7 + 1 - 1 - 1) / 23 and z sqrt((10 / 23 - d^2) / 23) by their formula; ours has t for z.
    found = paired_interval([1.0] * 7 + [-1.0] + [0.0] * 13)
    shift, half = 6 / 23, 2.0739 * math.sqrt((10 / 23 - (6 / 23) ** 2) / 22)
    assert (found.low, found.high) == pytest.approx((shift - half, shift + half), abs=1e-3)
    assert found.value == pytest.approx(6 / 21)
    with pytest.raises(ValueError, match="in \\[-1, 1\\]"):
        paired_interval([2.0])


def test_level_and_shift_are_students_and_welchs():
    found = level_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3 / 4)  # t of 3 degrees of freedom
    assert (found.value, found.n) == (2.5, 4)
    assert found.high - found.value == pytest.approx(half, rel=0.01)
    moved = shift_interval([1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0, 15.0])
    assert moved.value == pytest.approx(10.5)
    assert moved.high - moved.value == pytest.approx(3.182446 * math.sqrt(5 / 3 / 4 + 2.5 / 5), rel=0.01)


def test_a_ratio_of_proportional_values_is_exact_and_one_of_nothing_refused():
    found = ratio_interval([(0.9 * b, b) for b in (0.2, 0.5, 1.0)])
    assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))
    with pytest.raises(ValueError, match="above 0"):
        ratio_interval([(1.0, 0.0)])


def test_the_ratios_interval_holds_the_truth_about_95_times_in_100():
    rng = random.Random(0)
    hits = 0
    for _ in range(400):
        pairs = [(float(rng.random() < 0.6), float(rng.random() < 0.75)) for _ in range(100)]
        found = ratio_interval(pairs)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 400 <= 0.98
