"""Where a run's numbers go while it runs: a live panel in the terminal, plain lines, TensorBoard, wandb or trackio."""

import contextlib
import importlib
import itertools
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aftershock.alarms import heldout_metric
from aftershock.errors import AftershockError

Metrics = Mapping[str, float]
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 10
PACE_STEPS = 10  # the last steps whose mean pace gives the time left


class Reporter:
    """What the pipeline tells while it works; this one takes everything and says nothing, and others override what
    concerns them. Steps count from 1; `metrics` are a row of `metrics.jsonl`, `timings` of `timings.jsonl` (`seconds`,
    `tokens_per_second`, `usd`, `kwh`: each of this step alone).
    """

    def start(self, stage_name: str, kind: str, total_steps: int, facts: Mapping[str, object]) -> None:
        """A stage begins (or goes on, after a resume); `facts` (model, seed, n) are shown as they are."""

    def step(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """A step is done."""

    def note(self, text: str) -> None:
        """Something worth a line that stays."""

    def progress(self, text: str, done: int, total: int) -> None:
        """How far an evaluation or the sampling inside a step has come."""

    def alarm(self, text: str) -> None:
        """Something looks wrong."""

    def finish(self, stage_name: str, summary: Mapping[str, Any]) -> None:
        """A stage is done; `summary` is its entry in `summary.json`."""

    def close(self) -> None:
        """Nothing more will come, whether the run ended well or not."""


class Reporters(Reporter):
    """Several reporters as one. `close` closes every one, even where another's fails, then raises the first failure."""

    def __init__(self, reporters: Iterable[Reporter]) -> None:
        self.reporters = tuple(reporters)
        for name in ("start", "step", "note", "progress", "alarm", "finish"):
            setattr(self, name, partial(self._pass_on, name))

    def _pass_on(self, name: str, *told: Any) -> None:
        for reporter in self.reporters:
            getattr(reporter, name)(*told)

    def close(self) -> None:
        """Pass on, in reverse order."""
        with contextlib.ExitStack() as stack:
            for reporter in self.reporters:
                stack.callback(reporter.close)


# --- what is shown, and how -------------------------------------------------------------------------------------------


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"


def _short(value: float) -> str:
    return f"{value:.1e}" if value and abs(value) < 1e-3 else f"{value:.3f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True)
class _Field:
    label: str  # in the live panel
    brief: str  # in a plain line
    name: str  # the metric
    show: Callable[[float], str]


FIELDS = (
    _Field("reward", "reward", "reward", _short),
    _Field("  accuracy", "acc", "reward/accuracy", _share),
    _Field("  format", "fmt", "reward/format", _share),
    _Field("loss", "loss", "loss", _short),
    _Field("held-out loss", "held-out-loss", "validation_loss", _short),
    _Field("held-out pass@1", "held-out", "heldout/all", _share),
    _Field("length, tokens", "len", "mean_tokens", _count),
    _Field("  cut off", "cut", "truncated", _share),
    _Field("check or retry", "retry", "check_or_retry_rate", _share),
    _Field("entropy", "ent", "entropy", _short),
    _Field("KL", "kl", "kl", _short),
    _Field("clipped", "clip", "clip_fraction", _share),
    _Field("no signal", "nosig", "no_signal", _share),
    _Field("sampler gap", "gap", "mismatch", _short),
    _Field("gradient norm", "grad", "grad_norm", _short),
    _Field("learning rate", "lr", "lr", _short),
    _Field("busiest expert", "load", "load_max", _short),
)


def with_summaries(metrics: Metrics) -> dict[str, float]:
    """Add what stands for many: `heldout/all` where there is one task only, `load_max` over the layers of experts."""
    shown = dict(metrics)
    name = heldout_metric(metrics)
    if name is not None:
        shown |= {f"heldout/all{end}": metrics[name + end] for end in ("", "_low", "_high") if name + end in metrics}
    loads = [value for key, value in metrics.items() if key.startswith("load_max_over_mean/")]
    return shown | ({"load_max": max(loads)} if loads else {})


def _interval(metrics: Metrics, name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"


def clock(seconds: float) -> str:
    """Return a duration as `48s`, `5:07` or `2:05:07`.

    >>> clock(47.6), clock(307), clock(7507)
    ('48s', '5:07', '2:05:07')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest}s"


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """Return `values` as at most `width` bars, each the mean of an equal stretch, between their least and greatest.

    >>> sparkline([0, 1, 2, 3])
    '▁▃▆█'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    bars = min(width, len(finite))
    cuts = [len(finite) * i // bars for i in range(bars + 1)]
    means = [math.fsum(finite[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, spread = min(means), max(means) - min(means)
    return "".join(SPARKS[round((len(SPARKS) - 1) * (m - low) / spread)] if spread else SPARKS[3] for m in means)


class _Meter:
    """What both terminal reporters add up: the stage, its pace, the cost so far and the series seen."""

    def __init__(self, spent_usd: float = 0.0) -> None:
        self.usd = spent_usd
        self.begin("", "", 0, {})

    def begin(self, stage: str, kind: str, total: int, facts: Mapping[str, object]) -> None:
        """Forget the stage before, and take the next one's name, kind, steps and facts."""
        self.stage, self.kind, self.total, self.facts = stage, kind, total, dict(facts)
        self.at = 0
        self.latest: dict[str, float] = {}
        self.series: dict[str, list[float]] = defaultdict(list)
        self.paces: list[float] = []
        self.tokens_per_second: float | None = None

    def add(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """Take in a step's metrics and its pace."""
        self.at = step
        metrics = with_summaries(metrics)
        for name, value in metrics.items():
            if isinstance(value, int | float) and name != "step":
                self.series[name].append(value)
                self.latest[name] = value
        if "seconds" in timings:
            self.paces = [*self.paces, timings["seconds"]][-PACE_STEPS:]
        self.tokens_per_second = timings.get("tokens_per_second", self.tokens_per_second)
        self.usd += timings.get("usd", 0.0)

    @property
    def left(self) -> float | None:
        """Seconds left in the stage at the pace of the last steps; None before the first."""
        return math.fsum(self.paces) / len(self.paces) * (self.total - self.at) if self.paces else None


def _ending(stage_name: str, summary: Mapping[str, Any]) -> str:
    """Return one line on a finished stage: each pooled score before and after, with interval, n and seed."""
    told = [score for score in summary.get("evals", ()) if _told(score) and score.get("when") in ("before", "after")]
    suite = "all" if any(score.get("suite") == "all" for score in told) else told[0].get("suite") if told else None
    scores = [score for score in told if score.get("suite") == suite]
    parts = [f"stage {stage_name} done"]
    if isinstance(summary.get("seconds"), int | float):
        parts.append(f"in {clock(summary['seconds'])}")
    for metric in ("pass@1", "mean_tokens", "check_or_retry_rate"):
        chain = [_score(score) for score in scores if score.get("metric") == metric]
        if chain:
            parts.append(f"· {metric.replace('_', ' ')} {' -> '.join(chain)}")
    basis = sorted({f"n={score['n']}, seed {score['seed']}" for score in scores})
    return " ".join([*parts, *(f"({text})" for text in basis)])


def _told(score: Mapping[str, Any]) -> bool:
    return all(score.get(name) is not None for name in ("value", "low", "high", "n", "seed"))


def _score(score: Mapping[str, Any]) -> str:
    scale, digits, unit = (1, 1, "") if score["metric"] == "mean_tokens" else (100, 1, "%")
    value, low, high = (scale * score[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


# --- terminal ---------------------------------------------------------------------------------------------------------


class PlainReporter(Reporter):
    """One line a step on a stream that isn't a terminal (stderr unless told)."""

    def __init__(self, stream: TextIO | None = None, spent_usd: float = 0.0) -> None:
        self._stream = stream
        self._meter = _Meter(spent_usd)
        self._tenth: tuple[str, int] = ("", 0)

    def _print(self, text: str) -> None:
        print(text, file=self._stream or sys.stderr, flush=True)

    def start(self, stage_name: str, kind: str, total_steps: int, facts: Mapping[str, object]) -> None:
        """Print the stage and its facts."""
        self._meter.begin(stage_name, kind, total_steps, facts)
        self._print(" · ".join([f"{stage_name}: {kind}, {total_steps} steps", *_facts(facts)]))

    def step(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """Print the step's line."""
        meter = self._meter
        meter.add(step, metrics, timings)
        parts = [f"{meter.stage} {step}/{meter.total}"]
        metrics = with_summaries(metrics)
        for field in FIELDS:
            if field.name in metrics:
                parts.append(f"{field.brief} {field.show(metrics[field.name])}{_interval(metrics, field.name)}")
        if meter.tokens_per_second is not None:
            parts.append(f"{_count(meter.tokens_per_second)} tok/s")
        parts.append(f"${meter.usd:.4f}")
        if meter.left is not None:
            parts.append(f"left {clock(meter.left)}")
        self._print("  ".join(parts))

    def note(self, text: str) -> None:
        """Print the text."""
        self._print(text)

    def progress(self, text: str, done: int, total: int) -> None:
        """Print at each tenth of the way only, so that a log stays short."""
        tenth = (text, 10 * done // max(total, 1))
        if tenth != self._tenth and total >= 10:
            self._tenth = tenth
            self._print(f"{text}: {done}/{total}")

    def alarm(self, text: str) -> None:
        """Print the alarm, marked."""
        self._print(f"ALARM: {text}")

    def finish(self, stage_name: str, summary: Mapping[str, Any]) -> None:
        """Print the stage's scores before and after."""
        self._print(_ending(stage_name, summary))


def _facts(facts: Mapping[str, object]) -> list[str]:
    return [f"{name} {value}" for name, value in facts.items() if value is not None]


class LiveReporter(Reporter):
    """A panel on stderr that renews itself; notes, alarms and finished stages scroll above it. Fits 80 columns."""

    def __init__(self, console: Console | None = None, spent_usd: float = 0.0) -> None:
        self._console = console or Console(stderr=True)
        self._meter = _Meter(spent_usd)
        self._began = time.monotonic()
        self._work: tuple[str, int, int] | None = None
        self._alarms: list[str] = []
        self._live: Live | None = None

    def start(self, stage_name: str, kind: str, total_steps: int, facts: Mapping[str, object]) -> None:
        """Open the panel for a stage."""
        self._meter.begin(stage_name, kind, total_steps, facts)
        self._began, self._work, self._alarms = time.monotonic(), None, []
        if self._live is None:
            self._live = Live(get_renderable=self.panel, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def step(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """Renew the panel."""
        self._meter.add(step, metrics, timings)
        self._work = None

    def note(self, text: str) -> None:
        """Print the text above the panel."""
        self._console.print(Text(text))

    def progress(self, text: str, done: int, total: int) -> None:
        """Show the work inside the step at the foot of the panel."""
        self._work = (text, done, total)

    def alarm(self, text: str) -> None:
        """Print the alarm above the panel, and keep the last two in it."""
        self._alarms = [*self._alarms, text][-2:]
        self._console.print(Text(f"ALARM: {text}", style="bold yellow"))

    def finish(self, stage_name: str, summary: Mapping[str, Any]) -> None:
        """Close the panel and print the stage's scores."""
        self._stop()
        self._console.print(Text(_ending(stage_name, summary), style="bold"))

    def close(self) -> None:
        """Give the terminal back, whatever happened."""
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def panel(self) -> RenderableType:
        """Return what is on the screen now."""
        parts: list[RenderableType] = [self._bar(), self._grid()]
        if self._work is not None:
            text, done, total = self._work
            parts.append(
                Text(f"{text}: {_count(done)} of {_count(total)}", style="dim", overflow="ellipsis", no_wrap=True)
            )
        parts += [Text(f"! {text}", style="yellow") for text in self._alarms]
        title = Text(f" aftershock · {self._meter.stage} ({self._meter.kind}) ", style="bold")
        foot = Text(" · ".join(_facts(self._meter.facts)), style="dim") if self._meter.facts else None
        return Panel(
            Group(*parts), title=title, subtitle=foot, title_align="left", subtitle_align="left", border_style="dim"
        )

    def _bar(self) -> RenderableType:
        meter = self._meter
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        left = "" if meter.left is None else f"  left {clock(meter.left)}"
        words = f"step {meter.at}/{meter.total}  {clock(time.monotonic() - self._began)}{left}  ${meter.usd:.4f}"
        line.add_row(ProgressBar(total=max(meter.total, 1), completed=meter.at, complete_style="cyan"), words)
        return line

    def _grid(self) -> RenderableType:
        """Return the metrics in two columns of (label, value, sparkline), filled downwards."""
        cells = [self._cell(field) for field in FIELDS if field.name in self._meter.latest]
        if self._meter.tokens_per_second is not None:
            cells.append(("tokens/s", _count(self._meter.tokens_per_second), ""))
        half = (len(cells) + 1) // 2
        grid = Table.grid(padding=(0, 1), expand=True)
        for _ in range(2):
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(justify="right", no_wrap=True)
            grid.add_column(style="cyan", no_wrap=True, ratio=1, overflow="crop")
        for i in range(half):
            right = cells[half + i] if half + i < len(cells) else ("", "", "")
            grid.add_row(*cells[i], *right)
        return grid

    def _cell(self, field: _Field) -> tuple[str, str, str]:
        latest = self._meter.latest
        value = field.show(latest[field.name]) + _interval(latest, field.name)
        return field.label, value, sparkline(self._meter.series[field.name])


# --- trackers ---------------------------------------------------------------------------------------------------------


class _Sink(Protocol):
    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class _TensorBoard:
    """Events under `folder/tensorboard`; a resumed stage hides the steps it does again (`purge_step` is per writer, so
    each stage has its own)."""

    def __init__(self, folder: Path, module: Any) -> None:
        self._folder, self._module = folder, module
        self._writer: Any = None
        self._stage: str | None = None

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Write a step's values, each stage in a folder of its own; a step written before a resume is replaced."""
        if stage != self._stage:
            self.close()
            self._writer = self._module.SummaryWriter(str(self._folder / "tensorboard" / stage), purge_step=step)
            self._stage = stage
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _Hosted:
    """wandb, or trackio, which took over its calls. Each stage has its own step axis, as steps begin anew in each."""

    def __init__(self, folder: Path, module: Any) -> None:
        self._module = module
        self._stages: set[str] = set()
        self._run = module.init(project="aftershock", name=folder.resolve().name, config={"folder": folder.name})

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if stage not in self._stages and hasattr(self._module, "define_metric"):
            self._module.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._stages.add(stage)
        self._module.log({f"{stage}/{name}": value for name, value in {**values, "step": step}.items()})

    def close(self) -> None:
        self._module.finish()


TRACKERS: Mapping[str, tuple[str, str, Callable[[Path, Any], _Sink]]] = {  # name: (module, extra, sink)
    "tensorboard": ("torch.utils.tensorboard", "track", _TensorBoard),
    "wandb": ("wandb", "wandb", _Hosted),
    "trackio": ("trackio", "trackio", _Hosted),
}


class TrackReporter(Reporter):
    """Sends every step's metrics and timings to a tracker; the library is imported here and nowhere else.

    Raises AftershockError for an unknown name or a missing library, naming the extra to install.
    """

    def __init__(self, name: str, folder: Path) -> None:
        if name not in TRACKERS:
            raise AftershockError(f"--track {name!r} is unknown: wanted one of {', '.join(sorted(TRACKERS))}")
        module, extra, sink = TRACKERS[name]
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            raise AftershockError(
                f'--track {name} needs a library that is missing ({error}): pip install "aftershock[{extra}]"'
            ) from error
        self._sink = sink(folder, library)
        self._stage = ""

    def start(self, stage_name: str, kind: str, total_steps: int, facts: Mapping[str, object]) -> None:
        """Remember whose steps follow."""
        self._stage = stage_name

    def step(self, step: int, metrics: Metrics, timings: Metrics) -> None:
        """Send the step's numbers; timings go under `time/`."""
        values = {**metrics, **{f"time/{name}": value for name, value in timings.items()}}
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        self._sink.log(self._stage, step, {name: value for name, value in numbers.items() if "step" not in name})

    def close(self) -> None:
        """Flush and end."""
        self._sink.close()


def _spent(folder: Path) -> float:
    """Return the dollars that `timings.jsonl` already holds, so that a resumed run shows what the whole run cost."""
    total = 0.0
    with contextlib.suppress(OSError):
        for line in (folder / "timings.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError, AttributeError, TypeError):
                total += json.loads(line).get("usd", 0.0)
    return total


def make_reporter(track: str | None, folder: Path, terminal: bool) -> Reporters:
    """Return the reporters of a run: the live panel where `terminal` (stderr is one and `--json` isn't set), else plain
    lines; and the tracker named, if any. A terminal that can't write bars and boxes gets plain lines."""
    wide = (getattr(sys.stderr, "encoding", "") or "").lower().replace("-", "") == "utf8"
    spent = _spent(folder)
    shown: Reporter = LiveReporter(spent_usd=spent) if terminal and wide else PlainReporter(spent_usd=spent)
    return Reporters([shown, TrackReporter(track, folder)] if track else [shown])
