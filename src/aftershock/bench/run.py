"""One bench from its command to its scores: questions asked, answers judged, rows kept, numbers made."""

import contextlib
import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from aftershock import __version__, disk
from aftershock.bench.measure import measure
from aftershock.bench.store import LOGS, SCHEMA, SCORES, SPEC, TIMINGS, Bench, Header, Store, read
from aftershock.bench.suite import Suite
from aftershock.bench.suites import expand
from aftershock.bench.suites import find as find_suite
from aftershock.bench.target import TIMEOUT, Target, find
from aftershock.bench.types import Answer, Protocol, Question, Row
from aftershock.errors import BenchError
from aftershock.stats import Measurement

PACKAGES = ("torch", "transformers", "inspect-ai", "math-verify", "datasets", "reasoning-gym")


class Watch(Interface):
    """Whoever is shown how a bench gets on."""

    def begin(self, suites: Mapping[str, tuple[int, list[Row]]]) -> None:
        """Hear of every suite: how many rows it will have, and those from before."""

    def hear(self, row: Row) -> None:
        """Hear of a row that was just kept; called from threads, one at a time or not."""


@dataclass(frozen=True)
class Asking:
    """A suite made ready: its questions, k, and the instruction that this model is told after each."""

    suite: Suite
    questions: list[Question]
    k: int
    instruction: str

    @property
    def name(self) -> str:
        return self.suite.name

    @property
    def told(self) -> list[Question]:
        """The questions as the model is told them."""
        if not self.instruction:
            return self.questions
        return [replace(question, prompt=f"{question.prompt}\n\n{self.instruction}") for question in self.questions]


def prepare(suites: Sequence[Suite], target: Target, protocol: Protocol) -> list[Asking]:
    """Load every suite's questions; k is 1 at temperature 0, where all samples are one.

    R1-Zero's own templates ask for answer tags themselves, or the model was trained on such: it is told no instruction.
    Raises BenchError where the questions can't be had.
    """
    trained = target.identity["template"] in ("zero", "paper")
    return [
        Asking(
            suite,
            suite.questions(protocol.n),
            1 if protocol.temperature == 0 else protocol.k or suite.samples,
            "" if trained else suite.instruction,
        )
        for suite in suites
    ]


def header(target: Target, protocol: Protocol, asking: Sequence[Asking], command: str) -> dict[str, Any]:
    """Return bench.json: all that a number hangs on, and the command that repeats it."""
    return {
        "schema": SCHEMA,
        "model": dict(target.identity),
        "protocol": asdict(protocol),
        "suites": [_entry(one, target, protocol) for one in asking],
        "versions": _versions(),
        "command": command,
    }


def _entry(one: Asking, target: Target, protocol: Protocol) -> dict[str, Any]:
    # the suite's own words: with them in `instruction` or in its template, a model is asked the same
    prompts = json.dumps([one.suite.instruction, *([question.id, question.prompt] for question in one.questions)])
    return {
        "name": one.name,
        "title": one.suite.title,
        "n": len(one.questions),
        "k": one.k,
        "data_sha256": one.suite.data_hash,
        "prompt_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
        "source": one.suite.origin,
        "instruction": one.instruction,
        "max_tokens": list(target.lengths(one.told, protocol)),
    }


def _versions() -> dict[str, str]:
    found = {"aftershock": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def judge_row(suite: Suite, question: Question, sample: int, answer: Answer) -> Row:
    """Judge one answer. A failed request, and an answer on which the scorer itself fails, are unverifiable."""
    if answer.finish == "failed":
        return Row(question.suite, question.id, sample, answer, "unverifiable", answer.error, None)
    try:
        verdict = suite.score(question, answer)
    except Exception as error:  # a crash of ours is neither a 0 nor a 1
        reason = f"the scorer failed: {type(error).__name__}: {error}"
        return Row(question.suite, question.id, sample, answer, "unverifiable", reason, None)
    return Row(question.suite, question.id, sample, answer, verdict.outcome, verdict.reason, verdict.extracted)


def bench(
    model: str,
    names: Sequence[str],
    protocol: Protocol,
    folder: Path,
    command: str,
    watch: Watch,
    data: Path | None = None,
    model_name: str | None = None,
    timeout: int = TIMEOUT,
) -> Bench:
    """Bench `model` (see `target.find`) on the suites of `names`, groups among them, in `folder`; see `run`."""
    if not names:
        raise BenchError("no suite is named; give --suite generated, or others of docs/suites.md")
    with contextlib.ExitStack() as stack:
        suites = [find_suite(name, data) for name in expand(names)]
        for suite in suites:
            stack.callback(suite.close)
        target = find(model, {suite.name: suite for suite in suites}, model_name, timeout)
        return run(target, prepare(suites, target, protocol), protocol, folder, command, watch)


def run(
    target: Target, asking: Sequence[Asking], protocol: Protocol, folder: Path, command: str, watch: Watch
) -> Bench:
    """Ask everything that `folder` doesn't hold yet, and write its scores. `watch` hears of each suite and row.

    Raises BenchError where the folder holds a bench that asked otherwise, KeyboardInterrupt on Ctrl-C; what was kept
    so far stays, and the same call goes on from there.
    """
    top = header(target, protocol, asking, command)
    with Store(folder, top, {one.name: one.questions for one in asking}) as store:
        watch.begin({one.name: (len(one.questions) * one.k, list(store.done(one.name).values())) for one in asking})
        _ask_all(target, asking, protocol, store, watch)
        bench = read(folder)
        disk.write_json(folder / SCORES, scores(top, measurements(bench)))
    return bench


def _ask_all(target: Target, asking: Sequence[Asking], protocol: Protocol, store: Store, watch: Watch) -> None:
    left = [one for one in asking if len(store.done(one.name)) < len(one.questions) * one.k]
    if not left:
        return
    from aftershock.bench.inspect_adapter import Ask, Inspect

    with Inspect(target, protocol, store.folder / LOGS) as inspect:
        for one in left:
            clock = _Clock()

            def keep(row: Row, clock: _Clock = clock) -> None:
                store.add(row)
                clock.hear(row)
                watch.hear(row)

            inspect.run(
                Ask(one.name, one.told, one.k, protocol, store.done(one.name), partial(judge_row, one.suite), keep)
            )
            _note_time(store.folder, one.name, clock)


class _Clock:
    """How long one suite took in this session, and how much was said in it."""

    def __init__(self) -> None:
        self.began, self.rows, self.tokens = time.perf_counter(), 0, 0

    def hear(self, row: Row) -> None:
        self.rows += 1
        self.tokens += row.answer.tokens


def _note_time(folder: Path, suite: str, clock: _Clock) -> None:
    sessions = disk.read_json(folder / TIMINGS) or []
    seconds = round(time.perf_counter() - clock.began, 2)
    sessions.append({"suite": suite, "seconds": seconds, "rows": clock.rows, "tokens": clock.tokens})
    disk.write_json(folder / TIMINGS, sessions)


def measurements(bench: Bench) -> list[Measurement]:
    """Return every number of a bench, suite by suite."""
    return [
        measured
        for entry in bench.header["suites"]
        for measured in measure(entry["name"], bench.of(entry["name"]), entry["k"], bench.protocol.seed)
    ]


def scores(top: Header, measured: Sequence[Measurement]) -> dict[str, Any]:
    """Return scores.json: the numbers with what they hang on; no time and no place, so that it can be repeated."""
    return {**{part: top[part] for part in SPEC}, "measurements": [asdict(one) for one in measured]}
