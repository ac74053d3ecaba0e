"""Rows from files in every format and from the hub; and what is said where they can't be had."""

import csv
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from suite_items import ITEMS

from aftershock.bench import sources, suites
from aftershock.bench.suite import Source
from aftershock.errors import BenchError

SOURCE = Source("nobody/rows", ("rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "rows.parquet"))
# U+2028 and U+0085 end a line for str.splitlines(), and for nothing else here.
ROWS = [{"q": "one\u2028two\u0085three", "a": "1"}, {"q": 'a "quoted", and\nbroken', "a": "2"}]


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_csv(path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["q", "a"])
        writer.writeheader()
        writer.writerows(ROWS)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", lambda path: path.write_text(lines(ROWS) + "\n", encoding="utf-8", newline="\n")),
        ("rows.jsonl.gz", lambda path: path.write_bytes(gzip.compress(lines(ROWS).encode()))),
        ("rows.json", lambda path: path.write_text(json.dumps(ROWS))),
        ("rows.csv", write_csv),
        ("rows.parquet", lambda path: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    table = sources.load(SOURCE, tmp_path)
    assert list(table.rows) == ROWS
    assert table.origin.startswith(f"{name} (sha256 ")


def test_the_first_name_wins_and_parts_are_read_in_their_order(tmp_path):
    for place, name in enumerate(("rows.jsonl", "rows.json")):
        (tmp_path / name).write_text(json.dumps([{"q": place}]) if name.endswith("json") else lines([{"q": place}]))
    assert list(sources.load(SOURCE, tmp_path).rows) == [{"q": 0}]
    for part in ("b.jsonl", "a.jsonl"):
        (tmp_path / part).write_text(lines([{"q": part}]))
    parts = Source("nobody/rows", (), parts=("a.jsonl", "b.jsonl", "c.jsonl"))
    assert list(sources.load(parts, tmp_path).rows) == [{"q": "a.jsonl"}, {"q": "b.jsonl"}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.jsonl", b'{"q": 1}\n{"q": ', "can't be read as .jsonl"),
        ("rows.jsonl", b"[1]\n", "line 1: holds a list"),
        ("rows.jsonl", b"\xff\xfe\n", "can't be read as .jsonl"),
        ("rows.jsonl.gz", gzip.compress(b'{"q": 1}\n', mtime=0)[:-9], "can't be read as .gz"),
        ("rows.json", b'{"q": 1}', "no list of objects"),
        ("rows.parquet", b"PAR1", "can't be read as .parquet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BenchError, match=words) as error:
        list(sources.load(SOURCE, tmp_path).rows)
    assert name in str(error.value)


def test_a_file_that_is_not_there_is_asked_for_by_its_names(tmp_path):
    with pytest.raises(BenchError, match=r"holds none of gsm8k_test\.jsonl, .*openai/gsm8k from the hub"):
        suites.find("gsm8k", tmp_path).questions()


class Hub:
    """Stands for `datasets.load_dataset`: raises, or gives rows as a Dataset does."""

    def __init__(self, error=None):
        self.error, self.calls = error, []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        if self.error:
            raise self.error
        import datasets

        rows = [json.loads(line) for line in (ITEMS / "gsm8k_test.jsonl").read_text().split("\n") if line]
        made = datasets.Dataset.from_list(rows)
        made.info.download_checksums = {f"hf://datasets/openai/gsm8k@{'a1' * 20}/main/test.parquet": {}}
        return made


def test_the_hub_is_asked_for_config_split_and_revision_and_its_commit_is_kept(monkeypatch):
    hub = Hub()
    monkeypatch.setattr("datasets.load_dataset", hub)
    suite = suites.find("gsm8k")
    assert [q.prompt for q in suite.questions()] == [q.prompt for q in suites.find("gsm8k", ITEMS).questions()]
    assert hub.calls == [(("openai/gsm8k", "main"), {"split": "test", "revision": None})]
    assert suite.origin == f"openai/gsm8k@{'a1' * 20}"


def test_a_source_in_parts_is_streamed(monkeypatch):
    hub = Hub()
    monkeypatch.setattr("datasets.load_dataset", hub)
    sources.load(Source("nobody/rows", (), parts=("a.jsonl",)), None)
    assert hub.calls[0][1]["data_files"] == ["hf://datasets/nobody/rows@main/a.jsonl"]
    assert hub.calls[0][1]["streaming"] is True


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Couldn't reach the Hub"), "see that the network is up, or get gpqa_diamond.csv"),
        (
            ValueError("Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub. You must be authenticated"),
            "hf auth login",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(monkeypatch, error, words):
    monkeypatch.setattr("datasets.load_dataset", Hub(error))
    with pytest.raises(BenchError, match=words):
        suites.find("gpqa-diamond").questions()


def test_a_stream_that_breaks_off_is_no_short_benchmark(monkeypatch):
    def broken(*args, **kwargs):
        yield {"q": 1}
        raise ConnectionError("reset by peer")

    monkeypatch.setattr("datasets.load_dataset", broken)
    with pytest.raises(BenchError, match="reset by peer"):
        list(sources.load(Source("nobody/rows", (), parts=("a.jsonl",)), None).rows)
