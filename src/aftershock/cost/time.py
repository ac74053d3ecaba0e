"""How long training takes on a cluster: a roofline of operations, memory and wires; sampling is in decoding.py.

Products run at a fitted share of the chips' peak, what lies between them at memory's speed; what isn't hidden of the
traffic comes on top (sums of tensor parallelism, experts' all-to-all, gradients, ZeRO's gathers), and the pipeline's
bubbles.
"""

from dataclasses import dataclass
from math import ceil

from aftershock.cost import flops, memory, parameters
from aftershock.cost import layout as layouts
from aftershock.cost.cluster import Chip, Cluster
from aftershock.cost.estimate import Estimate
from aftershock.cost.layout import Layout
from aftershock.cost.memory import HALF, Shape
from aftershock.cost.parameters import Config

BATCH = 4e6  # tokens of a step where nobody says: Llama 2's (arXiv 2307.09288, table 1)
WIRE = 0.8  # of a wire's speed that traffic gets: 160 of NVLink's 200 GB/s on H800 (V3, 3.2.2), the network taken alike
# Share of the traffic that computing doesn't hide. Assumed: Megatron overlaps sums with products in part, experts'
# traffic is nearly hidden by V3's schedule (3.2.1) and less by others, gradients travel during the backward.
EXPOSED_TENSOR, EXPOSED_EXPERT, EXPOSED_DATA = 0.5, 0.2, 0.1
# Of one-forward-one-backward's (stages - 1) / micro-batches. Each chip with four shares of the layers instead of one
# (arXiv 2104.04473, 2.2) leaves a quarter; DualPipe (V3, table 2) is taken alike.
BUBBLE = 0.25
GATHERED = 16384  # tokens that a chip works on between two of ZeRO-3's gathers of the weights; assumed


@dataclass(frozen=True)
class Efficiency:
    """What is fitted on published runs: `linear` is the share of the peak that products get, `routed` how much of that
    is left with experts' small ones; `value` the bytes moved for each value of `values`; `whole` the share of a long
    run's hours in which steps are made.
    """

    linear: float
    routed: float
    value: float
    whole: float


# calibration.fit() on all of runs.csv; the tests fit it again.
FITTED = Efficiency(linear=0.684, routed=0.316, value=54.4, whole=0.816)
# By how many times hours may be more, or less, than foretold (ranges.factor): of a model without experts, and with.
PLAIN, MIXED = 1.74, 2.81


@dataclass(frozen=True)
class Parts:
    """Seconds of a training job on each chip: products of layers, of routed experts, and exact ones (head, attention)
    at the chip's peak; `touched` for reading and writing a byte of each value between them; traffic that isn't hidden;
    and the pipeline's `bubble` as a share of the computing.
    """

    linear: float
    routed: float
    exact: float
    touched: float
    traffic: float
    bubble: float

    def seconds(self, at: Efficiency, *, whole: bool = True) -> float:
        """Return the job's time at this efficiency; not `whole` for one that only makes steps."""
        products = (self.linear + self.routed / at.routed + self.exact) / at.linear
        computing = (products + self.touched * at.value) * (1 + self.bubble)
        return (computing + self.traffic) / (at.whole if whole else 1)


@dataclass(frozen=True)
class Training:
    """A job: `tokens` in sequences of `length`, `batch` tokens a step.

    `precision` is bf16 or fp8, of the layers' products alone (V3, 3.3.1), where the chip has it; `recompute` as in
    cost/flops.py; `prediction` trains the multi-token-prediction modules too. `moments` are the optimiser's bytes a
    weight, which decide what fits.
    """

    length: float
    tokens: float = 1e9
    batch: float = BATCH
    precision: str = "bf16"
    recompute: bool = False
    prediction: bool = False
    moments: float = memory.ADAM

    def micro_batches(self, layout: Layout) -> int:
        """Return how many micro-batches of one sequence each pipeline gets of a step."""
        return max(1, int(self.batch / (layout.data * self.length)))


def training(config: Config, cluster: Cluster, layout: Layout, job: Training, *, whole: bool = True) -> Estimate:
    """Return the seconds of a job; `whole` counts a long run's pauses."""
    spent, off = parts(config, cluster, layout, job).seconds(FITTED, whole=whole), spread(config)
    return Estimate(spent / off, spent, spent * off, ("efficiency fitted on published runs (cost/runs.csv)",))


def spread(config: Config) -> float:
    """Return by how many times a time may be more, or less, than foretold: 99 in 100 of others' runs lie within."""
    return MIXED if sparse_layers(config) else PLAIN


def trainer(config: Config, cluster: Cluster, job: Training) -> Layout:
    """Return the quickest layout that fits, in micro-batches of one sequence; CapacityError where none does."""
    shape = Shape.even(job.length, job.length, plain_to=0)

    def held(found: Layout) -> float:
        """Return the bytes of one chip."""
        return layouts.training_memory(
            config,
            found,
            shape,
            micro_batches=job.micro_batches(found),
            recompute=job.recompute,
            moments=job.moments,
            prediction=job.prediction,
        )

    return layouts.search(config, cluster, held, lambda found: parts(config, cluster, found, job).seconds(FITTED))


def parts(config: Config, cluster: Cluster, layout: Layout, job: Training) -> Parts:
    """Return where the time of a job goes, before any efficiency."""
    linear, routed, exact = split(config, job.length, job.recompute, job.prediction)
    share, chip = job.tokens / cluster.count, cluster.chip
    top, modules = peak(chip, job.precision), memory.depth(config, job.prediction)
    traffic = (
        EXPOSED_TENSOR * tensor_traffic(config, chip, layout, job.recompute, modules)
        + EXPOSED_EXPERT * expert_traffic(config, cluster, layout, job.precision, modules)
        + EXPOSED_DATA * data_traffic(config, cluster, layout, job.batch) * cluster.count / job.batch
    )
    bubble = BUBBLE * (layout.pipeline - 1) / job.micro_batches(layout)
    touched = values(config, modules) / chip.bandwidth
    return Parts(
        share * linear / top, share * routed / top, share * exact / chip.bf16, share * touched, share * traffic, bubble
    )


@parameters.remembered
def split(config: Config, length: float, recompute: bool = False, prediction: bool = False) -> tuple[float, ...]:
    """Return the FLOPs of training on one token: of layers' products, of routed experts', and of head and attention.

    FP8 makes the first two quicker; the last stay in higher precision (V3, 3.3.1).
    """
    long, short = (flops.training(config, seen, recompute=recompute, prediction=prediction) for seen in (length / 2, 0))
    depth = memory.depth(config, prediction)
    head = 2 * flops.TRAINING * parameters.head(config) * (1 + depth)
    inner = config.get("num_experts_per_tok", 0) * 3 * config["hidden_size"] * config.get("moe_intermediate_size", 0)
    routed = 2 * (flops.TRAINING + recompute) * (sparse_layers(config) + depth) * inner
    return short - head - routed, routed, long - short + head


@parameters.remembered
def values(config: Config, modules: int = 0) -> float:
    """Return how many values a token has between all products: norms, residuals, attention's and the MLPs' inner ones.

    A token sent to experts is gathered for each of them and put back. A prediction module is a layer more.
    """
    hidden, sparse = config["hidden_size"], sparse_layers(config)
    dense = config["num_hidden_layers"] - sparse
    sparse += modules
    found = 6 * hidden * (dense + sparse) + 3 * dense * config["intermediate_size"]
    if not sparse:
        return float(found)
    chosen, shared = config["num_experts_per_tok"], parameters.shared_experts(config)
    return float(found + sparse * (2 * chosen * hidden + 3 * (chosen + shared) * config["moe_intermediate_size"]))


def tensor_traffic(config: Config, chip: Chip, layout: Layout, recompute: bool = False, modules: int = 0) -> float:
    """Return the seconds a token for which a chip's link is busy with sums over its tensor-parallel group.

    Two sums a layer forward and two backward (Megatron, arXiv 1909.08053, 3), each of which moves a chip's part twice.
    """
    if layout.tensor == 1:
        return 0.0
    moved = (4 + 2 * recompute) * 2 * (layout.tensor - 1) * config["hidden_size"] * HALF
    return float((config["num_hidden_layers"] + modules) * moved / (chip.link * WIRE))


def expert_traffic(
    config: Config, cluster: Cluster, layout: Layout, precision: str = "bf16", modules: int = 0
) -> float:
    """Return the seconds a token for which wires are busy with sending it to its experts and back, both ways.

    A token crosses the network once for each other node that holds some of its experts, at most `topk_group` of them
    (node-limited routing, V3 2.1.2), and is passed on within the node; the slower of both wires counts.
    """
    if layout.expert == 1 or not sparse_layers(config):
        return 0.0
    one_way = config["hidden_size"] * ((1 if precision == "fp8" else HALF) + HALF)  # there, and back in bfloat16
    return 2 * (sparse_layers(config) + modules) * one_way * _wires(config, cluster, layout)


def data_traffic(config: Config, cluster: Cluster, layout: Layout, batch: float) -> float:
    """Return the seconds a step for which a chip's wire is busy with gradients and with ZeRO's gathers of weights."""
    shared, routed = layouts.weights(config, layout)
    moved = shared * (layout.data > 1) + routed * (layout.data * layout.tensor > layout.expert)
    # Under ZeRO-3 weights are gathered forward and backward for each share of the batch, and gradients sent once.
    moved *= 2 * ceil(batch / layout.data / GATHERED) + 1 if layout.zero == 3 else 2
    chip, spread = cluster.chip, layout.data * layout.tensor > cluster.per_node
    return moved * HALF / ((chip.network if spread else chip.link) * WIRE)


def _wires(config: Config, cluster: Cluster, layout: Layout) -> float:
    """Return the seconds a byte that a token is sent with takes to all its experts."""
    chosen, nodes = config["num_experts_per_tok"], ceil(layout.expert / cluster.per_node)
    reached = min(nodes * (1 - (1 - 1 / nodes) ** chosen), config.get("topk_group") or nodes)
    within = min(layout.expert, cluster.per_node)
    network, link = reached * (nodes - 1) / nodes / cluster.chip.network, chosen * (within - 1) / within
    return max(network, link / cluster.chip.link) / WIRE


@parameters.remembered
def sparse_layers(config: Config) -> int:
    """Return how many layers hold a mixture, prediction modules' apart."""
    return sum(parameters.is_sparse(config, index) for index in range(config["num_hidden_layers"]))


def peak(chip: Chip, precision: str) -> float:
    """Return the FLOP/s of products in `precision`, in bfloat16 where the chip has no fp8."""
    return chip.fp8 if precision == "fp8" and chip.fp8 else chip.bf16
