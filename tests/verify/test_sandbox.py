"""What the sandbox's walls keep in, that its limits hold, and that nothing of it is left."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from aftershock.errors import SandboxError
from aftershock.verify import CallTest, Limits, StdioTest, run_code
from aftershock.verify.sandbox import Box, Ended, runtime, seccomp, values, walls
from aftershock.verify.sandbox.inside import encode

SHORT = Limits(cpu_seconds=1, wall_seconds=3)
PLACES = sys.modules["aftershock.verify.sandbox.runtime"]  # the function hides the module of its name

try:
    FOUND = str(walls())
except SandboxError as error:
    FOUND = ""
    if os.environ.get("AFTERSHOCK_REQUIRE_SANDBOX"):
        raise
    WHY = str(error)
pytestmark = pytest.mark.skipif(not FOUND, reason="no sandbox can be had here: see aftershock check")


def inside(body: str, limits: Limits = SHORT, where=None):
    """Return what a function with this body returns in a sandbox, or [raised, type, message]."""
    source = "def f():\n    " + body.replace("\n", "\n    ")
    job = {"mode": "functions", "source": source}
    with Box(where or runtime(), job, limits, time.monotonic() + limits.wall_seconds) as box:
        box.send(("f", (), {}))
        assert values.decode(box.answer()) == ["value", None]
        claim = values.decode(box.answer())
    return claim[1] if claim[0] == "value" else claim


def outcome(body: str, limits: Limits = SHORT):
    return run_code("def f():\n    " + body.replace("\n", "\n    "), [CallTest("f", (), 1)], limits)


def children() -> list[str]:
    return [child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]


def processes_with(mark: str) -> list[str]:
    """The host's processes, but for this one's, that have a word on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "cmdline").read_text(errors="replace"):
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_walls_say_what_stands():
    assert FOUND.startswith("bubblewrap ")
    assert "seccomp" in FOUND
    assert "Landlock" in FOUND


def test_a_program_sees_no_environment_no_host_files_and_no_processes_of_others(monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERSHOCK_SECRET", "to be seen by nobody")
    secret = tmp_path / "secret"
    secret.write_text("to be read by nobody")
    environment = inside("import os\nreturn dict(os.environ)")
    assert environment == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "PWD": "/tmp",
    }
    for path in (secret, Path(__file__), "/etc/passwd", "/proc/1/environ", "/root", "/home", "/sys", "/dev/mem"):
        assert inside(f"return open({str(path)!r}, 'rb').read()")[:2] in (
            ["raised", "FileNotFoundError"],
            ["raised", "PermissionError"],
        )
    assert inside("import os\nreturn os.getpid() < 5 and os.getuid() != 0 and os.uname().nodename") == "sandbox"


def test_a_program_holds_no_descriptor_but_its_pipes():
    source = (
        "import os\nfor i in range(6000):\n    try: print(i, oct(os.fstat(i).st_mode >> 12))\n    except OSError: pass"
    )
    most = min(5000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(most)]  # so that the sandbox's own have high numbers
    try:
        verdict = run_code(source, [StdioTest("", "0 0o10\n1 0o1\n2 0o1")])  # a file and two pipes
    finally:
        for number in many:
            os.close(number)
    assert verdict.outcome == "right", verdict.reason


def test_nothing_can_be_written_but_in_the_scratch_folder():
    assert inside("open('/tmp/x', 'w').write('kept')\nreturn open('/tmp/x').read()") == "kept"
    for path in ("/usr/x", "/x", "/dev/x", "/usr/bin/python3", "/lib/x"):
        assert inside(f"open({path!r}, 'w')")[1] in ("OSError", "PermissionError")
    assert inside("import os\nreturn os.path.exists('/tmp/x')") is False  # the next sandbox begins empty


REFUSED = {"unshare": 272, "ptrace": 101, "mount": 165, "bpf": 321, "keyctl": 250, "io_uring_setup": 425}
REFUSED |= {"memfd_create": 319, "shmget": 29, "process_vm_readv": 310, "open_by_handle_at": 304, "setns": 308}


def test_system_calls_of_no_use_to_a_program_are_denied():
    body = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    body += f"calls = {{n: (libc.syscall(n, 0, 0, 0, 0, 0), ctypes.get_errno()) for n in {list(REFUSED.values())}}}\n"
    body += "return calls, libc.syscall(56, 0x10000011, 0, 0, 0, 0), (libc.syscall(435, 0, 0), ctypes.get_errno())"
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are x86_64's")
    calls, clone, clone3 = inside(body)
    assert set(calls.values()) == {(-1, 1)}
    assert clone == -1
    assert clone3 == (-1, 38)
    for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"):
        assert inside(f"import socket\nsocket.socket(socket.{family})")[1] == "PermissionError"
    assert inside("import asyncio\nasync def g(): return 3\nreturn asyncio.run(g())") == 3


def test_landlock_stands_where_the_mounts_alone_would_let_by():
    if "no Landlock" in FOUND:
        pytest.skip("this kernel has no Landlock")
    assert inside("import os\nreturn os.listdir('/')")[1] == "PermissionError"
    assert inside("import os\nos.mkfifo('/tmp/f')\nos.mknod('/tmp/s', 0o140600)")[1] == "PermissionError"


def test_the_filter_is_for_machines_whose_numbers_are_known():
    assert len(seccomp.program("x86_64")) % 8 == 0
    assert len(seccomp.program("aarch64")) > 500
    assert seccomp.program("x86_64") != seccomp.program("aarch64")
    assert seccomp.program("riscv64") == b""


def test_without_a_filter_the_other_walls_stand():
    bare = replace(runtime(), seccomp=b"")
    assert inside("import socket\nreturn socket.if_nameindex()", where=bare) == [(1, "lo")]
    assert inside("import os\nreturn os.getuid() != 0 and os.getpid() < 5", where=bare) is True


def test_without_landlock_the_mounts_stand():
    source = Path(encode.__code__.co_filename).read_text()
    assert '_landlock(job["readable"])' in source
    bare = replace(runtime(), inside=source.replace('_landlock(job["readable"])', "0"))
    assert set(inside("import os\nreturn os.listdir('/')", where=bare)) <= {
        "usr",
        "lib",
        "lib64",
        "bin",
        "dev",
        "tmp",
    } | {Path(runtime().prefix).parts[1]}
    for path in ("/x", "/dev/x", "/usr/x"):
        assert "Read-only" in inside(f"open({path!r}, 'w')", where=bare)[2]
    assert inside("open('/tmp/x', 'w')\nopen('/dev/null', 'w').write('x')", where=bare) is None


FORK = """import os, time
started = 0
try:
    while started < 500:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        started += 1
except OSError:
    return started"""


def test_the_limit_on_processes_is_each_sandboxs_own():
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(inside, [FORK] * 3)) == [SHORT.processes - 1] * 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import time\ntime.sleep(60)", "timed out after 3 s"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("import mmap\nmmap.mmap(-1, 1 << 30)", "OSError"),
        ("open('/tmp/x', 'wb').write(bytes(1 << 25))", "File too large"),
        ("for i in range(9): open(f'/tmp/{i}', 'wb').write(bytes(1 << 24))", "No space left"),
        ("while True: print('x' * 10000)", "more than 1048576 bytes"),
        ("import os\nwhile True: os.write(2, b'x' * 10000)", "more than 1048576 bytes"),
        ("return 'x' * (1 << 21)", "more than 1048576 bytes"),
        ("import os\nos.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import os\nos._exit(0)", "exited with status 0 before"),
        ("import os\nos.kill(1, 9)\nos.kill(-1, 9)", "test 1"),
    ],
)
def test_a_limit_holds_and_is_named(body, reason):
    began = time.monotonic()
    verdict = outcome(body)
    assert verdict.outcome == "wrong"
    assert reason in verdict.reason
    assert time.monotonic() - began < SHORT.wall_seconds + 3


def test_the_limit_on_processor_time_holds_and_can_not_be_ignored():
    limits = Limits(cpu_seconds=1, wall_seconds=30)  # a busy machine may take long to give out a second
    assert "1 s of processor time" in outcome("while True: pass", limits).reason
    body = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert "SIGKILL" in outcome(body, limits).reason


def test_memory_is_limited_for_all_processes_together():
    body = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        bytearray(b'1') * (50 << 20)\n"
    body += "        held = bytearray(b'1') * (50 << 20)\n        time.sleep(9)\ntime.sleep(9)"
    verdict = outcome(body, Limits(cpu_seconds=5, wall_seconds=8, memory_bytes=1 << 27))
    assert "of memory with all its processes" in verdict.reason


def test_daemons_end_with_the_sandbox():
    mark = f"7{random.random()}"
    body = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
    body += f"        os.execv('/usr/bin/sleep', ['sleep', '{mark}'])\n    os._exit(0)\n"
    body += "os.wait()\ntime.sleep(0.2)\nreturn 1"
    assert outcome(body).outcome == "right"
    assert processes_with(mark) == []


def test_a_sandbox_ended_at_any_moment_leaves_no_process_and_no_descriptor():
    before, others = len(os.listdir("/proc/self/fd")), set(children())  # other tests' workers may be alive
    for moment in range(20):
        with Box(runtime(), {"mode": "script", "source": "while True: pass"}, SHORT, time.monotonic() + 3, b""):
            time.sleep(moment / 1000)
        assert set(children()) <= others
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_sandbox_dies_with_whoever_started_it():
    mark = f"8{random.random()}"
    source = f"import os; os.execv('/usr/bin/sleep', ['sleep', '{mark}'])"
    script = f"from aftershock.verify import *\nrun_code({source!r}, [StdioTest('', '')])"
    with subprocess.Popen([sys.executable, "-c", script], start_new_session=True) as process:
        deadline = time.monotonic() + 20
        while not processes_with(f"sleep\0{mark}") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes_with(f"sleep\0{mark}")
        os.killpg(process.pid, signal.SIGKILL)
    while processes_with(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_with(mark) == []


def test_nothing_is_run_where_no_sandbox_can_be_had(monkeypatch, tmp_path):
    canary = tmp_path / "canary"
    PLACES.runtime.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"bwrap.*apt install bubblewrap"):
        run_code(f"open({str(canary)!r}, 'w')", [StdioTest("", "")])
    for tool in ("bwrap", "setpriv"):
        shutil.copy("/usr/bin/false", tmp_path / tool)
    with pytest.raises(SandboxError, match="no sandbox could be started"):
        run_code(f"open({str(canary)!r}, 'w')", [StdioTest("", "")])
    assert not canary.exists()


def test_a_python_that_only_root_can_read_is_lent(monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can lend")
    lent = [candidate for candidate in PLACES._candidates() if candidate.lent]
    PLACES.runtime.cache_clear()
    monkeypatch.setattr(PLACES, "_candidates", lambda: lent)
    assert inside("import sys\nreturn sys.prefix") == sys.base_prefix
    PLACES.runtime.cache_clear()


USER = """
from aftershock.verify import *
from aftershock.verify.sandbox import walls
print(walls())
right = run_code("def f(x): return x + 1", [CallTest("f", (1,), 2), AssertTests("assert f(2) == 3")])
fork = run_code('''%s''', [CallTest("f", (), None)], Limits(wall_seconds=3))
print(right.outcome, fork.reason)
""" % ("def f():\n    " + FORK.replace("\n", "\n    "))


def test_an_ordinary_user_has_the_same_walls(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("this whole file runs as an ordinary user already")
    place = Path("/var/tmp") / f"aftershock-{random.random()}"
    try:
        shutil.copytree(Path(encode.__code__.co_filename).parents[3], place, ignore=lambda *_: ["assets", "bench"])
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "/usr/bin/python3", "-c", USER]
        done = subprocess.run(
            command, cwd="/", env={"PYTHONPATH": str(place), "PATH": "/usr/bin"}, capture_output=True, text=True
        )
    finally:
        shutil.rmtree(place)
    assert done.stdout.splitlines()[1:] == [f"right test 1: f() is {SHORT.processes - 1}, wanted None"], done.stderr


def test_a_line_that_never_comes_is_not_waited_for():
    job = {"mode": "script", "source": "input()"}
    with Box(runtime(), job, SHORT, time.monotonic() + 3, b"") as box:
        with pytest.raises(Ended, match="exited with status 1"):
            box.answer()
        assert "EOFError" in box.last_words()
