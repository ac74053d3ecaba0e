"""The plan of a recipe: each stage's size, memory, time, dollars, energy and carbon, with its range."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from aftershock import graph
from aftershock.cost import decoding, flops, memory, parameters, price
from aftershock.cost.hardware import Hardware
from aftershock.cost.ledger import GRID_KG_PER_KWH
from aftershock.disk import read_json
from aftershock.errors import CheckpointError, RecipeError
from aftershock.known import known_config
from aftershock.plan import machine, spread
from aftershock.plan.held import How, held
from aftershock.plan.lengths import Lineage
from aftershock.plan.loads import MAX_ROWS, PROMPT_TOKENS, SCENARIOS, Load, lineages, load
from aftershock.plan.machine import Place
from aftershock.recipe import (
    BenchStage,
    DistillStage,
    PretrainStage,
    Recipe,
    RLStage,
    Stage,
)
from aftershock.sources import HUB, SHIPPED, shipped_base

Config = Mapping[str, Any]
EMPTY = Load()  # of a stage whose data's size is unknown


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take; lists are [least, likely, most], and empty where the recipe doesn't say enough.

    `memory_gb` is of one device; `misfit` says what to change where it is more than there is.
    """

    name: str
    kind: str
    inputs: list[str]
    parameters: int | None = None
    memory_gb: float | None = None
    misfit: str = ""
    layout: str = ""
    again: bool = False  # its layers are computed twice, to hold less
    steps: list[int] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)  # trained on and sampled
    training: list[float] = field(default_factory=list)  # seconds
    sampling: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Seconds of training and sampling."""
        return [trained + sampled for trained, sampled in zip(self.training, self.sampling)]


@dataclass(frozen=True)
class Plan:
    """What a recipe will take, stage by stage, on one machine or cluster."""

    machine: Hardware
    stages: list[StagePlan]  # each of one seed
    seeds: int = 1
    co2: float = GRID_KG_PER_KWH
    rates: str = ""

    @property
    def seconds(self) -> list[float]:
        """The least, likely and most of all stages whose sizes are known, over all seeds one after the other."""
        once = [sum(values) for values in zip([0.0] * len(SCENARIOS), *(s.seconds for s in self.stages if s.seconds))]
        return [self.seeds * seconds for seconds in once]

    @property
    def misfits(self) -> list[str]:
        """What doesn't fit in memory, and what to change."""
        return [f"{stage.name}: {stage.misfit}" for stage in self.stages if stage.misfit]

    def bill(self, seconds: Sequence[float]) -> dict[str, list[float]]:
        """Return dollars, kWh and kg of CO2 of so many seconds of the machine."""
        bills = [price(second, self.machine.usd_per_hour, self.machine.watts) for second in seconds]
        energy = [kwh for _, kwh in bills]
        return {"usd": [usd for usd, _ in bills], "kwh": energy, "kg_co2": [kwh * self.co2 for kwh in energy]}

    @property
    def rests_on(self) -> str:
        """What the numbers are worth, in words."""
        from aftershock.plan.page import grounds

        return grounds(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-able values."""
        stages = [asdict(one) | {"seconds": one.seconds} | self.bill(one.seconds) for one in self.stages]
        return {
            "machine": asdict(self.machine),
            "seeds": self.seeds,
            "kg_co2_per_kwh": self.co2,
            "stages": stages,
            "total": {"seconds": self.seconds, **self.bill(self.seconds)},
            "fits": not self.misfits,
            "rests_on": self.rests_on,
        }

    def __str__(self) -> str:
        from aftershock.plan.page import page

        return page(self)


def plan(
    recipe: Recipe, machine_name: str | None = None, chosen: str = spread.AUTO, co2: float = GRID_KG_PER_KWH
) -> Plan:
    """Return what a recipe will take here, or on a cluster such as `8xH100@2.5/h`, laid out as `chosen`.

    Nothing is loaded, drawn or downloaded. RecipeError for a cluster or layout that there can't be.
    """
    place = machine.place(machine_name, recipe.run.device)
    if place.cluster is None and chosen != spread.AUTO:
        raise RecipeError(f"--layout {chosen}: a CPU has no layout; name a cluster with --on, such as 8xH100")
    given = {key: value for key in ("usd_per_hour", "watts") if (value := getattr(recipe.run, key)) is not None}
    place = replace(place, machine=replace(place.machine, **given)) if place.cluster is None else place
    planner = Planner(recipe, place, lineages(recipe), graph.inputs(recipe.content()["stage"]), chosen)
    stages = planner.stages()
    at = machine.rates(place.machine.cores).source if place.cluster is None else ""
    return Plan(place.machine, stages, max(1, len(recipe.run.seeds)), co2, at)


@dataclass(frozen=True)
class Planner:
    """What all stages of one recipe share."""

    recipe: Recipe
    place: Place
    known: Mapping[str, Lineage]
    needs: Mapping[str, list[str]]
    chosen: str

    def stages(self) -> list[StagePlan]:
        """Return the plans of all stages, in order: each may be made from those before it."""
        found = [
            [self._stage(name, stage, config, self.beside(stage, config), model) for model, config in self.models(name)]
            for name, stage in self.recipe.stage.items()
        ]
        return [_one_after_another(each) for each in found]

    def models(self, name: str) -> list[tuple[str | None, Config | None]]:
        """Return the config.json of a stage's model; of a bench stage each model's, with the model."""
        stage = self.recipe.stage[name]
        if isinstance(stage, BenchStage):
            return [(model, self._source(model, self.configs)) for model in stage.models]
        return [(None, self.configs[name])]

    def beside(self, stage: Stage, config: Config | None) -> Config | None:
        """Return the config.json of a model that is read beside the one that moves: a teacher, or a reference."""
        if isinstance(stage, DistillStage):
            return self._source(stage.teacher, self.configs)
        return config if isinstance(stage, RLStage) and stage.loss.kl else None

    @cached_property
    def configs(self) -> dict[str, Config | None]:
        """Return the config.json of each stage's model and of the shipped ones, None where nothing here says it."""
        found: dict[str, Config | None] = {name: read_json(shipped_base(name) / "config.json") for name in SHIPPED}
        for name, stage in self.recipe.stage.items():
            if not isinstance(stage, BenchStage):
                found[name] = self._config(stage, found)
        return found

    def _config(self, stage: Stage, known: Mapping[str, Config | None]) -> Config | None:
        """Return the config.json that a stage's model will have, None where nothing here says it."""
        assert not isinstance(stage, BenchStage)
        if not (isinstance(stage, PretrainStage) and stage.model):
            return self._source(stage.source or "", known)
        size = stage.vocab_size
        if stage.tokenizer:  # its owner's rows: a few more than its tokens, where they were rounded up
            owner = self._source(stage.tokenizer, known)
            if owner is None:
                return None
            size = owner["vocab_size"]
        return {**stage.model.model_dump(), "vocab_size": size}

    def _source(self, source: str, known: Mapping[str, Config | None]) -> Config | None:
        if source in known:
            return known[source]
        if not source.startswith(HUB):
            found: Config | None = read_json(self.recipe.locate(source) / "config.json")
            return found
        try:
            return known_config(source)
        except CheckpointError:
            return None

    def _stage(
        self, name: str, stage: Stage, config: Config | None, other: Config | None, model: str | None
    ) -> StagePlan:
        """Return the plan of one stage; `other` is read beside its model, `model` one of a bench stage's."""
        loads = [one for guess in SCENARIOS if (one := load(stage, self.recipe, self.known, guess, model))]
        steps, tokens = [math.ceil(one.steps) for one in loads], [one.trained + one.sampled for one in loads]
        found = StagePlan(name, stage.kind, self.needs[name], steps=steps, tokens=tokens)
        if config is None:
            return found
        found = replace(found, parameters=parameters.total(config))
        return (self._here if self.place.cluster is None else self._there)(found, stage, loads, config, other)

    def _here(
        self, found: StagePlan, stage: Stage, loads: Sequence[Load], config: Config, other: Config | None
    ) -> StagePlan:
        at = machine.rates(self.place.machine.cores)
        room = self.place.machine.memory_gb * 1e9
        native = machine.decoding() == "native"
        ways = [
            held(stage, one, config, other, room, native) for one in loads or [replace(EMPTY, written=PROMPT_TOKENS)]
        ]
        most = max(size for size, _ in ways)
        misfit = f"takes {most / 1e9:.1f} GB of {room / 1e9:.1f}: {_remedy(stage, config, room)}" if most > room else ""
        done = [works(stage, one, how, config, other) for one, (_, how) in zip(loads, ways)]
        spent = [[machine.seconds(work, at) / guess.speed for work in both] for both, guess in zip(done, SCENARIOS)]
        return replace(
            found,
            memory_gb=most / 1e9,
            misfit=misfit,
            again=any(how.recompute for _, how in ways),
            training=[trained for trained, _ in spent],
            sampling=[sampled for _, sampled in spent],
        )

    def _there(
        self, found: StagePlan, stage: Stage, loads: Sequence[Load], config: Config, other: Config | None
    ) -> StagePlan:
        assert self.place.cluster is not None
        optim, how = getattr(stage, "optim", None), How.of(stage)
        tokens, again = (optim.micro_tokens, optim.recompute) if optim else (0, "never")
        rows, longest = getattr(stage, "max_rows", MAX_ROWS), getattr(stage, "max_tokens", PROMPT_TOKENS)
        sharing = getattr(stage, "samples_per_problem", 1)
        group = stage.learnt if isinstance(stage, RLStage) else 1
        job = spread.Job(config, self.place.cluster, tokens, rows, longest, self.chosen, how, again, sharing, group)
        laid = spread.spread(job, loads[1] if loads else replace(EMPTY, trained=tokens, steps=1, written=longest))
        looped = isinstance(stage, RLStage | DistillStage)  # whose published steps' factor has all errors in it
        loop = decoding.LOOP if looped else (1.0, 1.0, 1.0)
        share = _read(stage, config, other, EMPTY) / (flops.TRAINING * flops.forward(config, 0))
        trained = [spread.training(job, one, laid, share) for one in loads]
        sampled = [spread.sampling(job, one, laid) for one in loads]
        ends = (("likely",) * 3 if looped else ("low", "likely", "high"))[: len(loads)]
        return replace(
            found,
            memory_gb=laid.held / 1e9,
            misfit=laid.misfit,
            layout=str(laid),
            again=laid.recompute,
            training=[getattr(one, end) * times for one, end, times in zip(trained, ends, loop)],
            sampling=[getattr(one, end) * times for one, end, times in zip(sampled, ends, loop)],
        )


def works(
    stage: Stage, one: Load, how: How, config: Config, other: Config | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return how much of each priced kind of work a stage's training is on a CPU, and its sampling."""
    rows, longest = getattr(stage, "max_rows", MAX_ROWS), getattr(stage, "max_tokens", PROMPT_TOKENS)
    trained = machine.training_work(config, one, how, _read(stage, config, other, one))
    return trained, machine.sampling_work(config, one, rows, longest)


def _remedy(stage: Stage, config: Config, room: float) -> str:
    """Return what to change where a stage doesn't fit in a CPU's memory."""
    how = How.of(stage)
    state = memory.training_state(config, how.moments, rank=how.rank, targets=how.targets)
    if not hasattr(stage, "optim"):
        state = memory.weights(config)
    if state > room:
        return f"weights and what trains them take {state / 1e9:.1f}; take a smaller model, or a machine with more"
    return "lower optim.micro_tokens, max_rows or max_tokens, or take a machine with more"


def _read(stage: Stage, config: Config, other: Config | None, one: Load) -> float:
    """Return the FLOPs a trained token of forwards without a gradient: another model's, and the old policy's."""
    models = [other] * (other is not None) + [config] * (isinstance(stage, RLStage) and stage.minibatches > 1)
    return sum(flops.forward(model, one.length / 2) for model in models if model)


def _one_after_another(models: Sequence[StagePlan]) -> StagePlan:
    """Return the plan of models that are measured in turn; parameters and memory are the largest one's."""
    if len(models) == 1:
        return models[0]
    largest = max(models, key=lambda model: model.parameters or 0)
    known = all(model.parameters for model in models)
    return replace(
        largest,
        parameters=largest.parameters if known else None,
        memory_gb=largest.memory_gb if known else None,
        steps=_summed(model.steps for model in models),
        tokens=_summed(model.tokens for model in models),
        training=_summed(model.training for model in models) if known else [],
        sampling=_summed(model.sampling for model in models) if known else [],
    )


def _summed(columns: Iterable[list[Any]]) -> list[Any]:
    return [sum(column) for column in zip(*columns)]
