"""Where a recipe is to run: this machine or a cluster; and how long a CPU takes, as fitted on timed nano stages."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from aftershock.cost import flops, hardware, measure, memory, parameters
from aftershock.cost.cluster import Cluster, parse
from aftershock.cost.hardware import Hardware
from aftershock.cost.parameters import Config
from aftershock.errors import RecipeError
from aftershock.plan.held import How
from aftershock.plan.loads import Load

HERE = "here"
DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder a GPU, as NVIDIA's driver for Linux has it
# What two idle cores of an AMD EPYC (Zen 4) do: products of 1,024 x 1,024 (twice one thread's, in processor time), a
# forward of one token through the nano base, which a step of one row is where it isn't native. Prices below are scaled
# from these to what `check --measure` found.
REFERENCE = {"float32": 2.04e11, "bfloat16": 4.44e11, "step": 2.3e-3, "cores": 2}
BETWEEN = 2250.0  # what lies between a training step's products, as FLOPs a token, layer and unit of width
LONGEST = 5.0  # of a batch's completions, over their mean
BANDWIDTH = 2e10  # bytes a second, where nothing was measured
EMULATED = 0.05  # of the reference in bfloat16, where a processor has no products of it: fine-tuning on a Zen 3
COMPILERS = ("cc", "gcc", "clang")  # one of them makes the native decoding step (models/native)


@dataclass(frozen=True)
class Prices:
    """Seconds of each kind of work on the reference machine: a FLOP of training by precision (in float32 of a mixture
    apart, whose experts' products are small) and of sampling, an optimiser's step, a decoding step of a mixture and of
    a dense model, a row of one (its FLOPs apart), a measurement, a completion (from its tokens to its line on disk),
    and a program that is run to judge it, beside sampling or late, once all is sampled. Where these three are 0, they
    are in rows.
    """

    float32: float
    mixture: float
    bfloat16: float
    decoded: float
    step: float
    forward: float
    dense: float
    row: float
    exam: float
    completion: float = 0.0
    program: float = 0.0
    late: float = 0.0


# Fitted on four timed stages of recipes/nano/r1.toml (docs/cost.md says how well they tell the others), by how a
# decoding step is made: by torch, as before there was a native one, or in C. `dense` is what a step of small-qwen took
# at 8 rows (docs/log.md, "a step recorded once"). benchmarks/plan_fit.py fits them all again.
PRICES = {"torch": Prices(1 / 8.0e10, 1 / 8.0e10, 1 / 1.14e11, 1 / 8.0e10, 0.15, 3.9e-3, 1.2e-3, 4.9e-5, 2.0)}
# In C: two runs of that recipe, seeds 5 and 6, on two idle cores of a Zen 3, which has no products of bfloat16: that
# price is torch's. A mixture's experts have small products, so its training has a price of its own.
PRICES["native"] = Prices(
    *(9.39e-12, 1.31e-11, PRICES["torch"].bfloat16, 5.73e-12, 0.0572),
    *(1.26e-3, 7.77e-4, 6.86e-6, 0.438, 1.37e-4, 8.43e-3, 9.66e-3),
)
REFERENCES = {"torch": REFERENCE, "native": {**REFERENCE, "float32": 1.63e11, "step": 1.33e-4}}


@dataclass(frozen=True)
class Place:
    """A machine that a plan is for: a CPU where `cluster` is None."""

    machine: Hardware
    cluster: Cluster | None = None


@dataclass(frozen=True)
class Rates:
    """What a CPU does: how many times the reference's FLOP/s by precision, bytes a second, how many times slower its
    work between products; which prices hold, and what all that rests on.
    """

    float32: float
    bfloat16: float
    bandwidth: float
    slowness: float
    prices: Prices
    source: str


def place(name: str | None, device: str = "auto") -> Place:
    """Return this machine for `here` or None, else the cluster of that name: `8xH100@2.5/h`.

    `device` is the recipe's: this machine's GPU doesn't count where that is "cpu".
    """
    own = name in (None, HERE)
    cluster = None if own and device == "cpu" else _own_gpu() if own else parse(str(name))
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


def decoding() -> str:
    """Return how this machine makes a decoding step, as models/native/build.py finds it: `native` or `torch`."""
    given = os.environ.get("CC", "").split()[:1]
    found = any(map(shutil.which, (*given, *COMPILERS)))
    return "native" if found and os.environ.get("AFTERSHOCK_NATIVE") != "0" else "torch"


def rates(cores: int) -> Rates:
    """Return what this machine's CPU does: as `aftershock check --measure` found, else by its cores."""
    found, path = measure.kept(), decoding()
    reference = REFERENCES[path]
    if found is None:
        share = cores / REFERENCE["cores"]
        half = share if hardware.multiplies_bf16() else share * EMULATED
        said = "rates of an AMD EPYC by the core; aftershock check --measure finds this machine's"
        return Rates(share, half, BANDWIDTH, 1.0, PRICES[path], said)
    return Rates(
        found.matmul_flops / reference["float32"],
        found.matmul_flops_bf16 / reference["bfloat16"],
        found.bandwidth,
        found.step_seconds / reference["step"],
        PRICES[path],
        f"rates of this machine, measured {found.when[:10]}",
    )


def training_work(config: Config, load: Load, how: How, beside: float = 0.0) -> dict[str, float]:
    """Return how much of each priced kind of work training is; `beside` is the FLOPs a token of what else is read."""
    if not load.trained:
        return {}
    context = (load.length + 1) / 2
    each = beside + flops.training(
        config, context, recompute=how.recompute, prediction=how.prediction, rank=how.rank, targets=how.targets
    )
    layers = config["num_hidden_layers"] + memory.depth(config, how.prediction)
    each += BETWEEN * config["hidden_size"] * layers * (1 + how.recompute / flops.TRAINING)
    sparse = parameters.is_sparse(config, config["num_hidden_layers"] - 1)
    kind = "bfloat16" if how.precision != "float32" else "mixture" if sparse else "float32"
    return {kind: load.trained * each, "step": load.steps}


def sampling_work(config: Config, load: Load, rows: int, max_tokens: int) -> dict[str, float]:
    """Return how much of each priced kind of work sampling and judging is, and the bytes that are read (`read`).

    A batch is decoded until its longest completion has ended.
    """
    if not load.sampled:
        return {}
    longest = min(float(max_tokens), LONGEST * load.written)
    forwards = max(load.batches * longest, load.sampled / rows)
    return {
        "decoded": load.sampled * flops.forward(config, load.length, latent=True),
        "forward" if parameters.is_sparse(config, config["num_hidden_layers"] - 1) else "dense": forwards,
        "row": load.sampled,
        "read": forwards * parameters.total(config) * memory.FULL,
        "exam": load.exams,
        "completion": load.completions,
        "late" if load.late else "program": load.programs,
    }


def seconds(work: Mapping[str, float], at: Rates) -> float:
    """Return how long a CPU takes for so much of each kind of work."""
    quicker = dict.fromkeys(("float32", "mixture", "decoded"), at.float32) | {"bfloat16": at.bfloat16}
    spent = work.get("read", 0.0) / at.bandwidth
    for kind in (field.name for field in fields(Prices)):
        spent += work.get(kind, 0.0) * getattr(at.prices, kind) / quicker.get(kind, 1 / at.slowness)
    return spent
