"""Published numbers stand beside ours with their source, and protocols that differ are named."""

import pytest
from bench_rows import questions, row, write

from aftershock.bench import suites
from aftershock.bench.published import HEADINGS, NARROW, Beside, compare_published, footnoted, published
from aftershock.bench.types import Protocol

KNOWN = published()


def test_every_number_has_a_source_and_can_be_read():
    assert len(KNOWN) > 250
    for one in KNOWN:
        assert 0 <= float(one.percent) <= 100
        assert one.source
        assert one.metric in ("pass@1", "majority@k")
        assert one.metric == "pass@1" or one.k.isdigit()
        for number in (one.n, one.temperature, one.top_p, one.max_tokens, one.shots):
            assert number == "" or float(number) >= 0


@pytest.mark.parametrize(
    ("suite", "model", "metric", "percent"),
    # Table 4, 5 and 2 of arXiv 2501.12948v1.
    [("aime24", "DeepSeek-R1", "pass@1", 79.8), ("math500", "DeepSeek-R1", "pass@1", 97.3),
     ("gpqa-diamond", "DeepSeek-R1-Distill-Qwen-32B", "pass@1", 62.1),
     ("aime24", "DeepSeek-R1-Zero", "majority@k", 86.7)],
)  # fmt: skip
def test_r1s_own_numbers(suite, model, metric, percent):
    assert percent in [float(o.percent) for o in KNOWN if (o.suite, o.model, o.metric) == (suite, model, metric)]


def test_no_number_stands_twice():
    keys = [(one.suite, one.model, one.metric, one.percent, one.published_as, one.k, one.max_tokens) for one in KNOWN]
    assert len(set(keys)) == len(keys)


def test_every_suite_is_one_of_ours():
    names = set(suites.names())
    assert {one.suite for one in KNOWN} <= names


def aime(tmp_path, n=30, protocol=None, name="aime24"):
    protocol = protocol or Protocol(k=4)
    rows = [row(f"q{i}", j, suite=name) for i in range(n) for j in range(protocol.k)]
    return compare_published(write(tmp_path / "bench", {name: questions(n, name)}, rows, protocol))


def test_r1_stands_first_after_ours(tmp_path):
    found = aime(tmp_path)
    assert found[0].model == "this bench: toy"
    assert found[0].text.startswith("100.0% [")
    assert found[0].differs == "here: n 30, k 4, temperature 0.6, top-p 0.95, max tokens 32768, seed 0"
    assert found[1].model.startswith("DeepSeek-R1")
    assert {one.metric for one in found} == {"pass@1", "majority@k"}
    assert all(len(one.cells) == len(HEADINGS) for one in found)


def test_the_same_protocol_differs_in_nothing_that_is_known(tmp_path):
    r1 = next(one for one in aime(tmp_path) if one.model == "DeepSeek-R1")
    assert r1.differs == ""
    dapo = next(one for one in aime(tmp_path) if one.model.startswith("DAPO"))
    assert dapo.differs.endswith("called AIME-2024 avg@32")


def test_what_differs_is_named(tmp_path):
    found = aime(tmp_path, 10, Protocol(k=1, temperature=0.0, max_tokens=512))
    r1 = next(one for one in found if one.model == "DeepSeek-R1")
    for words in ("n 30", "k 4-64", "temperature 0.6", "max tokens 32768"):
        assert words in r1.differs
    claude = next(one for one in found if one.model.startswith("Claude"))
    assert "unknown: k, temperature, top-p" in claude.differs


def test_suites_nobody_published_have_no_lines(tmp_path):
    assert aime(tmp_path, name="sums") == []


def test_a_dial_keeps_the_published_name(tmp_path):
    assert aime(tmp_path, name="livecodebench@2024-08..2025-01")[1].suite == "livecodebench@2024-08..2025-01"


def test_lines_with_the_same_differences_and_source_share_a_note():
    lines = [Beside("s", "pass@1", model, 50.0, "50%", differs, "paper") for model, differs in
             (("a", "k 4"), ("b", "k 64"), ("c", "k 4"))]  # fmt: skip
    rows, notes = footnoted(lines)
    assert [row[NARROW.index("note")] for row in rows] == ["[1]", "[2]", "[1]"]
    assert notes == ["[1] k 4; paper", "[2] k 64; paper"]
