"""Is a program right? It is run in a sandbox, and judged from outside by what it computes."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from aftershock.errors import VerifierError
from aftershock.verify.program import AssertTests, CallTest, Limits, ProgramTest, StdioTest
from aftershock.verify.sandbox import Box, Ended, runtime
from aftershock.verify.sandbox.inside import Unplain, encode
from aftershock.verify.sandbox.values import decode
from aftershock.verify.verdict import Outcome, Verdict

DEFAULT_LIMITS = Limits()
_LONGEST_REASON = 300
_BUILD_BYTES = 1 << 26  # of a compiled program and of what a compiler says


@dataclass(frozen=True)
class Language:
    """How programs of a language run in the sandbox: as `file`, by `command`, after `build` where it is compiled.

    `roams` marks a runtime that reserves address space by the gigabyte: its memory is limited as data only.
    """

    file: str
    command: tuple[str, ...]
    build: tuple[str, ...] = ()
    roams: bool = False


LANGUAGES = {
    "javascript": Language("program.js", ("/usr/bin/node", "program.js"), roams=True),
    "c": Language("program.c", ("./program",), ("/usr/bin/gcc", "-O2", "-w", "-o", "program", "program.c", "-lm")),
    "cpp": Language("program.cpp", ("./program",), ("/usr/bin/g++", "-O2", "-w", "-o", "program", "program.cpp")),
}


class _Judged(Exception):
    """A verdict other than right, on its way to the caller."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason


def run_code(
    program: str, tests: Sequence[ProgramTest], limits: Limits = DEFAULT_LIMITS, language: str = "python"
) -> Verdict:
    """Judge an untrusted program by its tests, in a sandbox. May be called from many threads at once.

    `right`: it passes all tests. `wrong`: the program's fault, be it a value, an exception, a limit or its syntax; the
    reason names the test, counted from 1. `unverifiable`: the tests or the sandbox failed. Raises SandboxError where no
    sandbox can be had (nothing is ever run without one), VerifierError for a language or a test that is not known.

    Values are compared here, outside: by Python's ==, so 1 == 1.0 == True, floats exactly, nan equal to nothing; only
    plain values come out of the sandbox. A CallTest's program is never told what is expected; an AssertTests' source
    runs in a sandbox of its own, calls the program with copies, and must get to its end, which a nonce proves that the
    program never sees. A StdioTest runs in a fresh sandbox, compares lines without trailing space and wants exit
    status 0. A program's CallTests share one process, in order; each AssertTests loads it anew.

    Not stopped: holes in the kernel or the processor, which a sandbox shares; timing and other side channels; reading
    /usr, the Python it runs on, the time and the processor's name; using, for `wall_seconds`, every core with
    `processes` processes of `cpu_seconds` each, 2 x `memory_bytes` of memory (weighed ten times a second, so more for a
    moment) beside 2 x `file_bytes` of scratch files, and what the kernel itself keeps of each empty file; values that
    it knows to be expected without computing them. A kernel out of memory may end a program that is not to blame, and
    one before 5.14 counts the limit on processes over all of the user's. Which walls stand, `sandbox.walls()` says.
    """
    if language != "python" and language not in LANGUAGES:
        raise VerifierError(f"no sandbox for the language {language!r}; known: python, {', '.join(LANGUAGES)}")
    if not tests:
        return Verdict("unverifiable", "no tests")
    trial = _Trial(program, limits, time.monotonic() + limits.wall_seconds, language)
    try:
        with contextlib.closing(trial):
            for number, test in enumerate(tests, 1):
                trial.take(number, test)
    except _Judged as judged:
        return Verdict(judged.outcome, _printable(judged.reason)[:_LONGEST_REASON])
    except OSError as error:
        return Verdict("unverifiable", f"the sandbox could not be started: {error}")
    return Verdict("right", f"passed {len(tests)} test{'s' * (len(tests) > 1)}")


class _Trial:
    """A program under test."""

    def __init__(self, program: str, limits: Limits, deadline: float, language: str) -> None:
        self._program, self._limits, self._deadline = program, limits, deadline
        self._language = language
        self._open = contextlib.ExitStack()
        self._subject: _Subject | None = None
        self._binary: bytes | None = None

    def close(self) -> None:
        self._open.close()

    def take(self, number: int, test: ProgramTest) -> None:
        """Return if the program passes; raise the verdict if not."""
        if isinstance(test, StdioTest):
            self._stdio(number, test)
        elif self._language != "python":
            raise VerifierError(f"a {type(test).__name__} for a program in {self._language}; wanted: a StdioTest")
        elif isinstance(test, CallTest):
            self._call(number, test)
        else:
            self._asserts(number, test)

    def _call(self, number: int, test: CallTest) -> None:
        try:
            encode([test.args, dict(test.kwargs), test.expected])
        except Unplain as error:
            raise _Judged("unverifiable", f"test {number} has {error}") from error
        if self._subject is None:
            self._subject = self._open.enter_context(self._load(number))
        got = self._subject.ask(number, test.function, test.args, test.kwargs)
        call = f"{test.function}({_shown(test.args, test.kwargs)})"
        if got[0] == "raised":
            raise _Judged("wrong", f"test {number}: {call} raised {got[1]}: {got[2]}")
        if got[0] == "missing":
            raise _Judged("wrong", f"test {number}: the program defines no {test.function}")
        if got[1] != test.expected:
            raise _Judged("wrong", f"test {number}: {call} is {_short(got[1])}, wanted {_short(test.expected)}")

    @contextlib.contextmanager
    def _load(self, number: int) -> "Iterator[_Subject]":
        job = {"mode": "functions", "source": self._program}
        with Box(runtime(), job, self._limits, self._deadline) as box:
            yield _Subject(box)

    def _asserts(self, number: int, test: AssertTests) -> None:
        nonce = secrets.token_hex(16)
        job = {"mode": "tester", "source": test.source, "setup": test.setup, "entry_point": test.entry_point}
        job["nonce"] = nonce
        with Box(runtime(), job, self._limits, self._deadline) as box, self._load(number) as subject:
            _Examination(number, box, subject).until(nonce)

    def _stdio(self, number: int, test: StdioTest) -> None:
        output, status, words = self._run(number, self._job(number), test.stdin.encode(errors="surrogatepass"))
        if status:
            raise _Judged("wrong", f"test {number}: exit status {status}: {words}")
        got, wanted = _lines(output), _lines(test.stdout.encode(errors="surrogatepass"))
        for place, (one, other) in enumerate(zip_longest(got, wanted), 1):
            if one != other:
                raise _Judged("wrong", f"test {number}: line {place} is {_line(one)}, wanted {_line(other)}")

    def _job(self, number: int) -> dict[str, Any]:
        if self._language == "python":
            return {"mode": "script", "source": self._program}
        language = LANGUAGES[self._language]
        content = self._program.encode(errors="replace")
        if language.build and self._binary is None:
            job = {"mode": "build", "file": language.file, "content": content, "command": list(language.build)}
            limits = Limits(file_bytes=_BUILD_BYTES, output_bytes=_BUILD_BYTES)
            self._binary, status, words = self._run(number, job, b"", limits)
            if status:
                raise _Judged("wrong", f"does not compile: {words}")
        return {
            "mode": "execute",
            "file": language.file if self._binary is None else "program",
            "content": content if self._binary is None else self._binary,
            "command": list(language.command),
            "roams": language.roams,
        }

    def _run(
        self, number: int, job: dict[str, Any], stdin: bytes, limits: Limits | None = None
    ) -> tuple[bytes, int, str]:
        with Box(runtime(), job, limits or self._limits, self._deadline, stdin) as box:
            try:
                output, status = box.finish()
            except Ended as ended:
                raise _blame(number, box, ended) from ended
            if not box.started():
                raise _Judged("unverifiable", f"the sandbox did not start: {box.last_words()}")
            return output, status, box.last_words()


class _Subject:
    """The process in which the program's functions live."""

    def __init__(self, box: Box) -> None:
        self._box, self._loaded = box, False

    def ask(self, number: int, name: str, *call: Any) -> list[Any]:
        """Ask what `name` is, or call it with args and kwargs: ["value", v], ["raised", type, text] or a lone word."""
        self.load(number)
        self._box.send((name, *(dict(part) if isinstance(part, Mapping) else part for part in call)))
        claim = self._claim(number)
        if claim[0] == "unplain":
            raise _Judged("wrong", f"test {number}: {name} gives {claim[1]}")
        if call and claim[0] == "callable":  # which only a name can be: the program wrote this reply itself
            raise _Judged("wrong", f"test {number}: what came out is no plain value")
        return claim

    def load(self, number: int) -> None:
        """Return once the program stands; raise the verdict on one that doesn't."""
        if self._loaded:
            return
        loaded = self._claim(number)
        if loaded[0] == "raised":
            raise _Judged("wrong", f"the program raises {loaded[1]} when it is loaded: {loaded[2]}")
        self._loaded = True

    def _claim(self, number: int) -> list[Any]:
        try:
            claim = decode(self._box.answer())
        except Ended as ended:
            raise _blame(number, self._box, ended) from ended
        except ValueError as error:
            raise _Judged("wrong", f"test {number}: what came out is no plain value: {error}") from error
        match claim:
            case ["value", _] | ["raised", str(), str()] | ["unplain", str()] | ["missing"] | ["callable"]:
                return claim
        raise _Judged("wrong", f"test {number}: what came out is no plain value")


class _Examination:
    """The tests in their sandbox, and the program in its own, with us between them."""

    def __init__(self, number: int, tester: Box, subject: _Subject) -> None:
        self._number, self._tester, self._subject = number, tester, subject
        self._last: tuple[str, tuple[Any, Any] | None, list[Any]] | None = None

    def until(self, nonce: str) -> None:
        """Carry calls to and fro until the tests are through; raise the verdict where they don't pass."""
        while True:
            message = self._hear()
            if message == ["passed", nonce]:
                self._subject.load(self._number)  # tests that never asked for it don't make a broken program right
                return
            match message:
                case ["get", str(name)]:
                    reply = self._subject.ask(self._number, name)
                    self._last = (name, None, reply)
                    self._tester.send(reply)
                case ["call", str(name), args, kwargs]:
                    reply = self._subject.ask(self._number, name, args, kwargs)
                    self._last = (name, (args, kwargs), reply)
                    self._tester.send(reply)
                case ["failed", "program", _, kind, text, line]:
                    what = f"{kind}: {text}" if text else kind
                    raise _Judged("wrong", f"test {self._number}: {_short(line)} fails ({what[:100]}){self._story()}")
                case ["failed", _, place, kind, text, _]:
                    raise _Judged("unverifiable", f"test {self._number}: the {place} themselves fail: {kind}: {text}")
                case _:
                    raise _Judged("unverifiable", f"test {self._number}: the tests sent no message of ours")

    def _story(self) -> str:
        """What the tests last asked of the program, and what came of it."""
        if self._last is None or self._last[2][0] == "callable":
            return ""
        name, call, reply = self._last
        came = f"is {_short(reply[1])}" if reply[0] == "value" else _short(" ".join(reply), str)
        return f"; last, {name}{f'({_shown(*call)})' if call else ''} {came}"

    def _hear(self) -> Any:
        try:
            return decode(self._tester.answer())
        except Ended as ended:
            if self._last and self._tester.started():
                raise _Judged("wrong", f"test {self._number}: its tests {ended}{self._story()}") from ended
            raise _Judged("unverifiable", f"test {self._number}: its tests {ended}") from ended
        except ValueError as error:
            raise _Judged("unverifiable", f"test {self._number}: its tests sent {error}") from error


def _blame(number: int, box: Box, ended: Ended) -> _Judged:
    """A sandbox that ended is the program's fault, unless it never stood."""
    if not box.started():
        return _Judged("unverifiable", f"the sandbox did not start: {ended}; {box.last_words()}")
    return _Judged("wrong", f"test {number}: the program {ended}")


def _lines(output: bytes) -> list[bytes]:
    return [line.rstrip() for line in output.rstrip().split(b"\n")]


def _line(line: bytes | None) -> str:
    return "nothing" if line is None else _short(line.decode(errors="replace"))


def _shown(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    return _short(", ".join([*map(_short, args), *(f"{name}={_short(value)}" for name, value in kwargs.items())]), str)


def _short(value: Any, show: Any = repr) -> str:
    try:
        text = show(value)
    except ValueError:  # Python writes out no integer of more than 4300 digits
        return "a value with too long an integer to show"
    return text if len(text) <= 80 else text[:77] + "..."


def _printable(text: str) -> str:
    """Escape what could steer a terminal or break a file: the program has a say in its verdict's reason."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
