"""One running sandbox: started, fed, listened to within limits, and killed with all that lives in it."""

import contextlib
import marshal
import math
import os
import selectors
import signal
import subprocess
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aftershock.verify.program import Limits

if TYPE_CHECKING:
    from aftershock.verify.sandbox.runtime import Runtime

_CHUNK = 1 << 16
_FILES = 64  # open files a process may hold
_REAPER = 1  # bwrap's own process in the sandbox counts as one of the program's


class Ended(Exception):
    """A sandbox that ended, or was ended, before it had answered; the message says what it did, as of the program."""


class Box:
    """A sandbox doing one job of `inside`'s; to be used in a `with` statement, by one thread.

    Leaving the statement kills every process in it, at any moment of its life. OSError where it can't be started.
    """

    def __init__(self, runtime: "Runtime", job: dict[str, Any], limits: Limits, deadline: float) -> None:
        self._limits, self._deadline = limits, deadline
        self._received = {"out": bytearray(), "err": bytearray()}
        self._unsent = memoryview(b"")
        self._selector = selectors.PollSelector()
        with contextlib.ExitStack() as ours:
            self._status, status = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ours.callback(os.close, status)
            job = job | {"limits": _resource_limits(limits, job), "readable": runtime.readable, "status": status}
            handed = [
                _file(marshal.dumps((runtime.inside, job))),
                *([_file(runtime.seccomp)] if runtime.seccomp else []),
            ]
            for number in handed:
                ours.callback(os.close, number)
            filter_ = handed[1] if runtime.seccomp else None
            self._process = subprocess.Popen(
                runtime.command(handed[0], filter_, 2 * limits.file_bytes),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=[*handed, status],
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )
        self._pid = os.pidfd_open(self._process.pid)
        pipes: Any = self._process  # they are there, since PIPE was asked for
        self._input, self._outputs = pipes.stdin, (pipes.stdout, pipes.stderr)
        for name, stream in zip(self._received, self._outputs, strict=True):
            self._selector.register(stream, selectors.EVENT_READ, name)
        self._selector.register(self._pid, selectors.EVENT_READ, "pid")
        os.set_blocking(self._input.fileno(), False)

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._input, *self._outputs):
            stream.close()
        self._selector.close()
        os.close(self._pid)
        os.close(self._status)

    def send(self, request: Any) -> None:
        """Queue a request of plain values; it goes out while the answer is waited for."""
        data = marshal.dumps(request, 4)
        self._write(len(data).to_bytes(4, "little") + data)

    def answer(self) -> bytes:
        """Return the next line that comes out; Ended where none does."""
        received = self._received["out"]
        while (end := received.find(b"\n")) < 0:
            if not self._listen():
                raise Ended(self._ending())
        line = bytes(received[:end])
        del received[: end + 1]
        return line

    def finish(self, stdin: bytes) -> tuple[bytes, int]:
        """Feed `stdin` and return all that was printed and the exit status; Ended where it ran over a limit."""
        self._write(stdin)
        self._close_input_when_sent()
        while self._listen():
            pass
        status = self._process.wait()
        if status >= 128 or status < 0:
            raise Ended(self._ending())
        return bytes(self._received["out"]), status

    def started(self) -> str:
        """Landlock's version as a digit, once the walls stand; "" where the program's sandbox never got so far."""
        try:
            return os.read(self._status, 16).decode().strip()
        except BlockingIOError:
            return ""

    def last_words(self) -> str:
        """The last line of standard error, cut short."""
        lines = self._received["err"][-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else ""

    def _write(self, data: bytes) -> None:
        self._unsent = memoryview(data)
        if data:
            self._selector.register(self._input, selectors.EVENT_WRITE, "in")

    def _close_input_when_sent(self) -> None:
        if not self._unsent:
            self._input.close()
        self._closing = True

    def _listen(self) -> bool:
        """Wait for one piece of news and take it in; False once the sandbox has ended and all was read."""
        if not self._selector.get_map():
            return False
        seconds = self._deadline - time.monotonic()
        events = self._selector.select(seconds) if seconds > 0 else []
        if not events:
            raise Ended(f"timed out after {self._limits.wall_seconds:g} s")
        for key, _ in events:
            if key.data == "in":
                self._feed()
            elif key.data == "pid":
                self._selector.unregister(self._pid)
            else:
                self._take(key)
        return True

    _closing = False

    def _feed(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._input.fileno(), self._unsent[:_CHUNK]) :]
        except BrokenPipeError:  # it reads no more, which is its own affair
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._selector.unregister(self._input)
            if self._closing:
                self._input.close()

    def _take(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, _CHUNK)
        if not data:
            self._selector.unregister(key.fileobj)
        received = self._received[key.data]
        received += data
        if len(received) > self._limits.output_bytes:
            raise Ended(f"printed or returned more than {self._limits.output_bytes} bytes")

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


def _file(content: bytes) -> int:
    number = os.memfd_create("job")
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _resource_limits(limits: Limits, job: dict[str, Any]) -> dict[str, int]:
    """Name the kernel's limits on each process; whole seconds of processor time, rounded up."""
    memory = limits.memory_bytes
    return {
        "RLIMIT_CPU": max(1, math.ceil(limits.cpu_seconds)),
        "RLIMIT_DATA": memory,
        "RLIMIT_STACK": memory // 32,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NPROC": limits.processes + _REAPER,
        "RLIMIT_NOFILE": _FILES,
        "RLIMIT_CORE": 0,
    } | ({} if job.get("roams") else {"RLIMIT_AS": memory})
