"""What a recipe will take, said before anything starts: steps, tokens, time, memory, dollars, energy; guesses as such.

Time is FLOPs over speed. How long completions get nobody knows beforehand, so three scenarios bound what is likely.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from aftershock import graph
from aftershock.cost import flops, hardware, memory, parameters, price
from aftershock.cost.hardware import Hardware
from aftershock.disk import read_json
from aftershock.errors import CheckpointError, RecipeError
from aftershock.known import known_config
from aftershock.models import ModelConfig
from aftershock.own import nearest
from aftershock.pipeline.sampling import CHUNK
from aftershock.recipe import (
    BenchStage,
    DistillStage,
    PretrainStage,
    Recipe,
    RewardModelStage,
    RLStage,
    SampleStage,
    SFTStage,
    Stage,
    TrainingStage,
)
from aftershock.sources import HUB, SHIPPED, shipped_base
from aftershock.table import columns

Config = Mapping[str, Any]
PROMPT_TOKENS = 60  # of a question in its prompt form: our own tasks' have 20 to 60, word problems more
MAX_ROWS = 256  # decoded together where a stage has no such key
BYTES_PER_TOKEN = 4  # of English text under a vocabulary of real size
# Whole nano runs, sampling and judging included, on two cores of an AMD EPYC (Zen 4): 3.0e10 to 4.8e10 FLOP/s.
CPU_FLOPS_PER_CORE = 2e10
# Of a GPU's dense bf16 peak. Assumed: nothing was measured on one. Decoding waits for memory, so it gets far less.
GPU_TRAINING_SHARE, GPU_SAMPLING_SHARE = 0.25, 0.05
GPU_FORWARD_SECONDS = 0.02  # that no forward is quicker than, however small the model: assumed too


@dataclass(frozen=True)
class Scenario:
    """One guess at what can't be known: `share` of max_tokens that a completion takes, `draws` towards their bound in
    dynamic sampling, share of problems whose completions are `kept` as data, `speed` over what is stated above.
    """

    share: float
    draws: float
    kept: float
    speed: float


# The likely share is that of recipes/nano/zero.toml: 6% of max_tokens at its beginning, 19% at its end.
SCENARIOS = (Scenario(0.05, 0.0, 0.1, 1.5), Scenario(0.15, 0.5, 0.6, 1.0), Scenario(0.6, 1.0, 1.0, 1 / 1.5))


@dataclass(frozen=True)
class Load:
    """What a stage does in one scenario: steps, tokens trained on and sampled, and a sequence's mean length."""

    steps: float
    trained: float
    sampled: float
    length: float


EMPTY = Load(0, 0, 0, PROMPT_TOKENS)  # of a stage whose data's size is unknown


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take; lists are [least, likely, most], and empty where the recipe doesn't say enough."""

    name: str
    kind: str
    inputs: list[str]
    parameters: int | None
    memory_gb: float | None
    steps: list[int]
    tokens: list[float]  # trained on and sampled
    seconds: list[float]


@dataclass(frozen=True)
class Plan:
    """What a recipe will take, stage by stage, on one machine."""

    machine: Hardware
    stages: list[StagePlan]  # each of one seed
    seeds: int = 1

    @property
    def seconds(self) -> list[float]:
        """The least, likely and most of all stages whose sizes are known, over all seeds one after the other."""
        once = [sum(values) for values in zip([0.0] * len(SCENARIOS), *(s.seconds for s in self.stages if s.seconds))]
        return [self.seeds * seconds for seconds in once]

    @property
    def rests_on(self) -> str:
        """What the numbers are worth, in words."""
        speed = f"{CPU_FLOPS_PER_CORE:.0e} FLOP/s a core, as whole nano runs reached on an AMD EPYC (Zen 4)"
        if self.machine.device != "cpu":
            speed = f"assumed {GPU_TRAINING_SHARE:.0%} (training) and {GPU_SAMPLING_SHARE:.0%} (sampling) of its peak"
        least, likely, most = (f"{scenario.share:.0%}" for scenario in SCENARIOS)
        unknown = ", ".join(stage.name for stage in self.stages if not stage.seconds)
        left_out = f"sizes unknown, not in the sums: {unknown}\n" if unknown else ""
        return (
            f"{left_out}estimates for {self.machine.name} from {speed}; prompts of {PROMPT_TOKENS} tokens, completions "
            f"of {likely} of max_tokens ({least} to {most})\nprice and power: {self.machine.source}"
        )

    def bill(self, seconds: Sequence[float]) -> dict[str, list[float]]:
        """Return dollars and kWh of so many seconds of the machine."""
        bills = [price(second, self.machine.usd_per_hour, self.machine.watts) for second in seconds]
        return {"usd": [usd for usd, _ in bills], "kwh": [kwh for _, kwh in bills]}

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        stages = [asdict(stage) | self.bill(stage.seconds) for stage in self.stages]
        total = {"seconds": self.seconds, **self.bill(self.seconds)}
        return {
            "machine": asdict(self.machine),
            "seeds": self.seeds,
            "stages": stages,
            "total": total,
            "rests_on": self.rests_on,
        }

    def __str__(self) -> str:
        heads = ["stage", "kind", "made from", "parameters", "memory", "steps", "tokens", "time", "usd", "kWh"]
        rows = [[*_row(stage), *self._cost(stage.seconds)] for stage in self.stages]
        total = ["all" if self.seeds == 1 else f"all, {self.seeds} seeds", *[""] * 6, *self._cost(self.seconds)]
        return f"{columns([heads, *rows, total])}\n{self.rests_on}"

    def _cost(self, seconds: list[float]) -> list[str]:
        return [_shown(seconds, _time), *map(_shown, self.bill(seconds).values())]


def plan(recipe: Recipe, machine_name: str | None = None) -> Plan:
    """Return what a recipe will take on this machine, or on one GPU of the hardware table by its name.

    Nothing is loaded, drawn or downloaded. RecipeError for a name that the table doesn't have.
    """
    given = {key: value for key in ("usd_per_hour", "watts") if (value := getattr(recipe.run, key)) is not None}
    machine = replace(_machine(machine_name), **given)
    needs = graph.inputs(recipe.content()["stage"])
    configs: dict[str, Config | None] = {name: read_json(shipped_base(name) / "config.json") for name in SHIPPED}
    stages = []
    for name, stage in recipe.stage.items():
        if isinstance(stage, BenchStage):
            models = [_source_config(model, recipe, configs) for model in stage.models]
            stages.append(
                _bench_plan([_stage_plan(name, stage, recipe, needs[name], m, None, machine) for m in models])
            )
            continue
        configs[name] = config = _config(stage, recipe, configs)
        other = _source_config(stage.teacher, recipe, configs) if isinstance(stage, DistillStage) else None
        if isinstance(stage, RLStage) and stage.loss.kl:
            other = config  # the reference
        stages.append(_stage_plan(name, stage, recipe, needs[name], config, other, machine))
    return Plan(machine, stages, max(1, len(recipe.run.seeds)))


def _machine(name: str | None) -> Hardware:
    if name is None:
        return hardware.detect()
    known = {row["name"]: row["device_name"] for row in hardware.table()}
    if name not in known:
        raise RecipeError(f"no machine is named {name!r}{nearest(name, known)}; the table has {', '.join(known)}")
    return hardware.gpu(known[name])


def _config(
    stage: TrainingStage | SampleStage | RewardModelStage, recipe: Recipe, known: Mapping[str, Config | None]
) -> Config | None:
    """Return the config.json that a stage's model will have, None where nothing here says it."""
    if isinstance(stage, PretrainStage) and stage.model:
        size = stage.vocab_size
        if stage.tokenizer:  # its owner's rows: a few more than its tokens, where they were rounded up
            owner = _source_config(stage.tokenizer, recipe, known)
            if owner is None:
                return None
            size = owner["vocab_size"]
        return ModelConfig.from_dict({**stage.model.model_dump(), "vocab_size": size}).to_dict()
    return _source_config(stage.source or "", recipe, known)


def _source_config(source: str, recipe: Recipe, known: Mapping[str, Config | None]) -> Config | None:
    if source in known:
        return known[source]
    if not source.startswith(HUB):
        found: Config | None = read_json(recipe.locate(source) / "config.json")
        return found
    try:
        return known_config(source)
    except CheckpointError:
        return None


def _stage_plan(
    name: str,
    stage: Stage,
    recipe: Recipe,
    inputs: list[str],
    config: Config | None,
    other: Config | None,
    machine: Hardware,
) -> StagePlan:
    """Return the plan of one stage; `other` is the model that is read beside the one that moves."""
    loads = [load for scenario in SCENARIOS if (load := _load(stage, recipe, scenario))]
    steps, tokens = [math.ceil(load.steps) for load in loads], [load.trained + load.sampled for load in loads]
    if config is None:
        return StagePlan(name, stage.kind, inputs, None, None, steps, tokens, [])
    count, held = parameters.total(config), max(_memory(stage, load, config, other) for load in loads or [EMPTY])
    seconds = [
        _seconds(stage, load, config, other, machine) / scenario.speed for load, scenario in zip(loads, SCENARIOS)
    ]
    return StagePlan(name, stage.kind, inputs, count, held / 1e9, steps, tokens, seconds)


def _bench_plan(models: Sequence[StagePlan]) -> StagePlan:
    """Return the plan of models that are measured one after another; parameters and memory are the largest one's."""
    known = all(model.seconds for model in models)
    return replace(
        models[0],
        parameters=max(model.parameters or 0 for model in models) if known else None,
        memory_gb=max(model.memory_gb or 0 for model in models) if known else None,
        steps=[sum(column) for column in zip(*(model.steps for model in models))],
        tokens=[sum(column) for column in zip(*(model.tokens for model in models))],
        seconds=[sum(column) for column in zip(*(model.seconds for model in models))] if known else [],
    )


def _load(stage: Stage, recipe: Recipe, scenario: Scenario) -> Load | None:
    """Return what a stage does, its measurements included; None where its data's size is unknown."""
    written = PROMPT_TOKENS if isinstance(stage, RewardModelStage) else scenario.share * stage.max_tokens
    length, measured = PROMPT_TOKENS + written, written * _examined(stage)
    if isinstance(stage, BenchStage):  # one of its models
        return Load(1, 0, measured, length)
    if isinstance(stage, SampleStage):
        return Load(stage.problems / CHUNK, 0, stage.problems * stage.samples_per_problem * written, length)
    if isinstance(stage, PretrainStage):
        return Load(stage.steps, stage.steps * stage.tokens_per_step, measured, length)
    if isinstance(stage, RLStage | DistillStage):
        draws = 1 + scenario.draws * (stage.dynamic_sampling - 1) if isinstance(stage, RLStage) else stage.on_policy
        rollouts = stage.steps * stage.problems_per_step * stage.samples_per_problem
        return Load(stage.steps, rollouts * length, measured + draws * rollouts * written, length)
    tokens = _data_tokens(stage.data, recipe, scenario)
    if tokens is None:
        return None
    if isinstance(stage, SFTStage):
        return Load(stage.epochs * tokens / stage.tokens_per_step, stage.epochs * tokens, measured, length)
    examples = stage.examples if stage.tasks else tokens / (2 * length)
    return Load(stage.epochs * examples / stage.examples_per_step, stage.epochs * examples * 2 * length, 0, length)


def _examined(stage: Stage) -> int:
    """Return how many completions the stage's measurements sample."""
    if isinstance(stage, SampleStage | RewardModelStage):
        return 0
    table, times = stage.eval, 1 if isinstance(stage, PretrainStage | BenchStage) else 2
    quick = stage.steps // table.every * table.quick_problems if table.every and isinstance(stage, RLStage) else 0
    return len(stage.tasks) * (times * table.problems * table.samples + quick)


def _data_tokens(sources: Sequence[str], recipe: Recipe, scenario: Scenario) -> float | None:
    """Return the tokens of data, None where a source is neither a file that is here nor an earlier stage."""
    total = 0.0
    for source in sources:
        maker, path = recipe.stage.get(source), recipe.locate(source)
        if isinstance(maker, SampleStage):
            total += maker.problems * maker.keep * scenario.kept * (PROMPT_TOKENS + scenario.share * maker.max_tokens)
        elif path.is_file():
            total += path.stat().st_size / BYTES_PER_TOKEN
        else:
            return None
    return total


def _seconds(stage: Stage, load: Load, config: Config, other: Config | None, machine: Hardware) -> float:
    trained = flops.work(config, load.length, int(load.trained)).flops
    trained += flops.forward(other, load.length / 2) * load.trained if other else 0
    sampled = flops.work(config, load.length, 0, int(load.sampled)).flops
    if machine.device == "cpu":
        return (trained + sampled) / (machine.cores * CPU_FLOPS_PER_CORE)
    peaks = {row["name"]: float(row["bf16_tflops"]) * 1e12 for row in hardware.table()}
    peak = peaks.get(machine.name, min(peaks.values()))  # one that isn't known counts as the slowest
    forwards = load.sampled / getattr(stage, "max_rows", MAX_ROWS)
    forwards += 0 if isinstance(stage, SampleStage | BenchStage) else load.trained / stage.optim.micro_tokens
    arithmetic = trained / (GPU_TRAINING_SHARE * peak) + sampled / (GPU_SAMPLING_SHARE * peak)
    return arithmetic + forwards * GPU_FORWARD_SECONDS


def _memory(stage: Stage, load: Load, config: Config, other: Config | None) -> float:
    """Return the bytes a stage holds at its fullest, what it samples from and what it trains; the program itself apart.

    Cache and activations are both counted, since an allocator rarely gives back what the other one needs.
    """
    held = memory.weights(other) if other else 0.0
    if not isinstance(stage, RewardModelStage):
        rows = getattr(stage, "max_rows", MAX_ROWS)
        held += memory.sampling(config, rows, PROMPT_TOKENS, stage.max_tokens)
    if isinstance(stage, SampleStage | BenchStage):
        return held + memory.weights(config)
    tokens, half = stage.optim.micro_tokens, stage.optim.precision == "bfloat16"
    scored = 0 if isinstance(stage, RewardModelStage) else tokens  # its head reads one position of each document
    shape = memory.Shape.even(tokens, load.length, scored)
    lora = stage.lora if isinstance(stage, SFTStage) else None
    rank, targets = (lora.rank, lora.targets) if lora else (0, ())
    return held + memory.training(config, shape, half=half, rank=rank, targets=targets)


def _row(stage: StagePlan) -> list[str]:
    size = _count(stage.parameters) if stage.parameters else "unknown"
    memory = f"{stage.memory_gb:.1f} GB" if stage.memory_gb is not None else "unknown"
    made_from = ", ".join(stage.inputs) or "-"
    return [stage.name, stage.kind, made_from, size, memory, *(_shown(v, _count) for v in (stage.steps, stage.tokens))]


def _shown(values: Sequence[float], form: Callable[[float], str] = "{:.2g}".format) -> str:
    if not values:
        return "unknown"
    least, likely, most = map(form, values)
    return likely if least == most else f"{likely} ({least} to {most})"


def _count(value: float) -> str:
    unit, scale = next(((u, s) for u, s in (("T", 1e12), ("B", 1e9), ("M", 1e6)) if value >= s), ("", 1.0))
    return f"{value / scale:.3g}{unit}" if unit else f"{value:,.0f}"


def _time(seconds: float) -> str:
    unit, scale = next(((u, s) for u, s in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)) if seconds >= s), ("s", 1.0))
    return f"{seconds / scale:.2g} {unit}"
