"""The machine a run is on: what it is, what an hour of it costs and what it draws."""

import csv
import os
import platform
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aftershock.errors import RecipeError

# A plain CPU by the core: an assumption where nobody says what the machine costs, never a measurement.
CPU_USD_PER_CORE_HOUR = 0.0425  # AWS c5.2xlarge on demand in us-east-1: $0.34 an hour for 8 vCPUs (Auto Scaling guide)
CPU_WATTS_PER_CORE = 3.5  # Cloud Carbon Footprint, methodology: AWS's mean power of a vCPU at full use, memory included
GPU_USD_PER_HOUR, GPU_WATTS = 1.0, 400.0  # a GPU that the table does not know: stated as assumed
CPU_SOURCE = (
    "assumed: $0.0425 a core-hour (AWS c5.2xlarge on demand), 3.5 W a core (Cloud Carbon Footprint's methodology); "
    "set run.usd_per_hour and run.watts to what yours are"
)
GPU_SOURCE = "assumed, for a GPU that is not in the table; set run.usd_per_hour and run.watts to what yours are"
SMALL = 1 << 18  # weights of a matrix, up to which C multiplies (models/native/linear.py): see `halves`


@dataclass(frozen=True)
class Hardware:
    """One machine. `source` says where price and power come from."""

    name: str
    device: str
    cores: int
    memory_gb: float
    usd_per_hour: float
    watts: float
    source: str


def table() -> list[dict[str, str]]:
    """Return the rows of hardware.csv: GPUs with memory (GB), dense bf16 TFLOPS, dollars an hour, watts and sources."""
    text = (files("aftershock.cost") / "hardware.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def device(wanted: str = "auto") -> str:
    """Return "cuda" or "cpu": what a run works on, of which "auto" takes a GPU where torch sees one.

    Raises RecipeError where a GPU is wanted and torch sees none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            'run.device is "cuda", and torch sees no CUDA GPU (see aftershock check): install a CUDA build of torch, '
            'or set run.device to "cpu"'
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def detect(wanted: str = "auto") -> Hardware:
    """Return this machine by the `device` that is wanted of it: its first GPU, or its CPU."""
    import torch

    if device(wanted) == "cuda":
        return gpu(torch.cuda.get_device_name(0))
    return cpu(cpu_name(), cores(), memory_bytes() / 1e9)


def cpu(name: str, core_count: int, memory_gb: float) -> Hardware:
    """Return a CPU machine, priced and powered by the stated assumptions."""
    price, watts = CPU_USD_PER_CORE_HOUR * core_count, CPU_WATTS_PER_CORE * core_count
    return Hardware(name, "cpu", core_count, round(memory_gb, 1), price, watts, CPU_SOURCE)


def gpu(device_name: str) -> Hardware:
    """Return a machine with one GPU of the name that the driver gives; the table's longest matching name decides."""
    known = [row for row in table() if device_name.startswith(row["device_name"])]
    memory_gb = round(memory_bytes() / 1e9, 1)
    if not known:
        return Hardware(device_name, "cuda", cores(), memory_gb, GPU_USD_PER_HOUR, GPU_WATTS, GPU_SOURCE)
    row = max(known, key=lambda found: len(found["device_name"]))
    price, watts = float(row["usd_per_hour"]), float(row["watts"])
    return Hardware(row["name"], "cuda", cores(), memory_gb, price, watts, row["source"])


def cores() -> int:
    """Return how many cores this process may use: the affinity mask, and a container's quota (cgroup v2)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdecimal():
        return max(1, min(allowed, int(quota[0]) // int(quota[1])))
    return allowed


def memory_bytes() -> int:
    """Return the memory this process may use in bytes: the machine's, or a container's limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max").strip()
    return min(physical, int(limit)) if limit.isdecimal() else physical


def multiplies_bf16() -> bool:
    """Whether the processor has products of bfloat16 of its own (AVX-512 BF16, AMX, Arm's), as Linux tells.

    Elsewhere they are emulated, at a tenth of float32's speed and less.
    """
    lines = [line.partition(":") for line in _cpuinfo() if line.startswith(("flags", "Features"))]
    return bool(lines) and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(lines[0][2].split())


def halves(widest: int, native: bool) -> bool:
    """Whether training in bfloat16 pays on this processor, for matrices of up to `widest` weights each.

    `native`: whether a float32 learner's passes are in C. Those of small matrices are quicker than PyTorch's in
    bfloat16, casts included, where the processor multiplies bfloat16 itself (docs/log.md, 2026-11-30).
    """
    return multiplies_bf16() and not (native and widest <= SMALL)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _cgroup(name: str) -> str:
    try:
        return Path("/sys/fs/cgroup", name).read_text()
    except OSError:
        return ""


def cpu_name() -> str:
    """Return the processor's name as its maker gives it, or the architecture where the system does not say."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
