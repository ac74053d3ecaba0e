"""DeepSeek's published bills of V3 and R1, line by line beside what our cost model foretells, and what they leave out.

None of these lines was fitted on. What a line of ours assumes beyond the reports stands in its `rests_on`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from aftershock.cost import decoding, time
from aftershock.cost.cluster import Cluster, chip
from aftershock.cost.estimate import Estimate, added
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import Lengths
from aftershock.errors import RecipeError
from aftershock.known import known_config
from aftershock.own import nearest

MODEL = known_config("deepseek-ai/DeepSeek-V3")
USD_PER_GPU_HOUR = 2.0  # of an H800, by both reports
SECONDS_PER_HOUR = 3600.0
# V3 2.4 and 3.2: 14.8T tokens of 4,096, 15,360 sequences a step; 2,048 chips, 64-way experts, 16 stages, ZeRO-1.
PRETRAINED, SEQUENCE, BATCH = 14.8e12, 4096, 15360 * 4096
CHIPS, SPREAD = {"deepseek-v3": 2048, "deepseek-r1": 512}, Layout(128, 1, 64, 16, 1)
# V3 4.3, the number of steps from memory: a thousand each, of 1,920 sequences of 32K and of 480 of 128K.
EXTENSIONS = ((1000 * 1920 * 32768, 32768), (1000 * 480 * 131072, 131072))
# R1-Zero, by the later paper, from memory: 10,400 steps of 512 outputs, 8,192 of them sampled at once for 16 updates;
# 65,536 tokens at most from step 8,200 on, 32,768 before.
OUTPUTS, UPDATES, ZERO_STEPS, LONGER_FROM = 8192, 16, 10400, 8200
SECOND_STEPS = 1700  # from memory, of R1's second RL; its first's are not published and are taken alike
EXAMPLES, EPOCHS, DRAWN = 800e3, 2, 4  # R1's fine-tuning set; how many samples were drawn for one kept is assumed
PROMPT = 200  # tokens of a question; assumed
GUESSED = 1.8  # tokens a decoding step with V3's prediction module (V3 5.4.3)
# Mean tokens of completions, all assumed: R1-Zero's grow from hundreds to over ten thousand (R1 2.2.4), so the middle.
EARLY, LATE, TAUGHT = Lengths(5000, 32768), Lengths(12000, 65536), Lengths(5000, 32768)
INSTANCES, INSTANCE = 1.5e6, 1000  # V3 5.1; tokens of one are assumed, half and twice as many thought possible
ANSWERS = Lengths(1000, 8192)  # of V3's own RL, if it was as many steps as R1's second at the most; assumed
# How far off what no source says may be, by which ranges are widened: mean lengths, with them the number drawn for one
# kept, and with lengths the steps of R1's first RL. All assumed.
LENGTHS_OFF, DRAWN_OFF, STEPS_OFF = 1.5, 2.5, 1.7

# What the published sums leave out: what, and who says so.
LEFT_OUT = (
    ("research, failed runs and ablations on architecture, algorithms and data before the final run", "V3 report, 1"),
    ("the chips themselves: both reports price rented hours, $2 for an H800", "V3 report, table 1"),
    ("the base model under R1: R1's $294K begins where V3's $5.576M ends", "R1 in Nature, supplement"),
    ("R1's trials on a smaller model before the large ones", "R1 in Nature, supplement, from memory"),
    (
        "data: crawling, cleaning, licences, annotators of the cold start's chains and of preferences",
        "neither names it",
    ),
    ("people, offices, storage, evaluation and serving", "neither names it"),
)


@dataclass(frozen=True)
class Line:
    """One line of a bill: what was published (None where nothing was) beside what is foretold, and its dollars."""

    name: str
    published_gpu_hours: float
    estimated_gpu_hours: float
    low: float
    high: float
    usd: float
    published_usd: float
    rests_on: tuple[str, ...]


def bill(name: str, cluster: Cluster | None = None) -> list[Line]:
    """Return the lines of `deepseek-v3` or `deepseek-r1`, foretold on `cluster`: DeepSeek's own, or another.

    A cluster of one chip stands for as many of its kind as DeepSeek had. RecipeError for another name, CapacityError
    where the model doesn't fit.
    """
    if name not in CHIPS:
        raise RecipeError(f"no published bill is named {name!r}{nearest(name, CHIPS)}; there are {', '.join(CHIPS)}")
    cluster = cluster or Cluster(chip("H800-SXM"))
    cluster = replace(cluster, count=CHIPS[name]) if cluster.count == 1 else cluster
    lines = _V3 if name == "deepseek-v3" else _R1
    return [_line(title, hours, estimate(cluster), cluster) for title, hours, estimate in lines]


def _line(title: str, published: float, seconds: Estimate, cluster: Cluster) -> Line:
    hours = seconds.times(cluster.count / SECONDS_PER_HOUR)
    usd = hours.likely * cluster.chip.usd_per_hour
    return Line(
        title, published, hours.likely, hours.low, hours.high, usd, published * USD_PER_GPU_HOUR, hours.rests_on
    )


def _pretraining(cluster: Cluster) -> Estimate:
    return _trained(cluster, PRETRAINED, SEQUENCE, BATCH)


def _extension(cluster: Cluster) -> Estimate:
    return added(_trained(cluster, tokens, length, BATCH) for tokens, length in EXTENSIONS)


def _post_training(cluster: Cluster) -> Estimate:
    """Return the seconds of fine-tuning; V3's RL, of which the report gives no steps, is in the upper bound alone."""
    found = _trained(cluster, INSTANCES * INSTANCE * 2, SEQUENCE, BATCH)
    part = replace(cluster, count=min(cluster.count, CHIPS["deepseek-r1"]))  # for so few rows no more are any use
    most = 2 * found.high + _rollouts(part, SECOND_STEPS, ANSWERS).high * part.count / cluster.count
    ground = (
        f"likely: fine-tuning alone, 2 epochs of 1.5M instances, {INSTANCE:,} tokens each assumed (500 to 2,000); what "
        f"the published hours hold of RL isn't said, so at most {SECOND_STEPS:,} steps of it, as R1's second had: "
        "the truth lies above rather than below"
    )
    return replace(found, low=found.low / 2, high=most, rests_on=(*found.rests_on, ground))


def _zero(cluster: Cluster) -> Estimate:
    late = ZERO_STEPS - LONGER_FROM
    found = added([_rollouts(cluster, LONGER_FROM, EARLY), _rollouts(cluster, late, LATE)])
    return found.unsure(LENGTHS_OFF, f"mean lengths right within a factor of {LENGTHS_OFF}: assumed")


def _data(cluster: Cluster) -> Estimate:
    sampler = _sampler(cluster, TAUGHT)
    found = decoding.sampling(
        MODEL,
        cluster,
        sampler,
        EXAMPLES * DRAWN,
        PROMPT,
        TAUGHT,
        rows=OUTPUTS / sampler.data,
        precision="fp8",
        guessed=GUESSED,
        asynchronous=True,
    )
    ground = f"{DRAWN} samples drawn for each of the 800K kept; with their lengths right within a factor of {DRAWN_OFF}"
    return found.unsure(DRAWN_OFF, f"{ground}: assumed")


def _r1(cluster: Cluster) -> Estimate:
    taught = _trained(cluster, EXAMPLES * EPOCHS * TAUGHT.mean, TAUGHT.cap, 128 * TAUGHT.cap)
    ground = f"the first RL as long as the second, {SECOND_STEPS:,} steps; with lengths right within {STEPS_OFF} times"
    return added([_rollouts(cluster, 2 * SECOND_STEPS, TAUGHT), taught]).unsure(STEPS_OFF, f"{ground}: assumed")


_V3: tuple[tuple[str, float, Callable[[Cluster], Estimate]], ...] = (
    ("pre-training", 2_664_000, _pretraining),
    ("context extension", 119_000, _extension),
    ("post-training", 5_000, _post_training),
)
_R1: tuple[tuple[str, float, Callable[[Cluster], Estimate]], ...] = (
    ("R1-Zero", 101_000, _zero),
    ("data for fine-tuning", 5_000, _data),
    ("R1", 41_000, _r1),
)


def _trained(cluster: Cluster, tokens: float, length: float, batch: float) -> Estimate:
    trainer = SPREAD if cluster.count == SPREAD.chips else _trainer(cluster)
    return time.training(MODEL, cluster, trainer, time.Training(length, tokens, batch, "fp8", prediction=True))


def _rollouts(cluster: Cluster, steps: float, lengths: Lengths) -> Estimate:
    """Return the seconds of so many of R1's RL steps, sampled by sixteens; two forwards more, for KL and the ratio."""
    step = decoding.rl_step(
        MODEL,
        cluster,
        _sampler(cluster, lengths),
        _trainer(cluster),
        OUTPUTS,
        PROMPT,
        lengths,
        prompts=OUTPUTS / 16,
        passes=2,
        updates=UPDATES,
        precision="fp8",
        guessed=GUESSED,
    )
    return step.times(steps / UPDATES)


def _trainer(cluster: Cluster) -> Layout:
    # V3 recomputes norms and up-projections alone (3.2.3): less memory than ours keeps, at next to no time.
    return time.trainer(MODEL, cluster, time.Training(SEQUENCE, batch=BATCH, precision="fp8", recompute=True))


def _sampler(cluster: Cluster, lengths: Lengths) -> Layout:
    return decoding.sampler(MODEL, cluster, OUTPUTS, PROMPT, lengths, precision="fp8")
