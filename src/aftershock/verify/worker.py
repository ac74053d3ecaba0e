"""The process in which tasks' checks run, so that one that hangs, crashes or eats memory harms nothing else.

It guards against accidents, not attacks: a check may still write files, open connections and kill processes, as any
code of the user may. What a check prints is thrown away. Imports here stay light, since a worker is replaced often.
"""

import contextlib
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from aftershock.verify.channel import Channel
from aftershock.verify.verdict import Verdict

CHECK_MEMORY = 1 << 30  # bytes that checks may take beyond what loading the tasks took
GRACE_SECONDS = 2.0  # the judge kills a late worker; past this long more, a worker without a judge ends itself
_LONGEST_TEXT = 2000  # characters kept of a reason or an extracted answer
_SEND_SECONDS = 60.0
_FLUSH_SECONDS = 0.01  # verdicts go out together, or each would wake the judge

# What a worker writes down before each check, in memory it shares with the judge: how many checks it began before
# this one, and when it began this one on the machine's monotonic clock.
PROGRESS = struct.Struct("qd")


def main(connection: int, progress: int) -> None:
    """Serve checks over the inherited socket `connection` until its other end is gone; `progress` is a shared file.

    First message in: pickled (tasks pickled, seconds a check may take); out: "" or why the tasks could not be loaded.
    Then in: pickled, whether to check now or only to begin, and a list of (task index, problem, answer); out: JSON
    lists of verdicts on those to check, in order, and "" before it ends of its own will, which it does after a check
    that ran out of memory.
    """
    channel = Channel(socket.socket(fileno=connection))
    with contextlib.suppress(EOFError):
        packed, seconds = pickle.loads(channel.receive())
        try:
            tasks = pickle.loads(packed)
        except BaseException:
            channel.send(traceback.format_exc(limit=-3).encode(), _SEND_SECONDS)
            return
        _settle_in()
        channel.send(b"", _SEND_SECONDS)
        with contextlib.suppress(EOFError):
            _Server(channel, tasks, mmap.mmap(progress, PROGRESS.size), seconds).serve()
        os._exit(0)  # without waiting for what was begun


class _Server:
    """Checks answers and sends verdicts on."""

    def __init__(self, channel: Channel, tasks: Sequence[Any], progress: mmap.mmap, seconds: float) -> None:
        self._channel = channel
        self._tasks = tasks
        self._progress = progress
        self._seconds = seconds
        self._begun = 0
        self._unsent: list[tuple[str, str, str]] = []
        self._sent_at = 0.0

    def serve(self) -> None:
        """Take message after message; ends by EOFError, or after a check that ran out of memory."""
        while True:
            for message in self._channel.receive_ready(None):
                now, jobs = pickle.loads(message)
                self._begin(jobs)
                if now and not self._checked(jobs):
                    return

    def _checked(self, jobs: Sequence[tuple[int, Any, str]]) -> bool:
        """Send the verdicts on a batch; False after a check that ran out of memory."""
        for index, problem, answer in jobs:
            verdict = self._check(index, problem, answer)
            reached = (
                verdict.outcome,
                verdict.reason[:_LONGEST_TEXT],
                (verdict.extracted or answer)[:_LONGEST_TEXT],
            )
            self._unsent.append(reached)
            if verdict.reason.startswith("MemoryError"):  # what the check holds on to would starve the next one
                self._send()
                self._channel.send(b"", _SEND_SECONDS)
                return False
            if time.monotonic() - self._sent_at > _FLUSH_SECONDS:
                self._send()
        self._send()
        return True

    def _begin(self, jobs: Sequence[tuple[int, Any, str]]) -> None:
        """Let tasks begin what their checks will wait for; one that raises will do so again in its check."""
        for index, problem, answer in jobs:
            begin = getattr(self._tasks[index], "begin", None)
            if begin is not None:
                with contextlib.suppress(Exception):
                    begin(problem, answer)

    def _check(self, index: int, problem: Any, answer: str) -> Verdict:
        PROGRESS.pack_into(self._progress, 0, self._begun, time.monotonic())
        self._begun += 1
        signal.setitimer(signal.ITIMER_REAL, self._seconds + GRACE_SECONDS)
        verdict = judge_one(self._tasks[index], problem, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return verdict

    def _send(self) -> None:
        if self._unsent:
            self._channel.send(json.dumps(self._unsent).encode(), _SEND_SECONDS)
        self._unsent, self._sent_at = [], time.monotonic()


def _settle_in() -> None:
    """Set the limits that hold for checks, and silence them."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = _address_space()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if held and (hard == resource.RLIM_INFINITY or held + CHECK_MEMORY <= hard):
        resource.setrlimit(resource.RLIMIT_AS, (held + CHECK_MEMORY, hard))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _address_space() -> int:
    """Bytes of address space in use; 0 where the system does not say (then no limit is set)."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def judge_one(task: Any, problem: Any, answer: str) -> Verdict:
    """Return the check's verdict, or an unverifiable one that says what it raised or returned instead."""
    try:
        verdict = task.check(problem, answer)
    except BaseException as error:
        return Verdict("unverifiable", f"{type(error).__name__}: {error} ({_where(error)})")
    if not isinstance(verdict, Verdict) or verdict.outcome not in ("right", "wrong", "unverifiable"):
        return Verdict("unverifiable", f"the check returned {verdict!r:.200}, not a Verdict")
    if not isinstance(verdict.reason, str) or not isinstance(verdict.extracted, str | None):
        return Verdict("unverifiable", f"the check returned {verdict!r:.200}, whose reason or extracted is no text")
    return verdict


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}"
