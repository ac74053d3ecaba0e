"""One hostile program, and what its judgement and its surroundings must be afterwards."""

from dataclasses import dataclass, replace

from aftershock.verify.program import AssertTests, CallTest, Limits, ProgramTest, StdioTest

ROOMY = Limits(cpu_seconds=5, wall_seconds=20, memory_bytes=1 << 28, file_bytes=1 << 24, output_bytes=1 << 18)
TIGHT = Limits(cpu_seconds=1, wall_seconds=1.5, memory_bytes=1 << 27, file_bytes=1 << 20, output_bytes=1 << 16)
SMALL = replace(TIGHT, cpu_seconds=5, wall_seconds=20)  # little of everything but time


@dataclass(frozen=True)
class Hostile:
    """A program, what containing it means, the tests it is put to and the outcomes that are allowed.

    In programs and tests, words in at signs stand for what the runner knows: see `Canaries.words` there.
    """

    name: str
    contained: str
    program: str
    tests: tuple[ProgramTest, ...]
    allowed: tuple[str, ...]
    limits: Limits = ROOMY
    language: str = "python"


# A cheat is put to a test it can't know the answer of: @EXPECTED@ is drawn anew for each run of the corpus.
VIA: dict[str, ProgramTest] = {
    "call": CallTest("answer", (), "@EXPECTED@"),
    "check": AssertTests("def check(candidate):\n    assert candidate() == '@EXPECTED@'\n", "answer"),
    "mbpp": AssertTests("assert answer() == '@EXPECTED@'\n"),
    "stdio": StdioTest("", "@EXPECTED@\n"),
}

# `attempt` says "contained" where each act raises an error or gets nothing; it is what a probe must return.
PROBE = '''
import os, sys

def attempt(*acts):
    leaks = []
    for number, act in enumerate(acts):
        try:
            got = act()
        except Exception:
            continue
        if got:
            leaks.append(f"{number}: {got!r:.60}")
    return "ESCAPED " + "; ".join(leaks) if leaks else "contained"

def read(path, size=100000):
    with open(path, "rb") as file:
        return file.read(size)

def pids():
    """Of the processes that can be seen; there may be no /proc at all."""
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []

def canary(content):
    """Only the runner's own secret is a leak: files of the runtime may be read."""
    import re
    found = re.search(rb"CANA" rb"RY-[0-9a-f]{16}", content)
    return found and found[0]

def syscall(number, *args):
    """True where the kernel does it; numbers are those of x86_64."""
    import ctypes
    if os.uname().machine != "x86_64":
        raise OSError
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(*(arg if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in (number, *args))) >= 0
'''


def probe(name: str, contained: str, body: str, *, allowed: tuple[str, ...] = ("right",), limits: Limits = ROOMY):
    """A program that tries, and says what came of it; right only if nothing did, so that it is known to have run."""
    return Hostile(name, contained, PROBE + body, (CallTest("answer", (), "contained"),), allowed, limits)


def bomb(name: str, contained: str, program: str, *, test: ProgramTest = VIA["call"], limits: Limits = TIGHT):
    """A program that must be ended; its test can't be passed."""
    return Hostile(name, contained, program, (test,), ("wrong",), limits)


def cheat(name: str, contained: str, program: str, *via: str) -> tuple[Hostile, ...]:
    """A program that wants to be judged right by each of these roads without knowing the answer; it must be wrong."""
    return tuple(Hostile(f"{name}-{road}", contained, program, (VIA[road],), ("wrong",)) for road in via)


def trick(name: str, contained: str, program: str, test: ProgramTest, limits: Limits = ROOMY) -> tuple[Hostile, ...]:
    """A cheat with a test of its own."""
    return (Hostile(name, contained, program, (test,), ("wrong",), limits),)


def control(name: str, why: str, program: str, *tests: ProgramTest, language: str = "python") -> Hostile:
    """A good program that walls and limits must let through."""
    return Hostile(name, why, program, tests, ("right",), language=language)
