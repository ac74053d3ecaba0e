"""Where a recipe is to run: this machine or a cluster; and how long a CPU takes, as fitted on timed nano stages."""

from dataclasses import dataclass
from pathlib import Path

from aftershock.cost import flops, hardware, measure, memory, parameters
from aftershock.cost.cluster import Cluster, parse
from aftershock.cost.hardware import Hardware
from aftershock.cost.parameters import Config
from aftershock.errors import RecipeError
from aftershock.plan.loads import Load

HERE = "here"
DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder a GPU, as NVIDIA's driver for Linux has it
# What two idle cores of an AMD EPYC (Zen 4) do: products of 1,024 x 1,024 (twice one thread's, in processor time), a
# forward of one token through the nano base. Rates below are scaled from these to what `check --measure` found.
REFERENCE = {"float32": 2.04e11, "bfloat16": 4.44e11, "forward": 2.3e-3, "cores": 2}
# Fitted on four timed stages of recipes/nano/r1.toml there (docs/cost.md says how well they tell the others): FLOP/s
# of training, and what lies between the products, as FLOPs a token, layer and unit of width.
TRAINED = {"float32": 8.0e10, "bfloat16": 1.14e11}
BETWEEN = 2250.0
STEP, FORWARD, ROW, EXAM = 0.15, 3.9e-3, 4.9e-5, 2.0  # seconds a step, a decoding step, a row of it, a measurement
LONGEST = 5.0  # of a batch's completions, over their mean
BANDWIDTH = 2e10  # bytes a second, where nothing was measured


@dataclass(frozen=True)
class Place:
    """A machine that a plan is for: a CPU where `cluster` is None."""

    machine: Hardware
    cluster: Cluster | None = None


@dataclass(frozen=True)
class Rates:
    """What a CPU does: FLOP/s by precision, bytes a second, and how slow its work between products is (1: as timed)."""

    float32: float
    bfloat16: float
    bandwidth: float
    slowness: float
    source: str


def place(name: str | None) -> Place:
    """Return this machine for `here` or None, else the cluster of that name: `8xH100@2.5/h`."""
    cluster = _own_gpu() if name in (None, HERE) else parse(str(name))
    if cluster is None:
        cores, held = hardware.cores(), hardware.memory_bytes() / 1e9
        return Place(hardware.cpu(hardware.cpu_name(), cores, held))
    chip = cluster.chip
    usd, watts = chip.usd_per_hour * cluster.count, chip.watts * cluster.count
    return Place(Hardware(str(cluster), "cuda", 0, round(chip.memory / 1e9, 1), usd, watts, chip.source), cluster)


def _own_gpu() -> Cluster | None:
    """Return this machine's first GPU, whose name the driver tells without torch; None where there is none."""
    told = [path.read_text() for path in sorted(DRIVER.glob("*/information"))] if DRIVER.is_dir() else []
    lines = [line.partition(":")[2].strip() for text in told[:1] for line in text.splitlines() if "Model" in line]
    if not lines:
        return None
    rows = [row["name"] for row in hardware.table() if lines[0].startswith(row["device_name"])]
    if not rows:
        raise RecipeError(f"this machine's GPU, {lines[0]!r}, isn't in the table: name the nearest one with --on")
    return parse(max(rows, key=len))


def rates(cores: int) -> Rates:
    """Return what this machine's CPU does: as `aftershock check --measure` found, else by its cores."""
    found = measure.kept()
    if found is None:
        share = cores / REFERENCE["cores"]
        said = "rates of an AMD EPYC (Zen 4) by the core; aftershock check --measure finds this machine's"
        return Rates(TRAINED["float32"] * share, TRAINED["bfloat16"] * share, BANDWIDTH, 1.0, said)
    return Rates(
        TRAINED["float32"] * found.matmul_flops / REFERENCE["float32"],
        TRAINED["bfloat16"] * found.matmul_flops_bf16 / REFERENCE["bfloat16"],
        found.bandwidth,
        found.forward_seconds / REFERENCE["forward"],
        f"rates of this machine, measured {found.when[:10]}",
    )


def training_seconds(config: Config, load: Load, precision: str, beside: float, at: Rates) -> float:
    """Return how long a CPU trains; `beside` is the FLOPs a token of another model that is read."""
    each = flops.training(config, (load.length + 1) / 2) + beside
    each += BETWEEN * config["hidden_size"] * config["num_hidden_layers"]
    rate = at.bfloat16 if precision == "bfloat16" else at.float32
    return load.trained * each / rate + load.steps * STEP * at.slowness * bool(load.trained)


def sampling_seconds(config: Config, load: Load, rows: int, max_tokens: int, at: Rates) -> float:
    """Return how long a CPU samples and judges: each decoding step has its price, and each of its rows.

    A batch is decoded until its longest completion has ended; judging is in a row's price.
    """
    if not load.sampled:
        return 0.0
    longest = min(float(max_tokens), LONGEST * load.written)
    forwards = max(load.batches * longest, load.sampled / rows)
    row = flops.forward(config, load.length, latent=True) / at.float32 + ROW * at.slowness
    step = FORWARD * at.slowness + parameters.total(config) * memory.FULL / at.bandwidth
    return forwards * step + load.sampled * row + load.exams * EXAM * at.slowness
