"""What is simulated, in plain numbers."""

import math
from dataclasses import dataclass

import numpy as np

from aftershock.address import key, uniforms
from aftershock.cost.lengths import Lengths
from aftershock.errors import RecipeError


@dataclass(frozen=True)
class Rates:
    """Speeds of one engine (the chips that decode together) and of one learner chip.

    `decode` are (rows, seconds of a decode step with so many rows), straight lines between them; a row's part has the
    reading of its cache in it. `prefill` and `train` are tokens a second, `step_fixed` what no token adds to a
    step, `weight_bytes` what each chip of an engine is sent at an update.
    """

    decode: tuple[tuple[float, float], ...]
    train: float
    step_fixed: float = 0.0
    prefill: float = math.inf
    judge: float = 0.0
    weight_bytes: float = 0.0

    @staticmethod
    def line(fixed: float, row: float) -> tuple[tuple[float, float], ...]:
        """Return a `decode` that takes `fixed` + `row` * n seconds."""
        return ((0, fixed), (1e5, fixed + 1e5 * row))


def learnt_share(learnt: int, group: int) -> float:
    """Return which part of a group is learnt from: `learnt` of its completions, 0 for all."""
    return (learnt or group) / group


@dataclass(frozen=True)
class Setup:
    """A run to simulate: `samplers` and `learners` are chips; without learners the samplers train, in turn.

    A step learns from `batch` completions in groups of `group`. `staleness` is how many updates sampling may run
    ahead: 0 is synchronous, 1 one step off. `in_order`: a step takes the groups that were begun first, and the bound
    is strict; else those that are done first, and the bound is on beginning alone, as in AReaL (arXiv 2505.24298, 5.1).
    `recompute`: caches are made anew at each update. `shared`: a group's prompt is read and learned from once, not with
    each of its completions; `learnt` is how many of a group's completions are, 0 all of them. `network` is bytes a
    second into one chip.
    """

    rates: Rates
    lengths: Lengths
    samplers: int
    learners: int = 0
    chips_per_engine: int = 1
    rows: int = 256
    batch: int = 512
    group: int = 1
    prompt: int = 0
    steps: int = 100
    staleness: float = 0
    in_order: bool = True
    recompute: bool = False
    shared: bool = False
    learnt: int = 0
    judges: int = 64
    network: float = math.inf
    mtbf_hours: float = math.inf
    restart_seconds: float = 600.0
    checkpoint_every: int = 10
    slow_share: float = 0.0
    slow_factor: float = 1.0
    per_node: int = 8
    usd_per_hour: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samplers % self.chips_per_engine:
            raise RecipeError(f"{self.samplers} sampling chips don't make engines of {self.chips_per_engine}")
        if self.batch % self.group:
            raise RecipeError(f"a batch of {self.batch} isn't whole groups of {self.group}")
        if not 0 <= self.learnt <= self.group:
            raise RecipeError(f"{self.learnt} completions can't be learnt from in a group of {self.group}")
        if self.staleness and not self.learners:
            raise RecipeError(f"staleness {self.staleness} needs chips that only learn; set learners, or staleness 0")
        if not self.lengths.mean < self.lengths.cap and self.lengths.sigma:
            raise RecipeError(f"lengths of mean {self.lengths.mean:g} don't fit under a cap of {self.lengths.cap:g}")
        if self.rates.decode[-1][0] < self.most_rows:
            raise RecipeError(
                f"an engine may have {self.most_rows} rows, but decode ends at {self.rates.decode[-1][0]:g}"
            )

    @property
    def chips(self) -> int:
        """All chips that are paid for."""
        return self.samplers + self.learners

    @property
    def engines(self) -> int:
        """How many engines sample."""
        return self.samplers // self.chips_per_engine

    @property
    def most_rows(self) -> int:
        """The most rows that an engine can have under way."""
        return min(self.rows, -(-self.allowed(0) // self.engines))

    @property
    def prompt_share(self) -> float:
        """How many tokens of a prompt come with each completion."""
        return self.prompt / self.group if self.shared else self.prompt

    @property
    def learnt_share(self) -> float:
        """Which part of the completions is learnt from."""
        return learnt_share(self.learnt, self.group)

    def allowed(self, version: int) -> int:
        """Return how many completions may have been begun when so many updates are made; whole groups."""
        return int((version + self.staleness + 1) * self.batch) // self.group * self.group

    @property
    def transfer_seconds(self) -> float:
        """New weights to all engines at once: what one chip takes is passed on to the next while it arrives."""
        return self.rates.weight_bytes / self.network

    def slowness(self) -> np.ndarray:
        """Return how many times longer each chip takes, float64[chips]; whole nodes are slow."""
        nodes = -(-self.chips // self.per_node)
        drawn = uniforms(np.full(nodes, key(self.seed, "slow"), np.uint64), np.arange(nodes))
        return np.repeat(np.where(drawn < self.slow_share, self.slow_factor, 1.0), self.per_node)[: self.chips]
