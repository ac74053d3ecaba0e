"""Sandboxed verdicts a second against bare runs of Python: `python benchmarks/code_speed.py [--threads N] [--json]`.

Each kind of test is run in turn with a bare subprocess of the same Python doing the same work, round after round, so
that a busy machine slows both; medians over the rounds, and the median of the rounds' ratios.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aftershock.verify import AssertTests, CallTest, StdioTest, run_code
from aftershock.verify.sandbox import runtime, walls

ADD = "def add(a, b):\n    return a + b\n"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate([1], [2]) == [1, 2]\n"
KINDS = {  # name: (program, test, the same as one bare script)
    "CallTest": (ADD, CallTest("add", (1, 2), 3), ADD + "assert add(1, 2) == 3"),
    "AssertTests": (ADD, AssertTests(CHECK, "add"), ADD + CHECK + "check(add)"),
    "StdioTest": ("print(int(input()) + 1)", StdioTest("3", "4"), "print(int(input()) + 1)"),
}


def sandboxed(kind: str) -> None:
    program, test, _ = KINDS[kind]
    verdict = run_code(program, [test])
    if verdict.outcome != "right":
        raise SystemExit(f"{kind}: {verdict}")


def bare(kind: str) -> None:
    subprocess.run([runtime().python, "-c", KINDS[kind][2]], input=b"3", capture_output=True, check=True)


def rate(act: Callable[[str], None], kind: str, count: int, threads: ThreadPoolExecutor) -> tuple[float, float]:
    """Return how many a second, `count` of them shared out to the threads, and processor seconds for each."""
    began, used = time.perf_counter(), processor_seconds()
    list(threads.map(act, [kind] * count))
    return count / (time.perf_counter() - began), (processor_seconds() - used) / count


def processor_seconds() -> float:
    """What this process and all that it has waited for have used: a sandbox's processes are waited for by its own."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {"walls": str(walls()), "cores": os.cpu_count(), "threads": given.threads, "n": given.count * given.rounds}
    found["load before"] = os.getloadavg()[0]
    with ThreadPoolExecutor(given.threads) as threads:
        for kind in KINDS:
            pairs = [[rate(act, kind, given.count, threads) for act in (sandboxed, bare)] for _ in range(given.rounds)]
            ours, theirs = ([statistics.median(column) for column in zip(*side)] for side in zip(*pairs))
            found[kind] = {
                "sandboxed/s": round(ours[0], 1),
                "bare/s": round(theirs[0], 1),
                "ratio": round(statistics.median(one[0] / other[0] for one, other in pairs), 2),
                "processor ms, sandboxed": round(1e3 * ours[1], 1),
                "processor ms, bare": round(1e3 * theirs[1], 1),
            }
    if given.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:12}", value)


if __name__ == "__main__":
    main()
