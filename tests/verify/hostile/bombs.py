# ruff: noqa: E501 - programs are data, and read best as they are
"""Programs that eat time, memory, processes or the judge's patience. Each must be ended within its limits."""

from aftershock.verify.program import AssertTests, StdioTest
from hostile.base import ROOMY, SMALL, TIGHT, VIA, Hostile, bomb, probe

TIME = [
    bomb("loop", "ended by its time", "def answer():\n    while True: pass\n"),
    bomb("loop-at-import", "ended by its time, before any test", "while True: pass\n"),
    bomb("loop-in-c", "ended though Python runs no bytecode meanwhile", "def answer():\n    return 9 ** 9 ** 9\n"),
    bomb("loop-in-c-sum", "ended though the loop never leaves C", "def answer():\n    return sum(iter(int, 1))\n"),
    bomb(
        "loop-in-regex",
        "ended though the regular expression's engine takes no signals",
        "import re\ndef answer():\n    return re.match('(a+)+$', 'a' * 64 + 'b')\n",
    ),
    bomb("sleep-past", "ended by the clock on the wall", "import time\ndef answer():\n    time.sleep(1000)\n"),
    bomb(
        "sleep-deaf",
        "ended though it ignores every signal it can",
        """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def answer():
    while True: time.sleep(1000)
""",
    ),
    bomb(
        "loop-deaf",
        "ended though it catches all that is raised and ignores the signal of the CPU limit",
        """
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
def answer():
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    ),
    bomb("stop-itself", "a stopped process is late too", "import os\ndef answer():\n    os.kill(os.getpid(), 19)\n"),
    bomb(
        "stop-everything",
        "stopping every process inside stops none outside",
        "import os\ndef answer():\n    os.kill(-1, 19); os.kill(1, 19); os.kill(os.getppid(), 19); os.kill(os.getpid(), 19)\n",
    ),
    bomb(
        "close-and-sleep",
        "closing every door ends nobody's patience but the limit's",
        "import os, time\nprint(7, flush=True)\nos.closerange(0, 256)\ntime.sleep(1000)\n",
        test=StdioTest("", "7\n"),
    ),
    bomb(
        "thread-after-main",
        "what a thread goes on with after the program's end is ended",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nprint(7)\n",
        test=StdioTest("", "7\n"),
    ),
    bomb(
        "read-for-ever",
        "a read that gets nothing ends",
        "import sys\nwhile True: sys.stdin.read()\n",
        test=VIA["stdio"],
    ),
    bomb(
        "loop-in-finally",
        "ended in cleaning up",
        "try:\n    raise SystemExit\nfinally:\n    while True: pass\n",
        test=VIA["stdio"],
    ),
    bomb(
        "tester-waits",
        "a value that keeps the tests busy costs the program's time",
        "def answer():\n    return 10 ** 6\n",
        test=AssertTests("import time\ndef check(f):\n    time.sleep(f())\n    assert f() == 1\n", "answer"),
    ),
    bomb(
        "tester-loops-on-constant",
        "so where it is a constant that they read",
        "answer = 10 ** 12\n",
        test=AssertTests("assert sum(range(answer)) == 1\n"),
    ),
    bomb(
        "tester-loops",
        "tests that the program's value keeps busy end in time and are lost",
        "def answer():\n    return 10 ** 12\n",
        test=AssertTests("assert sum(range(answer())) == 1\n"),
    ),
]

PROCESSES = [
    bomb("fork-bomb", "ended with all its children", "import os\ndef answer():\n    while True:\n        os.fork()\n"),
    bomb(
        "fork-bomb-patient",
        "ended though it forks again whenever that works",
        "import os\ndef answer():\n    while True:\n        try: os.fork()\n        except OSError: pass\n",
    ),
    bomb(
        "fork-chase",
        "a process that is always a new one is caught",
        "import os\ndef answer():\n    while True:\n        if os.fork(): os._exit(0)\n",
    ),
    bomb(
        "shell-fork-bomb",
        "the shell's own",
        "import subprocess\ndef answer():\n    subprocess.run(['/bin/sh', '-c', 'b() { b | b & }; b; sleep 100'])\n",
    ),
    bomb(
        "thread-bomb",
        "threads count as processes",
        """
import threading, time
def answer():
    while True:
        try: threading.Thread(target=time.sleep, args=(100,)).start()
        except RuntimeError: pass
""",
    ),
    probe(
        "fork-count",
        "no more processes than the limit, also where all was started by root",
        """
import time
def answer():
    made = []
    for _ in range(400):
        try: pid = os.fork()
        except OSError: break
        if not pid:
            time.sleep(3)
            os._exit(0)
        made.append(pid)
    return "contained" if len(made) <= 64 else f"ESCAPED {len(made)} processes"
""",
        limits=TIGHT,
    ),
    bomb(
        "daemon",
        "a daemon in a session of its own ends with the program",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.closerange(0, 256)
        while True: time.sleep(1)
    os._exit(0)
def answer():
    return "daemon"
""",
    ),
    bomb(
        "daemon-holds-output",
        "a daemon that keeps the pipes open keeps nobody waiting past the limit",
        """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
print("early")
os._exit(0)
""",
        test=VIA["stdio"],
    ),
    bomb(
        "zombies",
        "children nobody waits for vanish",
        "import os\ndef answer():\n    for _ in range(8):\n        if not os.fork(): os._exit(0)\n    return 'zombies'\n",
    ),
]

_FILL = """
def fill(make, step=1 << 20, most=384):
    "Megabytes that `make` hands out before it refuses."
    kept = []
    for done in range(most):
        try: kept.append(make(done, step))
        except Exception: return done
    return most
"""

MEMORY = [
    bomb("memory", "refused beyond the limit", "def answer():\n    return len(bytearray(1 << 34))\n"),
    bomb("memory-list", "refused beyond the limit", "def answer():\n    x = [0]\n    while True: x += x\n"),
    bomb("memory-string", "refused beyond the limit", "def answer():\n    return len('x' * 10 ** 11)\n"),
    bomb("memory-format", "refused beyond the limit", "def answer():\n    return len('%99999999999d' % 1)\n"),
    bomb(
        "memory-caught",
        "refused again and again",
        """
def answer():
    while True:
        try:
            kept = []
            while True: kept.append(bytearray(1 << 20))
        except MemoryError: pass
""",
    ),
    bomb(
        "memory-zip",
        "a megabyte that unpacks to a gigabyte",
        "import zlib\ndef answer():\n    p = zlib.compress(bytes(1 << 24))\n    return len(b''.join(zlib.decompress(p) for _ in range(64)))\n",
    ),
    bomb(
        "memory-recursion",
        "a stack without end",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef answer():\n    return answer() + 1\n",
    ),
    bomb(
        "memory-c-stack",
        "a C stack without end",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef answer():\n    x = []\n    for _ in range(10 ** 6): x = [x]\n    return repr(x)\n",
    ),
    bomb(
        "memory-many",
        "many processes that each fill themselves are ended together",
        "import os\ndef answer():\n    for _ in range(3): os.fork()\n    x = []\n    while True: x.append(bytearray(1 << 20))\n",
    ),
    probe(
        "memory-mapped",
        "mapped memory counts",
        _FILL
        + """
import mmap
def answer():
    made = fill(lambda n, step: mmap.mmap(-1, step).write(b"x" * step))
    made = fill(lambda n, step: (lambda m: (m.write(b"x" * step), m))(mmap.mmap(-1, step)))
    return "contained" if made <= 130 else f"ESCAPED {made} MB"
""",
        limits=SMALL,
    ),
    *(
        probe(
            f"memory-in-files-{name}",
            "files in memory are bounded in all, not only each",
            _FILL
            + f"""
def answer():
    def make(number, step):
        with open(f"{folder}/{{number}}", "wb") as file:
            file.write(bytes(step))
    made = fill(make)
    return "contained" if made <= 256 else f"ESCAPED {{made}} MB"
""",
            limits=SMALL,
        )
        for name, folder in (
            ("cwd", "."),
            ("tmp", "/tmp"),
            ("shm", "/dev/shm"),
            ("dev", "/dev"),
            ("root", "/"),
            ("run", "/run"),
        )
    ),
    probe(
        "memory-in-memfds",
        "anonymous files are bounded in all",
        _FILL
        + """
def answer():
    def make(number, step):
        fd = os.memfd_create("x")
        os.write(fd, bytes(step))
        return fd
    made = 8 * fill(make, 8 << 20, 48)
    return "contained" if made <= 256 else f"ESCAPED {made} MB"
""",
    ),
    probe(
        "memory-in-segments",
        "shared segments that are not attached are bounded",
        _FILL
        + """
def answer():
    import ctypes
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_long
    def make(number, step):
        segment = libc.shmget(0, ctypes.c_size_t(step), 0o1600)
        place = libc.shmat(segment, None, 0)
        if place == -1: raise OSError
        ctypes.memset(ctypes.c_void_p(place), 1, step)
        libc.shmdt(ctypes.c_void_p(place))
    made = fill(make)
    return "contained" if made <= 256 else f"ESCAPED {made} MB"
""",
        limits=SMALL,
    ),
    probe(
        "memory-in-messages",
        "messages that nobody receives are bounded",
        _FILL
        + """
def answer():
    import ctypes
    libc = ctypes.CDLL(None)
    message = ctypes.create_string_buffer(b"\\x01" + bytes(7) + b"x" * 8192)
    def make(number, step):
        for _ in range(step >> 14):
            queue = libc.msgget(0, 0o1600)
            if queue < 0 or libc.msgsnd(queue, message, ctypes.c_size_t(8192), 2048) or libc.msgsnd(queue, message, ctypes.c_size_t(8192), 2048):
                raise OSError
    made = fill(make)
    return "contained" if made <= 256 else f"ESCAPED {made} MB"
""",
        limits=SMALL,
    ),
    probe(
        "memory-in-pipes",
        "pipes and sockets hold no more than a limit's worth",
        _FILL
        + """
import fcntl
def answer():
    def make(number, step):
        r, w = os.pipe()
        fcntl.fcntl(w, 1031, step)
        os.set_blocking(w, False)
        if os.write(w, bytes(step)) < step: raise OSError
        return r, w
    made = fill(make)
    return "contained" if made <= 256 else f"ESCAPED {made} MB"
""",
        limits=SMALL,
    ),
    bomb(
        "file-sparse",
        "a file of a terabyte, though empty, is refused",
        "def answer():\n    with open('big', 'wb') as file:\n        file.truncate(1 << 40)\n    return 'big'\n",
    ),
    bomb(
        "file-flood",
        "a file grows to the limit only",
        "def answer():\n    with open('big', 'wb') as file:\n        while True: file.write(bytes(1 << 20))\n",
    ),
]

OUTPUT = [
    bomb("flood-stdout", "cut off", "while True: print('x' * 4096)\n", test=VIA["stdio"]),
    bomb("flood-stdout-in-call", "cut off", "def answer():\n    while True: print('x' * 4096)\n"),
    bomb("flood-stderr", "cut off", "import sys\nwhile True: sys.stderr.write('x' * 4096)\n", test=VIA["stdio"]),
    bomb(
        "flood-raw",
        "cut off",
        "import os\nwhile True:\n    for fd in (1, 2): os.write(fd, b'\\0' * 65536)\n",
        test=VIA["stdio"],
    ),
    bomb("flood-value", "a value beyond the output's limit is none", "def answer():\n    return 'x' * 10 ** 7\n"),
    bomb("flood-values", "so is one of many parts", "def answer():\n    return [[0] * 1000] * 1000\n"),
    bomb("flood-error", "a message of megabytes is cut", "def answer():\n    raise ValueError('x' * 10 ** 7)\n"),
    bomb(
        "flood-every-fd",
        "what comes out of any door is bounded",
        """
import os
def answer():
    while True:
        for fd in range(64):
            try:
                os.set_blocking(fd, False)
                os.write(fd, b"x" * 65536)
            except OSError: pass
""",
    ),
    bomb(
        "drip",
        "a byte now and then buys no time",
        "import time\nwhile True:\n    print(flush=True)\n    time.sleep(0.1)\n",
        test=VIA["stdio"],
    ),
]

PARSER = [
    bomb("parser-brackets", "a nest of brackets is a syntax error, not a crash", "answer = " + "(" * 50_000),
    bomb("parser-minus", "a heap of minus signs is an error or a loss", "answer = " + "-" * 500_000 + "1"),
    bomb("parser-not", "a heap of nots is an error or a loss", "answer = " + "not " * 200_000 + "1"),
    bomb("parser-indent", "a staircase of blocks is a syntax error", "".join(" " * n + "if 1:\n" for n in range(500))),
    bomb(
        "parser-fold",
        "constants that the compiler would work out cost no more than time",
        "answer = " + "((1 << 99) ** 99) ** 99 ** 9 ** 9",
    ),
    bomb("parser-big-number", "a number of a million digits is refused", "answer = " + "9" * 1_000_000),
    bomb(
        "parser-megabyte",
        "a megabyte of program is read or refused in time",
        "x = 1\n" * 170_000 + "def answer(): return 0\n",
    ),
    bomb("parser-nul", "a NUL in the program is its error", "def answer():\n    return 0\n\0\n"),
    bomb("parser-surrogate", "half a character in the program is its error", "def answer():\n    return '\ud800'\n"),
    bomb(
        "parser-cookie",
        "an encoding that does not exist is its error",
        "# -*- coding: null -*-\ndef answer(): return 0\n",
    ),
    bomb(
        "parser-cookie-utf7",
        "one that hides code hides nothing from us",
        "# -*- coding: utf-7 -*-\n+AGQAZQBmACAAYQ-nswer(): return 0\n",
    ),
    bomb(
        "parser-form-feed", "odd white space and line ends are just that", "\x0c\r\rdef answer():\r\v\x1c    return 0\r"
    ),
]

_HASH = (1 << 61) - 1
JUDGE = [
    bomb(
        "judge-deep",
        "a value as deep as memory is no plain value",
        "def answer():\n    x = []\n    for _ in range(10 ** 5): x = [x]\n    return x\n",
    ),
    bomb(
        "judge-loop",
        "a list that holds itself is no plain value",
        "def answer():\n    x = []\n    x.append(x)\n    return x\n",
    ),
    bomb(
        "judge-lattice",
        "a small value that is large when written out",
        "def answer():\n    x = 0\n    for _ in range(60): x = [x, x]\n    return x\n",
    ),
    bomb("judge-big-number", "a number of millions of digits", "def answer():\n    return 1 << (10 ** 7)\n"),
    bomb("judge-digits", "a number just below the limit of the output", "def answer():\n    return 10 ** 50_000\n"),
    bomb(
        "judge-collisions",
        "a set whose members all have one hash costs us no more than it cost the program",
        f"def answer():\n    return {{n * {_HASH} for n in range(4000)}}\n",
        limits=ROOMY,
    ),
    bomb(
        "judge-collisions-dict",
        "nor a dict",
        f"def answer():\n    return {{n * {_HASH}: n for n in range(8000)}}\n",
        limits=ROOMY,
    ),
]


BOMBS: list[Hostile] = [*TIME, *PROCESSES, *MEMORY, *OUTPUT, *PARSER, *JUDGE]
