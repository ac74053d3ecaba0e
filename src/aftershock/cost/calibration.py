"""What published runs and benchmarks reached of their chips' peak, and how far an estimate from it may be off.

The rows are in runs.csv, each with its source; sizes of their models in shapes.csv, from memory (their sums agree with
the published counts). Plain MLPs of two matrices stand there as gated ones of as many weights. DeepSeek-V3's
pre-training is in neither: it is what the model is held against (cost/published.py).
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import log, sqrt

from aftershock.cost.cluster import Cluster, chip
from aftershock.cost.decoding import rl_step
from aftershock.cost.layout import USABLE, Layout, candidates, counts, training_memory
from aftershock.cost.lengths import Lengths
from aftershock.cost.memory import Shape
from aftershock.cost.parameters import Config
from aftershock.cost.time import Efficiency, Parts, Training, parts

SECONDS_PER_HOUR = 3600.0
START = Efficiency(linear=0.6, routed=0.5, value=20.0, whole=0.9)  # of the search; where it ends doesn't hang on it


@dataclass(frozen=True)
class Run:
    """One published run (`whole`), or a benchmark that only made steps: its time at peak, and the GPU hours it took."""

    name: str
    group: str  # who ran it
    whole: bool
    chips: int
    parts: Parts
    gpu_hours: float
    source: str
    others: tuple[Parts, ...] = ()  # of all layouts that fit, where the source doesn't say which was taken

    @property
    def mixture(self) -> bool:
        """Whether its model has routed experts."""
        return self.parts.routed > 0

    def foretold(self, at: Efficiency) -> float:
        """Return its GPU hours at this efficiency."""
        return self.parts.seconds(at, whole=self.whole) * self.chips / SECONDS_PER_HOUR


@cache
def shapes() -> Mapping[str, Config]:
    """Return the sizes of the models in runs.csv by name, under the keys of config.json."""
    words = ("name", "model_type")
    return {
        row["name"]: {key: value if key in words else int(value) for key, value in row.items() if value}
        for row in table("shapes.csv")
    }


@cache
def runs() -> tuple[Run, ...]:
    """Return the rows of runs.csv. A benchmark's `tokens` are those of a chip and a second."""
    return tuple(_run(row) for row in table("runs.csv"))


def fit(rows: Iterable[Run]) -> Efficiency:
    """Return the efficiency at which the rows' hours are foretold best: the least sum of absolute logs of ratios.

    A pattern search: one number at a time is made larger or smaller, by less where nothing helps.
    """
    rows, best, step = list(rows), START, 1.3
    least = _missed(rows, best)
    while step > 1.002:
        found = min(_neighbours(best, step), key=lambda tried: _missed(rows, tried))
        if (missed := _missed(rows, found)) < least - 1e-9:
            best, least = found, missed
        else:
            step = sqrt(step)
    return best


def held_out(rows: Sequence[Run]) -> dict[Run, float]:
    """Return, for each row, hours published over hours foretold from the runs of all other groups."""
    groups = {row.group: fit(other for other in rows if other.group != row.group) for row in rows}
    return {row: row.gpu_hours / row.foretold(groups[row.group]) for row in rows}


def loops() -> dict[str, float]:
    """Return, for each step of RL in rl.csv, seconds published over the sum of sampling, training and weights sent."""
    return {row["name"]: float(row["seconds"]) / _step(row) for row in table("rl.csv")}


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of this folder."""
    return list(csv.DictReader((files("aftershock.cost") / name).read_text(encoding="utf-8").splitlines()))


def _run(row: Mapping[str, str]) -> Run:
    chips, whole = int(row["chips"]), row["kind"] == "run"
    tensor, expert, pipeline, zero = (int(row[name]) for name in ("tensor", "expert", "pipeline", "zero"))
    layout = Layout(chips // (tensor * pipeline), tensor, expert, pipeline, zero)
    tokens, length, batch = (float(row[name]) for name in ("tokens", "length", "batch"))
    cluster, recompute = Cluster(chip(row["chip"]), chips), row["recompute"] == "1"
    job = Training(length, tokens if whole else tokens * chips, batch, row["precision"], recompute)
    config = shapes()[row["shape"]]
    at_peak = parts(config, cluster, layout, job)
    hours = float(row["gpu_hours"]) if whole else chips / SECONDS_PER_HOUR
    others = tuple(_fitting(config, cluster, job)) if "assumed" in row["source"] else ()
    return Run(row["name"], row["group"], whole, chips, at_peak, hours, row["source"], others)


def _fitting(config: Config, cluster: Cluster, job: Training) -> Iterator[Parts]:
    """Yield where time goes under every layout that fits with a sequence a chip, layers computed twice or not."""
    shape = Shape.even(job.length, job.length, plain_to=0)
    for again in (replace(job, recompute=False), replace(job, recompute=True)):
        for found in candidates(config, cluster):
            few = job.batch < found.data * job.length
            micro_batches = again.micro_batches(found)
            held = training_memory(config, found, shape, micro_batches=micro_batches, recompute=again.recompute)
            if not few and held <= USABLE * cluster.chip.memory:
                yield parts(config, cluster, found, again)


def _step(row: Mapping[str, str]) -> float:
    config, cluster = shapes()[row["shape"]], Cluster(chip(row["chip"]), int(row["chips"]))
    sampled, tensor, expert, pipeline = (int(row[key]) for key in ("sampled_tensor", "tensor", "expert", "pipeline"))
    completions, prompts, prompt, mean, longest = (
        float(row[key]) for key in ("completions", "prompts", "prompt", "mean", "longest")
    )
    sampler = Layout(cluster.count // sampled, sampled, sampled if counts(config)[1] else 1, zero=0)
    trainer = Layout(cluster.count // (tensor * pipeline), tensor, expert, pipeline)
    return rl_step(
        config,
        cluster,
        sampler,
        trainer,
        completions,
        prompt,
        Lengths(mean, longest),
        prompts=prompts,
        updates=int(row["updates"]),
        loop=(1, 1, 1),
    ).likely


def _missed(rows: Sequence[Run], at: Efficiency) -> float:
    return sum(abs(log(row.foretold(at) / row.gpu_hours)) for row in rows)


def _neighbours(at: Efficiency, step: float) -> Iterator[Efficiency]:
    for name in ("linear", "routed", "value", "whole"):
        for factor in (step, 1 / step):
            value = getattr(at, name) * factor
            if name == "value" or value <= 1:
                yield replace(at, **{name: value})
