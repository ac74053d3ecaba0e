"""Every test plans for the same two cores, whatever machine it runs on."""

from pathlib import Path

import pytest

from aftershock.cost import hardware
from aftershock.plan import machine


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(hardware, "cpu_name", lambda: "EPYC")
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 8 * 10**9)
    monkeypatch.setattr(machine.measure, "kept", lambda: None)
    monkeypatch.setattr(machine, "DRIVER", Path("nowhere"))
