"""One pool for all callers: threads, asyncio, forked children and batches; nothing is left behind."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from aftershock.tasks import task
from aftershock.verify.shared import SharedPool

os.environ.setdefault("OMP_NUM_THREADS", "1")
NASTY = task(f"{Path(__file__).parent / 'nasty.py'}:Nasty")
PROBLEM = NASTY.draw("train", 0)


def alive(pid):
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False


def eventually_dead(pids, seconds=10.0):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def pids(shared):
    return [pid for slot in shared.slots if slot.pool for pid in slot.pool.pids]


@pytest.fixture(scope="module")
def shared():
    pool = SharedPool([NASTY], workers=2, seconds=1.0)
    yield pool
    held = pids(pool)
    assert held
    pool.close()
    assert eventually_dead(held)


def ask(shared, deed):
    return shared.check(0, PROBLEM, deed).outcome


def test_no_process_is_started_before_the_first_check():
    assert pids(SharedPool([NASTY], workers=2, seconds=1.0)) == []


def test_eight_threads_share_two_workers(shared):
    found = {}

    def work(number):
        found[number] = [ask(shared, "right" if (number + i) % 2 else "wrong") for i in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: ["right" if (n + i) % 2 else "wrong" for i in range(20)] for n in range(8)}
    assert len(pids(shared)) == 2


def test_asyncio_asks_through_threads(shared):
    async def gather():
        return await asyncio.gather(*(asyncio.to_thread(ask, shared, deed) for deed in ["right", "wrong"] * 10))

    assert asyncio.run(gather()) == ["right", "wrong"] * 10


def test_a_batch_keeps_its_order_and_a_bad_check_costs_only_itself(shared):
    deeds = ["right", "wrong", "nap:0.01", "exit", "raise"] * 20 + ["loop"]
    outcomes = [verdict.outcome for verdict in shared.check_many([(0, PROBLEM, deed) for deed in deeds])]
    known = {"right": "right", "wrong": "wrong", "nap:0.01": "right"}
    assert outcomes == [known.get(deed, "unverifiable") for deed in deeds]
    assert shared.check_many([]) == []


def test_a_batch_uses_both_workers(shared):
    shared.check_many([(0, PROBLEM, "right")] * 2)
    began = time.monotonic()
    shared.check_many([(0, PROBLEM, "nap:0.3")] * 4)
    assert time.monotonic() - began < 1.1


def test_a_late_check_does_not_hold_up_the_other_worker(shared):
    thread = threading.Thread(target=ask, args=(shared, "loop"))
    thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    assert ask(shared, "right") == "right"
    assert time.monotonic() - began < 0.8
    thread.join()


def test_a_forked_child_has_workers_of_its_own(shared):
    ask(shared, "right")
    before = pids(shared)
    child = os.fork()
    if not child:
        good = not pids(shared) and ask(shared, "right") == "right" and ask(shared, "wrong") == "wrong"
        apart = not set(pids(shared)) & set(before)
        shared.close()
        os._exit(0 if good and apart else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pids(shared) == before
    assert ask(shared, "right") == "right"


def test_closed_it_starts_anew():
    shared = SharedPool([NASTY], workers=1, seconds=1.0)
    assert ask(shared, "right") == "right"
    first = pids(shared)
    shared.close()
    assert eventually_dead(first)
    assert ask(shared, "right") == "right"
    shared.close()


SCRIPT = """
    import os, sys, threading, time
    from aftershock.tasks import task
    from aftershock.verify.shared import SharedPool
    nasty = task({nasty!r})
    shared = SharedPool([nasty], workers=2, seconds=60.0)
    print(shared.check(0, nasty.draw("train", 0), "right").outcome)
    threading.Thread(target=shared.check, args=(0, nasty.draw("train", 0), "loop"), daemon=True).start()
    time.sleep(1)
    shared.check(0, nasty.draw("train", 0), "right")
    print(*[pid for slot in shared.slots if slot.pool for pid in slot.pool.pids], flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "raise KeyError"])
def test_a_script_that_ends_takes_its_workers_along(end):
    """Also the one that is in the middle of a check that never ends."""
    code = textwrap.dedent(SCRIPT.format(nasty=f"{Path(__file__).parent / 'nasty.py'}:Nasty", end=end))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    outcome, held = done.stdout.splitlines()
    assert outcome == "right"
    assert len(held.split()) == 2
    assert eventually_dead([int(pid) for pid in held.split()])
