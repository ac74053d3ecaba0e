"""Two benches are compared on the same questions, exactly, or not at all."""

import json

import pytest
from bench_rows import questions, row, scripted, write

from aftershock.bench.compare import HEADINGS, compare
from aftershock.bench.types import Protocol
from aftershock.errors import BenchError


@pytest.fixture
def two(tmp_path):
    def make(ours, theirs, n=10, asked=None, asked_there=None, **there):
        return (
            write(tmp_path / "this", asked or {"sums": questions(n)}, ours),
            write(tmp_path / "other", asked_there or {"sums": questions(n)}, theirs, **there),
        )

    return make


def singles(rights, **more):
    return [row(f"q{i}", outcome="right" if right else "wrong", **more) for i, right in enumerate(rights)]


def test_one_sample_a_question_is_mcnemar(two):
    found = compare(*two(singles([1] * 6 + [0] * 4), singles([0] * 10)))
    (one,) = found.rows
    assert (one.p, one.test, one.better, one.worse, one.n) == (0.03125, "McNemar, exact", 6, 0, 10)
    assert (one.this, one.other, one.difference) == (0.6, 0, pytest.approx(0.6))
    assert one.low < 0.6 < one.high
    assert len(one.cells) == len(HEADINGS)
    assert json.loads(json.dumps(found.as_dict()))["rows"][0]["p"] == 0.03125


def test_many_samples_are_tested_by_signs_of_whole_questions(two):
    ours = [row(f"q{i}", j) for i in range(10) for j in range(4)]
    theirs = [row(f"q{i}", j, "wrong" if i < 5 else "right", extracted="5") for i in range(10) for j in range(4)]
    one, votes = compare(*two(ours, theirs)).rows
    assert one.test == "sign permutation, exact"
    assert one.p == 2 / 2**5, "five questions of ten differ, however many samples each has"
    assert (votes.metric, votes.p) == ("majority@4, ties not won", 2 / 2**5)


def test_a_bench_against_itself_differs_by_nothing_but_keeps_a_width(two):
    rows = scripted("right", [0.5] * 50, 4, seed=0)
    one = compare(*two(rows, rows, n=50)).rows[0]
    assert (one.difference, one.p, one.better, one.worse) == (0, 1, 0, 0)
    assert one.low < 0 < one.high


def test_the_swap_mirrors(two):
    this, other = two(scripted("right", [0.6] * 40, 4, seed=0), scripted("right", [0.4] * 40, 4, seed=1), n=40)
    there, back = compare(this, other).rows[0], compare(other, this).rows[0]
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p == pytest.approx(there.p)


def test_only_questions_in_both_count(two):
    one = compare(
        *two(singles([1] * 10), singles([0] * 4), asked_there={"sums": questions(4)}),
    ).rows[0]
    assert (one.n, one.this, one.other) == (4, 1, 0)


def test_missing_answers_are_left_out_and_told(two):
    ours = singles([1] * 8) + [row("q8", finish="failed"), row("q9", outcome="unverifiable")]
    found = compare(*two(ours, singles([0] * 10)))
    assert found.rows[0].n == 8
    assert "20.0% of the answers here are missing" in found.notes[0]


def test_different_k_is_tested_on_as_many_samples_as_both_have(two):
    ours = [row(f"q{i}", j, "right" if j == 0 else "wrong") for i in range(6) for j in range(4)]
    (one,) = compare(*two(ours, singles([0] * 6), n=6, protocol=Protocol(k=1))).rows  # no votes: they are of other k
    assert (one.p, one.test) == (0.03125, "McNemar, exact"), "the first sample of each"
    assert (one.this, one.k, one.k_other) == (0.25, 4, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "Another {i}"}, "prompts of 10 of 10 shared questions differ, first 'q0'"),
        ({"suite": "other"}, "the other bench lacks this suite"),
    ],
)
def test_what_differs_is_refused_by_name(two, change, words):
    name = change.get("suite", "sums")
    with pytest.raises(BenchError, match=words):
        compare(*two(singles([1] * 10), singles([1] * 10, suite=name), asked_there={name: questions(10, **change)}))


def test_refused_suites_stand_beside_compared_ones(two):
    ours = singles([1] * 10) + singles([1] * 10, suite="words")
    changed = [type(q)(q.suite, q.id, q.prompt, "5") for q in questions(10, "words")]
    asked = {"sums": questions(10), "words": questions(10, "words")}
    found = compare(*two(ours, ours, asked=asked, asked_there={**asked, "words": changed}))
    assert [one.suite for one in found.rows] == ["sums"]
    assert "data of 10 of 10" in found.refused["words"]


def test_protocols_that_differ_are_told(two):
    found = compare(*two(singles([1] * 10), singles([1] * 10), protocol=Protocol(k=4, temperature=0.0, max_tokens=99)))
    assert found.notes == [
        "temperature was 0.6 here and 0.0 there",
        "max_tokens was 32768 here and 99 there",
        "sums: max_tokens was [32768, 32768] here and [99, 99] there",
    ]
