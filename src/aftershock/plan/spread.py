"""How long a stage takes on a cluster, and how it is laid out there (cost/time.py, cost/decoding.py)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from aftershock.cost import decoding, layout, time
from aftershock.cost.cluster import Cluster
from aftershock.cost.estimate import Estimate
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import Lengths
from aftershock.cost.memory import Shape
from aftershock.cost.parameters import Config
from aftershock.errors import CapacityError, RecipeError
from aftershock.plan.held import How
from aftershock.plan.loads import Load

AUTO = "auto"
WAYS = ("data", "tensor", "expert", "pipeline", "zero")


@dataclass(frozen=True)
class Job:
    """What is spread: a stage's model, what it trains on at once and how, how it samples, and the user's layout.

    `again` is `optim.recompute`: auto computes layers twice where no layout fits without. So many completions share a
    prompt: `sharing` where it is read to sample, `group` where it is trained on.
    """

    config: Config
    cluster: Cluster
    micro_tokens: float
    rows: float
    max_tokens: int
    chosen: str
    how: How
    again: str
    sharing: int = 1
    group: int = 1

    def shape(self, load: Load, tokens: float) -> Shape:
        """Return what is trained on at once: `tokens` with a group's prompt in each of its rows, computed once."""
        rows = max(tokens, load.length) / load.length
        scored = load.written if self.group > 1 else load.length
        even = Shape.even(rows * load.length, load.length, rows * scored, plain_to=0)
        return replace(even, tokens=rows * (load.written + load.prompt / self.group))


@dataclass(frozen=True)
class Spread:
    """Layouts to train and to sample with, where there is either; bytes a chip; `misfit` says why one doesn't fit."""

    trainer: Layout | None
    sampler: Layout | None
    held: float
    misfit: str = ""
    recompute: bool = False

    def __str__(self) -> str:
        told = {"training": self.trainer, "sampling": self.sampler}
        return "; ".join(f"{what}: {found}" for what, found in told.items() if found)


def parsed(text: str, cluster: Cluster) -> Layout:
    """Return the layout `tensor=2,pipeline=4,zero=1`; data takes what is left of the cluster."""
    try:
        ways = {name.strip(): int(count) for name, _, count in (part.partition("=") for part in text.split(","))}
        if ways.keys() - set(WAYS) or min(ways.values()) < (0 if "zero" in ways else 1):
            raise ValueError
    except ValueError:
        raise RecipeError(f"--layout {text}: write auto, or ways such as tensor=2,pipeline=4,zero=1") from None
    taken = ways.get("tensor", 1) * ways.get("pipeline", 1)
    found = Layout(**{"data": max(1, cluster.count // taken), **ways})
    if found.chips != cluster.count:
        raise RecipeError(f"--layout {text}: takes {found.chips} chips, and {cluster} has {cluster.count}")
    return found


def spread(job: Job, load: Load) -> Spread:
    """Return the quickest layouts that fit, for the load's lengths; the leanest where none does."""
    again = job.again == "always"
    trainer, trains, why = _trainer(job, load, again) if load.trained else (None, 0.0, "")
    if why and job.again == "auto":
        twice = _trainer(job, load, True)
        again, (trainer, trains, why) = (True, twice) if not twice[2] else (False, (trainer, trains, why))
    sampler, samples, other = _sampler(job, load) if load.sampled else (None, 0.0, "")
    return Spread(trainer, sampler, max(trains, samples), why or other, again)


def _trainer(job: Job, load: Load, again: bool) -> tuple[Layout, float, str]:
    trained = job.how.trained(job.config)

    def held(found: Layout, tokens: float = job.micro_tokens) -> float:
        """Return the bytes a chip holds under a layout."""
        return layout.training_memory(
            job.config,
            found,
            job.shape(load, tokens),
            recompute=again,
            trained=trained,
            moments=job.how.moments,
            prediction=job.how.prediction,
        )

    def seconds(found: Layout) -> float:
        return time.training(job.config, job.cluster, found, _work(job, load, again), whole=False).likely

    found, size, why = _found(job, held, seconds, sampling=False)
    room, tokens = job.cluster.chip.memory * layout.USABLE, job.micro_tokens
    while why and tokens > max(load.length, 256):
        tokens //= 2
        if held(found, tokens) <= room:
            fits = f"optim.micro_tokens = {tokens:.0f} fits"
            return found, size, f"{size / 1e9:.0f} GB a chip of {room / 1e9:.0f}; {fits}"
    return found, size, why


def _sampler(job: Job, load: Load) -> tuple[Layout, float, str]:
    rows = min(job.rows * job.cluster.count, load.completions / max(1.0, load.batches))

    def held(found: Layout) -> float:
        return layout.sampling_memory(job.config, found, rows, ceil(load.prompt + job.max_tokens))

    def seconds(found: Layout) -> float:
        each, lengths = _batch(job, load)
        engine = decoding.Engine(job.config, job.cluster, found)
        return decoding.likely(engine, each, load.prompt, lengths, job.rows, each / job.sharing)

    return _found(job, held, seconds, sampling=True)


def _found(
    job: Job, held: Callable[[Layout], float], seconds: Callable[[Layout], float], *, sampling: bool
) -> tuple[Layout, float, str]:
    """Return a layout, the bytes that it takes of a chip, and why none fits where that is so."""
    if job.chosen != AUTO:
        found = parsed(job.chosen, job.cluster)
        found = replace(found, data=job.cluster.count // found.tensor, pipeline=1, zero=0) if sampling else found
        room = job.cluster.chip.memory * layout.USABLE
        too_much = f"{found} takes {held(found) / 1e9:.0f} GB a chip of {room / 1e9:.0f}: try --layout auto"
        return found, held(found), "" if held(found) <= room else too_much
    try:
        found = layout.search(job.config, job.cluster, held, seconds, sampling=sampling)
        return found, held(found), ""
    except CapacityError as error:
        lean = min(layout.candidates(job.config, job.cluster, sampling=sampling), key=held)
        return lean, held(lean), str(error)


def training(job: Job, load: Load, found: Spread, beside: float) -> Estimate:
    """Return the seconds of a stage's training; `beside` is what a model that is read adds, as a share of it."""
    if found.trainer is None:
        return Estimate(0.0, 0.0, 0.0)
    spent = time.training(job.config, job.cluster, found.trainer, _work(job, load, found.recompute), whole=False)
    return spent.times(beside + job.how.share(job.config, load.length))


def sampling(job: Job, load: Load, found: Spread) -> Estimate:
    """Return the seconds of a stage's sampling, batch by batch."""
    return _sampled(job, load, found.sampler) if found.sampler else Estimate(0.0, 0.0, 0.0)


def _sampled(job: Job, load: Load, found: Layout) -> Estimate:
    each, lengths = _batch(job, load)
    prompts = each / job.sharing
    batch = decoding.sampling(
        job.config, job.cluster, found, each, load.prompt, lengths, prompts=prompts, rows=job.rows
    )
    return batch.times(load.completions / each)


def _batch(job: Job, load: Load) -> tuple[float, Lengths]:
    """Return how many completions are sampled at once, and their lengths."""
    lengths = Lengths(min(load.written, 0.9 * job.max_tokens), job.max_tokens)
    return max(1.0, load.completions / max(1.0, load.batches)), lengths


def _work(job: Job, load: Load, again: bool) -> time.Training:
    batch = max(1.0, load.trained / max(1.0, load.steps))
    return time.Training(load.length, load.trained, batch, recompute=again, prediction=job.how.prediction)
