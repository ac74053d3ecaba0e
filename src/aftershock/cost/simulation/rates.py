"""Speeds for a simulation from a model's config and a cluster: the roofline of cost/time.py and cost/decoding.py."""

import math

import numpy as np

from aftershock.cost import decoding, flops, time
from aftershock.cost import layout as layouts
from aftershock.cost.cluster import Chip, Cluster
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import Lengths
from aftershock.cost.memory import HALF
from aftershock.cost.parameters import Config
from aftershock.cost.simulation.setup import Rates


def rates(
    config: Config,
    chip: Chip,
    sampler: Layout,
    trainer: Layout,
    lengths: Lengths,
    *,
    batch: int,
    rows: int,
    prompt: int = 0,
    recompute: bool = False,
    passes: float = 1.0,
    factor: float = 1.0,
) -> Rates:
    """Return the speeds of `sampler.data` engines and of the trainer's chips.

    All rows of a decode step are taken to be at the mean place of a sampled token. `passes` are forwards without a
    gradient, of the old policy and of a reference. Everything takes `factor` times as long: what a framework adds.
    """
    engine = decoding.Engine(config, Cluster(chip, sampler.chips), sampler)
    context = prompt + lengths.context
    counts = np.unique(np.geomspace(1, max(rows, 2), 24).astype(int))
    length = prompt + lengths.mean
    job = time.Training(length, batch * length, batch * length, recompute=recompute)
    seconds = time.training(config, Cluster(chip, trainer.chips), trainer, job, whole=False).likely
    trained = batch * length / seconds / trainer.chips / (1 + passes / flops.TRAINING)
    reading = flops.prefill(config, prompt) / prompt / (time.FITTED.linear * chip.bf16) if prompt else 0.0
    return Rates(
        decode=tuple((int(count), factor * engine.step(int(count), context)) for count in counts),
        train=trained / factor,
        prefill=sampler.tensor / reading / factor if reading else math.inf,
        weight_bytes=HALF * sum(layouts.weights(config, sampler)),
    )
