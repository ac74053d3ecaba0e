"""A bench's folder: whole rows only, read back in order, gone on with where it asked the same."""

import json
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aftershock.bench.store import ROWS, Store, differences, folder_name, read
from aftershock.bench.types import Answer, Protocol, Question, Row
from aftershock.errors import AftershockError, BenchError

QUESTIONS = {"one": [Question("one", f"q{i}", f"What is {i}?\u2028", str(i), {"value": i}) for i in (3, 1, 2)]}


def header(**changes):
    spec = {"schema": 1, "model": {"name": "m"}, "protocol": {"n": 3, "k": 2}, "versions": {}, "command": "x"}
    return {**spec, "suites": [{"name": "one", "n": 3, "k": 2}], **changes}


def row(question, sample, finish="stop", text="4\x85\u2028\r5"):
    return Row("one", question, sample, Answer(text, "", text, 3, finish), "right", "because", "4")


def test_rows_come_back_in_the_order_asked_and_the_last_of_a_sample_counts(tmp_path):
    with Store(tmp_path, header(), QUESTIONS) as store:
        for one in (row("q1", 1), row("q3", 0, "failed"), row("q1", 0), row("q3", 0), row("q2", 0, "failed")):
            store.add(one)
    bench = read(tmp_path)
    assert bench.questions == QUESTIONS
    assert bench.rows == [row("q3", 0), row("q1", 0), row("q1", 1), row("q2", 0, "failed")]
    assert bench.of("one") == bench.rows
    assert bench.protocol == Protocol(n=3, k=2)


def test_a_torn_row_is_dropped_and_failed_ones_are_asked_again(tmp_path):
    with Store(tmp_path, header(), QUESTIONS) as store:
        store.add(row("q1", 0))
        store.add(row("q2", 0, "failed"))
    path = tmp_path / "one" / ROWS
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    assert len(read(tmp_path).rows) == 2
    with Store(tmp_path, header(command="again"), QUESTIONS) as store:
        assert set(store.done("one")) == {("q1", 0)}
        assert path.read_bytes() == whole
        store.add(row("q2", 0))
    assert [r.answer.finish for r in read(tmp_path).rows] == ["stop", "stop"]


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 10_000), long=st.integers(0, 200_000))
@example(cut=357, long=0)  # within a character
@example(cut=358, long=0)
def test_wherever_a_kill_cuts_what_is_left_is_whole_rows(tmp_path_factory, cut, long):
    folder = tmp_path_factory.mktemp("bench")
    with Store(folder, header(), QUESTIONS) as store:
        for one in (row("q1", 0), row("q1", 1), row("q2", 0, text="x" * long)):
            store.add(one)
    path = folder / "one" / ROWS
    os.truncate(path, max(0, path.stat().st_size - cut))
    before = read(folder).rows
    with Store(folder, header(), QUESTIONS) as store:
        store.add(row("q3", 0))
    assert read(folder).rows == [row("q3", 0), *before]
    assert [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def test_a_bench_that_asked_otherwise_is_refused_with_what_differs(tmp_path):
    with Store(tmp_path, header(), QUESTIONS):
        pass
    with pytest.raises(BenchError, match=r"protocol\.k was 2, is 4.*--out"):
        Store(tmp_path, header(protocol={"n": 3, "k": 4}), QUESTIONS)
    with Store(tmp_path, header(), QUESTIONS):  # the refusal left the lock free
        pass


def test_one_process_at_a_time(tmp_path):
    with Store(tmp_path, header(), QUESTIONS), pytest.raises(AftershockError, match="in use by process"):
        Store(tmp_path, header(), QUESTIONS)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BenchError, match="not empty and holds no bench"):
        Store(tmp_path, header(), QUESTIONS)
    with pytest.raises(BenchError, match="is no bench"):
        read(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_row_is_named(tmp_path):
    with Store(tmp_path, header(), QUESTIONS) as store:
        store.add(row("q1", 0))
    (tmp_path / "one" / ROWS).write_text("{broken\n")
    with pytest.raises(BenchError, match="line 1"):
        read(tmp_path)


def test_names_of_suites_become_safe_and_stay_apart():
    assert folder_name("countdown@3") == "countdown@3"
    names = ["a/b", "a_b", "../a/b", ".hidden", "a b", "x" * 300]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all("/" not in name and not name.startswith(".") and len(name) < 100 for name in folders)


def test_differences_name_the_path():
    old, new = {"a": [{"k": 1}], "b": 2}, {"a": [{"k": 3}], "c": 4}
    assert differences("x", old, new) == ["x.a[0].k was 1, is 3", "x.b was 2, is null", "x.c was null, is 4"]
