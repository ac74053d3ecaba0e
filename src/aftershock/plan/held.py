"""What a stage holds in memory at its fullest, and how it trains: in what precision, what is computed twice."""

from dataclasses import dataclass, replace
from math import ceil, inf, prod

from aftershock.cost import flops, memory, parameters
from aftershock.cost.hardware import halves
from aftershock.cost.lengths import Lengths
from aftershock.cost.parameters import Config
from aftershock.plan.loads import MAX_ROWS, PROMPT_TOKENS, Load
from aftershock.recipe import PretrainStage, RewardModelStage, RLStage, SampleStage, SFTStage, Stage

ROOM = 0.7  # of the memory, where `optim.recompute` is auto: as in learn/recompute.py
LONGEST = 8  # times the mean, where nothing limits a length
DRAWN = 64  # lengths that stand for a batch's


@dataclass(frozen=True)
class How:
    """How a stage trains: `recompute` computes layers twice, `prediction` trains V3's modules, `rank` is LoRA's."""

    precision: str = "float32"
    recompute: bool = False
    prediction: bool = False
    moments: float = memory.ADAM
    rank: int = 0
    targets: tuple[str, ...] = ()

    @classmethod
    def of(cls, stage: Stage) -> "How":
        """Return how a stage asks to be trained; `recompute` where it says always."""
        optim = getattr(stage, "optim", None)
        if optim is None:
            return cls()
        lora = stage.lora if isinstance(stage, SFTStage) else None
        rank, targets = (lora.rank, lora.targets) if lora else (0, ())
        prediction = isinstance(stage, PretrainStage | SFTStage) and stage.mtp_weight > 0
        again = optim.recompute == "always"
        return cls(optim.precision, again, prediction, memory.MOMENTS[optim.moments], rank, targets)

    def here(self, config: Config, native: bool) -> "How":
        """Return how this machine's processor trains the model: "auto" is bfloat16 where that pays, else float32."""
        if self.precision != "auto":
            return self
        widest = max(prod(shape[-2:]) for shape in parameters.shapes(config).values())
        return replace(self, precision="bfloat16" if halves(widest, native) else "float32")

    def share(self, config: Config, length: float) -> float:
        """Return the FLOPs of training a token so, over those of training all weights once."""
        return flops.training(config, length / 2, rank=self.rank, targets=self.targets) / flops.training(
            config, length / 2
        )

    def trained(self, config: Config) -> float:
        """Return the share of the weights that have gradients."""
        return memory.trained(config, self.rank, self.targets) / parameters.total(config)


def batch(stage: Stage, load: Load, native: bool) -> tuple[memory.Shape, bool]:
    """Return the shape of a step's largest batch, and whether it is the only one.

    Lengths are spread as completions' are. A prompt that an RL group shares is computed once, and `micro_tokens`
    counts it with every reader. `native`: as the shape's.
    """
    group = stage.learnt if isinstance(stage, RLStage) else 1
    step = load.trained / max(1.0, ceil(load.steps)) if load.steps else inf
    if group > 1:  # with each prompt as often as it is read
        step *= load.length / (load.written + load.prompt / group)
    tokens = min(float(stage.optim.micro_tokens), step)  # type: ignore[union-attr]
    rows = max(1.0, tokens / load.length)
    written = max(1.0, load.written)
    longest = max(2 * written, getattr(stage, "max_tokens", 0) or LONGEST * written)
    drawn = Lengths(written, longest).quantiles(DRAWN)
    computed = load.written + load.prompt / group
    scored = 1.0 if isinstance(stage, RewardModelStage) else load.length if group == 1 else load.written
    shape = memory.Shape.of([load.prompt + length for length in drawn], DRAWN * scored, native=native)
    return shape.scaled(rows / DRAWN, tokens=rows * computed), step <= stage.optim.micro_tokens  # type: ignore[union-attr]


def held(
    stage: Stage, load: Load, config: Config, other: Config | None, room: float, native: bool
) -> tuple[float, How]:
    """Return the bytes a stage holds at its fullest, the program itself apart, and how it trains in `room` bytes.

    Sampling and training take turns, and what one needs the other gives back; `other` is a model that is read, and
    `native` whether a decoding step and a learner's passes are in C (models/native).
    """
    beside = memory.weights(other) if other else 0.0
    sampled = 0.0
    if getattr(stage, "tasks", ()) and not isinstance(stage, RewardModelStage):
        beside += memory.packed(config) * native
        rows = getattr(stage, "max_rows", MAX_ROWS)
        longest = max(PROMPT_TOKENS, ceil(load.prompt))
        sampled = memory.sampled(config, rows, longest, stage.max_tokens, native=native)
    how = How.of(stage).here(config, native)
    if isinstance(stage, SampleStage) or not hasattr(stage, "optim"):
        return beside + memory.weights(config) + sampled, how
    shape, alone = batch(stage, load, native)
    half = how.precision != "float32"
    state = memory.training_state(config, how.moments, rank=how.rank, targets=how.targets)
    forward = memory.activations(config, shape, half, frozen=how.rank > 0, prediction=how.prediction)
    kept = state + forward + 2 * memory.CHUNK
    if stage.optim.recompute == "auto" and kept > ROOM * room:
        how = replace(how, recompute=True)
    trained = memory.training(
        config,
        shape,
        half=half,
        recompute=how.recompute,
        moments=how.moments,
        rank=how.rank,
        targets=how.targets,
        alone=alone,
        prediction=how.prediction,
    )
    return beside + max(trained, state + sampled), how
