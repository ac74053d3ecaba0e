"""What makes a recipe impossible, said in the words of its file: keys, types, values, and what can't go together."""

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from aftershock import extends, toml
from aftershock.errors import RecipeError
from aftershock.extends import Written
from aftershock.recipe import (
    BenchStage,
    DistillStage,
    FindingsTable,
    PretrainStage,
    Recipe,
    RewardModelStage,
    RLStage,
    RunTable,
    SampleStage,
    SFTStage,
    Stage,
    TrainingStage,
)
from aftershock.sources import HUB, HUB_NAME, SHIPPED

STAGE_KINDS: dict[str, type[Any]] = {
    "pretrain": PretrainStage,
    "sft": SFTStage,
    "sample": SampleStage,
    "reward_model": RewardModelStage,
    "distill": DistillStage,
    "rl": RLStage,
    "bench": BenchStage,
}
_WEIGHTLESS = (SampleStage, RewardModelStage, BenchStage)  # no stage takes its weights from one of these
_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Fault = tuple[toml.Key, str]  # the key at fault, and what is wrong with it


def checked(path: Path, overrides: list[str]) -> Recipe:
    """Return the recipe in `path` under `overrides`; RecipeError lists every fault."""
    written = extends.read(path)
    tables = written.tables
    said = _apply(tables, overrides, path)
    run, faults = _parse(RunTable, tables.get("run", {}), ("run",))
    faults += _seed_faults(run)
    stages: dict[str, Any] = {}
    for name, table in _stage_tables(tables).items():
        stages[name], found = _parse_stage(name, table)
        faults += found
    findings = None
    if "findings" in tables:
        findings, found = _parse(FindingsTable, tables["findings"], ("findings",))
        faults += [*found, *(_part_faults(findings, stages) if findings else ())]
    faults += [*_top_faults(tables), *_order_faults(stages, path.resolve().parent)]
    if faults:
        raise RecipeError("\n".join(_line(written, said, fault) for fault in faults))
    return Recipe(run=run, stage=stages, findings=findings)


def _apply(tables: dict[str, Any], overrides: list[str], path: Path) -> set[str]:
    """Apply the overrides to `tables` and return their dotted keys."""
    said, faults = set(), []
    for override in overrides:
        try:
            key, value = toml.parse_override(override)
            _known_stage(key, _stage_tables(tables))
            toml.set_in(tables, key, value)
            said.add(toml.dotted(key))
        except RecipeError as error:
            faults.append(f"{path}: {error}")
    if faults:
        raise RecipeError("\n".join(faults))
    return said


def _known_stage(key: toml.Key, stages: dict[str, Any]) -> None:
    if key[0] == "stage" and len(key) > 1 and str(key[1]) not in stages:
        raise RecipeError(f"--set {toml.dotted(key)}: there is no stage {key[1]!r}{nearest(str(key[1]), stages)}")


def _stage_tables(tables: dict[str, Any]) -> dict[str, Any]:
    stages = tables.get("stage")
    return stages if isinstance(stages, dict) else {}


def _parse_stage(name: str, table: Any) -> tuple[Any, list[Fault]]:
    place: toml.Key = ("stage", name)
    if not isinstance(table, dict):
        return None, [(place, f"should be a table [stage.{name}]")]
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in STAGE_KINDS:
        wanted = " or ".join(f'"{known}"' for known in STAGE_KINDS)
        return None, [((*place, "kind"), f"should be {wanted}{nearest(str(kind), STAGE_KINDS)}")]
    stage, faults = _parse(STAGE_KINDS[kind], table, place)
    if stage is None:
        return None, faults
    return stage, [((*place, *key), text) for key, text in (*_own_faults(stage), *_shared_faults(stage))]


def _own_faults(stage: Stage) -> Iterator[Fault]:
    if isinstance(stage, RLStage):
        yield from _rl_faults(stage)
    elif isinstance(stage, SFTStage):
        yield from _sft_faults(stage)
    elif isinstance(stage, DistillStage):
        yield from _distill_faults(stage)
    elif isinstance(stage, PretrainStage):
        yield from _pretrain_faults(stage)
    elif isinstance(stage, BenchStage):
        yield from _bench_faults(stage)
    if isinstance(stage, TrainingStage) and not isinstance(stage, SFTStage) and stage.optim.warmup > stage.steps:
        yield ("optim", "warmup"), f"is longer than the stage's steps = {stage.steps}"
    if isinstance(stage, TrainingStage | BenchStage) and stage.eval.temperature == 0 and stage.eval.samples > 1:
        yield ("eval", "temperature"), f"is greedy: all samples = {stage.eval.samples} are the same; use samples = 1"


def _parse(table: type[BaseModel], values: Any, place: toml.Key) -> tuple[Any, list[Fault]]:
    """Return the parsed table and no faults, or None and its faults.

    Through JSON, where pydantic's strict mode takes lists for tuples but no text for numbers.
    """
    try:
        return table.model_validate_json(json.dumps(values, default=str), strict=True), []
    except ValidationError as error:
        return None, [((*place, *fault["loc"]), _wording(table, fault)) for fault in error.errors()]


def _wording(table: type[BaseModel], fault: Any) -> str:
    loc, kind = fault["loc"], fault["type"]
    if kind == "extra_forbidden":
        keys = _keys(table, loc[:-1])
        return f"unknown key{nearest(str(loc[-1]), keys)} The keys here are {', '.join(keys)}"
    if kind == "missing":
        return "missing, and has no default"
    wanted = str(fault["msg"]).replace("Input should", "should")
    if kind == "literal_error":
        return wanted + nearest(str(fault["input"]), re.findall(r"'([^']*)'", str(fault["ctx"]["expected"])))
    return wanted


def _keys(table: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    """Return the names that the table at `loc` knows, as a file writes them."""
    for part in loc:
        if isinstance(part, str):
            table = next(_tables_in({_alias(t, n): f for t in [table] for n, f in table.model_fields.items()}[part]))
    return [_alias(table, name) for name in table.model_fields]


def _alias(table: type[BaseModel], name: str) -> str:
    return table.model_fields[name].alias or name


def _tables_in(kind: Any) -> Iterator[type[BaseModel]]:
    annotation = getattr(kind, "annotation", kind)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _tables_in(inner)


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `, did you mean "steps"?` for the most similar name, or a full stop where none is near."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f', did you mean "{found[0]}"?' if found else "."


def _line(written: Written, said: set[str], fault: Fault) -> str:
    key, text = fault
    value = extends.at(written.tables, key)
    shown = "" if value is None or isinstance(value, dict) else f" = {toml.literal(value)}"
    set_by = "--set " if toml.dotted(key) in said else ""
    path = written.files[0][0] if set_by else written.place(key)
    return f"{path}: {set_by}{toml.dotted(key)}{shown}: {text}"


def _top_faults(tables: dict[str, Any]) -> Iterator[Fault]:
    known = ("run", "stage", "findings")
    for name in tables:
        if name not in known:
            yield (name,), f"unknown key{nearest(name, known)} A recipe has [run], [stage.NAME] and [findings] tables"
    if "stage" in tables and not isinstance(tables["stage"], dict):
        yield ("stage",), "should be tables [stage.NAME]"
    elif not tables.get("stage"):
        yield ("stage",), 'there is no stage; add one, such as [stage.zero] with kind = "rl"'


def _part_faults(findings: FindingsTable, stages: dict[str, Any]) -> Iterator[Fault]:
    """Faults in who plays which part: each a stage or a model of the bench stage, and those of the right kind."""
    kinds = {name: getattr(stage, "kind", None) for name, stage in stages.items()}
    benches = [stage for stage in stages.values() if isinstance(stage, BenchStage)] if findings.table else []
    measured = {model for stage in benches for model in stage.models}
    known = list(dict.fromkeys([*stages, *sorted(measured)]))
    for part, said in findings.model_dump(exclude_none=True).items():
        for index, name in enumerate([said] if isinstance(said, str) else said):
            key: toml.Key = ("findings", part) if isinstance(said, str) else ("findings", part, index)
            wanted = {"table": "bench", "hacked": "rl"}.get(part)
            if name not in known:
                yield key, f"is no stage, and no model of the bench stage{nearest(name, known)} ({', '.join(known)})"
            elif wanted and kinds.get(name) not in (wanted, None):
                yield key, f'should be a stage of kind "{wanted}"'
            elif measured and not wanted and name not in measured:
                yield key, f"is not among the models of {findings.table!r}, so it isn't measured; add it there"


def _seed_faults(run: RunTable | None) -> Iterator[Fault]:
    for index, seed in enumerate(run.seeds if run else ()):
        if run and seed in run.seeds[:index]:
            yield ("run", "seeds", index), "stands there already; each seed is run once"


def _order_faults(stages: dict[str, Any], folder: Path) -> Iterator[Fault]:
    """Faults in stages' names and in where each takes its weights from; a stage is None where it could not be read."""
    earlier: dict[str, Any] = {}
    for name, stage in stages.items():
        if not _FOLDER_NAME.fullmatch(name):
            yield ("stage", name), "names a folder: use up to 64 letters, digits, - and _, a letter or digit first"
        if name.lower() in map(str.lower, earlier):
            yield ("stage", name), "differs from an earlier stage by letter case alone; give it another name"
        makers = [known for known, one in earlier.items() if not isinstance(one, _WEIGHTLESS)]
        for key, source in _models_named(stage):
            wrong = _source_fault(source, makers, list(stages), folder)
            yield from [(("stage", name, *key), wrong)] if wrong else []
        for index, source in enumerate(stage.data if isinstance(stage, SFTStage | DistillStage) else ()):
            if source in stages and not isinstance(earlier.get(source), SampleStage):
                yield ("stage", name, "data", index), 'is not an earlier stage that makes data (kind = "sample")'
        yield from _preference_faults(name, stage, earlier)
        earlier[name] = stage


def _preference_faults(name: str, stage: Any, earlier: dict[str, Any]) -> Iterator[Fault]:
    """Faults in what an RL stage says of reward models, and in what a reward model learns from."""
    models = [known for known, one in earlier.items() if one is None or isinstance(one, RewardModelStage)]
    for index, table in enumerate(getattr(stage, "preferences", ())):
        place: toml.Key = ("stage", name, "preferences", index)
        if table.model not in models:
            yield (*place, "model"), f'is no earlier stage of kind "reward_model"{nearest(table.model, models)}'
        asked = [task.name for task in stage.tasks]
        for number, task in enumerate(table.tasks):
            if task not in asked:
                yield (*place, "tasks", number), f"is no task of the stage{nearest(task, asked)}"
        if table.from_step >= stage.steps:
            yield (*place, "from_step"), f"is past the stage's steps = {stage.steps}: it would never have a say"
    for index, source in enumerate(stage.data if isinstance(stage, RewardModelStage) else ()):
        if source in earlier:
            yield ("stage", name, "data", index), "is a stage; preferences come from files, hub:ORG/NAME or tasks"


def _models_named(stage: Any) -> Iterator[tuple[toml.Key, str]]:
    """Yield (key, value) of every key by which a stage names a model."""
    for key, field in (("from", "source"), ("teacher", "teacher"), ("tokenizer", "tokenizer")):
        if getattr(stage, field, None) is not None:
            yield (key,), getattr(stage, field)
    for index, model in enumerate(getattr(stage, "models", ())):
        yield ("models", index), model


def _source_fault(source: str, earlier: list[str], names: list[str], folder: Path) -> str | None:
    if source in SHIPPED:
        clash = source in earlier
        return f'could mean the shipped base or the stage "{source}"; give that stage another name' if clash else None
    if source in earlier:
        return None
    if source in names:
        return "is no stage that makes weights and stands before this one in the file"
    if source.startswith(HUB):
        return None if HUB_NAME.fullmatch(source) else "should be hub:ORG/NAME, or hub:ORG/NAME@REVISION"
    path = Path(source).expanduser()
    if any((place / path / "config.json").is_file() for place in (folder, Path())):
        return None
    shipped = " or ".join(json.dumps(name) for name in SHIPPED)
    return (
        f"should be {shipped}, an earlier stage, hub:ORG/NAME, or a model folder with a config.json"
        f"{nearest(source, [*SHIPPED, *earlier])}" + (f" (earlier stages: {', '.join(earlier)})" if earlier else "")
    )


def _shared_faults(stage: Stage) -> Iterator[Fault]:
    told = isinstance(stage, SFTStage) or (isinstance(stage, DistillStage) and not stage.on_policy)  # by their data
    if not stage.tasks and not told and not (isinstance(stage, RewardModelStage) and stage.data):
        yield ("tasks",), f"there is no task; add a [[stage.NAME.tasks]] table to the {stage.kind} stage"
    for index, task in enumerate(stage.tasks):
        if not task.languages:
            yield ("tasks", index, "languages"), 'should name at least one language, such as ["en"]'
    for index, beta in enumerate(() if isinstance(stage, SampleStage | BenchStage) else stage.optim.betas):
        if not 0 <= beta < 1:
            yield ("optim", "betas", index), "should be at least 0 and less than 1"


def _bench_faults(stage: BenchStage) -> Iterator[Fault]:
    if not stage.models:
        yield ("models",), "is empty; name shipped models, earlier stages that make weights, folders, or hub:ORG/NAME"
    for index, model in enumerate(stage.models):
        if model in stage.models[:index]:
            yield ("models", index), "stands there already; each model is measured once"


def _pretrain_faults(stage: PretrainStage) -> Iterator[Fault]:
    if stage.source is None and stage.model is None:
        yield ("model",), "missing: say [stage.NAME.model] for new weights, or from = for existing ones"
    if stage.source is not None and stage.model is not None:
        yield ("from",), "can't go together with a [stage.NAME.model] table: weights are either taken or new"
    if stage.tokenizer is not None and stage.source is not None:
        yield ("tokenizer",), "is for new weights; those taken with from = have their own tokenizer"


def _sft_faults(stage: SFTStage) -> Iterator[Fault]:
    if not stage.data:
        yield ("data",), "is empty; name earlier stages that make data, JSONL files, or hub:ORG/NAME"
    if stage.patience and not stage.validation:
        yield ("patience",), "needs a validation loss to look at; set validation above 0 or leave this out"
    if stage.lora and stage.optim.precision == "fp8":
        yield ("optim", "precision"), "can't be fp8 with [lora]: adapted layers have no FP8 product; use bfloat16"


def _distill_faults(stage: DistillStage) -> Iterator[Fault]:
    if stage.on_policy and stage.data:
        yield ("data",), "is read only with on_policy = false: on-policy, the student writes the completions itself"
    if not stage.on_policy and not stage.data:
        yield ("data",), "is empty; name stages or JSONL files with completions, or set on_policy = true"


def _rl_faults(stage: RLStage) -> Iterator[Fault]:
    rollouts = stage.problems_per_step * stage.learnt
    if stage.minibatches > rollouts:
        yield ("minibatches",), f"is more than a step's {rollouts} rollouts (problems_per_step x samples_per_problem)"
    if stage.down_sample == 1 or stage.down_sample > stage.samples_per_problem:
        most = stage.samples_per_problem
        yield (
            ("down_sample",),
            f"should be 0 (all) or from 2 to samples_per_problem = {most}: one alone has no advantage",
        )
    if stage.reward.overlong_buffer > stage.max_tokens:
        yield ("reward", "overlong_buffer"), f"is longer than max_tokens = {stage.max_tokens}"
    if stage.reward.accuracy == 0 and stage.reward.format == 0:
        yield ("reward", "accuracy"), "can't be 0 together with format = 0: nothing would be rewarded"
    if stage.exact and stage.optim.precision != "float32":
        yield ("exact",), f"wants optim.precision = float32, as the sampler has it, not {stage.optim.precision}"
    for index, table in enumerate(stage.tasks):
        if table.guesses:
            yield ("tasks", index, "guesses"), "is for pretrain stages only"
    yield from _loss_faults(stage)


def _loss_faults(stage: RLStage) -> Iterator[Fault]:
    loss = stage.loss
    if loss.clip_low >= 1 and loss.kind != "cispo":
        yield ("loss", "clip_low"), "should be less than 1: the ratio is clipped from below at 1 - clip_low"
    for dial in ("kl_estimator", "reference_every"):
        if loss.kl == 0 and getattr(loss, dial) != type(loss).model_fields[dial].default:
            yield ("loss", dial), "acts only with kl above 0; set loss.kl or leave this out"
