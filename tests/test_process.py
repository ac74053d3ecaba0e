"""What a process sets before PyTorch is loaded, and what of it the environment may say otherwise."""

import ctypes
import gc
import os
import resource
import subprocess
import sys

import pytest

from aftershock import cli, process

FREED = """
import resource, sys
from aftershock import process
if sys.argv[1] == "prepared":
    process.prepare()
def step():
    blocks = [bytearray(b"x") * (1 << 24) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = step()
print(step() - before)
"""


@pytest.fixture
def unsaid(monkeypatch):
    """An environment that says nothing, and a malloc that only hears what it is told."""
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_", "OMP_WAIT"))]:
        monkeypatch.delenv(name)
    for name in ("OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE"):  # what is set meanwhile goes with the test
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    told = []

    class Library:
        mallopt = staticmethod(lambda *option: told.append(option))

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    return told


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_idle_threads_sleep_unless_the_environment_says_otherwise(unsaid, monkeypatch, said):
    if said:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    monkeypatch.setattr(cli, "app", lambda **_: 0)
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ["OMP_WAIT_POLICY"] == (said or "PASSIVE")
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"


@pytest.mark.parametrize("said", [None, "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(unsaid, monkeypatch, said):
    if said:
        monkeypatch.setenv(said, "1")
    process.prepare()
    assert unsaid == ([] if said else [(-3, process.MAPPED), (-1, process.KEPT)])


def test_cycles_are_looked_for_seldom(unsaid):
    before = gc.get_threshold()
    try:
        process.prepare()
        assert gc.get_threshold() == (process.MADE, *before[1:])
    finally:
        gc.set_threshold(*before)


def test_a_library_without_mallopt_is_left_alone(unsaid, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    process.prepare()
    assert unsaid == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_the_next_step_faults_on_no_page_that_the_last_one_freed():
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, check=True, env=plain).stdout)
        for how in ("prepared", "plain")
    }
    pages = 8 * (1 << 24) // resource.getpagesize()
    assert faults["prepared"] < pages / 10 < faults["plain"]
