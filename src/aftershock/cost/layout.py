"""How a model is spread over a cluster: what each chip holds, and which of the layouts that fit is quickest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, inf, prod

from aftershock.cost import memory, parameters
from aftershock.cost.cluster import Cluster
from aftershock.cost.memory import HALF, Shape
from aftershock.cost.parameters import Config, remembered
from aftershock.errors import CapacityError

# Bytes a weight in mixed precision: bfloat16 to compute with, a float32 gradient that adds up over micro-batches (V3,
# 3.3.3), and what the optimiser keeps beside its moments: a float32 master (ZeRO, arXiv 1910.02054, 3.1).
WEIGHT, GRADIENT, MASTER = 2.0, 4.0, 4.0
USABLE = 0.9  # of a chip's memory; the rest is the driver's, the libraries' and what fragments. Assumed
LONGEST_PIPELINE = 16  # stages that are tried; V3 and Llama 3 405B have 16


@dataclass(frozen=True)
class Layout:
    """Ways of parallelism; data x tensor x pipeline chips in all, as experts are spread over the data's (V3, 3.2).

    `zero` is ZeRO's stage (arXiv 1910.02054): 0 nothing, 1 the optimiser's moments, 2 gradients, 3 weights as well.
    """

    data: int = 1
    tensor: int = 1
    expert: int = 1
    pipeline: int = 1
    zero: int = 1

    @property
    def chips(self) -> int:
        """How many chips it takes."""
        return self.data * self.tensor * self.pipeline

    def __str__(self) -> str:
        return (
            f"data {self.data}, tensor {self.tensor}, expert {self.expert}, pipeline {self.pipeline}, ZeRO-{self.zero}"
        )


@remembered
def counts(config: Config) -> tuple[int, int]:
    """Return how many weights all tokens pass and how many the routed experts have, prediction modules' among them."""
    routed = sum(prod(shape) for name, shape in parameters.shapes(config).items() if ".experts." in name)
    return parameters.total(config) - routed, routed


def weights(config: Config, layout: Layout) -> tuple[float, float]:
    """Return the weights that a chip works with: those all tokens pass, and its routed experts'."""
    shared, routed = counts(config)
    return shared / (layout.tensor * layout.pipeline), routed / (layout.expert * layout.pipeline)


def training_memory(
    config: Config,
    layout: Layout,
    shape: Shape,
    *,
    micro_batches: float = inf,
    recompute: bool = False,
    trained: float = 1.0,
    moments: float = memory.ADAM,
    prediction: bool = False,
) -> float:
    """Return the bytes that a chip holds at its fullest while training on micro-batches of `shape`.

    `trained` is the share of the weights that have gradients, less than 1 under LoRA; `moments` are bytes a weight, and
    `prediction` trains the multi-token-prediction modules too.

    A pipeline's first stage keeps what as many micro-batches as there are stages leave for their backward, or all of a
    step's where these are fewer. Activations are those of our own learner (cost/memory.py); fused kernels keep less.
    """
    in_flight = min(layout.pipeline, micro_batches)
    kept = _kept(config, shape, recompute, prediction) * in_flight / (layout.tensor * layout.pipeline)
    logits = memory.logits(config, shape.scored, modules=memory.depth(config, prediction))
    return _state(config, layout, trained, moments) + kept + logits / layout.tensor


def sampling_memory(config: Config, layout: Layout, rows: float, capacity: int, *, each: float = HALF) -> float:
    """Return the bytes of weights of `each` byte and of the bfloat16 cache of `rows` sequences in all, on one chip.

    Heads of keys and values are spread as far as there are any; MLA's latents are whole on every chip of a group.
    """
    shared, routed = weights(config, layout)
    ways = 1 if parameters.is_latent(config) else min(layout.tensor, parameters.kv_heads(config))
    cache = memory.cache(config, ceil(rows / layout.data), capacity, HALF) / (ways * layout.pipeline)
    return (shared + routed) * each + cache


def candidates(config: Config, cluster: Cluster, *, sampling: bool = False) -> Iterator[Layout]:
    """Yield the layouts that use the whole cluster: heads spread within a node, experts over data and tensor.

    Samplers have no optimiser to spread and no pipeline; a pipeline's weights stay whole, so no ZeRO beyond 1 with it.
    """
    stages = 1 if sampling else min(LONGEST_PIPELINE, config["num_hidden_layers"])
    for tensor in _powers(min(cluster.per_node, cluster.count)):
        for pipeline in _powers(stages):
            if cluster.count % (tensor * pipeline) or config["num_attention_heads"] % tensor:
                continue
            data = cluster.count // (tensor * pipeline)
            for expert in _powers(data * tensor):
                if config.get("n_routed_experts", 1) % expert or (data * tensor) % expert:
                    continue
                for zero in (0,) if sampling else (1,) if pipeline > 1 else (1, 2, 3):
                    yield Layout(data, tensor, expert, pipeline, zero)


def search(
    config: Config,
    cluster: Cluster,
    held: Callable[[Layout], float],
    seconds: Callable[[Layout], float],
    *,
    sampling: bool = False,
) -> Layout:
    """Return the layout that is quickest by `seconds` among those whose bytes a chip, by `held`, fit.

    CapacityError where none fits, with the memory that the leanest would take.
    """
    sizes = {layout: held(layout) for layout in candidates(config, cluster, sampling=sampling)}
    room = cluster.chip.memory * USABLE
    fitting = [layout for layout, size in sizes.items() if size <= room]
    if not fitting:
        lean = min(sizes, key=lambda layout: sizes[layout])
        raise CapacityError(
            f"no layout fits {cluster}: the leanest ({lean}) takes {sizes[lean] / 1e9:.0f} GB a chip, and "
            f"{room / 1e9:.0f} GB of its {cluster.chip.memory / 1e9:.0f} can be used; take more chips, larger ones, "
            "shorter sequences, fewer at once, or recomputation"
        )
    return min(fitting, key=seconds)


@remembered
def _kept(config: Config, shape: Shape, recompute: bool, prediction: bool) -> float:
    """Return the bytes of a micro-batch's activations, without autocast's copies: weights are in bfloat16 already."""
    copied = parameters.matrices(config)
    copied += sum(parameters.module(config, index) for index in range(memory.depth(config, prediction)))
    return memory.activations(config, shape, half=True, recompute=recompute, prediction=prediction) - copied * HALF


def _state(config: Config, layout: Layout, trained: float, moments: float) -> float:
    """Return the bytes of weights, gradients and optimiser, each spread over the data's chips from its stage on."""
    shared, routed = weights(config, layout)
    copies = max(1.0, layout.data * layout.tensor / layout.expert)  # of an expert
    stages = (((MASTER + moments) * trained, 1), (GRADIENT * trained, 2), (WEIGHT, 3))
    held = [(each, layout.zero >= stage) for each, stage in stages]
    return sum(
        each * (shared / (layout.data if spread else 1) + routed / (copies if spread else 1)) for each, spread in held
    )


def _powers(most: int) -> Iterator[int]:
    power = 1
    while power <= most:
        yield power
        power *= 2
