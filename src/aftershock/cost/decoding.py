"""How long sampling takes on a cluster, and a step of RL around it.

A decoding step reads the weights it must and the cache, or computes, whichever takes longer, and waits for launches and
wires. Completions of unlike lengths empty the batch, and the longest of a synchronous step are waited for by all.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from aftershock.cost import flops, memory, parameters, time
from aftershock.cost import layout as layouts
from aftershock.cost.cluster import Cluster
from aftershock.cost.estimate import Estimate
from aftershock.cost.layout import Layout
from aftershock.cost.lengths import SIGMAS, Lengths
from aftershock.cost.memory import HALF
from aftershock.cost.parameters import Config

# Share of memory's speed that reading gets, a layer's launches, and a sum over NVLink, fitted on what gpt-fast reports:
# Llama 2 7B and 70B on one to eight A100s (its README; bfloat16, one row; within 5%).
READ, LAUNCH, SUM = 0.81, 48e-6, 8e-6
# Before a byte travels to experts on other nodes, there and back: assumed. DeepEP's low-latency kernels take 540 us for
# 128 tokens a chip on H800 (its README), which is what their bytes take at 40 GB/s, with next to nothing left.
EXCHANGE = 60e-6
BETWEEN = 1e-3  # the engine's own work between steps: assumed
# Seconds published over seconds foretold of whole RL steps (cost/rl.csv): their median, in the range for one more step
# (ranges.loop). What judging, moving weights and a framework's own work add; all rows are one framework's.
LOOP = (1.0, 1.83, 5.55)


@dataclass(frozen=True)
class Engine:
    """One of the layout's `data` replicas that decode, in `precision`: bf16, or fp8 weights."""

    config: Config
    cluster: Cluster
    layout: Layout
    precision: str = "bf16"

    def step(self, rows: float, context: float) -> float:
        """Return the seconds of a decoding step of so many rows, each with `context` cached positions on average."""
        linear, seen = self._forward
        computing = rows * (linear + seen * context) / self.layout.tensor
        computing /= time.peak(self.cluster.chip, self.precision) * time.FITTED.linear
        reading = self.read(rows, context) / (self.cluster.chip.bandwidth * READ)
        return max(reading, computing) + self.waits(rows)

    def read(self, rows: float, context: float) -> float:
        """Return the bytes that a chip reads: its weights, of experts those that some token chose, and its cache."""
        config, layout = self.config, self.layout
        shared, routed = self._weights
        if routed:
            tokens = rows * max(1.0, layout.expert / layout.tensor)  # of all replicas that share the experts
            routed *= 1 - (1 - config["num_experts_per_tok"] / config["n_routed_experts"]) ** tokens
        ways = 1 if parameters.is_latent(config) else min(layout.tensor, parameters.kv_heads(config))
        return shared + routed + self._cached * rows * context / ways

    def waits(self, rows: float) -> float:
        """Return the seconds of launches, of sums over the tensor-parallel group and of the experts' exchange."""
        config, layout, chip = self.config, self.layout, self.cluster.chip
        layers, row = config["num_hidden_layers"], rows * config["hidden_size"]
        waited = BETWEEN + layers * LAUNCH
        if layout.tensor > 1:
            crossing = layout.tensor > self.cluster.per_node
            wire = (chip.network if crossing else chip.link) * time.WIRE
            waited += 2 * layers * (SUM * (1 + crossing) + 2 * row * HALF / wire)
        if layout.expert > self.cluster.per_node:  # each token to each of its experts in FP8, and back in bfloat16
            sent = row / layout.tensor * config["num_experts_per_tok"] * (1 + HALF)
            waited += self._sparse * (EXCHANGE + sent / (chip.network * time.WIRE))
        return waited

    @cached_property
    def _forward(self) -> tuple[float, float]:
        return _forward(self.config)

    @cached_property
    def _weights(self) -> tuple[float, float]:
        shared, routed = layouts.weights(self.config, self.layout)
        each = 1 if self.precision == "fp8" else HALF
        return shared * each, routed * each

    @cached_property
    def _cached(self) -> float:
        return memory.cache(self.config, 1, 1, HALF)

    @cached_property
    def _sparse(self) -> int:
        return time.sparse_layers(self.config)


def sampling(
    config: Config,
    cluster: Cluster,
    layout: Layout,
    completions: float,
    prompt: float,
    lengths: Lengths,
    *,
    prompts: float = inf,
    rows: float = inf,
    precision: str = "bf16",
    guessed: float = 1.0,
    asynchronous: bool = False,
) -> Estimate:
    """Return the seconds of sampling so many completions; `layout.data` engines share them.

    `prompts` of `prompt` tokens are read once each; an engine decodes at most `rows` together. `guessed` is how many
    tokens a step yields under speculative decoding (V3, 5.4.3: 1.8). A synchronous step waits for the longest rows; an
    asynchronous engine goes on with later prompts, so that its batch stays full.
    """
    engine, each = Engine(config, cluster, layout, precision), completions / layout.data
    reading = _reading(engine, prompt, min(prompts, completions))
    low, likely, high = (
        reading
        + _decoding(engine, each, min(rows, each), prompt, replace(lengths, sigma=sigma), asynchronous) / guessed
        for sigma in (min(SIGMAS[0], lengths.sigma), lengths.sigma, max(SIGMAS[2], lengths.sigma))
    )
    off = time.spread(config)
    grounds = (
        f"completions of {lengths.mean:,.0f} tokens on average, lognormal with sigma {lengths.sigma:g}: assumed",
        "a decoding step's waits and share of memory's speed as gpt-fast and DeepEP measured them (cost/decoding.py)",
    )
    return Estimate(min(low, likely) / off, likely, max(likely, high) * off, grounds)


def likely(
    engine: Engine, completions: float, prompt: float, lengths: Lengths, rows: float = inf, prompts: float = inf
) -> float:
    """Return the likely seconds of `sampling` alone, for a search that compares layouts."""
    each = completions / engine.layout.data
    return _reading(engine, prompt, min(prompts, completions)) + _decoding(
        engine, each, min(rows, each), prompt, lengths, False
    )


def sampler(
    config: Config, cluster: Cluster, completions: float, prompt: float, lengths: Lengths, *, precision: str = "bf16"
) -> Layout:
    """Return the quickest layout whose engines hold all completions at once, at twice their mean length.

    CapacityError where none does; fewer `completions` then, some after others.
    """
    held, each = int(prompt + min(lengths.cap, 2 * lengths.mean)), 1 if precision == "fp8" else HALF
    return layouts.search(
        config,
        cluster,
        lambda found: layouts.sampling_memory(config, found, completions, held, each=each),
        lambda found: likely(Engine(config, cluster, found, precision), completions, prompt, lengths),
        sampling=True,
    )


def rl_step(
    config: Config,
    cluster: Cluster,
    sampler: Layout,
    trainer: Layout,
    completions: float,
    prompt: float,
    lengths: Lengths,
    *,
    prompts: float = inf,
    passes: float = 1,
    updates: int = 1,
    precision: str = "bf16",
    guessed: float = 1.0,
    loop: tuple[float, float, float] = LOOP,
) -> Estimate:
    """Return the seconds of a synchronous step of RL: sampling, training on what was sampled, and new weights sent.

    `passes` are forwards without a gradient, of the old policy and of a reference; `updates` share the completions.
    `loop` is [least, likely, most] of what whole steps take over the sum of these.
    """
    sampled = sampling(
        config, cluster, sampler, completions, prompt, lengths, prompts=prompts, precision=precision, guessed=guessed
    )
    tokens = completions * (prompt + lengths.mean)
    job = time.Training(lengths.mean, tokens, tokens / updates, precision)
    trained = time.training(config, cluster, trainer, job, whole=False)
    sent = sum(layouts.weights(config, sampler)) * HALF / (cluster.chip.network * time.WIRE)
    plain = sampled.likely + trained.likely * (1 + passes / flops.TRAINING) + sent
    ground = "RL steps published by one framework (cost/rl.csv)"
    low, likely, high = (plain * factor for factor in loop)
    return Estimate(low, likely, high, tuple(dict.fromkeys((*sampled.rests_on, *trained.rests_on, ground))))


@parameters.remembered
def _forward(config: Config) -> tuple[float, float]:
    """Return the FLOPs of decoding a token, and those for each position that it attends to."""
    linear = flops.forward(config, 0)
    return linear, flops.forward(config, 1, latent=True) - linear


def _reading(engine: Engine, prompt: float, prompts: float) -> float:
    """Return the seconds in which the whole cluster reads so many prompts."""
    peak = time.FITTED.linear * time.peak(engine.cluster.chip, engine.precision)
    return flops.prefill(engine.config, int(prompt)) * prompts / engine.cluster.count / peak


def _decoding(
    engine: Engine, completions: float, rows: float, prompt: float, lengths: Lengths, asynchronous: bool
) -> float:
    """Return the seconds in which an engine decodes: with a full batch while others wait to fill it, then a tail."""
    waiting = completions if asynchronous else completions - rows
    full = waiting * lengths.mean / rows * engine.step(rows, prompt + lengths.context)
    return full if asynchronous else full + _tail(engine, rows, prompt, lengths)


def _tail(engine: Engine, rows: float, prompt: float, lengths: Lengths) -> float:
    """Return the seconds in which rows that begin together end, until of all engines' the last has."""
    spent = 0.0
    for place, width in lengths.cells():
        left = rows * lengths.alive(place)
        if left * engine.layout.data < 0.5:
            break
        spent += width * engine.step(max(1.0, left), prompt + place)
    return spent
