"""From judged rows to numbers: accuracy, votes and lengths, and beside them what is missing and what that may hide.

Names are those of `pipeline.evaluate` where they mean the same: `majority@k` is R1's cons@k.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from aftershock.bench.types import Row
from aftershock.stats import Interval, Measurement, majority, mean_interval, pass_at_k

MAX_MISSING = 0.05  # a score of which more than this share is missing is not to be compared
LABELS = {
    "pass@1": "right answers, pass@1",
    "pass@k": "right in one of {k}, pass@{k}",
    "majority@k": "right by vote, majority@{k}",
    "truncated": "cut off by the limit",
    "no_answer": "ended without an answer",
    "mean_tokens": "mean length, tokens",
    "mean_tokens_right": "mean length of right ones",
    "mean_tokens_wrong": "mean length of wrong ones",
    "failed": "requests that failed",
    "unverifiable": "could not be judged",
    "pass@1_missing_wrong": "pass@1 were all missing ones wrong",
    "pass@1_missing_right": "pass@1 were all missing ones right",
}
Groups = list[list[float]]


def measure(suite: str, rows: Sequence[Row], k: int, seed: int) -> list[Measurement]:
    """Return every number of one suite, with 95% intervals clustered by question; rows of other suites are left out.

    pass@1 is the mean over all samples that count: a failed request or an answer that couldn't be judged says nothing
    of the model. Their shares of all samples are `failed` and `unverifiable`; where there are any, two more numbers say
    what pass@1 would be with all of them wrong, and all right. pass@k (unbiased) and majority@k are over the questions
    of which k samples count. Votes are for `extracted` as the verifier wrote it, so answers are one where it writes
    them alike; a suite whose verdicts extract nothing has no vote. `truncated` and `no_answer` are shares of what came
    back, the second only of answers that weren't cut off. No rows give no numbers.
    """
    rows = [row for row in rows if row.suite == suite]
    counted = [row for row in rows if row.counted]
    back = [row for row in rows if row.answer.finish != "failed"]
    values: dict[str, Groups] = {
        "pass@1": _by_question(counted, _right),
        **(_of_k(counted, k) if k > 1 else {}),
        "truncated": _by_question(back, _truncated),
        "no_answer": _by_question(back, lambda row: float(row.extracted is None and not _truncated(row))),
        "mean_tokens": _by_question(back, _tokens),
        "mean_tokens_right": _by_question((row for row in counted if row.right), _tokens),
        "mean_tokens_wrong": _by_question((row for row in counted if not row.right), _tokens),
        "failed": _by_question(rows, lambda row: float(row.answer.finish == "failed")),
        "unverifiable": _by_question(rows, lambda row: float(row.answer.finish != "failed" and not row.counted)),
    }
    if len(counted) < len(rows):
        values["pass@1_missing_wrong"] = _by_question(rows, _right)
        values["pass@1_missing_right"] = _by_question(rows, lambda row: float(row.right or not row.counted))
    return [_measurement(suite, metric, groups, k, seed) for metric, groups in values.items() if groups]


def _measurement(suite: str, metric: str, groups: Groups, k: int, seed: int) -> Measurement:
    found = mean_interval(groups)
    low = max(0.0, found.low)  # neither a share nor a length is negative
    return Measurement(suite, metric, "bench", found.value, low, found.high, found.problems, k, seed)


def _right(row: Row) -> float:
    return float(row.right)


def _truncated(row: Row) -> float:
    return float(row.answer.finish == "length")


def _tokens(row: Row) -> float:
    return float(row.answer.tokens)


def questions_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each question, in the order of the samples."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.question].append(row)
    return {question: sorted(part, key=lambda row: row.sample) for question, part in found.items()}


def _by_question(rows: Iterable[Row], value: Callable[[Row], float]) -> Groups:
    return [[value(row) for row in part] for part in questions_of(rows).values()]


def _of_k(counted: Sequence[Row], k: int) -> dict[str, Groups]:
    full = [part for part in questions_of(counted).values() if len(part) >= k]
    found = {"pass@k": [[pass_at_k(len(part), sum(row.right for row in part), k)] for part in full]}
    if any(row.extracted is not None for row in counted):
        found["majority@k"] = [[vote(part[:k])] for part in full]
    return found


def accuracy(rows: Iterable[Row]) -> Interval:
    """Return the share of right ones among counted rows, its interval clustered by question."""
    return mean_interval(_by_question(rows, _right))


def vote(rows: Sequence[Row]) -> float:
    """Return the accuracy of a majority vote among the samples of one question; ties are shared."""
    return majority([row.extracted for row in rows], [row.right for row in rows])


def label(measured: Measurement) -> str:
    """Return a metric's name for readers."""
    return LABELS.get(measured.metric, measured.metric).format(k=measured.k)


def is_share(metric: str) -> bool:
    """Whether a metric is a share, told in percent; else it counts tokens."""
    return not metric.startswith("mean_tokens")


def shown(measured: Iterable[Measurement]) -> list[Measurement]:
    """Return the numbers worth a line: not the shares of what never happened, but pass@1 also where it is 0."""
    return [one for one in measured if one.value or one.metric == "pass@1" or not is_share(one.metric)]


def told(measured: Measurement) -> str:
    """Return a value with its interval: `37.1% [33.9, 40.4]`, or tokens as they are."""
    scale, unit = (100, "%") if is_share(measured.metric) else (1, "")
    value, low, high = (f"{scale * x:.1f}" for x in (measured.value, measured.low, measured.high))
    return f"{value}{unit} [{low}, {high}]"


def caveats(measured: Sequence[Measurement]) -> dict[str, str]:
    """Return, for each suite of which more than `MAX_MISSING` is missing, a sentence that says so."""
    by_name = {(one.suite, one.metric): one for one in measured}
    found = {}
    for suite in dict.fromkeys(one.suite for one in measured):
        parts = [by_name[suite, name].value for name in ("failed", "unverifiable")]
        if sum(parts) > MAX_MISSING:
            found[suite] = f"not comparable: {_missing(*parts)}{_bounds(by_name, suite)}"
    return found


def _missing(failed: float, unverifiable: float) -> str:
    return f"{100 * failed:.1f}% of the requests failed and {100 * unverifiable:.1f}% could not be judged"


def _bounds(by_name: dict[tuple[str, str], Measurement], suite: str) -> str:
    low, high = (by_name[suite, f"pass@1_missing_{fate}"].value for fate in ("wrong", "right"))
    return f"; pass@1 lies between {100 * low:.1f}% and {100 * high:.1f}%, were they all wrong or all right"
