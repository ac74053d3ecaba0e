"""One job of RL under several schedules: in turn on all chips, or sampling and learning side by side."""

from dataclasses import replace
from math import inf

from aftershock.cost import decoding, layout, time
from aftershock.cost.cluster import Cluster
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import Lengths
from aftershock.cost.memory import ADAM
from aftershock.cost.parameters import Config
from aftershock.cost.simulation.longer import longer, once
from aftershock.cost.simulation.outcome import Outcome
from aftershock.cost.simulation.rates import rates
from aftershock.cost.simulation.setup import Setup, learnt_share
from aftershock.errors import CapacityError

SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)  # of the chips that learn, where they learn beside the sampling
TRIED = 16  # steps by which shares are compared
MTBF_HOURS = 50_000.0  # of a chip: Llama 3's 419 unexpected stops in 54 days of 16,384 (arXiv 2407.21783), from memory
KINDS = {
    "in turn": {},
    "one step off": {"staleness": 1},
    "4 updates ahead": {"staleness": 4, "in_order": False, "recompute": True},
}


def schedules(
    config: Config,
    cluster: Cluster,
    lengths: Lengths,
    *,
    batch: int,
    group: int,
    prompt: int,
    steps: int,
    shared: bool = False,
    learnt: int = 0,
    moments: float = ADAM,
) -> dict[str, Outcome]:
    """Return what a job comes to under each schedule that the cluster has room for, at the quickest split of it.

    Layouts are those of cost/time.py and cost/decoding.py; every second takes as much longer as published RL steps do
    over the roofline (cost/decoding.py's LOOP). `shared` and `learnt` are Setup's, `moments` the optimiser's bytes a
    weight. Long runs are foretold from their first part (longer.py). CapacityError where not even taking turns fits.
    """
    job = {"batch": batch, "group": group, "prompt": prompt, "steps": steps, "shared": shared, "learnt": learnt}
    made = {"in turn": longer(_setup(config, cluster, lengths, 0, moments, job))}
    splits = [chips for share in SHARES if 0 < (chips := round(cluster.count * share)) < cluster.count]
    for name, options in list(KINDS.items())[1:]:
        found = [_tried(config, cluster, lengths, n, moments, job | options) for n in dict.fromkeys(splits)]
        best = min(found, key=lambda pair: pair[0], default=(inf, None))[1]
        if best is not None:
            made[name] = longer(best)
    return made


def _tried(
    config: Config, cluster: Cluster, lengths: Lengths, learners: int, moments: float, options: dict
) -> tuple[float, Setup | None]:
    """Return the setup with so many learners and its seconds a step; none where the model doesn't fit so few chips."""
    try:
        setup = _setup(config, cluster, lengths, learners, moments, options)
    except CapacityError:
        return inf, None
    steps = once(replace(setup, steps=TRIED, mtbf_hours=inf)).steps
    return float(steps[-1].end - steps[TRIED // 2].end), setup  # later ones: the first fill the pipe


def _setup(config: Config, cluster: Cluster, lengths: Lengths, learners: int, moments: float, options: dict) -> Setup:
    batch, prompt, chip = options["batch"], options["prompt"], cluster.chip
    samplers = replace(cluster, count=cluster.count - learners)
    sampler = decoding.sampler(config, samplers, batch, prompt, lengths)
    rows = _rows(config, samplers, sampler, batch, prompt + min(lengths.cap, 2 * lengths.mean))
    rows = min(rows, -(-int((options.get("staleness", 0) + 1) * batch) // sampler.data))
    length = prompt + lengths.mean
    taught = batch * learnt_share(options["learnt"], options["group"])
    job = time.Training(length, batch=taught * length, moments=moments)
    trainer, recompute = _trainer(config, replace(cluster, count=learners or cluster.count), job)
    shared = {"batch": batch, "rows": rows, "prompt": prompt, "recompute": recompute, "factor": decoding.LOOP[1]}
    found = rates(config, chip, sampler, trainer, lengths, **shared)
    return Setup(
        found,
        lengths,
        samplers.count,
        learners,
        sampler.tensor,
        rows,
        network=chip.network * time.WIRE,
        mtbf_hours=MTBF_HOURS,
        per_node=cluster.per_node,
        usd_per_hour=chip.usd_per_hour,
        **options,
    )


def _trainer(config: Config, cluster: Cluster, job: time.Training) -> tuple[Layout, bool]:
    """Return the quickest layout to train with, and whether activations must be computed again for it to fit."""
    try:
        return time.trainer(config, cluster, job), False
    except CapacityError:
        return time.trainer(config, cluster, replace(job, recompute=True)), True


def _rows(config: Config, cluster: Cluster, sampler: Layout, batch: int, length: float) -> int:
    """Return how many rows of such length an engine's memory holds."""
    held, more = (layout.sampling_memory(config, sampler, count, int(length)) for count in (batch, 2 * batch))
    room = cluster.chip.memory * layout.USABLE
    return max(1, int(batch * (1 + (room - held) / (more - held)) / sampler.data))
