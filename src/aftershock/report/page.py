"""Put the page together: read, choose, draw, fill the template, and replace the old page in one move."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from aftershock import disk, pages
from aftershock.alarms import Alarm, alarms_in
from aftershock.report import costs, words
from aftershock.report.curves import Curves, samples_by_step
from aftershock.report.figures import Chart, draw
from aftershock.report.files import RunFiles, StageFiles, hashes, model_facts, read, rollout_rows
from aftershock.report.pairs import Pairs, choose
from aftershock.report.scores import Line, Models, line_of, lines, number, pooled_suite, scores_of, side_by_side

HEADLINES = ("pass@1", "quality", "accuracy", "calibration_error", "mean_tokens", "check_or_retry_rate", "majority@k")


@dataclass(frozen=True)
class Figure:
    """A drawn chart: the SVG and what stands around it."""

    chart: Chart
    svg: Markup


@dataclass(frozen=True)
class StagePart:
    """One stage as the template wants it."""

    name: str
    kind: str
    state: str
    method: list[str]
    model: str
    headlines: list[Line]
    lines: list[Line]
    models: Models | None
    unprinted: int
    figures: list[Figure]
    pairs: Pairs | None
    alarms: list[Alarm]


def make(folder: Path) -> Path:
    """Write `folder/report.html`, first under another name, so that a reader never meets half a page."""
    target = folder / "report.html"
    disk.write_bytes(target, render(read(folder)).encode())
    return target


def render(run: RunFiles) -> str:
    """Return the page of a run as HTML."""
    figures: list[Figure] = []
    stages = [_stage(run, stage, figures) for stage in run.stages]
    bill = costs.costs(run)
    filters = {name: getattr(costs, name) for name in ("duration", "amount", "money", "big", "energy", "mass")}
    return pages.render(
        "report",
        "page.html.j2",
        filters,
        run=run,
        description=str(_dict(run.recipe.get("run")).get("description") or ""),
        stages=stages,
        leading=next((stage for stage in reversed(stages) if stage.headlines), None),
        benches=[stage for stage in stages if stage.models],
        costs=bill,
        total=bill[-1] if bill else None,
        assumptions=costs.assumptions(run, bill),
        hashes=hashes(run),
        versions=_pairs_of(run.summary.get("versions")),
        hardware=_pairs_of(run.summary.get("hardware")),
        glossary=words.glossary({stage.kind for stage in run.stages}),
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _stage(run: RunFiles, stage: StageFiles, drawn: list[Figure]) -> StagePart:
    scores, unprinted = scores_of(stage)
    suite = pooled_suite(scores)
    samples = samples_by_step(rollout_rows(stage, run.missing)) if stage.kind == "rl" and stage.metrics else {}
    charts = Curves(stage, samples, scores, run.seed, _quick(stage)).charts() if stage.metrics else []
    figures = [Figure(chart, Markup(draw(chart, len(drawn) + i))) for i, chart in enumerate(charts)]
    drawn += figures
    headlines = [line for metric in HEADLINES if (line := line_of(scores, suite, metric)) is not None]
    return StagePart(
        name=stage.name,
        kind=words.KINDS.get(stage.kind, stage.kind),
        state=_state(run, stage),
        method=words.method(stage.table),
        model=_model(stage),
        headlines=headlines,
        lines=lines(scores),
        models=side_by_side(scores) if stage.kind == "bench" and scores else None,
        unprinted=unprinted,
        figures=figures,
        pairs=choose(stage.before, stage.after),
        alarms=alarms_in(stage.metrics),
    )


def _state(run: RunFiles, stage: StageFiles) -> str:
    if run.finished or (stage.folder / "done.json").is_file():
        return ""
    steps = stage.table.get("steps", "?")
    at = max((int(number(row.get("step")) or 0) for row in stage.metrics), default=0)
    return f"unfinished: step {at} of {steps}" if at else "not begun"


def _quick(stage: StageFiles) -> str:
    n = _dict(stage.table.get("eval")).get("quick_problems", 100)
    return f"{n} problems a task, one completion each" if stage.table else "n not recorded (no recipe)"


def _model(stage: StageFiles) -> str:
    facts = model_facts(stage.folder / "model")
    if not facts:
        return ""
    config = facts["config"]
    shape = ", ".join(
        f"{config[name]} {label}"
        for name, label in (
            ("num_hidden_layers", "layers"),
            ("hidden_size", "wide"),
            ("n_routed_experts", "routed experts"),
            ("vocab_size", "tokens in the vocabulary"),
        )
        if config.get(name)
    )
    kind = config.get("model_type", "unknown type")
    return f"{costs.big(facts['parameters'])} parameters, {facts['bytes'] / 1e6:,.1f} MB on disk; {kind}: {shape}."


def _pairs_of(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a table to (dotted name, text) rows."""
    if not isinstance(value, dict):
        return [(prefix.rstrip("."), str(value))] if value is not None else []
    return [row for name, inner in value.items() for row in _pairs_of(inner, f"{prefix}{name}.")]
