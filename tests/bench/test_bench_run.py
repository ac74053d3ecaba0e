"""A bench through inspect: what is kept, what fails, what is asked again, and endpoints that misbehave."""

import json
import threading
import time

import pytest
from endpoint import HANG_SECONDS, endpoint
from test_target import Sums

from aftershock.bench import inspect_adapter
from aftershock.bench.run import Asking, judge_row, measurements, prepare, run
from aftershock.bench.scripted import Scripted
from aftershock.bench.store import LOGS, SCORES, read
from aftershock.bench.target import Endpoint, Local, answer_of, failed
from aftershock.bench.types import Protocol, Question
from aftershock.errors import BenchError, RunError


class Watch:
    def __init__(self):
        self.rows, self.begun = [], None

    def begin(self, suites):
        self.begun = suites

    def hear(self, row):
        self.rows.append(row)


class Counting(Local):
    """Knows every sum, and fails on the questions in `lost`; remembers whom it was asked."""

    identity = {"name": "counting", "kind": "test", "template": None}

    def __init__(self, lost=()):
        self.lost, self.asked = set(lost), []

    def answer(self, asked, protocol, tell):
        self.asked += [(question.id, sample) for question, sample in asked]
        for number, (question, _) in enumerate(asked):
            lost = question.id in self.lost
            tell(number, failed("lost") if lost else answer_of(f"hm</think>{question.gold}", 2, cut=False))


class Told(Sums):
    """Six sums, in memory."""

    instruction = "Say only the number."

    def questions(self, n=None):
        self.data_hash, self.origin = "hash", "memory"
        return [self.question({}, index) for index in range(n or 6)]


def bench(target, folder, suite=None, watch=None, **protocol):
    protocol = Protocol(**{"k": 2, "max_tokens": 100, **protocol})
    return run(target, prepare([suite or Told()], target, protocol), protocol, folder, "again", watch or Watch())


def test_every_sample_is_asked_once_and_kept(tmp_path):
    target, watch = Counting(), Watch()
    made = bench(target, tmp_path, watch=watch)
    assert sorted(target.asked) == [(str(q), s) for q in range(6) for s in range(2)]
    assert [(row.question, row.sample) for row in made.rows] == sorted(target.asked)
    assert all(row.right and row.extracted == row.answer.answer for row in made.rows)
    assert len(watch.rows) == 12
    assert watch.begun == {"sums": (12, [])}
    assert json.loads((tmp_path / SCORES).read_text())["measurements"][0]["value"] == 1.0
    entry = made.header["suites"][0]
    assert (entry["n"], entry["k"], entry["source"], entry["instruction"]) == (6, 2, "memory", Told.instruction)


def test_inspects_own_log_tells_the_same(tmp_path):
    from inspect_ai.log import read_eval_log

    bench(Counting(lost=["3"]), tmp_path)
    (path,) = (tmp_path / LOGS).glob("*.eval")
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task, log.eval.model) == ("success", "sums", "aftershock/counting")
    assert len(log.samples) == 12
    told = {(sample.id, sample.epoch): sample for sample in log.samples}
    assert told["2", 1].input == "2+1?\n\nSay only the number."
    assert told["2", 1].output.completion == "hm</think>3"
    assert (told["2", 1].scores["judge"].value, told["2", 1].scores["judge"].answer) == (1.0, "3")
    assert told["3", 2].scores["judge"].explanation == "lost"
    assert log.results.scores[0].metrics["mean"].value == 1.0  # of what was answered


def test_a_finished_bench_asks_nothing_and_failed_requests_are_asked_again(tmp_path):
    first = Counting(lost=["1", "4"])
    before = bench(first, tmp_path)
    assert {row.question for row in before.rows if not row.counted} == {"1", "4"}
    shares = {m.metric: m.value for m in measurements(before)}
    assert (shares["pass@1"], shares["failed"]) == (1.0, 4 / 12)
    second, watch = Counting(), Watch()
    after = bench(second, tmp_path, watch=watch)
    assert sorted(second.asked) == [("1", 0), ("1", 1), ("4", 0), ("4", 1)]
    assert len(watch.begun["sums"][1]) == 8
    assert {m.metric: m.value for m in measurements(after)}["failed"] == 0
    third = Counting()
    bench(third, tmp_path)
    assert third.asked == []
    whole = tmp_path.parent / f"{tmp_path.name}-whole"
    bench(Counting(), whole)
    assert (whole / SCORES).read_bytes() == (tmp_path / SCORES).read_bytes()


def test_a_bench_that_asks_otherwise_is_refused(tmp_path):
    bench(Counting(), tmp_path)
    with pytest.raises(BenchError, match=r"protocol\.temperature was 0\.6, is 1\.0"):
        bench(Counting(), tmp_path, temperature=1.0)
    with pytest.raises(BenchError, match=r"model\.name was \"counting\", is \"scripted:knows\""):
        bench(Scripted("knows", {"sums": Told()}), tmp_path)


def test_at_temperature_0_one_sample_says_it_all(tmp_path):
    assert {row.sample for row in bench(Counting(), tmp_path, temperature=0.0).rows} == {0}


def test_what_a_model_is_told_is_hashed_apart_from_how(tmp_path):
    suite = Told()
    target = Counting()
    plain = prepare([suite], target, Protocol())[0]
    target.identity = {**Counting.identity, "template": "zero"}
    zero = prepare([suite], target, Protocol())[0]
    assert plain.told[0].prompt == "0+1?\n\nSay only the number."
    assert zero.told == zero.questions == plain.questions
    assert isinstance(zero, Asking)


def test_a_scorer_that_crashes_is_no_wrong_answer():
    class Broken(Sums):
        def score(self, question, answer):
            raise ZeroDivisionError("oops")

    row = judge_row(Broken(), Question("sums", "1", "", "2"), 0, answer_of("2", 1, cut=False))
    assert (row.outcome, row.counted, row.reason) == (
        "unverifiable",
        False,
        "the scorer failed: ZeroDivisionError: oops",
    )
    row = judge_row(Broken(), Question("sums", "1", "", "2"), 0, failed("no network"))
    assert (row.outcome, row.counted, row.reason) == ("unverifiable", False, "no network")


def test_our_own_faults_end_the_bench_and_keep_what_was_done(tmp_path, monkeypatch):
    class Faulty(Counting):
        def answer(self, asked, protocol, tell):
            super().answer(asked[:3], protocol, tell)
            raise RunError("the weights have diverged")

    with pytest.raises(RunError, match="diverged"):
        bench(Faulty(), tmp_path)
    assert len(read(tmp_path).rows) <= 3
    monkeypatch.setattr("aftershock.disk.append_line", lambda path, line: _raise(RunError("the disk is full")))
    with pytest.raises(RunError, match="full"):
        bench(Counting(), tmp_path / "other")
    monkeypatch.undo()
    assert len(bench(Counting(), tmp_path).rows) == 12


def _raise(error):
    raise error


def test_no_thread_outlives_a_bench(tmp_path):
    bench(Counting(), tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name == "bench-model"]


@pytest.fixture
def impatient(monkeypatch):
    """Retry once, at once."""
    from tenacity import wait_none

    monkeypatch.setattr(inspect_adapter, "RETRIES", 1)
    monkeypatch.setattr("inspect_ai.model._model.ModelAPI.retry_wait", lambda self: wait_none())


SAID = {
    "0+1?": "<think>\none\n</think>\n1",
    "1+1?": {"content": "2", "reasoning_content": "one more is two"},
    "2+1?": {"content": "3", "reasoning": "three"},
    "3+1?": "so it is four</think>4",
    "4+1?": "5",
    "5+1?": "<think>7? no, 6",
}


def test_reasoning_is_told_apart_wherever_an_endpoint_puts_it(tmp_path):
    with endpoint(lambda prompt, attempt: SAID[prompt.split("\n")[0]]) as server:
        made = bench(Endpoint(server.url, "m", 30), tmp_path, k=1)
    assert [(row.answer.answer, row.right) for row in made.rows] == [
        (str(n + 1) if n < 5 else "", n < 5) for n in range(6)
    ]
    assert [bool(row.answer.reasoning) for row in made.rows] == [True] * 4 + [False, True]
    assert all(row.answer.tokens == 7 for row in made.rows)
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("m", 0.6, 0.95, 100)
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert len({body["seed"] for body in server.requests}) == 6


def test_odd_ends_of_an_endpoint(tmp_path):
    said = {
        "0+1?": {"content": "1 and on and", "finish": "length"},
        "1+1?": {"content": "I can't", "finish": "content_filter"},
        "2+1?": (400, "context_length_exceeded: too long"),
        "3+1?": {"content": "", "reasoning_content": "I think and think", "finish": "length"},
        "4+1?": {"content": ""},
        "5+1?": "<think>\n6\n</think>\n",
    }
    with endpoint(lambda prompt, attempt: said[prompt.split("\n")[0]]) as server:
        made = bench(Endpoint(server.url, "m", 30), tmp_path, k=1)
    assert [row.answer.finish for row in made.rows] == ["length", "failed", "failed", "length", "stop", "stop"]
    assert [row.counted for row in made.rows] == [True, False, False, True, True, True]
    assert [row.answer.answer for row in made.rows] == ["1 and on and", "", "", "", "", ""]
    assert made.rows[5].answer.reasoning == "6"


def test_an_endpoint_that_fails_half_the_time_and_hangs(tmp_path, impatient, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "very-secret-key")

    def reply(prompt, attempt):
        number = int(prompt.split("+")[0])
        if number % 4 == 0:
            return 500, "always down"
        if number % 4 == 1:
            return "hang"
        return (503, "busy") if attempt == 1 else str(number + 1)

    from aftershock.bench.target import find

    began = time.perf_counter()
    with endpoint(reply) as server:
        target = find(f"{server.url}#m", {}, timeout=2)
        made = bench(target, tmp_path, k=1, n=16)
    assert time.perf_counter() - began < HANG_SECONDS  # it never waited for the end of a hang
    finishes = [row.answer.finish for row in made.rows]
    assert finishes == ["failed", "failed", "stop", "stop"] * 4
    assert all(row.right for row in made.rows if row.counted)
    shares = {m.metric: m.value for m in measurements(made)}
    assert (shares["pass@1"], shares["failed"]) == (1.0, 0.5)
    assert (shares["pass@1_missing_wrong"], shares["pass@1_missing_right"]) == (0.5, 1.0)
    assert server.keys == {"Bearer very-secret-key"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"very-secret-key" not in path.read_bytes()


def test_an_endpoint_that_never_answers_ends_the_bench(tmp_path, impatient):
    with endpoint(lambda prompt, attempt: (401, "wrong key")) as server:
        with pytest.raises(BenchError, match=r"first 20 requests all failed.*wrong key"):
            bench(Endpoint(server.url, "m", 30), tmp_path, n=100)
        assert len(server.requests) < 200
    assert not any(row.counted for row in read(tmp_path).rows)
