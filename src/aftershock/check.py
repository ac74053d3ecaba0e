"""What this machine has and lacks for aftershock: one line a thing, each with the next step to take."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from aftershock.cost import cluster, energy, hardware, measure
from aftershock.disk import free_bytes, size
from aftershock.errors import RunError, SandboxError

if TYPE_CHECKING:
    import torch

Level = Literal["OK", "WARN", "FAIL"]

LEAST_PYTHON = (3, 11)
DISK_BYTES, MEMORY_BYTES = 2e9, 4e9  # a nano run keeps under 200 MB and holds under 2 GB; twice and more to spare
OPTIONAL = {  # module: (what for, what installs it)
    "matplotlib": ("the report's curves", ".[report]"),
    "jinja2": ("the report", ".[report]"),
    "reasoning_gym": ("tasks named gym:...", ".[gym]"),
    "tensorboard": ("--track tensorboard", ".[track]"),
    "pynvml": ("a GPU's energy, measured", ".[energy]"),
    "wandb": ("--track wandb", ".[wandb]"),
    "trackio": ("--track trackio", ".[trackio]"),
}


@dataclass(frozen=True)
class Finding:
    """One line: the thing, how it stands, what was found, and what to do next (empty where nothing is to be done)."""

    name: str
    level: Level
    found: str
    next: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5}{self.name}: {self.found}" + (f" -> {self.next}" if self.next else "")


def findings(full: bool = False) -> Iterator[Finding]:
    """Yield the findings one by one; `full` also compiles a small function, which takes up to a minute."""
    yield python()
    yield from torch_and_device()
    yield compiler(full)
    yield disk()
    yield memory()
    yield cores()
    yield meter()
    yield sandbox()
    yield base_model()
    for module in OPTIONAL:
        yield optional(module)


def measured(machine: measure.Machine) -> Iterator[Finding]:
    """Yield a measurement's speeds, beside each its peak where the table has one, and whether plans will find them."""
    import torch

    busy = os.getloadavg()[0] > hardware.cores() / 2
    name = hardware.gpu(torch.cuda.get_device_name(0)).name if torch.cuda.is_available() else hardware.cpu_name()
    chip = cluster.chip(name) if name in {row["name"] for row in hardware.table()} else None
    yield Finding("product, float32", "OK", f"{_rate(machine.matmul_flops, 'FLOP')}, {machine.cores} threads")
    yield Finding(
        "product, bfloat16", "OK", _beside(machine.matmul_flops_bf16, "FLOP", chip.bf16 if chip else None, name)
    )
    yield Finding("memory bandwidth", "OK", _beside(machine.bandwidth, "B", chip.bandwidth if chip else None, name))
    yield Finding("decoding step", "OK", f"{1000 * machine.step_seconds:.3f} ms at least, the nano base model")
    if busy:
        yield Finding("load", "WARN", "others were at work, so these may be too low", "measure on an idle machine")
    yield _kept(machine)


def _kept(machine: measure.Machine) -> Finding:
    try:
        measure.keep(machine)
    except RunError as error:
        step = "set XDG_CACHE_HOME to a folder that can be written, and measure again"
        return Finding("kept", "WARN", f"plans won't know these speeds: {error}", step)
    return Finding("kept", "OK", f"{measure.path()}, for aftershock plan")


def _rate(value: float, unit: str) -> str:
    return f"{value / 1e12:,.1f} T{unit}/s" if value >= 1e12 else f"{value / 1e9:,.1f} G{unit}/s"


def _beside(value: float, unit: str, peak: float | None, name: str) -> str:
    told = f"{value / peak:.0%} of {name}'s peak of {_rate(peak, unit)}" if peak else f"no peak of {name} is known"
    return f"{_rate(value, unit)}, {told}"


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Is this Python new enough?"""
    found = ".".join(map(str, version))
    if version[:2] >= LEAST_PYTHON:
        return Finding("Python", "OK", found)
    return Finding("Python", "FAIL", found, "install Python 3.11 or newer and make the virtual environment again")


def torch_and_device() -> Iterator[Finding]:
    """Does torch load, what does it run on, and does bf16 give right numbers there?"""
    try:
        import torch
    except Exception as error:
        yield Finding("torch", "FAIL", f"can't be imported ({error})", "pip install -c constraints.txt torch")
        return
    yield Finding("torch", "OK", torch.__version__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else hardware.cpu_name()
    yield Finding("device", "OK", f"{device} ({name})")
    yield bf16(device)
    yield native()


def bf16(device: str) -> Finding:
    """Multiply in bf16 and compare with float32: is it there, is it right, and is it faster?"""
    import torch

    try:
        matrix = torch.rand(1024, 1024, device=device)
        exact, slow = _product(matrix)
        rounded, quick = _product(matrix.bfloat16())
    except RuntimeError as error:
        return Finding("bf16", "WARN", f"fails ({error})", 'keep optim.precision = "float32"')
    if not torch.allclose(exact, rounded, rtol=0.02):
        return Finding("bf16", "WARN", "gives wrong products", 'keep optim.precision = "float32"')
    if quick > slow:
        told = f"takes {quick / slow:.0f} x the time of float32 in a 1024 x 1024 product"
        return Finding("bf16", "WARN", told, 'set optim.precision = "auto" or "float32"')
    return Finding("bf16", "OK", f"works, {slow / quick:.1f} x the speed of float32 in a 1024 x 1024 product")


def _product(matrix: "torch.Tensor") -> "tuple[torch.Tensor, float]":
    """Return the square of a matrix in float32 and the seconds that the quickest of a few tries took."""
    tries = []
    for _ in range(5):
        began = time.perf_counter()
        product = (matrix @ matrix).float().cpu()
        tries.append(time.perf_counter() - began)
    return product, min(tries)


def native() -> Finding:
    """Can a decoding step on the CPU be compiled here? It is, the first time, and kept."""
    from aftershock.models.native import build

    why = build.why_not()
    if not why:
        return Finding("native step", "OK", "a decoding step on the CPU runs in C")
    step = "apt install gcc (Debian, Ubuntu) or xcode-select --install (macOS); sampling on a CPU works without, slower"
    return Finding(
        "native step", "WARN", f"not compiled: {why}", f"unset {build.SWITCH}" if build.SWITCH in why else step
    )


def compiler(full: bool = False) -> Finding:
    """Is there a C++ compiler for torch.compile? `full` compiles something."""
    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    path = next((found for found in map(shutil.which, filter(None, names)) if found), None)
    if path is None:
        step = "apt install g++ (Debian, Ubuntu) or xcode-select --install (macOS); training works without, slower"
        return Finding("compiler", "WARN", "no g++ or clang++, so torch.compile can't be used", step)
    if not full:
        return Finding("compiler", "OK", path)
    return _compiles(path)


def _compiles(path: str) -> Finding:
    program = "import torch\nassert torch.compile(lambda x: x.sin() + 1)(torch.zeros(9)).sum() == 9"
    try:
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or ["no message"]
        return Finding("compiler", "WARN", f"{path}, but torch.compile fails ({last[0]})", "training works without it")
    except subprocess.TimeoutExpired:
        return Finding("compiler", "WARN", f"{path}, but torch.compile took over 300 s", "training works without it")
    return Finding("compiler", "OK", f"{path}, and torch.compile works")


def disk(folder: Path = Path("."), free: Callable[[Path], int] = free_bytes) -> Finding:
    """Is there room for a run, and may files be written here?"""
    found = f"{size(free(folder))} free in {folder.resolve()}"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return Finding("disk", "FAIL", f"can't write here ({error.strerror})", "change to a folder of yours")
    if free(folder) < DISK_BYTES:
        return Finding("disk", "WARN", found, f"free some: a nano run wants {size(int(DISK_BYTES))} to be safe")
    return Finding("disk", "OK", found)


def memory(count: int | None = None) -> Finding:
    """Is there memory for a nano run?"""
    count = hardware.memory_bytes() if count is None else count
    if count < MEMORY_BYTES:
        step = "lower optim.micro_tokens and max_rows in the recipe, or use a larger machine"
        return Finding("memory", "WARN", size(count), step)
    return Finding("memory", "OK", size(count))


def cores() -> Finding:
    """How many cores may this process use?"""
    count = hardware.cores()
    step = "" if count > 1 else "recipes' times are for two cores: reckon with twice the time"
    return Finding("cores", "OK" if count > 1 else "WARN", f"{count} ({platform.machine()})", step)


def meter(powercap: Path = energy.POWERCAP) -> Finding:
    """Does the processor tell what energy it draws?"""
    found, why = energy.counters("cpu", powercap)
    if found:
        return Finding("energy", "OK", f"measured by {found[0].name}")
    if "ermission" in why:
        step = f"sudo chmod a+r {powercap}/intel-rapl:*/energy_uj, after each start of the machine"
        return Finding("energy", "WARN", f"the counter can't be read, so kWh are estimated ({why})", step)
    return Finding("energy", "OK", f"{why}: kWh are estimated from watts")


def sandbox() -> Finding:
    """Can untrusted programs be run here, and what stands between them and the machine?"""
    from aftershock.verify.sandbox import walls

    try:
        found = walls()
    except SandboxError as error:
        what, step = str(error).split("; ", 1)
        return Finding("sandbox", "WARN", what, step)
    return Finding("sandbox", "OK", str(found))


def base_model() -> Finding:
    """Is the nano base model, from which R1-Zero starts, in the package?"""
    folder = Path(__file__).parent / "assets" / "nano"
    weights = list(folder.glob("*.safetensors"))
    if not weights:
        step = "aftershock run recipes/nano/pretrain.toml --out runs/base makes it again (under an hour on a laptop)"
        return Finding("base model", "FAIL", f"no weights in {folder}", step)
    return Finding("base model", "OK", f"{size(sum(path.stat().st_size for path in weights))} in {folder}")


def optional(module: str) -> Finding:
    """Is an optional library there?"""
    purpose, extra = OPTIONAL[module]
    if importlib.util.find_spec(module) is None:
        return Finding(module, "WARN", f"not installed; needed for {purpose}", f'pip install -e "{extra}"')
    return Finding(module, "OK", f"installed, for {purpose}")
