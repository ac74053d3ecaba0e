"""The native library is compiled once, kept, and done without where it can't be made."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aftershock.models.native import build

compiles = pytest.mark.skipif(build._compiler() is None, reason="no C compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget the loaded library, and keep new ones in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    build._load.cache_clear()
    yield tmp_path / "aftershock" / "native"
    build._load.cache_clear()


@pytest.fixture
def quick(monkeypatch, fresh):
    """Compile next to nothing instead of the step and the learner's part."""
    source = fresh.parents[1] / "source"
    source.mkdir()
    for name in ("step", "train"):
        (source / f"{name}.c").write_text(f"int aftershock_{name}(void) {{ return 0; }}\n")
    monkeypatch.setattr(build, "_SOURCES", source)
    return source


@compiles
def test_it_is_compiled_once_and_again_for_other_sources_or_flags(fresh, quick, monkeypatch):
    calls, run = [], build._run
    monkeypatch.setattr(build, "_run", lambda command: calls.append(command) or run(command))

    def compiled():
        build._load.cache_clear()
        assert build.library() is not None
        return sum("-shared" in command for command in calls)

    assert [compiled(), compiled()] == [1, 1]
    (quick / "gemm.h").write_text("/* new */\n")
    assert [compiled(), compiled()] == [2, 2]
    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-O1"))
    assert [compiled(), compiled()] == [3, 3]
    assert len(list(fresh.iterdir())) == 3


@compiles
def test_each_library_is_of_its_own_source(fresh, quick):
    step, train = build.library(), build.library("train")
    assert step.aftershock_step() == train.aftershock_train() == 0
    assert not hasattr(step, "aftershock_train")
    assert sorted(path.name.partition("-")[0] for path in fresh.iterdir()) == ["step", "train"]


@compiles
def test_many_processes_at_once_are_fine(fresh, quick):
    told = "import build, pathlib, sys; build._SOURCES = pathlib.Path(sys.argv[1]); print(build.library() is not None)"
    environment = os.environ | {"XDG_CACHE_HOME": str(fresh.parents[1]), "PYTHONPATH": str(Path(build.__file__).parent)}
    command = [sys.executable, "-c", told, quick]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(subprocess.check_output, command, env=environment, text=True) for _ in range(3)]
    assert [run.result() for run in runs] == ["True\n"] * 3
    assert [path.suffix for path in fresh.iterdir()] == [".so"]


@compiles
@pytest.mark.parametrize("cache", [os.devnull, ""])
def test_a_cache_that_cannot_be_written_is_done_without(fresh, quick, monkeypatch, cache):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(build.Path, "home", homeless)
    assert build.library() is not None
    assert not fresh.exists()


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("", "no cc, gcc or clang"),
        ("#!/bin/sh\necho broken >&2; exit 1", "fails (broken)"),
        ("not a program", "fails ("),
    ],
)
def test_why_there_is_none(fresh, monkeypatch, tmp_path, compiler, why):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if compiler:
        (tmp_path / "gcc").write_text(compiler)
        (tmp_path / "gcc").chmod(0o755)
    assert build.library() is None
    assert why in build.why_not()


def test_switched_off(monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.library() is None
    assert build.why_not() == "AFTERSHOCK_NATIVE is 0"
