"""The scores a report may print: only those that come with their n, their interval and their seed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aftershock.report.files import Row, StageFiles
from aftershock.stats import Measurement
from aftershock.table import bench_columns

NEEDED = ("value", "low", "high", "n", "seed")
LABELS = {
    "pass@1": "right answers, pass@1",
    "pass@k": "right in one of {k}, pass@{k}",
    "majority@k": "right by vote, majority@{k}",
    "mean_tokens": "mean length, tokens",
    "check_or_retry_rate": "checks or retries",
    "switch_rate": "changes language",
    "language_consistency": "words of the reasoning in the question's language",
    "readable_rate": "easy to read: one language, a summary, nothing that runs on",
    "quality": "true quality, hidden from the reward",
    "accuracy": "preferences told right",
    "calibration_error": "expected calibration error",
    "brier": "squared error of its chances (Brier)",
}
POOLED = "all"


class Score(Measurement):
    """A measurement as a report words it."""

    @property
    def is_share(self) -> bool:
        """Whether the value is a share in [0, 1], shown in percent; else it counts tokens."""
        return self.metric != "mean_tokens"

    def _number(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.is_share else f"{value:.1f}"

    @property
    def text(self) -> str:
        """The value with its unit."""
        return self._number(self.value) + ("%" if self.is_share else "")

    @property
    def interval(self) -> str:
        """The bounds, in the value's unit."""
        return f"[{self._number(self.low)}, {self._number(self.high)}]"

    @property
    def basis(self) -> str:
        """What stands behind it."""
        return f"n = {self.n} problems × {self.k}, seed {self.seed}"


@dataclass(frozen=True)
class Line:
    """A metric of a suite, before and after a stage; either may be missing."""

    suite: str
    label: str
    before: Score | None
    after: Score | None

    @property
    def basis(self) -> str:
        """What stands behind both, said once where it is the same."""
        return "; ".join(dict.fromkeys(score.basis for score in (self.before, self.after) if score))


def scores_of(stage: StageFiles) -> tuple[list[Score], int]:
    """Return a stage's scores, and how many were left out because their n, interval or seed is missing."""
    rows = stage.record.get("evals") or []
    told = [score for row in rows if isinstance(row, dict) and (score := _score(row)) is not None]
    return told, len(rows) - len(told)


def _score(row: Row) -> Score | None:
    if any(not isinstance(row.get(name), int | float) for name in NEEDED):
        return None
    suite, metric, when = (str(row.get(name, "")) for name in ("suite", "metric", "when"))
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    return Score(suite, metric, when, value, low, high, int(row["n"]), int(row.get("k") or 1), int(row["seed"]))


def pooled_suite(scores: Iterable[Score]) -> str | None:
    """Return the suite that speaks for the stage: all tasks pooled, or the only one."""
    suites = list(dict.fromkeys(score.suite for score in scores))
    return POOLED if POOLED in suites else suites[0] if suites else None


def lines(scores: Sequence[Score]) -> list[Line]:
    """Return the scores as (suite, metric) lines: pooled first, then the tasks in their order; metrics as in LABELS."""
    suites = list(dict.fromkeys(score.suite for score in scores))
    suites.sort(key=lambda suite: suite != POOLED)
    metrics = list(dict.fromkeys([*LABELS, *(score.metric for score in scores)]))
    found = []
    for suite in suites:
        for metric in metrics:
            line = line_of(scores, suite, metric)
            found += [line] if line is not None else []
    return found


def line_of(scores: Sequence[Score], suite: str | None, metric: str) -> Line | None:
    """Return one metric of one suite, or None where it was not measured."""
    here = {score.when: score for score in scores if score.suite == suite and score.metric == metric}
    before, after = here.get("before"), here.get("after")
    some = after or before
    if some is None:
        return None
    return Line(some.suite, LABELS.get(metric, metric).format(k=some.k), before, after)


@dataclass(frozen=True)
class Models:
    """Models side by side: what each column shows, and each model's scores, None where it has none."""

    heads: list[str]
    rows: dict[str, list[Score | None]]
    basis: str


def side_by_side(scores: Sequence[Score]) -> Models:
    """Return a bench stage's scores as its table in the terminal has them."""
    chosen = bench_columns((score.suite, score.metric) for score in scores)
    found = {(score.when, score.suite, score.metric): score for score in scores}
    rows = {score.when: [found.get((score.when, *column[1:])) for column in chosen] for score in scores}
    heads = [f"{head}, true quality" if metric == "quality" else head for head, _, metric in chosen]
    return Models(
        heads, rows, "; ".join(dict.fromkeys(f"k = {s.k} completions a problem, seed {s.seed}" for s in scores))
    )


def number(value: Any) -> float | None:
    """Return a JSON number as float, anything else (also true and null) as None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
