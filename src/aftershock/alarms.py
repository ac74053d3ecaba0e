"""Alarms: what goes wrong in reinforcement learning, noticed from the metrics and said in words a newcomer understands.

Every rule is a pure function of the rows of one stage so far, so a resumed run (or a report made a year later) that
reads the same `metrics.jsonl` hears the same alarms at the same steps.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

Row = Mapping[str, Any]

WINDOW = 5  # steps a level is the mean of, so that one odd step rings nothing
WARM_UP = 2 * WINDOW  # steps before "now" can be compared with "at the start"
LOOKBACK = 200  # steps among which "at its best" is sought, so that a long run stays cheap to watch
QUIET = 10  # steps a rule must hold its peace before the same trouble counts as a new episode
VITAL = ("loss", "grad_norm", "reward", "entropy", "kl", "mismatch")  # null in metrics.jsonl means not finite
HACKED_ERRORS = 4.5  # standard errors that make a change of them real: at its best, the truth was lucky too
HACKED = 10  # steps a reward model's score and the truth are means of: both are noisy
MIN_START = 0.02  # a level this low at the start (nats, shares) can't be said to collapse


@dataclass(frozen=True)
class Alarm:
    """One alarm: where it rang, which rule, what was seen (`text`, with the numbers) and what to try (`remedy`)."""

    stage: str
    step: int
    name: str
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text} {self.remedy}"


class Alarms:
    """Hears the rows of `metrics.jsonl` in order and says which alarms begin at each.

    A rule rings once an episode: when it comes true, and again only after `QUIET` steps in a row in which it was not.
    """

    def __init__(self) -> None:
        self._stage: str | None = None
        self._rows: list[Row] = []
        self._last_true: dict[str, int] = {}

    def see(self, row: Row) -> list[Alarm]:
        """Take the next step's row (`stage`, `step` and floats) and return the alarms that begin at it."""
        if row.get("stage") != self._stage:
            self._stage, self._rows, self._last_true = row.get("stage"), [], {}
        self._rows.append(row)
        return [alarm for rule in RULES if (alarm := self._ring(rule)) is not None]

    def _ring(self, rule: "Rule") -> Alarm | None:
        text = rule.check(self._rows)
        if text is None:
            return None
        now = len(self._rows)
        begins = now - self._last_true.get(rule.name, -QUIET) > QUIET
        self._last_true[rule.name] = now
        row = self._rows[-1]
        return Alarm(str(self._stage), int(row.get("step", now)), rule.name, text, rule.remedy) if begins else None


def alarms_in(rows: Iterable[Row]) -> list[Alarm]:
    """Return every alarm that a whole history rings, in order."""
    alarms = Alarms()
    return [alarm for row in rows for alarm in alarms.see(row)]


def heldout_metric(names: Iterable[str]) -> str | None:
    """Return the metric of held-out accuracy over all tasks: `heldout/all`, or the only task's; None without either."""
    ends = ("_low", "_high")
    found = sorted({name for name in names if name.startswith("heldout/") and not name.endswith(ends)})
    return "heldout/all" if "heldout/all" in found else found[0] if len(found) == 1 else None


def _values(rows: Sequence[Row], name: str) -> list[float]:
    """Return the finite values of one metric, skipping the steps that lack it."""
    found = (row.get(name) for row in rows)
    return [float(value) for value in found if isinstance(value, int | float) and math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _now(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of the last `WINDOW` values, or None where there are fewer."""
    values = _values(rows[-WINDOW:], name)
    return _mean(values) if len(values) == WINDOW else None


def _start_and_now(rows: Sequence[Row], name: str) -> tuple[float, float] | None:
    """Return the mean of the first and of the last `WINDOW` values, or None before the end of the warm-up."""
    if len(rows) < WARM_UP:
        return None
    first, now = _values(rows[:WINDOW], name), _now(rows, name)
    return (_mean(first), now) if first and now is not None else None


def _entropy_collapse(rows: Sequence[Row]) -> str | None:
    levels = _start_and_now(rows, "entropy") if "reward" in rows[-1] else None  # in pretraining it is meant to fall
    if levels is None or levels[0] < MIN_START or levels[1] > 0.1 * levels[0]:
        return None
    if (_now(rows, "reward/accuracy") or 0.0) >= 0.9:  # nearly all solved: certainty is what was wanted
        return None
    return (
        f"Entropy collapsed: {levels[0]:.3f} nats a token at the start, {levels[1]:.3f} now. "
        "The model hardly varies its answers any more, so it can't find better ones."
    )


def _length_collapse(rows: Sequence[Row]) -> str | None:
    levels = _start_and_now(rows, "mean_tokens")
    if levels is None or levels[1] > 0.6 * levels[0]:
        return None
    return (
        f"Completions collapsed in length: {levels[0]:.0f} tokens at the start, {levels[1]:.0f} now. "
        "The model is giving up its reasoning."
    )


def _length_runaway(rows: Sequence[Row]) -> str | None:
    before, now = _now(rows[:-WARM_UP], "mean_tokens"), _now(rows, "mean_tokens")
    if before is None or now is None or now < 1.75 * before:
        return None
    gain = (_now(rows, "reward/accuracy") or 0.0) - (_now(rows[:-WARM_UP], "reward/accuracy") or 0.0)
    if gain > 0.02:
        return None
    return (
        f"Completions run away in length: {before:.0f} tokens {WARM_UP} steps ago, {now:.0f} now, "
        f"and accuracy did not rise ({100 * gain:+.1f} points). The model rambles."
    )


def _truncation(rows: Sequence[Row]) -> str | None:
    levels = _start_and_now(rows, "truncated")
    if levels is None or levels[1] < max(0.2, levels[0] + 0.1):
        return None
    return (
        f"{levels[1]:.0%} of completions are cut off at the length limit ({levels[0]:.0%} at the start). "
        "A completion cut off has no answer, so it can't be rewarded."
    )


def _no_signal(rows: Sequence[Row]) -> str | None:
    share, spread = _now(rows, "no_signal"), _now(rows, "reward_std")
    flat = spread is not None and spread < 1e-3
    if not flat and (share is None or share < 0.9):
        return None
    accuracy = _now(rows, "reward/accuracy")
    ends = ((0.0, 0.1, " (nearly all wrong)"), (0.9, 1.0, " (nearly all right)"))
    side = next((words for low, high, words in ends if accuracy is not None and low <= accuracy <= high), "")
    return (
        f"Rewards no longer differ within a group{side}: "
        + (f"{share:.0%} of groups carry no signal. " if share is not None else f"their spread is {spread:.4f}. ")
        + "With nothing to prefer, the model learns nothing."
    )


def _kl(rows: Sequence[Row]) -> str | None:
    now = _now(rows, "kl")
    if now is None or now < 1.0:
        return None
    return (
        f"The policy is far from its reference: KL {now:.2f} nats a token (above 1). It may be forgetting what it knew."
    )


def _mismatch(rows: Sequence[Row]) -> str | None:
    now = _now(rows, "mismatch")
    if now is None or now < 0.05:
        return None
    return (
        f"Sampler and learner disagree: log-probabilities differ by {now:.3f} nats a token on average (above 0.05), "
        "so the model is corrected for things it did not say."
    )


def _unverifiable(rows: Sequence[Row]) -> str | None:
    now = _now(rows, "unverifiable")
    if now is None or now < 0.02:
        return None
    return f"{now:.1%} of answers can't be judged (verifier crashed or timed out); they are kept out of the training."


def _best_and_now(rows: Sequence[Row], name: str, best: Callable[..., float]) -> tuple[float, float] | None:
    """Return the `best` (max or min) mean of `WINDOW` values in a row, and the latest such mean."""
    values = _values(rows[-LOOKBACK:], name)
    if len(values) < WARM_UP:
        return None
    means = [_mean(values[i : i + WINDOW]) for i in range(len(values) - WINDOW + 1)]
    return best(means), means[-1]


def _accuracy_collapse(rows: Sequence[Row]) -> str | None:
    levels = _best_and_now(rows, "reward/accuracy", max)
    if levels is None or levels[0] < MIN_START or levels[1] > 0.6 * levels[0]:
        return None
    return f"Accuracy in training fell from {levels[0]:.0%} at its best to {levels[1]:.0%}: what worked was unlearnt."


def _heldout_falls(rows: Sequence[Row]) -> str | None:
    first = max(0, len(rows) - LOOKBACK)
    name = heldout_metric(key for row in rows[first:] for key in row)
    points = [i for i in range(first, len(rows)) if name and _values([rows[i]], name)]
    if name is None or len(points) < 2:
        return None
    at = max(points, key=lambda i: (float(rows[i][name]), i))
    best, last = rows[at], rows[points[-1]]
    bounds = _values([last], f"{name}_high") + _values([best], f"{name}_low")
    if len(bounds) < 2 or bounds[0] >= bounds[1]:  # within chance
        return None
    then, now = _now(rows[: at + 1], "reward"), _now(rows, "reward")
    if then is None or now is None or now <= then:
        return None
    return (
        f"Reward rises ({then:.2f} to {now:.2f}) while held-out accuracy falls: {best[name]:.0%} "
        f"at step {best.get('step')} to {last[name]:.0%} (their 95% intervals don't meet). "
        "The model may be gaming the reward or learning its problems by heart."
    )


def _hacking(rows: Sequence[Row]) -> str | None:
    """A reward model's score now well above what it was when the truth was at its best, and the truth well below."""
    for name in (key.removeprefix("quality/") for key in rows[-1] if key.startswith("quality/")):
        told = [row for row in rows[-LOOKBACK:] if _values([row], f"quality/{name}")]
        scores, truth = (_values(told, f"{kind}/{name}") for kind in ("preference", "quality"))
        if len(truth) < 2 * HACKED or len(scores) < len(truth):
            continue
        ends = range(HACKED, len(truth) - HACKED + 1)
        best = max(ends, key=lambda end: _mean(truth[end - HACKED : end]))
        falls = _change(truth[best - HACKED : best], truth[-HACKED:])
        rises = _change(scores[best - HACKED : best], scores[-HACKED:])
        if falls[0] < -max(0.02, HACKED_ERRORS * falls[1]) and rises[0] > HACKED_ERRORS * rises[1]:
            return (
                f"Reward hacking: the reward models' score of {name!r} rises by {rises[0]:.2f} since step "
                f"{told[best - 1].get('step')}, to {_mean(scores[-HACKED:]):.2f}, while the true quality falls by "
                f"{-falls[0]:.2f}, to {_mean(truth[-HACKED:]):.2f}. The model learns to please them, not to be good."
            )
    return None


def _change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return how far the mean moved, and the standard error of that."""
    error = math.sqrt(sum(stdev(part) ** 2 / len(part) for part in (before, after)))
    return _mean(after) - _mean(before), error


def _not_a_number(rows: Sequence[Row]) -> str | None:
    bad = [name for name in VITAL if name in rows[-1] and not _values(rows[-1:], name)]
    return f"Not a finite number: {', '.join(bad)}. From here on the weights can't be trusted." if bad else None


def _loss_diverges(rows: Sequence[Row]) -> str | None:
    levels = None if "reward" in rows[-1] else _best_and_now(rows, "loss", min)  # in RL a loss has no level to hold
    if levels is None or levels[1] < levels[0] + 0.25:
        return None
    return f"The loss rises: {levels[0]:.3f} nats a token at its best, {levels[1]:.3f} now."


@dataclass(frozen=True)
class Rule:
    """A named check of the rows so far (text of what is wrong, or None) and what to try when it rings."""

    name: str
    check: Callable[[Sequence[Row]], str | None]
    remedy: str


RULES = (
    Rule("not_a_number", _not_a_number, "Stop; resume from an earlier checkpoint with a lower optim.lr."),
    Rule(
        "entropy_collapse",
        _entropy_collapse,
        "Try a higher loss.clip_high, a lower optim.lr, or temperature 1 if it is lower.",
    ),
    Rule(
        "length_collapse",
        _length_collapse,
        "Look at a few rollouts; if it answers at once, start from a base in which answering at once is rarely right.",
    ),
    Rule(
        "length_runaway",
        _length_runaway,
        'Try loss.kind = "dr_grpo" or "dapo", which do not favour long wrong answers, and reward.overlong_buffer.',
    ),
    Rule(
        "truncation", _truncation, "Raise max_tokens, or set reward.overlong_buffer so that long ones are discouraged."
    ),
    Rule(
        "no_signal",
        _no_signal,
        "Change the tasks' difficulty, raise samples_per_problem, or set dynamic_sampling above 1.",
    ),
    Rule("kl_large", _kl, "Lower optim.lr, raise loss.kl, or refresh the reference (loss.reference_every)."),
    Rule("mismatch", _mismatch, 'Keep loss.importance_cap on; try optim.precision = "float32".'),
    Rule(
        "unverifiable",
        _unverifiable,
        "Read the verdicts in the rollouts; mend the task's check or raise reward.timeout_seconds.",
    ),
    Rule("accuracy_collapse", _accuracy_collapse, "Resume from an earlier checkpoint with a lower optim.lr."),
    Rule("heldout_falls", _heldout_falls, "Read rollouts with high reward; draw more varied problems or stop earlier."),
    Rule(
        "reward_hacking",
        _hacking,
        "Stop here, or earlier; let preferences come in later (from_step), weigh less, or raise loss.kl; train the "
        "reward model on what this policy writes.",
    ),
    Rule("loss_diverges", _loss_diverges, "Lower optim.lr or lengthen optim.warmup."),
)
