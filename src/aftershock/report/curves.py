"""Which curves a stage's page shows, made from its metrics, its rollouts and its evaluations."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from aftershock.alarms import heldout_metric
from aftershock.report.figures import Chart, Series, smooth
from aftershock.report.files import Row, StageFiles
from aftershock.report.scores import Score, number, pooled_suite
from aftershock.stats import mean_interval
from aftershock.text.behaviour import behaviour

MAX_TASK_CHARTS = 6
LOADS = "load_max_over_mean/"
Groups = dict[str, list[float]]  # problem -> one value a completion


@dataclass
class StepSamples:
    """The rollouts of one step, kept only as the numbers that curves need, grouped by problem for honest intervals."""

    groups: dict[str, Groups] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    completions: int = 0

    @property
    def problems(self) -> int:
        """Of how many problems the completions are."""
        return max((len(groups) for groups in self.groups.values()), default=0)


def samples_by_step(rows: Iterable[Row]) -> dict[int, StepSamples]:
    """Reduce rollout rows to each step's numbers: accuracy, length, reward by part, whether it checks or retries."""
    steps: dict[int, StepSamples] = defaultdict(StepSamples)
    for row in rows:
        if number(row.get("step")) is None:
            continue
        samples = steps[int(row["step"])]
        samples.completions += 1
        for name, value in _values(row):
            samples.groups[name][str(row.get("problem"))].append(value)
    return dict(sorted(steps.items()))


def _values(row: Row) -> list[tuple[str, float]]:
    found = [("mean_tokens", number(row.get("tokens")))]
    outcome = outcome_of(row)
    reward = row.get("reward")
    by_rule = outcome != "unverifiable" and "quality" not in row
    found.append(("reward/accuracy", float(outcome == "right") if by_rule else None))
    found.append((f"quality/{row.get('task')}", number(row.get("quality"))))
    if isinstance(reward, dict):
        found.append(("reward", number(reward.get("total"))))
        found += [(f"reward/{part}", number(v)) for part, v in reward.items() if part not in ("total", "accuracy")]
    found.append(("check_or_retry_rate", float(behaviour(str(row.get("reasoning", ""))).checks_or_retries)))
    return [(name, value) for name, value in found if value is not None]


def outcome_of(row: Row) -> str:
    """Return "right", "wrong" or "unverifiable" of a rollout's row."""
    verdict = row.get("verdict")
    return str(verdict.get("outcome", "?") if isinstance(verdict, dict) else verdict)


class Curves:
    """Builds the charts of one stage. `seed` goes into every caption; `quick` says of what quick evaluations are."""

    def __init__(
        self,
        stage: StageFiles,
        samples: dict[int, StepSamples],
        scores: Sequence[Score],
        seed: int | None,
        quick: str,
    ) -> None:
        self.stage, self.samples, self.scores, self.quick = stage, samples, scores, quick
        self.seed = "seed not recorded" if seed is None else f"seed {seed}"

    def charts(self) -> list[Chart]:
        """Return every chart there are numbers for, the ones that tell the story first."""
        rl = (
            self._accuracy,
            self._length,
            self._behaviour,
            self._reward,
            self._entropy,
            self._gap,
            self._signal,
            self._load,
        )
        pretrain = (self._loss, self._divergence, self._preferred, self._reliability, self._load)
        chosen = rl if self.stage.kind == "rl" else pretrain
        charts = [chart for make in chosen if (chart := make()) is not None]
        pleasing = [chart for task in self._open_tasks() if (chart := self._pleasing(task)) is not None]
        return [*charts, *pleasing, *self._by_task()]

    def _points(self, name: str) -> tuple[list[float], list[float]]:
        rows = [(number(row.get("step")), number(row.get(name))) for row in self.stage.metrics]
        kept = [(s, v) for s, v in rows if s is not None and v is not None and math.isfinite(v)]
        return [s for s, _ in kept], [v for _, v in kept]

    def _sampled(self, name: str, label: str, colour: str, style: str = "line") -> Series | None:
        """Return a metric's curve with 95% intervals over the step's problems, where rollouts were kept."""
        steps = [step for step, samples in self.samples.items() if samples.groups.get(name)]
        if not steps:
            return self._plain(name, label, colour, style)
        found = [mean_interval(list(self.samples[step].groups[name].values())) for step in steps]
        value, low, high = ([getattr(one, bound) for one in found] for bound in ("value", "low", "high"))
        return Series(label, steps, value, low, high, colour, style)  # type: ignore[arg-type]

    def _plain(self, name: str, label: str, colour: str, style: str = "line", smoothed: bool = True) -> Series | None:
        steps, values = self._points(name)
        values = smooth(values) if smoothed and len(values) > 20 else values
        return Series(label, steps, values, None, None, colour, style) if steps else None  # type: ignore[arg-type]

    def _heldout(self, suite: str, label: str) -> Series | None:
        """Return the quick evaluations of a suite, those with an interval only."""
        rows = [
            (number(row.get("step")), *(number(row.get(f"heldout/{suite}{end}")) for end in ("", "_low", "_high")))
            for row in self.stage.metrics
        ]
        kept = [[value for value in row if value is not None] for row in rows if None not in row]
        if not kept:
            return None
        steps, values, low, high = (list(column) for column in zip(*kept, strict=True))
        return Series(label, steps, values, low, high, "accent")

    def _ends(self, suite: str | None, metric: str) -> Series | None:
        """Return the full evaluations before and after as points at the first and last step."""
        last = max((number(row.get("step")) or 0 for row in self.stage.metrics), default=0)
        where = {"before": 0.0, "after": last}
        kept = [s for s in self.scores if s.suite == suite and s.metric == metric and s.when in where]
        if not kept:
            return None
        columns = (
            [where[s.when] for s in kept],
            [s.value for s in kept],
            [s.low for s in kept],
            [s.high for s in kept],
        )
        return Series("before and after", *columns, "ink", "points")

    def _basis(self) -> str:
        """Say of how many completions a step's numbers are."""
        sizes = [(s.completions, s.problems) for s in self.samples.values()]
        if not sizes:
            return f"n of a step not recorded (no rollouts kept), {self.seed}"
        completions, problems = (sorted(column)[len(sizes) // 2] for column in zip(*sizes, strict=True))
        about = "n about" if len(set(sizes)) > 1 else "n ="
        return f"{about} {completions} completions of {problems} problems a step, {self.seed}"

    def _chart(self, title: str, made: Sequence[Series | None], note: str, **options: object) -> Chart | None:
        series = tuple(one for one in made if one is not None)
        return Chart(title, series, note, **options) if series else None  # type: ignore[arg-type]

    def _accuracy(self) -> Chart | None:
        suite = pooled_suite(self.scores)
        name = heldout_metric(name for row in self.stage.metrics for name in row)
        heldout = self._heldout(name.removeprefix("heldout/"), "held-out") if name else None
        ends = self._ends(suite, "pass@1")
        note = f"Held-out: {self.quick}, 95% intervals. Training: {self._basis()}."
        if ends is not None:
            note += f" Points: {self._ends_basis(suite, 'pass@1')}."
        training = self._sampled("reward/accuracy", "training", "muted", "thin")
        return self._chart("Accuracy", (training, heldout, ends), note, unit="share")

    def _ends_basis(self, suite: str | None, metric: str) -> str:
        told = [s.basis for s in self.scores if s.suite == suite and s.metric == metric]
        return "; ".join(dict.fromkeys(told))

    def _length(self) -> Chart | None:
        ends = self._ends(pooled_suite(self.scores), "mean_tokens")
        made = (self._sampled("mean_tokens", "completion, mean tokens", "accent"), ends)
        note = f"Tokens a completion in training, 95% intervals; {self._basis()}."
        if ends is not None:
            note += f" Points: {self._ends_basis(pooled_suite(self.scores), 'mean_tokens')}."
        return self._chart("Length of completions", made, note)

    def _behaviour(self) -> Chart | None:
        made = (
            self._sampled("check_or_retry_rate", "checks or retries", "accent"),
            self._plain("switch_rate", "changes language", "muted", "dashed"),
        )
        return self._chart("Checking and retrying", made, f"Share of completions; {self._basis()}.", unit="share")

    def _reward(self) -> Chart | None:
        parts = sorted({name for row in self.stage.metrics for name in row if name.startswith("reward/")})
        others = [name for name in parts if name not in ("reward/accuracy", "reward/format")]
        made = [
            self._sampled("reward", "total", "accent"),
            self._plain("reward/accuracy", "accuracy", "ink", "thin"),
            self._plain("reward/format", "format", "muted", "dashed"),
            *(self._plain(name, name.removeprefix("reward/"), "muted", "thin") for name in others),
        ]
        note = f"Mean reward with 95% intervals; its parts smoothed over 9 steps; {self._basis()}."
        return self._chart("Reward", made, note, floor=None)

    def _entropy(self) -> Chart | None:
        note = f"Nats a token, mean over every token sampled in a step (no interval kept); {self._basis()}."
        return self._chart("Entropy", [self._plain("entropy", "entropy", "accent")], note)

    def _gap(self) -> Chart | None:
        made = (
            self._plain("kl", "KL to the reference", "accent"),
            self._plain("mismatch", "sampler-learner gap", "muted", "dashed"),
        )
        positive = [v for one in made if one is not None for v in one.values]
        log = bool(positive) and min(positive) > 0
        note = f"Nats a token{', log scale' * log}, mean over a step's tokens (no interval kept); {self._basis()}."
        return self._chart("KL and sampler gap", made, note, log=log)

    def _signal(self) -> Chart | None:
        made = (
            self._plain("no_signal", "groups without signal", "accent"),
            self._plain("clip_fraction", "tokens clipped", "muted", "dashed"),
            self._plain("truncated", "completions cut off", "ink", "thin"),
        )
        return self._chart("Signal", made, f"Shares, smoothed over 9 steps; {self._basis()}.", unit="share")

    def _loss(self) -> Chart | None:
        made = (
            self._plain("loss", "training", "muted", "thin", smoothed=False),
            self._plain("validation_loss", "held-out", "accent", smoothed=False),
        )
        unit = "example" if self.stage.kind == "reward_model" else "token"
        size = self.stage.table.get(f"{unit}s_per_step")
        basis = f"n = {size:,} {unit}s a step" if isinstance(size, int) else "n of a step not recorded"
        note = f"Nats {'an' if unit == 'example' else 'a'} {unit} (no interval kept); {basis}, {self.seed}."
        return self._chart("Loss", made, note, floor=None)

    def _divergence(self) -> Chart | None:
        made = (self._plain("forward_kl", "forward", "accent"), self._plain("reverse_kl", "reverse", "muted", "dashed"))
        note = f"KL to the teacher, nats a token, smoothed over 9 steps (no interval kept); {self.seed}."
        return self._chart("From the teacher", made, note)

    def _preferred(self) -> Chart | None:
        made = (
            self._plain("accuracy", "training", "muted", "thin") if self.stage.kind == "reward_model" else None,
            self._plain("validation_accuracy", "held-out", "accent", smoothed=False),
        )
        note = f"Share of examples on whose better side the reward model is (no interval kept); {self.seed}."
        return self._chart("Preferences told right", made, note, unit="share")

    def _reliability(self) -> Chart | None:
        rows = self.stage.reliability
        sure, right, low, high = ([100 * float(r[k]) for r in rows] for k in ("confidence", "right", "low", "high"))
        made = (
            Series("right", sure, right, low, high, "accent", "points") if rows else None,
            Series("as often as it says", [50, 100], [50, 100], colour="muted", style="dashed") if rows else None,
        )
        n = sum(int(row["n"]) for row in rows)
        note = f"Percent right at each confidence, 95% intervals; n = {n} held-out examples, {self.seed}."
        return self._chart("Is it right as often as it says?", made, note, x_label="confidence, percent", floor=None)

    def _open_tasks(self) -> list[str]:
        names = dict.fromkeys(name for row in self.stage.metrics for name in row if name.startswith("quality/"))
        return [name.removeprefix("quality/") for name in names]

    def _pleasing(self, task: str) -> Chart | None:
        made = (
            self._sampled(f"quality/{task}", "true quality, hidden from the reward", "accent"),
            self._plain(f"preference/{task}", "reward models' score", "ink", "dashed"),
        )
        note = "Where the score rises and the quality falls, the reward models are being hacked. Quality with 95% "
        return self._chart(f"Pleasing or good: {task}", made, note + f"intervals, score smoothed; {self._basis()}.")

    def _load(self) -> Chart | None:
        rows = [(row.get("step"), [number(row[k]) for k in row if k.startswith(LOADS)]) for row in self.stage.metrics]
        kept = [(float(step), max(v for v in loads if v)) for step, loads in rows if step is not None and any(loads)]
        steps, values = [step for step, _ in kept], smooth([value for _, value in kept])
        note = f"Tokens at the busiest expert of any layer, as a multiple of the mean expert's; 1 is even; {self.seed}."
        made = [Series("busiest expert", steps, values)] if steps else []
        return self._chart("Load of experts", made, note)

    def _by_task(self) -> list[Chart]:
        ends = ("_low", "_high")
        names = dict.fromkeys(
            name.removeprefix("heldout/")
            for row in self.stage.metrics
            for name in row
            if name.startswith("heldout/") and not name.endswith(ends)
        )
        tasks = [name for name in names if name != "all"]
        make: Callable[[str], Chart | None] = self._task_chart
        return [chart for task in tasks[:MAX_TASK_CHARTS] if len(tasks) > 1 and (chart := make(task)) is not None]

    def _task_chart(self, task: str) -> Chart | None:
        made = (self._plain(f"train/{task}", "training", "muted", "thin"), self._heldout(task, "held-out"))
        ends = self._ends(task, "pass@1")
        note = f"Held-out: {self.quick}, 95% intervals, {self.seed}."
        if ends is not None:
            note += f" Points: {self._ends_basis(task, 'pass@1')}."
        return self._chart(f"Accuracy: {task}", (*made, ends), note, unit="share")
