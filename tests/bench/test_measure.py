"""Scripted models are reported as what they are, and what is missing is never hidden in a score."""

import pytest
from bench_rows import row, scripted
from hypothesis import given
from hypothesis import strategies as st

from aftershock.bench.measure import caveats, label, measure, told
from aftershock.stats import wilson


def numbers(rows, k=4):
    return {one.metric: one for one in measure("sums", rows, k, seed=7)}


def test_a_model_that_knows_gets_all_with_an_honest_lower_bound():
    found = numbers(scripted("right", [1.0] * 50, 4, seed=0))
    assert found["pass@1"].value == found["majority@k"].value == found["pass@k"].value == 1
    assert found["pass@1"].low == pytest.approx(wilson(50, 50)[0]), "50 questions, not 200 samples"
    assert (found["pass@1"].n, found["pass@1"].k, found["pass@1"].seed, found["pass@1"].when) == (50, 4, 7, "bench")
    assert "mean_tokens_wrong" not in found


def test_a_model_that_never_knows_gets_nothing_with_an_upper_bound():
    found = numbers(scripted("right", [0.0] * 50, 4, seed=0))
    assert (found["pass@1"].value, found["pass@1"].low) == (0, 0)
    assert found["pass@1"].high == pytest.approx(wilson(0, 50)[1])
    assert "mean_tokens_right" not in found


def test_a_truncated_model_is_wrong_and_shown_as_truncated():
    found = numbers(scripted("truncated", [0.9] * 50, 4, seed=0))
    assert found["truncated"].value == 1
    assert found["pass@1"].value == found["failed"].value == found["no_answer"].value == 0
    assert not caveats(list(found.values())), "cut off is the model's own doing: nothing is missing"


def test_a_flaky_endpoint_is_failed_and_not_wrong():
    rows = scripted("flaky", [0.37] * 200, 4, seed=0)
    found = numbers(rows)
    assert found["failed"].low < 0.5 < found["failed"].high
    assert found["pass@1"].low < 0.37 < found["pass@1"].high, "over what was answered"
    assert found["pass@1_missing_wrong"].value < 0.25
    assert found["pass@1_missing_right"].value > 0.6
    assert "not comparable" in caveats(list(found.values()))["sums"]
    answered = [one for one in rows if one.counted]
    assert found["pass@1"].value == pytest.approx(sum(one.right for one in answered) / len(answered))


def test_all_failed_is_no_score_at_all():
    found = numbers([row(f"q{i}", finish="failed") for i in range(10)], k=1)
    assert set(found) == {"failed", "unverifiable", "pass@1_missing_wrong", "pass@1_missing_right"}
    assert found["failed"].value == found["pass@1_missing_right"].value == 1
    assert caveats(list(found.values()))["sums"].startswith("not comparable: 100.0% of the requests failed")
    assert measure("sums", [], 4, 0) == []


def test_unverifiable_is_apart_from_failed_and_from_wrong():
    rows = [row(f"q{i}", outcome="unverifiable" if i < 2 else "right") for i in range(20)]
    found = numbers(rows, k=1)
    assert (found["unverifiable"].value, found["failed"].value, found["pass@1"].value) == (0.1, 0, 1)
    assert found["pass@1_missing_wrong"].value == 0.9


def test_votes_are_for_what_the_verifier_extracted():
    rows = [row("q0", 0, "wrong", extracted="3"), row("q0", 1, "right", extracted="1/2"),
            row("q0", 2, "wrong", extracted=None), row("q0", 3, "right", extracted="1/2")]  # fmt: skip
    found = numbers(rows)
    assert found["majority@k"].value == 1
    assert found["pass@1"].value == 0.5
    assert found["no_answer"].value == 0.25
    silent = numbers([row("q0", i, extracted=None) for i in range(4)])
    assert "majority@k" not in silent, "where nothing is extracted nobody votes"


def test_pass_at_k_is_of_questions_with_k_counted_samples():
    rows = [row("q0", i, "right" if i == 0 else "wrong") for i in range(4)]
    rows += [row("q1", 0, "wrong"), row("q1", 1, finish="failed"), row("q1", 2, "wrong"), row("q1", 3, "wrong")]
    found = numbers(rows)
    assert (found["pass@k"].value, found["pass@k"].n) == (1, 1)
    assert (found["pass@1"].value, found["pass@1"].n) == (pytest.approx(1 / 7), 2)


def test_lengths_of_right_and_wrong_are_apart():
    rows = [row("q0", 0, tokens=10), row("q0", 1, "wrong", tokens=30), row("q1", 0, finish="failed")]
    found = numbers(rows, k=2)
    assert [found[f"mean_tokens{end}"].value for end in ("", "_right", "_wrong")] == [20, 10, 30]
    assert numbers([row("q0", tokens=1), row("q1", tokens=20)])["mean_tokens"].low == 0, "no length is negative"


def test_words():
    found = numbers(scripted("right", [0.5] * 10, 4, seed=1))
    assert label(found["majority@k"]) == "right by vote, majority@4"
    assert told(found["pass@1"]).endswith("]")
    assert "%" in told(found["pass@1"])
    assert told(found["mean_tokens"]) == "100.0 [100.0, 100.0]"


SAMPLES = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["right", "wrong", "unverifiable"]),
    st.sampled_from(["stop", "length", "failed"]),
)


@given(st.lists(SAMPLES, min_size=1, max_size=40))
def test_bounds_hold_the_score_whatever_is_missing(samples):
    rows = [row(f"q{q}", i, outcome, finish=finish) for i, (q, outcome, finish) in enumerate(samples)]
    found = {one.metric: one for one in measure("sums", rows, k=1, seed=0)}
    assert all(one.low <= one.value <= one.high for one in found.values())
    if "pass@1" in found and "pass@1_missing_wrong" in found:
        low, high = found["pass@1_missing_wrong"].value, found["pass@1_missing_right"].value
        assert low - 1e-12 <= found["pass@1"].value <= high + 1e-12
