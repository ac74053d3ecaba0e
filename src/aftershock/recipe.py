"""What a run is to do: typed stages read from one TOML file, with `--set key=value` overrides."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class RunTable(_Table):
    """`[run]`: the run's name, the seed that every draw is keyed by, and one line on what it is for."""

    name: str
    seed: int = Field(0, ge=0)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()  # each a run of its own in OUT/seed-N; `seed` is then unread
    description: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: the first GPU where there is one
    usd_per_hour: float | None = Field(None, ge=0)  # what this machine costs; None takes the hardware table's price
    watts: float | None = Field(None, gt=0)  # what this machine draws; None takes the hardware table's figure


class TaskTable(_Table):
    """`[[stage.NAME.tasks]]`: a task by its name (`countdown`, `gym:chain_sum`, `my_task.py:MyTask`) and its dials."""

    name: str
    difficulty: int = Field(1, ge=1)
    languages: tuple[str, ...] = ("en",)
    weight: float = Field(1.0, gt=0)
    guesses: float = Field(0.0, ge=0, le=1)  # pretrain only: share of traces made blind guesses over the task's own mix


class EvalTable(_Table):
    """`[stage.NAME.eval]`: the held-out measurement before, during (every `every` steps) and after a stage."""

    problems: int = Field(400, ge=1)  # per task
    samples: int = Field(16, ge=1)  # per problem, before and after
    every: int = Field(0, ge=0)  # steps between quick evaluations; 0 means none
    quick_problems: int = Field(100, ge=1)  # of a quick one, one sample each
    temperature: float = Field(1.0, ge=0)


class ModelTable(_Table):
    """`[stage.NAME.model]`: the `config.json` fields of a new model, `model_type` first; `models` checks them."""

    model_config = ConfigDict(extra="allow")
    model_type: str


class OptimTable(_Table):
    """`[stage.NAME.optim]`: AdamW. The rate rises for `warmup` steps, then stays or falls by cosine to `final` x lr."""

    lr: float = Field(1e-4, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    final: float = Field(0.1, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    moments: Literal["float32", "8bit"] = "float32"  # as they are kept between steps
    # Of the forward and backward; weights stay float32. auto: bfloat16, or float32 on a CPU without products of it.
    precision: Literal["auto", "float32", "bfloat16", "fp8"] = "float32"
    micro_tokens: int = Field(16384, ge=64)  # tokens in one forward and backward
    recompute: Literal["auto", "always", "never"] = "auto"  # layers twice; auto: where a batch won't fit
    balance_rate: float = Field(0.001, ge=0)  # gamma of the auxiliary-loss-free expert balance [V3 2.1.2]


# Each loss's own (clip_low, clip_high), taken where a recipe gives none: GRPO and Dr. GRPO have PPO's epsilon [arXiv
# 1707.06347] (DeepSeekMath gives none, R1's first RL stage used 10), DAPO [arXiv 2503.14476, 4.1], GSPO [arXiv
# 2507.18071, 5.1]; CISPO is unbounded below [arXiv 2506.13585, 3.1], and its upper bound of 5 is TRL's advice.
CLIPS = {"grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28), "gspo": (3e-4, 4e-4), "cispo": (1.0, 4.0)}


class LossTable(_Table):
    """`[stage.NAME.loss]`: which loss weights move by, and its dials; bounds that aren't given are the loss's own."""

    kind: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "dapo"
    clip_low: float = Field(0.2, gt=0)
    clip_high: float = Field(0.28, gt=0)
    kl: float = Field(0.0, ge=0)
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    reference_every: int = Field(0, ge=0)  # steps between refreshes of the reference; 0 never
    importance_cap: float = Field(2.0, ge=0)  # truncated importance sampling; 0 is off

    @model_validator(mode="before")
    @classmethod
    def _own_clips(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("kind", "dapo") not in CLIPS:
            return given
        return {**dict(zip(("clip_low", "clip_high"), CLIPS[given.get("kind", "dapo")])), **given}

    @field_validator("importance_cap")
    @classmethod
    def _cap(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("should be 0 (off) or at least 1, or it shrinks even what sampler and learner agree on")
        return value


class RewardTable(_Table):
    """`[stage.NAME.reward]`: weights of the parts, overlong shaping (DAPO eq. 13), verifier failures borne."""

    accuracy: float = 1.0
    format: float = 0.1
    language: float = 0.0  # share of the reasoning's words in the problem's language [R1 2.3.2]
    overlong_buffer: int = Field(0, ge=0)  # tokens before max_tokens over which the penalty rises to -1; 0 is off
    max_unverifiable: float = Field(0.05, ge=0, le=1)  # share of a step's rollouts past which the run stops
    timeout_seconds: float = Field(5.0, gt=0)  # of one verdict


class PretrainStage(_Table):
    """`kind = "pretrain"`: next-token prediction on a corpus generated from tasks' traces."""

    kind: Literal["pretrain"]
    source: str | None = Field(None, alias="from")  # None: new weights from `model`
    model: ModelTable | None = None
    vocab_size: int = Field(512, ge=280)
    tokenizer: str | None = None  # whose a new model takes ("base", an earlier stage, a folder), vocab_size then unread
    tasks: tuple[TaskTable, ...]
    steps: int = Field(..., ge=1)
    tokens_per_step: int = Field(16384, ge=64)
    thorough: float = Field(0.0, ge=0, le=1)  # share of traces that take no short cut; the rest are the base's own mix
    foreign: float = Field(0.0, ge=0, le=1)  # share of traces written as if asked in another of the task's languages
    readable: float = Field(0.0, ge=0, le=1)  # share of traces in the readable form: a step a line, then a summary
    mtp_weight: float = Field(0.0, ge=0)  # of the loss that trains multi-token-prediction modules; V3: 0.3, later 0.1
    optim: OptimTable = OptimTable()
    eval: EvalTable = EvalTable()
    max_tokens: int = Field(256, ge=1)  # of an evaluation's completion
    checkpoint_every: int = Field(50, ge=1)


class PreferenceTable(_Table):
    """`[[stage.NAME.preferences]]`: a reward model's say in the reward, on the tasks that have no rule to judge by."""

    model: str  # an earlier stage of kind "reward_model"
    tasks: tuple[str, ...] = ()  # which of them it judges; none named: all. R1 gave each prompt the model of its kind
    weight: float = Field(1.0, gt=0)
    from_step: int = Field(0, ge=0)  # R1 gave preference rewards only in the last 400 of 1,700 steps


class RLStage(_Table):
    """`kind = "rl"`: reinforcement learning from rule rewards, as R1-Zero."""

    kind: Literal["rl"]
    source: str = Field("base", alias="from")  # a shipped model, an earlier stage, hub:ORG/NAME, a folder
    tasks: tuple[TaskTable, ...]
    steps: int = Field(..., ge=1)
    problems_per_step: int = Field(32, ge=1)
    samples_per_problem: int = Field(16, ge=2)
    down_sample: int = Field(
        0, ge=0
    )  # learn from so many of a problem's samples, those whose rewards differ most; 0: all
    # and of fewer, where some differ little: rewards keep this share of the variance that the two extremes have
    down_sample_spread: float = Field(0.0, ge=0, le=1)
    minibatches: int = Field(1, ge=1)  # optimiser steps a rollout batch is split into
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0)
    dynamic_sampling: int = Field(1, ge=1)  # DAPO: at most this many draws to fill a step with groups that carry signal
    max_rows: int = Field(256, ge=1)  # sequences decoded together
    draft: int = Field(0, ge=0)  # tokens that the model's prediction module drafts a decoding step; 0 is off
    exact: bool = False  # the learner computes the sampler's log-probabilities to the bit; any difference ends the run
    optim: OptimTable = OptimTable()
    loss: LossTable = LossTable()
    reward: RewardTable = RewardTable()
    preferences: tuple[PreferenceTable, ...] = ()
    eval: EvalTable = EvalTable()
    checkpoint_every: int = Field(10, ge=1)

    @property
    def learnt(self) -> int:
        """How many of a problem's samples are learnt from."""
        return self.down_sample or self.samples_per_problem


class LoraTable(_Table):
    """`[stage.NAME.lora]`: low-rank adapters are trained alone; `targets` are layers by name (none: all)."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] = ()


class SFTStage(_Table):
    """`kind = "sft"`: supervised fine-tuning on prompts with their completions; the loss is on completions alone."""

    kind: Literal["sft"]
    source: str = Field("base", alias="from")
    data: tuple[str, ...]  # earlier stages that make data, JSONL files, or hub:ORG/NAME[:SPLIT]
    epochs: int = Field(2, ge=1)  # R1: 2 to 3
    template: Literal["zero", "paper", "chat"] | None = None  # the prompt form it is taught; None: the one it has
    tokens_per_step: int = Field(16384, ge=64)
    max_length: int = Field(32768, ge=8)  # tokens of prompt and completion; longer examples are left out and counted
    validation: float = Field(0.02, ge=0, lt=1)  # share of the prompts kept for the validation loss
    patience: int = Field(0, ge=0)  # validations without a better loss before the stage ends early; 0 is off
    mtp_weight: float = Field(0.0, ge=0)  # as in a pretrain stage
    lora: LoraTable | None = None
    tasks: tuple[TaskTable, ...] = ()  # what is measured before and after; none measures nothing
    optim: OptimTable = OptimTable()
    eval: EvalTable = EvalTable()
    max_tokens: int = Field(256, ge=1)  # of an evaluation's completion
    max_rows: int = Field(256, ge=1)
    checkpoint_every: int = Field(50, ge=1)  # also how often the validation loss is taken


class SampleStage(_Table):
    """`kind = "sample"`: completions of train problems by a model, the right and clean ones kept as data for `sft`."""

    kind: Literal["sample"]
    source: str = Field("base", alias="from")
    tasks: tuple[TaskTable, ...]
    problems: int = Field(..., ge=1)  # drawn, all tasks together
    samples_per_problem: int = Field(4, ge=1)
    keep: int = Field(1, ge=1)  # at most so many of a problem's completions
    clean: tuple[str, ...] = ("one_language", "no_code_block", "short_paragraphs")  # or my_file.py:function
    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0)
    max_rows: int = Field(256, ge=1)
    draft: int = Field(0, ge=0)  # as in an rl stage
    reward: RewardTable = RewardTable()


class RewardModelStage(_Table):
    """`kind = "reward_model"`: a model with a score for a head, trained on preferences [R1 2.3.4, supplement].

    "pairwise" learns which of two answers is better (Bradley-Terry), "pointwise" whether one is safe.
    """

    kind: Literal["reward_model"]
    source: str = Field("base", alias="from")
    form: Literal["pairwise", "pointwise"] = "pairwise"
    judges: Literal["answer", "whole"] = "answer"  # what it reads after the prompt: the final answer, or all of it
    data: tuple[str, ...] = ()  # JSONL files, or hub:ORG/NAME[:SPLIT]
    tasks: tuple[TaskTable, ...] = ()  # those whose preferences are learnt, drawn by weight
    examples: int = Field(2000, ge=2)  # drawn of the tasks
    epochs: int = Field(1, ge=1)  # R1: 1
    examples_per_step: int = Field(64, ge=1)
    max_length: int = Field(32768, ge=8)
    validation: float = Field(0.1, gt=0, lt=1)
    optim: OptimTable = OptimTable()
    checkpoint_every: int = Field(50, ge=1)


class DistillStage(_Table):
    """`kind = "distill"`: a student learns a teacher's next-token distributions; the two share a tokenizer.

    Off-policy, a step takes problems_per_step x samples_per_problem rows of `data`, and `tasks` are only measured.
    """

    kind: Literal["distill"]
    source: str = Field(..., alias="from")  # the student
    teacher: str  # an earlier stage, "base" or a model folder
    divergence: Literal["forward_kl", "reverse_kl"] = "forward_kl"  # the other collapsed here: docs/log.md
    on_policy: bool = True  # on the student's own completions of the tasks' problems [GKD]; else on `data`
    data: tuple[str, ...] = ()
    tasks: tuple[TaskTable, ...] = ()
    steps: int = Field(..., ge=1)
    problems_per_step: int = Field(32, ge=1)
    samples_per_problem: int = Field(4, ge=1)
    max_tokens: int = Field(256, ge=1)  # of a completion; longer rows of `data` are left out and counted
    temperature: float = Field(1.0, gt=0)  # of the student's sampling, and of both distributions compared
    max_rows: int = Field(256, ge=1)
    optim: OptimTable = OptimTable()
    eval: EvalTable = EvalTable()
    checkpoint_every: int = Field(10, ge=1)


class BenchStage(_Table):
    """`kind = "bench"`: models side by side on the same held-out problems; it makes no weights."""

    kind: Literal["bench"]
    models: tuple[str, ...]  # shipped models, earlier stages that make weights, folders, hub:ORG/NAME
    tasks: tuple[TaskTable, ...]
    eval: EvalTable = EvalTable()
    max_tokens: int = Field(256, ge=1)
    max_rows: int = Field(256, ge=1)


TrainingStage = PretrainStage | SFTStage | DistillStage | RLStage  # those that measure the model they make
Stage = Annotated[
    PretrainStage | SFTStage | SampleStage | RewardModelStage | DistillStage | RLStage | BenchStage,
    Field(discriminator="kind"),
]


class FindingsTable(_Table):
    """`[findings]`: which model plays which part in the paper's findings; one whose parts aren't named is left out.

    A name is a stage of the recipe, or a model that the bench stage measures.
    """

    table: str | None = None  # the stage of kind "bench" that measures them on the same problems; others may add to it
    base: str | None = None
    zero: str | None = None  # RL from the base alone
    consistent: str | None = None  # RL with the language reward, and the same without
    inconsistent: str | None = None
    road: tuple[str, ...] = ()  # the rows of the paper's table: R1-Zero, Dev1, Dev2, Dev3, R1
    teacher: str | None = None
    students: tuple[str, ...] = ()
    control: str | None = None  # a student's base by RL alone
    hacked: str | None = None  # a long RL stage with preference rewards from its beginning


class Recipe(_Table):
    """One TOML file: `[run]` and the stages `[stage.NAME]` in the order they stand in the file.

    Two recipes are equal where their content is, wherever they were read from.
    """

    run: RunTable
    stage: dict[str, Stage]
    findings: FindingsTable | None = None
    _folder: Path = PrivateAttr(Path("."))

    @property
    def folder(self) -> Path:
        """Where the recipe's file lies; task files are looked for there."""
        return self._folder

    def locate(self, path: str) -> Path:
        """Return where a path named in the recipe lies: beside the recipe, else in the current folder."""
        beside = self._folder / Path(path).expanduser()
        return beside if beside.exists() else Path(path).expanduser()

    def content(self) -> dict[str, Any]:
        """Return the whole recipe as JSON-able tables named as in the file, defaults filled in, unset keys left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and fingerprint(self) == fingerprint(other)

    def __hash__(self) -> int:
        return hash(fingerprint(self))


def fingerprint(recipe: Recipe) -> str:
    """Return the SHA-256 of the recipe's content; the order of stages counts, the order of other keys doesn't."""
    content = recipe.content()
    canonical = [content["run"], list(content["stage"].items())]
    canonical += [content["findings"]] if "findings" in content else []
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a TOML file and those it extends, apply `--set` overrides (`stage.zero.steps=40`) and check the whole.

    RecipeError names the file, each key at fault, its value, what was wanted and the nearest right name; all faults
    of a file are in one message.
    """
    from aftershock.recipe_rules import checked  # it needs the types above

    recipe = checked(Path(path), overrides or [])
    recipe._folder = Path(path).resolve().parent
    return recipe
