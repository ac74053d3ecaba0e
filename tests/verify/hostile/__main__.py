"""Run the corpus amid canaries and say on stdout, as JSON, what became of both: `python -m hostile [name ...]`.

Run as a process of its own so that every process that outlives its program becomes this one's child, and is seen.
"""

import contextlib
import ctypes
import dataclasses
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aftershock
from aftershock.verify import CallTest, Limits, Verdict, run_code
from hostile import CORPUS
from hostile.base import Hostile

THREADS = 6
PR_SET_CHILD_SUBREAPER = 36
_HOST_PLACES = ("/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/run", "/root", "/home", "/opt", "/mnt", "/usr", "/etc")


class Canaries:
    """What must stay unread, untouched and unheard: files, an environment variable, sockets and a process."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"CANARY-{secrets.token_hex(8)}"
        self.token = f"token-{secrets.token_hex(8)}"
        self.folder = folder
        (folder / "canary").write_text(self.secret)
        (folder / "canary").chmod(0o644)
        self.shared = Path("/dev/shm") / self.token
        with contextlib.suppress(OSError):
            self.shared.write_text(self.secret)
        os.environ["AFTERSHOCK_CANARY"] = self.secret
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("0.0.0.0", 0))
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        self.abstract.bind(f"\0{self.token}")
        for listener in (self.unix, self.abstract):
            listener.listen()
        # Of the user that a sandbox started by root is likely to become, so that only its own process ids protect it.
        self.sentinel = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)", self.secret],
            cwd="/",
            env={},
            **({"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 and _reachable() else {}),
        )

    def words(self, expected: str) -> dict[str, str]:
        """What stands for what in the corpus."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return {
            "@EXPECTED@": expected,
            "@DIR@": str(self.folder),
            "@TOKEN@": self.token,
            "@TCP@": str(self.tcp.getsockname()[1]),
            "@UDP@": str(self.udp.getsockname()[1]),
            "@FREE@": str(port),
            "@PID@": str(os.getpid()),
            "@SENTINEL@": str(self.sentinel.pid),
            "@HOST@": socket.gethostname(),
            "@PACKAGE@": str(Path(aftershock.__file__).parent),
            "@CORPUS@": __file__,
        }

    def harm(self) -> Iterator[str]:
        """Yield what was touched or heard."""
        if (self.folder / "canary").read_text() != self.secret:
            yield "the canary file was changed"
        if sorted(path.name for path in self.folder.iterdir()) != ["canary", "socket"]:
            yield f"files appeared in {self.folder}: {os.listdir(self.folder)}"
        if self.sentinel.poll() is not None:
            yield f"the sentinel process was ended with {self.sentinel.returncode}"
        elif Path(f"/proc/{self.sentinel.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "SR":
            yield "the sentinel process was stopped"
        for name in ("tcp", "udp", "unix", "abstract"):
            listener = getattr(self, name)
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                yield f"{name} heard {listener.recv(100) if name == 'udp' else listener.accept()}"
        for place in _HOST_PLACES:
            with contextlib.suppress(OSError):
                yield from (f"{place}/{name} appeared" for name in os.listdir(place) if self._ours(place, name))

    def _ours(self, place: str, name: str) -> bool:
        return name.startswith(self.token) and Path(place, name) != self.shared

    def close(self) -> None:
        """Take them away."""
        self.sentinel.kill()
        self.sentinel.wait()
        with contextlib.suppress(OSError):
            self.shared.unlink()
        for listener in (self.tcp, self.udp, self.unix, self.abstract):
            listener.close()


def _reachable() -> bool:
    """Whether an ordinary user can start this Python."""
    tried = (
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", ""],
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
            capture_output=True,
        )
        if os.access(sys.executable, os.X_OK) and _world_readable(Path(sys.executable).resolve())
        else None
    )
    return tried is not None and tried.returncode == 0


def _world_readable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in [path, *path.parents])


def _filled(value: object, words: dict[str, str]) -> object:
    """Put the runner's words into a program, a test or a part of one."""
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
        return value
    if isinstance(value, tuple):
        return tuple(_filled(part, words) for part in value)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(
            value, **{field.name: _filled(getattr(value, field.name), words) for field in dataclasses.fields(value)}
        )
    return value


def run(item: Hostile, canaries: Canaries) -> dict:
    """Judge one program and return what is wrong with how it went, if anything."""
    expected = f"EXPECT-{secrets.token_hex(8)}"
    words = canaries.words(expected)
    program = _filled(item.program, words | {"@EXPECTED@": "@EXPECTED@"})
    began = time.monotonic()
    try:
        verdict = run_code(program, _filled(item.tests, words), item.limits, item.language)
    except BaseException as error:
        verdict = Verdict("unverifiable", f"run_code raised {type(error).__name__}: {error}")
    seconds = time.monotonic() - began
    said = f"{verdict.reason} {verdict.extracted}"
    leaks = [word for word in (canaries.secret, "ESCAPED", "root:") if word in said]
    leaks += [f"unprintable {said!r}"] if not said.isprintable() else []
    return {
        "name": item.name,
        "outcome": verdict.outcome,
        "reason": verdict.reason[:1000],
        "seconds": seconds,
        "leaks": leaks,
    }


def hurry(number: int) -> None:
    """Have a sandbox ended in its first moments, each time a little later, in whatever it then does."""
    run_code("import time\ntime.sleep(100)\n", [CallTest("answer", (), 1)], Limits(wall_seconds=number / 2000))


def children() -> dict[int, str]:
    """Return the processes below this one, with their state and command."""
    parents, shown = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{name}/stat").read_text()
            command, _, rest = stat.rpartition(")")
            parents[int(name)], shown[int(name)] = int(rest.split()[1]), f"{command}) {rest.split()[0]}"
    below = {os.getpid()}
    for _ in range(len(parents)):
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            break
        below |= more
    return {pid: shown[pid] for pid in below - {os.getpid()}}


def settle(mine: set[int], wait: float = 3.0) -> list[str]:
    """Return the processes left after a moment; the dead whom nobody waited for only fell to us as their reaper."""
    deadline = time.monotonic() + wait
    while True:
        left = {pid: shown for pid, shown in children().items() if pid not in mine}
        for pid in [pid for pid, shown in left.items() if shown.endswith(" Z")]:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
                del left[pid]
        if not left or time.monotonic() > deadline:
            return [f"process {pid}: {shown}" for pid, shown in left.items()]
        time.sleep(0.05)


def most_memory() -> int:
    """Bytes this process had resident at most; getrusage would count the larger one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run the named programs, or all, in an order of chance, several at a time."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    chosen = [item for item in CORPUS if not sys.argv[1:] or item.name in sys.argv[1:]]
    random.Random(0).shuffle(chosen)
    good = Hostile("good-after-all", "", "def answer(n): return n + 1\n", (CallTest("answer", (1,), 2),), ("right",))
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        tempfile.tempdir = os.environ["TMPDIR"] = temporary
        os.chmod(temporary, 0o1777)
        canaries = Canaries(Path(folder))
        try:
            run(good, canaries)  # what is loaded once stays open
            fds, began = len(os.listdir("/proc/self/fd")), time.monotonic()
            with ThreadPoolExecutor(THREADS) as pool:
                results = list(pool.map(lambda item: run(item, canaries), chosen))
                list(pool.map(hurry, range(60)))
            seconds = time.monotonic() - began
            results.append(run(good, canaries))
            report = {
                "user": os.getuid(),
                "seconds": seconds,
                "results": results,
                "harm": list(canaries.harm()),
                "left": settle({canaries.sentinel.pid})
                + [f"file {name}" for name in os.listdir(temporary)]
                + [f"thread {thread.name}" for thread in threading.enumerate() if thread is not threading.main_thread()]
                + [f"{more} open files" for more in [len(os.listdir("/proc/self/fd")) - fds] if more > 0],
                "megabytes": most_memory() / 2**20,
            }
        finally:
            canaries.close()
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
