"""Energy as the machine's own counters tell it; where there are none, or they fail, an estimate from watts stands.

RAPL counts what a processor's package (and memory, where it has a zone) draws, whoever makes it: of it, the cores that
this process may use get their share. NVML counts a whole GPU. Neither sees fans, disks and losses of the supply.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aftershock.cost import hardware

POWERCAP = Path("/sys/class/powercap")  # the kernel's names: Documentation/power/powercap/powercap.rst
ESTIMATED = "estimated"
MOST_WATTS = 500.0  # that one package can draw: AMD EPYC 9965's limit, from memory
SAME_JOULES = 1.0  # drawn between two reads of one counter, at most; others are never so near
STILL_SECONDS = 1.0  # a counter that doesn't move for so long is none: virtual machines have such
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Counter:
    """A count of joules that only grows, until it begins anew at `wraps` (0: it never does); `share` of it is ours."""

    name: str
    read: Callable[[], float]
    wraps: float = 0.0
    share: float = 1.0

    def since(self, before: float, now: float, seconds: float) -> float:
        """Return our joules between two readings so many seconds apart; ValueError where the counter can't tell."""
        if self.wraps and seconds * MOST_WATTS > self.wraps:
            raise ValueError(f"{self.name} may have gone round more than once in {seconds:.0f} s")
        passed = now - before + (self.wraps if now < before else 0.0)
        if passed < 0:
            raise ValueError(f"{self.name} went back")
        if not passed and seconds > STILL_SECONDS:
            raise ValueError(f"{self.name} stands still")
        return passed * self.share


class Meter:
    """Tells what went since it was last asked. What fails is estimated for that time alone, and says why."""

    def __init__(self, counters: Sequence[Counter], why: str) -> None:
        self._counters, self._why = counters, why  # the latter: why there is none, or why one last failed
        self._before = self._readings()

    def kwh(self, seconds: float) -> tuple[float | None, str]:
        """Return (kWh since the call before, what measured it); (None, "estimated: WHY") where it isn't known."""
        before, now = self._before, self._readings()
        self._before = now
        try:
            if not (self._counters and before and now):
                raise ValueError(self._why)
            parts = [one.since(first, last, seconds) for one, first, last in zip(self._counters, before, now)]
        except ValueError as error:
            return None, f"{ESTIMATED}: {error}"
        return sum(parts) / JOULES_PER_KWH, " + ".join(dict.fromkeys(counter.name for counter in self._counters))

    def _readings(self) -> list[float]:
        """Return what every counter shows; nothing where one fails."""
        try:
            return [counter.read() for counter in self._counters]
        except Exception as error:  # a driver's library has its own kinds, and no meter may stop a run
            self._why = _told(error)
            return []


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or 'no file named'}"
    return f"{type(error).__name__}: {error}"


def counters(device: str, powercap: Path = POWERCAP) -> tuple[list[Counter], str]:
    """Return this machine's counters, and why there are none where the list is empty.

    On "cuda" that of the first GPU, with the processor's where it can be read; the processor's alone would look like
    the whole.
    """
    try:
        found = [_nvml()] if device == "cuda" else []
    except ImportError:
        return [], 'no NVML: pip install "aftershock[energy]"'
    except Exception as error:
        return [], _told(error)
    try:
        return found + _rapl(powercap), "no counter here"
    except (OSError, ValueError) as error:
        return found, _told(error)


def _nvml() -> Counter:
    import pynvml
    import torch

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    counter = Counter("NVML", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
    counter.read()  # GPUs before Volta have no such counter
    return counter


def _rapl(powercap: Path) -> list[Counter]:
    """Return a counter for each processor package, and for its memory where that has a zone.

    Some processors of several dies have a zone for each die that shows the package's one counter: it counts once.
    """
    ours, all_cores = hardware.cores(), os.cpu_count() or 1
    name = "RAPL" if ours >= all_cores else f"RAPL ({ours} of {all_cores} cores)"
    found: dict[float, Counter] = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if not (zone / "name").read_text().startswith(("package", "dram")):  # core and uncore are parts of the package
            continue
        wraps = int((zone / "max_energy_range_uj").read_text()) / 1e6
        counter = Counter(name, _joules(zone / "energy_uj"), wraps, min(1.0, ours / all_cores))
        shown = counter.read()
        if not any(abs(shown - other) < SAME_JOULES for other in found):
            found[shown] = counter
    return list(found.values())


def _joules(path: Path) -> Callable[[], float]:
    return lambda: int(path.read_text()) / 1e6
