"""What a run, or runs over several seeds, hold on who plays which part: answers and steps, pooled with intervals."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from aftershock.alarms import WINDOW
from aftershock.errors import RunError
from aftershock.recipe import FindingsTable
from aftershock.report import files
from aftershock.report.curves import outcome_of
from aftershock.report.files import Row, RunFiles, StageFiles
from aftershock.report.scores import number
from aftershock.stats import (
    Interval,
    level_interval,
    majority_at_k,
    mean_interval,
    paired_interval,
    ratio_interval,
    shift_interval,
)
from aftershock.text.behaviour import behaviour
from aftershock.verify.language import consistency, readable, worded

Unit = Literal["share", "points", "tokens", "ratio", "number"]
Key = tuple[str, str, str]  # a problem: task, id, language
Values = dict[Key, list[float]]  # one value a completion (a vote: one a problem)
Answers = dict[str, Values]  # by metric
BINS = 20  # points of a curve, at least WINDOW steps each


@dataclass(frozen=True)
class Number:
    """One number of a finding: its 95% interval, what `n` counts, and each seed's own value."""

    label: str
    unit: Unit
    value: float
    low: float
    high: float
    n: int
    of: str
    seeds: dict[str, float]

    @property
    def text(self) -> str:
        """The value with its unit."""
        return {"share": "{:.1f}%", "ratio": "{:.1f}%", "points": "{:+.1f} points", "tokens": "{:+.1f} tokens"}.get(
            self.unit, "{:.3g}"
        ).format(self.value * self.scale)

    @property
    def scale(self) -> float:
        """What a value is multiplied by when it is shown."""
        return 1.0 if self.unit in ("tokens", "number") else 100.0

    def show(self, value: float) -> str:
        """Return another value of the same unit, without the unit."""
        sign = "+" if self.unit in ("points", "tokens") else ""
        return f"{value * self.scale:{sign}.1f}"

    @property
    def interval(self) -> str:
        """The bounds, in the value's unit."""
        return f"[{self.show(self.low)}, {self.show(self.high)}]"

    @property
    def short(self) -> str:
        """What stands behind it where space is little: n, then what each seed has."""
        return f"n {self.n} · {', '.join(map(self.show, self.seeds.values()))}"

    @property
    def basis(self) -> str:
        """What stands behind it, every seed's own value among it."""
        told = ", ".join(f"{seed}: {self.show(value)}" for seed, value in self.seeds.items())
        return f"n = {self.n} {self.of}; seed{'s' * (len(self.seeds) > 1)} {told}"


@dataclass(frozen=True)
class Curve:
    """A metric over a stage's steps: bins of steps pooled over seeds, and each seed's own bins as `dots`."""

    steps: list[float]
    values: list[Interval]
    dots: list[tuple[float, float]]
    size: int
    seeds: list[str]


class Evidence:
    """The runs of one recipe, one a seed; every method pools over those that hold what is asked, None if none does."""

    def __init__(self, runs: Sequence[RunFiles]) -> None:
        self.runs = {str(run.seed if run.seed is not None else run.folder.name): run for run in runs}
        tables = next((run.recipe["findings"] for run in runs if "findings" in run.recipe), None)
        if tables is None:
            raise RunError(
                f"{runs[0].folder / 'recipe.toml'} has no [findings] table: say in the recipe which stage plays which "
                "part, and run it again with --resume"
            )
        self.parts = FindingsTable.model_validate(tables)
        self.missing: list[str] = []
        self._answers: dict[tuple[str, str], Answers] = {}

    def stage(self, seed: str, name: str) -> StageFiles | None:
        """Return what one seed's run has of a stage."""
        return next((stage for stage in self.runs[seed].stages if stage.name == name), None)

    def finished(self, seed: str, name: str) -> bool:
        """Whether a stage came to its end."""
        stage = self.stage(seed, name)
        return stage is not None and (stage.folder / "done.json").is_file()

    def trained_on(self, name: str) -> list[str]:
        """Return the tasks that the recipe trains or measures a stage on."""
        tables = [stage.table for seed in self.runs if (stage := self.stage(seed, name)) is not None]
        return [str(task.get("name")) for task in tables[0].get("tasks", ())] if tables else []

    def tasks(self, model: str) -> list[str]:
        """Return the tasks that were asked of a model, in their order."""
        return list(dict.fromkeys(key[0] for seed in self.runs for key in self.answers(seed, model)["mean_tokens"]))

    def answers(self, seed: str, model: str) -> Answers:
        """Return a model's answers to held-out problems as numbers: from the bench stage, without one from its own."""
        if (seed, model) not in self._answers:
            rows = self._rows(seed, model)
            if not rows:
                self.missing.append(f"seed {seed}: no answers of {model!r}")
            self._answers[seed, model] = reduced(rows)
        return self._answers[seed, model]

    def _rows(self, seed: str, model: str) -> list[Row]:
        if self.parts.table:
            benches = [stage for stage in self.runs[seed].stages if stage.table.get("kind") == "bench"]
            benches.sort(key=lambda stage: stage.name != self.parts.table)
            paths = [stage.folder / f"eval-{quote(model, safe='')}.jsonl.gz" for stage in benches]
            return next((files.lines(path, []) for path in paths if path.is_file()), [])
        if model == self.parts.base:
            before = self.stage(seed, self.parts.zero or "")
            return before.before if before else []
        stage = self.stage(seed, model)
        return stage.after if stage else []

    def level(self, label: str, model: str, metric: str, tasks: Collection[str], unit: Unit = "share") -> Number | None:
        """Return the mean of a metric over all answers, clustered by problem: its answers of all seeds together."""
        found = {seed: part for seed in self.runs if (part := _of(self.answers(seed, model), metric, tasks))}
        pooled: Values = defaultdict(list)
        for part in found.values():
            for key, values in part.items():
                pooled[key] += values
        if not pooled:
            return None
        seeds = {seed: _mean(value for values in part.values() for value in values) for seed, part in found.items()}
        return _number(label, unit, mean_interval(list(pooled.values())), "problems", seeds, len(pooled))

    def _pairs(
        self, one: str, other: str, metric: str, tasks: Collection[str]
    ) -> tuple[dict[Key, list[tuple[float, float]]], dict[str, list[tuple[float, float]]]]:
        """Return the two models' mean values of each problem that both were asked, by problem and by seed."""
        by_key: dict[Key, list[tuple[float, float]]] = defaultdict(list)
        by_seed: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for seed in self.runs:
            a, b = (_of(self.answers(seed, model), metric, tasks) for model in (one, other))
            for key in a:
                if key in b:
                    pair = _mean(a[key]), _mean(b[key])
                    by_key[key].append(pair)
                    by_seed[seed].append(pair)
        return by_key, by_seed

    def difference(
        self, label: str, one: str, other: str, metric: str, tasks: Collection[str], unit: Unit = "points"
    ) -> Number | None:
        """Return `one` less `other`, paired by problem: each problem's difference is its mean over the seeds."""
        by_key, by_seed = self._pairs(one, other, metric, tasks)
        if not by_key:
            return None
        means = [_mean(a - b for a, b in pairs) for pairs in by_key.values()]
        scale = max(1.0, *map(abs, means))
        found = paired_interval([value / scale for value in means])
        scaled = Interval(found.value * scale, found.low * scale, found.high * scale, found.n, found.problems)
        seeds = {seed: _mean(a - b for a, b in pairs) for seed, pairs in by_seed.items()}
        return _number(label, unit, scaled, "problems", seeds, len(means))

    def ratio(self, label: str, one: str, other: str, metric: str, tasks: Collection[str]) -> Number | None:
        """Return `one` over `other`, on the problems that both were asked."""
        by_key, by_seed = self._pairs(one, other, metric, tasks)
        pairs = [(_mean(a for a, _ in part), _mean(b for _, b in part)) for part in by_key.values()]
        seeds = {
            s: sum(a for a, _ in part) / below for s, part in by_seed.items() if (below := sum(b for _, b in part))
        }
        if not seeds:
            return None
        return _number(label, "ratio", ratio_interval(pairs), "problems", seeds, len(pairs))

    def steps(self, seed: str, stage: str, metric: str) -> list[tuple[float, float]]:
        """Return (step, value) of a metric in one seed's metrics.jsonl."""
        found = self.stage(seed, stage)
        rows = [(number(row.get("step")), number(row.get(metric))) for row in found.metrics] if found else []
        return [(step, value) for step, value in rows if step is not None and value is not None]

    def curve(self, stage: str, metric: str) -> Curve | None:
        """Return a metric over the steps, in bins; an interval is of the steps' values, all seeds together."""
        told = {seed: points for seed in self.runs if (points := self.steps(seed, stage, metric))}
        if not told:
            return None
        longest = max(int(points[-1][0]) for points in told.values())
        size = max(WINDOW, -(-longest // BINS))
        bins: dict[int, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for seed, points in told.items():
            for step, value in points:
                bins[int(step - 1) // size][seed].append((step, value))
        steps, values, dots = [], [], []
        for _, seeds in sorted(bins.items()):
            both = [point for part in seeds.values() for point in part]
            if len(both) > 1:
                steps.append(_mean(step for step, _ in both))
                values.append(level_interval([value for _, value in both]))
                dots += [(_mean(s for s, _ in part), _mean(v for _, v in part)) for part in seeds.values()]
        return Curve(steps, values, dots, size, list(told)) if steps else None

    def shift(self, label: str, stage: str, metric: str, unit: Unit) -> Number | None:
        """Return how far a metric moved from the first to the last WINDOW steps of a finished stage."""
        ends: dict[str, tuple[list[float], list[float]]] = {}
        for seed in self.runs:
            values = [value for _, value in self.steps(seed, stage, metric)]
            if len(values) >= 2 * WINDOW and self.finished(seed, stage):
                ends[seed] = values[:WINDOW], values[-WINDOW:]
        if not ends:
            return None
        before, after = ([value for pair in ends.values() for value in pair[end]] for end in (0, 1))
        seeds = {seed: _mean(last) - _mean(first) for seed, (first, last) in ends.items()}
        return _number(label, unit, shift_interval(before, after), "steps", seeds, len(before) + len(after))

    @cached_property
    def open_tasks(self) -> list[str]:
        """The tasks whose true quality is known in each step of the stage that is to be hacked."""
        stages = [stage for seed in self.runs if (stage := self.stage(seed, self.parts.hacked or ""))]
        names = [name for stage in stages for row in stage.metrics for name in row if name.startswith("quality/")]
        return [name.removeprefix("quality/") for name in dict.fromkeys(names)]


def seed_runs(folder: Path) -> list[Path]:
    """Return the seed-N folders below, in the order of their numbers; none where the folder is a run itself."""
    return sorted((one for one in folder.glob("seed-*") if one.is_dir()), key=lambda one: (len(one.name), one.name))


def gather(folder: Path) -> Evidence:
    """Read a run's folder, or those of its seeds that have begun; RunError without any, or without [findings]."""
    seeds = seed_runs(folder)
    begun = [one for one in seeds if (one / "recipe.toml").is_file()]
    evidence = Evidence([files.read(one) for one in begun or [folder]])
    evidence.missing += [f"{one.name} has not begun" for one in seeds if one not in begun]
    return evidence


def reduced(rows: Sequence[Row]) -> Answers:
    """Reduce rows of answers (as `pipeline.evaluate.rows` writes them) to numbers by metric and problem."""
    answers: Answers = defaultdict(lambda: defaultdict(list))
    votes: dict[Key, list[tuple[str | None, bool]]] = defaultdict(list)
    for row in rows:
        key = str(row.get("task")), str(row.get("problem")), str(row.get("language"))
        for metric, value in _values(row).items():
            if value is not None:
                answers[metric][key].append(value)
        if "quality" not in row:
            outcome, verdict = outcome_of(row), row.get("verdict")
            told = verdict.get("extracted") if isinstance(verdict, dict) and outcome != "unverifiable" else None
            votes[key].append((told, outcome == "right"))
    for key, cast in votes.items():
        if key in answers["pass@1"] and len(cast) > 1:
            answers["majority@k"][key] = [majority_at_k([a for a, _ in cast], [r for _, r in cast], len(cast))]
    return answers


def _values(row: Row) -> Mapping[str, float | None]:
    outcome, reasoning, language = outcome_of(row), str(row.get("reasoning", "")), str(row.get("language"))
    judged = outcome in ("right", "wrong") and "quality" not in row
    return {
        "pass@1": float(outcome == "right") if judged else None,
        "mean_tokens": number(row.get("tokens")),
        "check_or_retry_rate": float(behaviour(reasoning).checks_or_retries),
        "language_consistency": consistency(reasoning, language) if worded(reasoning) else None,
        "readable_rate": float(readable(str(row.get("text", "")), language)),
        "quality": number(row.get("quality")),
    }


def _of(answers: Answers, metric: str, tasks: Collection[str]) -> Values:
    return {key: values for key, values in answers.get(metric, {}).items() if key[0] in tasks}


def _mean(values: Any) -> float:
    kept = list(values)
    return sum(kept) / len(kept)


def _number(label: str, unit: Unit, found: Interval, of: str, seeds: dict[str, float], n: int) -> Number:
    return Number(label, unit, found.value, found.low, found.high, n, of, seeds)
