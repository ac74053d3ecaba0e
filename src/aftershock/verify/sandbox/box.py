"""One running sandbox: started, fed, listened to within limits, and killed with all that lives in it."""

import contextlib
import marshal
import math
import os
import re
import select
import selectors
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aftershock.verify.program import Limits

if TYPE_CHECKING:
    from aftershock.verify.sandbox.runtime import Runtime

_CHUNK = 1 << 16
_FILES = 64  # open files a process may hold
_WATCHER = 1  # the sandbox's first process counts as one of the program's
_WEIGH_SECONDS = 0.1
_LEASH_SECONDS = 5.0  # for a sandbox to end by itself when told; then its outermost process is killed


class Ended(Exception):
    """A sandbox that ended, or was ended, before it had answered; the message says what it did, as of the program."""


class Box:
    """A sandbox doing one job of `inside`'s, with `stdin` or, without, on a line to `send` requests on.

    To be used in a `with` statement, by one thread; leaving it kills every process in the sandbox, at any moment of its
    life. OSError where it can't be started.
    """

    def __init__(
        self, runtime: "Runtime", job: dict[str, Any], limits: Limits, deadline: float, stdin: bytes | None = None
    ) -> None:
        self._limits, self._deadline = limits, deadline
        self._received = {"out": bytearray(), "err": bytearray()}
        self._unsent = memoryview(b"")
        self._over, self._walls = False, ""
        self._weigh_at = time.monotonic() + _WEIGH_SECONDS
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            leash, self._leash = _pipe(theirs, ours, 0)
            status, self._status = _pipe(theirs, ours, 1)
            job = job | {"limits": _resource_limits(limits, job), "readable": runtime.readable}
            content = _file(theirs, marshal.dumps((runtime.inside, job | {"status": status, "leash": leash})))
            filter_ = _file(theirs, runtime.seccomp) if runtime.seccomp else None
            process: Any = subprocess.Popen(
                runtime.command(content, filter_, 2 * limits.file_bytes),
                # A file ends even where another thread's fork has kept a copy of its descriptor.
                stdin=subprocess.PIPE if stdin is None else _file(theirs, stdin),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=[leash, status, content, *([filter_] if filter_ is not None else [])],
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
            self._process, self._input = process, process.stdin
            self._outputs = {"out": process.stdout, "err": process.stderr}
            self._ended = os.pidfd_open(process.pid)
            ours.callback(os.close, self._ended)
            ours.callback(self._end)
            self._selector = ours.enter_context(selectors.PollSelector())
            self._selector.register(self._ended, selectors.EVENT_READ, "ended")
            for name, stream in self._outputs.items():
                self._selector.register(stream, selectors.EVENT_READ, name)
            for stream in filter(None, (self._input, *self._outputs.values())):
                os.set_blocking(stream.fileno(), False)
            self._ours = ours.pop_all()

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ours.close()

    def _end(self) -> None:
        """Tell the sandbox to end, and wait until every process in it has; kill it where it does not."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            os.write(self._leash, b"!")
        poll = select.poll()
        poll.register(self._ended)
        if not poll.poll(1000 * _LEASH_SECONDS):
            os.killpg(self._process.pid, signal.SIGKILL)  # its processes have asked to die with it
        self._process.wait()
        for stream in filter(None, (self._input, *self._outputs.values())):
            stream.close()

    def send(self, request: Any) -> None:
        """Queue a request of plain values; it goes out while the answer is waited for."""
        data = marshal.dumps(request, 4)
        if not self._unsent:  # else a program has answered before it read what it was asked
            self._selector.register(self._input, selectors.EVENT_WRITE, "in")
        self._unsent = memoryview(bytes(self._unsent) + len(data).to_bytes(4, "little") + data)

    def answer(self) -> bytes:
        """Return the next line that comes out; Ended where none does."""
        received = self._received["out"]
        while (end := received.find(b"\n")) < 0:
            if not self._listen():
                raise Ended(self._ending())
        line = bytes(received[:end])
        del received[: end + 1]
        return line

    def finish(self) -> tuple[bytes, int]:
        """Return all that is printed and the exit status; Ended where it runs over a limit or dies of a signal."""
        while self._listen():
            pass
        status = self._process.wait()
        if status >= 128 or status < 0:
            raise Ended(self._ending())
        return bytes(self._received["out"]), status

    def started(self) -> str:
        """Landlock's version as a digit, once the walls stand; "" where the program's sandbox never got so far."""
        with contextlib.suppress(BlockingIOError):
            self._walls += os.read(self._status, 16).decode().strip()
        return self._walls

    def last_words(self) -> str:
        """The line of standard error that names an error, or else the last, cut short."""
        lines = self._received["err"][-4000:].decode(errors="replace").strip().splitlines()
        return next((line for line in lines if "rror:" in line), lines[-1] if lines else "")[:200]

    def _listen(self) -> bool:
        """Wait for news and take it in; False once every process in the sandbox has ended and all was read."""
        if self._over:
            return False
        events: set[str] = set()
        while not events:
            seconds = self._deadline - time.monotonic()
            if seconds <= 0:
                raise Ended(f"timed out after {self._limits.wall_seconds:g} s")
            events = {key.data for key, _ in self._selector.select(min(seconds, _WEIGH_SECONDS))}
            self._weigh()
        self._over = "ended" in events
        for name in self._outputs if self._over else events & self._outputs.keys():
            while self._take(name) and self._over:
                pass
        if "in" in events:
            self._feed()
        return True

    def _weigh(self) -> None:
        """End it where its processes together hold too much: the kernel's limit is on each of them alone."""
        if time.monotonic() < self._weigh_at:
            return
        self._weigh_at = time.monotonic() + _WEIGH_SECONDS
        if _resident(self._process.pid) > 2 * self._limits.memory_bytes:
            raise Ended(f"held more than 2 x {self._limits.memory_bytes} bytes of memory with all its processes")

    def _feed(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._input.fileno(), self._unsent[:_CHUNK]) :]
        except BrokenPipeError:  # it reads no more, which is its own affair
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._selector.unregister(self._input)

    def _take(self, name: str) -> bool:
        """Read a piece of an output; False where there is none, for now or for good."""
        received, stream = self._received[name], self._outputs[name]
        data = stream.read(_CHUNK)
        if data == b"" and not self._over:
            self._selector.unregister(stream)
        received += data or b""
        if len(received) > self._limits.output_bytes:
            raise Ended(f"printed or returned more than {self._limits.output_bytes} bytes")
        return bool(data)

    def _ending(self) -> str:
        status = self._process.wait()
        number = -status if status < 0 else status - 128
        if number <= 0:
            return f"exited with status {status} before the tests were through"
        if number == signal.SIGXCPU:
            return f"used up its {self._limits.cpu_seconds:g} s of processor time"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
        return f"exited with status {status}"


def _pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, which: int) -> tuple[int, int]:
    """Make a pipe; return the sandbox's end (0: it reads, 1: it writes) and our own, each closed with its stack."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    theirs.callback(os.close, ends[which])
    ours.callback(os.close, ends[1 - which])
    return ends[which], ends[1 - which]


def _file(theirs: contextlib.ExitStack, content: bytes) -> int:
    """Make a file in memory, to be read from its start, closed with `theirs`."""
    number = os.memfd_create("job")
    theirs.callback(os.close, number)
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds with all its descendants; pages they share count for each."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return 0
    return sum(int(size) << 10 for size in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status)) + sum(
        map(_resident, children)
    )


def _resource_limits(limits: Limits, job: dict[str, Any]) -> dict[str, int]:
    """Name the kernel's limits on each process; whole seconds of processor time, rounded up."""
    memory = limits.memory_bytes
    return {
        "RLIMIT_CPU": max(1, math.ceil(limits.cpu_seconds)),
        "RLIMIT_DATA": memory,
        "RLIMIT_STACK": memory // 32,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": limits.processes + _WATCHER,
        "RLIMIT_NOFILE": _FILES,
        "RLIMIT_CORE": 0,
    } | ({} if job.get("roams") else {"RLIMIT_AS": memory})
