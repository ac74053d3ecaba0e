"""What `aftershock check` says of a machine, good and bad."""

import errno
import os
import subprocess
import sys
import tempfile

import pytest
import torch

from aftershock import check
from aftershock.models.native import build


def test_every_finding_of_this_machine_is_whole_and_bad_ones_name_a_step():
    found = list(check.findings())
    assert [one.name for one in found[:6]] == ["Python", "torch", "device", "bf16", "native step", "compiler"]
    assert {"disk", "memory", "cores", "energy", "base model", "matplotlib", "reasoning_gym", "wandb"} <= {
        one.name for one in found
    }
    for one in found:
        assert one.found
        assert bool(one.next) == (one.level != "OK")


def test_an_old_python_fails():
    assert check.python((3, 10, 4)).level == "FAIL"
    assert check.python((3, 11, 0)).level == "OK"


def test_torch_that_can_not_be_imported_fails_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = list(check.findings())
    assert found[1].level == "FAIL"
    assert found[2].name == "compiler"


def test_bf16_is_really_tried(monkeypatch):
    exact = check._product
    for seconds, level in ((0.5, "OK"), (2.0, "WARN")):
        took = {torch.bfloat16: seconds, torch.float32: 1.0}
        monkeypatch.setattr(check, "_product", lambda m, took=took: (exact(m)[0], took[m.dtype]))
        assert check.bf16("cpu").level == level
    monkeypatch.setattr(check, "_product", lambda m: (exact(m)[0] * (1.1 if m.dtype == torch.bfloat16 else 1), 1.0))
    assert "wrong" in check.bf16("cpu").found

    def fails(matrix):
        raise RuntimeError("not implemented for BFloat16")

    monkeypatch.setattr(check, "_product", fails)
    assert "not implemented" in check.bf16("cpu").found


def test_the_native_step_or_why_there_is_none(monkeypatch):
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.setattr(build, "_load", lambda name: "no cc, gcc or clang")
    assert str(check.native()).startswith("WARN native step: not compiled: no cc, gcc or clang -> apt install gcc")
    monkeypatch.setenv(build.SWITCH, "0")
    assert check.native().next == "unset AFTERSHOCK_NATIVE"
    monkeypatch.undo()
    assert check.native().level == ("OK" if build.library() else "WARN")


def test_compiler(monkeypatch):
    monkeypatch.setattr(check.shutil, "which", lambda name: "/usr/bin/clang++" if name == "clang++" else None)
    assert check.compiler() == check.Finding("compiler", "OK", "/usr/bin/clang++")

    def fails(*_, **__):
        raise subprocess.CalledProcessError(1, "python", stderr="Traceback\nBackendCompilerFailed: no headers\n")

    monkeypatch.setattr(check.subprocess, "run", fails)
    assert "BackendCompilerFailed: no headers" in check.compiler(full=True).found
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    assert check.compiler(full=True).level == "WARN"


def test_disk(monkeypatch, tmp_path):
    assert check.disk(tmp_path, free=lambda _: 10**11).level == "OK"
    assert check.disk(tmp_path, free=lambda _: 10**9).level == "WARN"

    def denied(dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    assert check.disk(tmp_path).level == "FAIL"


def test_memory_and_cores(monkeypatch):
    assert check.memory(10**10).level == "OK"
    assert check.memory(10**9).level == "WARN"
    monkeypatch.setattr(check.hardware, "cores", lambda: 1)
    assert check.cores().level == "WARN"


def test_energy_is_measured_where_the_counter_may_be_read(monkeypatch, tmp_path):
    assert "estimated" in check.meter(tmp_path).found
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "9"), ("energy_uj", "1")):
        (zone / name).write_text(text)
    assert check.meter(tmp_path).found.startswith("measured by RAPL")

    def denied(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("aftershock.cost.energy.Path.read_text", denied)
    assert "chmod" in check.meter(tmp_path).next


@pytest.mark.parametrize("module", check.OPTIONAL)
def test_a_missing_library_names_what_installs_it(monkeypatch, module):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    assert "pip install -e" in check.optional(module).next


def test_a_sandbox_is_told_of_or_how_to_get_one(monkeypatch, tmp_path):
    from aftershock.verify import sandbox

    sandbox.runtime.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check.sandbox()
    assert found.level == "WARN"
    assert "bwrap" in found.found
    assert "apt install bubblewrap" in found.next
    monkeypatch.setattr(sandbox, "walls", lambda: sandbox.Walls("bubblewrap 0.8.0", True, 0, "Python 3.11 in /usr"))
    assert check.sandbox() == check.Finding(
        "sandbox", "OK", "bubblewrap 0.8.0, seccomp, no Landlock in this kernel, running Python 3.11 in /usr"
    )
