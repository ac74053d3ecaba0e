"""Questions that stand in training data are found, wherever they stand; those that don't aren't."""

import gzip
import json

import numpy as np
import pytest
from bench_rows import row, write
from hypothesis import given
from hypothesis import strategies as st

from aftershock.bench.contamination import HEADINGS, _Index, check, words
from aftershock.bench.types import Question
from aftershock.errors import BenchError

ASK = "Answer this. "
TELL = " Please reason step by step, and put the final answer in a box."
STEMS = [
    "Ann has three red apples and buys seven more at the market before noon, how many apples has she now?",
    "A train leaves the old station at nine and drives for two hours at ninety miles an hour, how far is it?",
    "What is 31 + 47 * 6?",
    "Seven dwarfs share forty-two pies among themselves and one goes to the cat so how much is left over?",
    "Solve for y!",
]


@pytest.fixture
def bench(tmp_path):
    asked = [Question("sums", f"q{i}", ASK + stem + TELL, "1") for i, stem in enumerate(STEMS)]
    rows = [row(f"q{i}", j, "right" if i == 0 else "wrong") for i in range(5) for j in range(2)]
    write(tmp_path / "bench", {"sums": asked}, rows)
    return tmp_path / "bench"


def jsonl(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def test_a_planted_question_is_found_where_it_stands(bench, tmp_path):
    data = jsonl(tmp_path / "a.jsonl", {"text": "Nothing here."}, {"messages": [{"content": "Q: " + STEMS[0].upper()}]})
    found = check(bench, [data])
    (overlap,) = found.overlaps
    assert (overlap.question, overlap.line, overlap.share) == ("q0", 2, 1)
    assert overlap.span == "ann has three red apples and buys seven more at the market before"
    (one,) = found.rows
    assert (one.overlapping, one.checked, one.too_short) == (1, 4, 1)
    assert (one.dirty.value, one.clean.value, one.clean.problems) == (1, 0, 3)
    assert len(one.cells) == len(HEADINGS)
    json.dumps(found.as_dict())


def test_twelve_words_are_no_overlap_and_thirteen_are(bench, tmp_path):
    twelve, thirteen = (" ".join(STEMS[1].split()[:n]) for n in (12, 13))
    assert not check(bench, [jsonl(tmp_path / "a.jsonl", twelve)]).overlaps
    assert [one.question for one in check(bench, [jsonl(tmp_path / "b.jsonl", thirteen)]).overlaps] == ["q1"]


def test_a_short_question_overlaps_as_a_whole(bench, tmp_path):
    assert not check(bench, [jsonl(tmp_path / "a.jsonl", "31 + 47 / 6", "what is 31 + 47")]).overlaps
    assert [o.question for o in check(bench, [jsonl(tmp_path / "b.jsonl", "So what IS 31+47*6, then")]).overlaps] == [
        "q2"
    ]


def test_the_suites_own_wording_is_no_overlap(bench, tmp_path):
    assert not check(bench, [jsonl(tmp_path / "a.jsonl", ASK + "How?" + TELL, TELL * 3, ASK * 9)]).overlaps


def test_wording_that_many_questions_share_in_the_middle_is_no_overlap(tmp_path):
    stem = (
        "{} marbles lie in a bag and a child draws one of them at a time until all of the red ones are out, of {} red"
    )
    asked = [Question("bag", f"q{i}", stem.format(i + 3, i + 1), "1") for i in range(5)]
    write(tmp_path / "bag", {"bag": asked}, [])
    data = [jsonl(tmp_path / f"{i}.jsonl", stem.format(i, 77)) for i in (99, 4)]
    assert not check(tmp_path / "bag", data[:1]).overlaps
    assert [one.question for one in check(tmp_path / "bag", data).overlaps] == ["q1"]


def test_nothing_reaches_from_one_text_into_the_next(bench, tmp_path):
    half = STEMS[0].split()
    assert not check(bench, [jsonl(tmp_path / "a.jsonl", " ".join(half[:8]), " ".join(half[8:]))]).overlaps


def test_text_files_are_read_across_parts_and_folders_through(bench, tmp_path):
    data = tmp_path / "data" / "deep"
    data.mkdir(parents=True)
    filler = "word " * ((1 << 20) // 5 - 10)  # the question lies across the end of a part
    (data / "long.txt").write_text(filler + STEMS[1].replace(" ", "\n") + filler)
    with gzip.open(data / "step-000010.jsonl.gz", "wt") as file:
        file.write(json.dumps({"prompt": ASK + STEMS[3] + TELL, "reward": {"total": 1.0}}) + "\n")
    found = check(bench, [tmp_path / "data"])
    assert {one.question for one in found.overlaps} == {"q1", "q3"}
    assert len(found.files) == 2


def test_chinese_is_compared_by_characters(tmp_path):
    stem = "小明有三个红苹果，他又在市场上买了七个，请问他现在一共有多少个苹果呢，请写出计算过程。"
    other = "一列火车九点离开车站，以每小时九十公里的速度行驶了两个小时，它现在离车站有多远呢？"
    asked = [Question("zh", "q0", stem, "10"), Question("zh", "q1", other, "180")]
    write(tmp_path / "zh", {"zh": asked}, [row("q0", suite="zh")])
    part = jsonl(tmp_path / "part.jsonl", stem[:20])
    assert not check(tmp_path / "zh", [part]).overlaps
    assert [o.question for o in check(tmp_path / "zh", [jsonl(tmp_path / "a.jsonl", "问：" + stem)]).overlaps] == ["q0"]


def test_what_cannot_be_read_is_named(bench, tmp_path):
    with pytest.raises(BenchError, match=r"no file or folder with \.jsonl"):
        check(bench, [tmp_path / "missing.jsonl"])
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": 1}\n{"text": \n')
    with pytest.raises(BenchError, match="line 2 is no JSON"):
        check(bench, [broken])
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'"text"\n' * 100)[:-9])
    with pytest.raises(BenchError, match=r"torn\.jsonl\.gz can't be read"):
        check(bench, [torn])


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_quick_way_for_ascii_makes_the_same_words(text):
    text = text.replace("\x01", " ")
    index = _Index({"s": [Question("s", "q", "alpha beta gamma " + text, "")]})
    slow = [index.vocabulary.get(word, 0) for word in words(text)]
    assert np.array_equal(index._codes(text), np.array(slow, np.uint64))
