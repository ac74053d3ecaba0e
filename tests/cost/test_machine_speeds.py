"""What `aftershock check --measure` measures, keeps and says."""

import json
import sys
from dataclasses import asdict, replace

import pytest
import torch

from aftershock import check, cli
from aftershock.cost import measure

MACHINE = measure.Machine(4e13, 4.945e14, 1.675e12, 0.002, "2026-01-01T00:00:00+00:00", "2.13.0", 16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measure, "SIDE", {"cpu": 64, "cuda": 64})
    monkeypatch.setattr(measure, "ARRAY_BYTES", 4 * 4096)
    monkeypatch.setattr(measure, "CHUNK", {"cpu": 1024})
    return tmp_path


def test_this_machine_is_measured_and_kept(cache):
    found = measure.measure(seconds_each=0.01)
    measure.keep(found)
    assert json.loads((cache / "aftershock/machine.json").read_text()) == asdict(found)
    assert set(asdict(found)) == {
        "matmul_flops", "matmul_flops_bf16", "bandwidth", "step_seconds", "when", "torch", "cores",
    }  # fmt: skip
    assert measure.kept() == found
    assert 0 < found.step_seconds < 1
    assert (found.torch, found.cores) == (torch.__version__, torch.get_num_threads())


@pytest.mark.parametrize("text", [None, "{", "null", '{"matmul_flops": 1.0}'])
def test_nothing_is_known_where_no_whole_measurement_was_kept(cache, text):
    if text is not None:
        (cache / "aftershock").mkdir()
        (cache / "aftershock/machine.json").write_text(text)
    assert measure.kept() is None


def test_rates_are_work_over_the_quickest_try(monkeypatch):
    clock = iter([0.0, *(1.0, 4.0), 5.0, *(5.0, 5.5), 6.0, *(6.0, 8.0), 12.0])  # the end, then tries and looks at it
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert measure._quickest(lambda: None, "cpu", 10.0) == 0.5
    monkeypatch.setattr(measure, "_quickest", lambda act, device, seconds: 0.5)
    assert measure._product("cpu", torch.float32, 1.0) == 2 * 64**3 / 0.5
    assert measure._bandwidth("cpu", 1.0) == 8 * 1024 / 0.5


@pytest.fixture
def measured(monkeypatch):
    """Stand in for the measurement: an H100 that reaches half of its peaks, on an idle machine."""
    monkeypatch.setattr(check.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")


def test_rates_stand_beside_the_tables_peaks(measured):
    found = {one.name: one for one in check.measured(MACHINE)}
    assert found["product, bfloat16"].found == "494.5 TFLOP/s, 50% of H100-SXM's peak of 989.0 TFLOP/s"
    assert found["memory bandwidth"].found == "1.7 TB/s, 50% of H100-SXM's peak of 3.4 TB/s"
    assert found["product, float32"].found == "40.0 TFLOP/s, 16 threads"
    assert {one.level for one in found.values()} == {"OK"}


def test_a_chip_that_is_not_in_the_table_and_a_busy_machine_are_said_to_be(measured, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Riva 128")
    monkeypatch.setattr(check.os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    found = {one.name: one for one in check.measured(replace(MACHINE, bandwidth=2e9))}
    assert found["memory bandwidth"].found == "2.0 GB/s, no peak of Riva 128 is known"
    assert "idle" in found["load"].next


@pytest.fixture
def asked(measured, monkeypatch):
    monkeypatch.setattr(check, "findings", lambda full: iter([check.Finding("Python", "OK", "3.11")]))
    monkeypatch.setattr(measure, "measure", lambda: MACHINE)
    monkeypatch.setattr(sys, "argv", ["aftershock", "check", "--measure", "--json"])


def test_check_prints_the_measurement_as_json(asked, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["machine"] == asdict(MACHINE) == asdict(measure.kept())
    assert [one["name"] for one in told["findings"]][:2] == ["Python", "product, float32"]


def test_a_measurement_that_cannot_be_kept_is_told_all_the_same(asked, cache, capsys):
    (cache / "aftershock").write_text("a file where the folder would be")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["machine"] == asdict(MACHINE)
    last = told["findings"][-1]
    assert (last["name"], last["level"]) == ("kept", "WARN")
    assert "XDG_CACHE_HOME" in last["next"]
