"""A bench's page tells what is in its folder, whatever state it is in; what a model wrote is text, never markup."""

import json
import shutil
from html.parser import HTMLParser

import pytest
from bench_rows import questions, row, scripted, write

from aftershock.bench import page, published
from aftershock.bench.compare import compare
from aftershock.bench.contamination import check
from aftershock.bench.types import Protocol, Question
from aftershock.errors import BenchError

EVIL = '</pre><script>alert("x")</script><img src=x onerror=alert(1)>&amp;'
VOID = {"meta", "br"}


class Outline(HTMLParser):
    """Tags, ids, links and words of a page; checks that tags nest."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.links, self.text, self._open = [], [], [], [], []
        self.feed(html)
        assert self._open == []
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href", "xlink:href") if name in found]
        self._open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self._open = self._open[: -(tag not in VOID) or None]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text += [] if self._open[-1:] == ["style"] else [data]


def outline(folder, **more):
    path = page.write(folder, **more)
    assert path == folder / "report.html"
    return Outline(path.read_text(encoding="utf-8"))


def mixed(n=12, suite="sums"):
    rows = scripted("right", [0.5] * n, 4, seed=0, suite=suite)
    rows[0] = row("q0", 0, finish="failed", suite=suite, error="HTTP 503 after 4 tries")
    rows[1] = row("q0", 1, "wrong", finish="length", extracted=None, suite=suite, reason="cut off after 512 tokens")
    rows[2] = row("q0", 2, "wrong", extracted=None, suite=suite, reason="no box after the reasoning")
    rows[3] = row("q0", 3, "unverifiable", suite=suite, reason="took longer than 5 s")
    return rows


def test_the_page_tells_the_whole_story(tmp_path):
    asked = {name: questions(12, name) for name in ("sums", "aime24")}
    this = write(tmp_path / "this", asked, mixed() + mixed(suite="aime24"))
    other = write(tmp_path / "other", asked, scripted("right", [0.3] * 12, 4, seed=1))
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps("This is question number 3.") + "\n")
    found = outline(
        tmp_path / "this",
        compared=compare(this, other),
        published=published.compare_published(this),
        contamination=check(tmp_path / "this", [data]),
    )
    for part in (
        "toy", "temperature 0.6", "n = 12 × 4, seed 0", "aftershock bench toy --suite sums", "a" * 64, "d" * 64,
        "HTTP 503 after # tries", "cut off after # tokens", "no box after the reasoning", "took longer than # s",
        "What is 2 + 2? This is question number 7.", "sign permutation, exact", "DeepSeek-R1", "79.8%",
        "aime24 is not compared: no question has a counted answer in both", "Contamination", "requests that failed",
    ):  # fmt: skip
        assert part in found.words, part
    assert {"compared", "published", "contamination", "scores", "repeat"} <= set(found.ids)


def test_nothing_is_loaded_and_every_link_leads_somewhere(tmp_path):
    write(tmp_path, {"sums": questions(12)}, mixed())
    found = outline(tmp_path)
    assert len(set(found.ids)) == len(found.ids)
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert not {"script", "img", "iframe", "link", "form"} & set(found.tags)


def test_whatever_is_written_is_text(tmp_path):
    bad = {"reasoning": EVIL, "answer": EVIL, "reason": EVIL, "error": EVIL}
    rows = [row("q0", 0, "wrong", extracted=EVIL, **bad), row("q0", 1, finish="failed", **bad)]
    asked = {"sums": [Question("sums", "q0", EVIL, EVIL)]}
    model = {"name": EVIL, "kind": EVIL}
    write(tmp_path, asked, rows, model=model, command=EVIL, versions={EVIL: EVIL})
    found = outline(tmp_path)
    assert not {"script", "img"} & set(found.tags)
    assert found.words.count('alert("x")') >= 9


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("q0", 0, "wrong", extracted="5")], "0.0% [0.0, "),
        ([row("q0", 0)], "None: every answer was right."),
        ([row("q0", 0, finish="failed")], "there is no score"),
        ([row("q0", 0, "unverifiable")], "100.0% could not be judged"),
        ([row("q0", 0, "wrong", finish="length", extracted=None, tokens=0)], "cut off by the limit"),
        ([], "There are no answers yet."),
    ],
)
def test_one_question_is_enough_whatever_came_of_it(tmp_path, rows, words):
    write(tmp_path, {"sums": questions(1)}, rows, Protocol(k=1))
    assert words in outline(tmp_path).words


def test_an_unfinished_bench_says_so(tmp_path):
    write(tmp_path, {"sums": questions(12)}, mixed()[:30])
    assert "is not finished: 30 of 48 answers are there" in outline(tmp_path).words


def test_a_large_bench_shows_every_question_and_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "BUDGET", 9_000)
    monkeypatch.setattr(page, "LEAST", 50)
    long = "word " * 200
    rows = [row(f"q{i}", j, text=long, reasoning=long) for i in range(12) for j in range(4)]
    write(tmp_path, {"sums": questions(12)}, rows)
    found = outline(tmp_path)
    assert "only the first 1 of 4 samples a question are shown" in found.words
    assert "answers longer than 750 characters are cut in the middle; sums/rows.jsonl holds everything" in found.words
    assert all(f"s0-q{i}" in found.ids for i in range(12))
    assert len("".join(found.text)) < 30_000


def test_the_same_files_give_the_same_bytes(tmp_path):
    write(tmp_path / "a", {"sums": questions(12)}, mixed())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert page.write(tmp_path / "a").read_bytes() == page.write(tmp_path / "b").read_bytes()
    with pytest.raises(BenchError, match="is no bench"):
        page.write(tmp_path)
