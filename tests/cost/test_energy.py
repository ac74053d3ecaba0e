"""Meters of energy, on folders that look like the kernel's and a library that looks like NVML's."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import energy
from aftershock.cost.energy import Counter, Meter, counters

RANGE = 262_143_328_850  # microjoules, of many processors


def zone(powercap: Path, name: str, kind: str, microjoules: int, wraps: int = RANGE) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


@pytest.fixture
def all_cores(monkeypatch):
    monkeypatch.setattr(energy.hardware, "cores", lambda: 8)
    monkeypatch.setattr(energy.os, "cpu_count", lambda: 8)


@pytest.fixture
def package(tmp_path, all_cores):
    """One package, its parts, its memory, the same package by another name, and a display."""
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl-mmio:0", "package-0"), ("intel-rapl:1", "psys")):
        zone(tmp_path, name, kind, 7_000_000)
    return zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000), zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)


def test_packages_and_their_memory_count_and_their_parts_do_not(tmp_path, package):
    meter = Meter(*counters("cpu", tmp_path))
    for path, microjoules in zip(package, (5_000_000 + 36_000_000, 2_000_000 + 3_600_000)):
        path.write_text(f"{microjoules}\n")
    assert meter.kwh(2.0) == (pytest.approx(1.1e-5), "RAPL")
    assert meter.kwh(0.1)[0] == 0  # since the call before, not since the beginning


def test_a_counter_that_begins_anew_is_followed(tmp_path, all_cores):
    path = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 3_000_000)
    meter = Meter(*counters("cpu", tmp_path))
    path.write_text("600000\n")
    assert meter.kwh(2.0)[0] == pytest.approx(3.6 / 3.6e6)


@given(st.lists(st.floats(0.01, 2e5), max_size=20), st.floats(0, 262e3))
def test_however_often_it_goes_round_joules_add_up(steps, begin):
    shown = iter([begin])
    now = begin
    meter = Meter([Counter("RAPL", lambda: next(shown), 262e3)], "")
    measured = 0.0
    for joules in steps:
        now = (now + joules) % 262e3
        shown = iter([now])
        kwh, _ = meter.kwh(joules / 500)
        measured += kwh or 0.0
    assert measured == pytest.approx(sum(steps) / 3.6e6, abs=1e-9)


def test_over_a_time_in_which_it_may_have_gone_round_twice_it_is_not_believed(tmp_path, package):
    meter = Meter(*counters("cpu", tmp_path))
    package[0].write_text("9000000")
    kwh, source = meter.kwh(RANGE / 1e6 / 500 + 1)
    assert kwh is None
    assert "more than once" in source


def test_of_a_large_machine_our_cores_have_their_share(tmp_path, package, monkeypatch):
    monkeypatch.setattr(energy.hardware, "cores", lambda: 2)
    meter = Meter(*counters("cpu", tmp_path))
    package[0].write_text(f"{5_000_000 + 36_000_000}\n")
    package[1].write_text("2000001\n")
    assert meter.kwh(1.0) == (pytest.approx(2.5e-6), "RAPL (2 of 8 cores)")


def test_dies_that_show_one_counter_count_once(tmp_path, package):
    zone(tmp_path, "intel-rapl:2", "package-2", 5_000_100)
    zone(tmp_path, "intel-rapl:3", "package-3", 9_000_000)
    assert len(counters("cpu", tmp_path)[0]) == 3


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("?"), "ValueError"),
        (lambda path: path.write_text("1000000"), "went back"),
        (lambda path: None, "stands still"),
    ],
)
def test_a_meter_that_fails_gives_way_to_the_estimate_and_says_why(tmp_path, all_cores, spoil, why):
    path = zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000, wraps=0)
    meter = Meter(*counters("cpu", tmp_path))
    spoil(path)
    kwh, source = meter.kwh(2.0)
    assert kwh is None
    assert source.startswith("estimated: ")
    assert why in source


def test_a_meter_that_comes_back_measures_again(tmp_path, package):
    meter = Meter(*counters("cpu", tmp_path))
    package[0].write_text("?")
    assert meter.kwh(0.5)[0] is None
    package[0].write_text("6000000")
    assert meter.kwh(0.5)[0] is None  # what it began with isn't known
    package[0].write_text("9600000")
    assert meter.kwh(0.5) == (pytest.approx(1e-6), "RAPL")


def test_without_counters_or_the_right_to_read_them_energy_is_estimated(tmp_path, package, monkeypatch):
    assert Meter(*counters("cpu", tmp_path / "none")).kwh(1.0) == (None, "estimated: no counter here")

    def denied(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", denied)
    assert "Permission denied" in Meter(*counters("cpu", tmp_path)).kwh(1.0)[1]


@pytest.fixture
def nvml(monkeypatch):
    """A library whose one GPU has drawn `joules` so far."""

    def energy_of(handle):
        if fake.joules is None:
            raise RuntimeError("GPU is lost")
        return int(1000 * fake.joules)

    fake = SimpleNamespace(
        joules=100.0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-12ab": 7}[uuid],
        nvmlDeviceGetTotalEnergyConsumption=energy_of,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="12ab"))
    return fake


def test_a_gpu_and_its_processor_are_measured_together(tmp_path, package, nvml):
    meter = Meter(*counters("cuda", tmp_path))
    nvml.joules += 360
    package[0].write_text(f"{5_000_000 + 36_000_000}")
    package[1].write_text("2000001")
    assert meter.kwh(1.0) == (pytest.approx(1.1e-4), "NVML + RAPL")
    nvml.joules = None
    assert meter.kwh(1.0) == (None, "estimated: RuntimeError: GPU is lost")


def test_a_gpu_alone_is_measured_and_a_processor_alone_is_not(tmp_path, package, nvml, monkeypatch):
    assert [one.name for one in counters("cuda", tmp_path / "none")[0]] == ["NVML"]
    package[1].write_text("?")
    assert [one.name for one in counters("cuda", tmp_path)[0]] == ["NVML"]
    package[1].write_text("2000000")
    nvml.joules = None
    assert counters("cuda", tmp_path) == ([], "RuntimeError: GPU is lost")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found, why = counters("cuda", tmp_path)
    assert found == []
    assert 'pip install "aftershock[energy]"' in why
