"""What this machine does in a second: products of matrices, bytes of memory moved; and its least decoding step."""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aftershock import disk
from aftershock.cost import hardware
from aftershock.errors import RunError

if TYPE_CHECKING:
    import torch

SECONDS_EACH = 3.0  # for each of five rates, so that all take some 15 seconds and a slow machine under 30
# A try on a CPU takes some milliseconds, so that on busy cores a few go undisturbed; a GPU wants more for its peak.
SIDE = {"cpu": 512, "cuda": 8192}  # of the matrices; 4 threads' worth on a CPU
CHUNK = {"cpu": 2**22, "cuda": 2**27}  # numbers moved in a try
ARRAY_BYTES = 2**29  # gone through chunk by chunk, well over any cache; at most a sixteenth of the machine's memory


@dataclass(frozen=True)
class Machine:
    """What was measured, with `cores` threads at work: FLOP/s, bytes a second, seconds of a nano model's step.

    `bandwidth` is the greater of a copy's (bytes read and written) and a sum's. `step_seconds` is a decoding step's of
    one row, as sampling takes it (in C or not): what no step is quicker than, however small the model.
    """

    matmul_flops: float
    matmul_flops_bf16: float
    bandwidth: float
    step_seconds: float
    when: str
    torch: str
    cores: int


def path() -> Path:
    """Return where the last measurement of this machine is kept, whether or not it is there."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "aftershock" / "machine.json"


def kept() -> Machine | None:
    """Return the last measurement; None where there is none, a damaged one, or one of another version's form."""
    try:
        return Machine(**disk.read_json(path()))
    except (TypeError, RunError):
        return None


def measure(seconds_each: float = SECONDS_EACH) -> Machine:
    """Measure the first GPU, or else the CPU with torch's threads, for half a minute."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(
        matmul_flops=_product(device, torch.float32, seconds_each),
        matmul_flops_bf16=_product(device, torch.bfloat16, seconds_each),
        bandwidth=_bandwidth(device, seconds_each),
        step_seconds=_step(device, seconds_each),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        torch=torch.__version__,
        cores=torch.get_num_threads(),
    )


def keep(machine: Machine) -> None:
    """Put a measurement at `path()`, where plans for this machine read it; RunError where it can't be written."""
    disk.write_json(path(), asdict(machine))


def _quickest(act: Callable[[], object], device: str, seconds: float) -> float:
    """Return the seconds of the quickest try, after one that warms up; others' work only ever adds to it."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    act()
    wait()
    tries, end = list[float](), time.perf_counter() + seconds
    while not tries or time.perf_counter() < end:
        began = time.perf_counter()
        act()
        wait()
        tries.append(time.perf_counter() - began)
    return min(tries)


def _product(device: str, dtype: "torch.dtype", seconds: float) -> float:
    import torch

    side = SIDE[device] * (max(1, torch.get_num_threads() // 4) if device == "cpu" else 1)
    matrix = torch.rand(side, side, device=device).to(dtype)
    return 2 * side**3 / _quickest(lambda: matrix @ matrix, device, seconds)


def _bandwidth(device: str, seconds: float) -> float:
    import torch

    chunks = max(1, min(ARRAY_BYTES, hardware.memory_bytes() // 16) // (4 * CHUNK[device]))
    size = chunks * CHUNK[device]
    source, target = (torch.ones(size, device=device).split(CHUNK[device]) for _ in range(2))
    pairs, parts = itertools.cycle(zip(target, source)), itertools.cycle(source)
    copy = _quickest(lambda: torch.Tensor.copy_(*next(pairs)), device, seconds)
    read = _quickest(lambda: next(parts).sum(), device, seconds)
    return max(8 * CHUNK[device] / copy, 4 * CHUNK[device] / read)


def _step(device: str, seconds: float) -> float:
    import torch

    from aftershock.models import load
    from aftershock.sources import shipped_base

    model, one = load(shipped_base()).to(device).eval(), torch.zeros(1, dtype=torch.long, device=device)
    with torch.inference_mode():
        cache = model.new_cache(1, 16)
        return _quickest(lambda: model.decode(one, one, cache), device, seconds)
