"""Two benches beside each other, on the very questions that both were asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aftershock.bench.measure import MAX_MISSING, questions_of, vote
from aftershock.bench.store import Bench
from aftershock.bench.types import Question, Row
from aftershock.errors import BenchError
from aftershock.stats import mcnemar, paired_interval, sign_flip

HEADINGS = ("suite", "metric", "this", "other", "difference", "95% interval", "p", "better / worse", "questions")


@dataclass(frozen=True)
class Difference:
    """This bench less the other in one metric of one suite, over the `n` questions that both answered.

    Shares of right answers in [0, 1], each the mean over questions; `low` and `high` bound the `difference` at 95%, by
    question; `p` is of the exact two-sided `test`; `better` and `worse` count questions.
    """

    suite: str
    metric: str
    this: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    better: int
    worse: int
    n: int
    k: int
    k_other: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The row for a table with `HEADINGS`."""
        shift = f"{100 * self.difference:+.1f}"
        bounds, small = f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}]", "<0.0001"
        p = f"{self.p:.4f}" if self.p >= 1e-4 else small
        k = f"{self.k}" if self.k == self.k_other else f"{self.k} and {self.k_other}"
        shares = (f"{100 * self.this:.1f}%", f"{100 * self.other:.1f}%")
        return (self.suite, self.metric, *shares, shift, bounds, p, f"{self.better} / {self.worse}", f"{self.n} × {k}")


@dataclass(frozen=True)
class Compared:
    """`rows` for what can be compared, `refused` with the reason for each suite that can't, and `notes` on the rest."""

    this: str
    other: str
    rows: list[Difference]
    refused: Mapping[str, str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return asdict(self)


def compare(this: Bench, other: Bench) -> Compared:
    """Return the paired differences between two benches, suite by suite.

    Where prompts or data of questions in both differ, the suite is refused, and named. Two exact tests: McNemar's for
    one sample a question and for votes (a tie is not won), else a permutation test of the signs of the questions'
    differences; where the k differ, or samples are missing, it takes as many of a question's first samples as both
    have. Raises BenchError where nothing can be compared.
    """
    rows, refused, notes = [], {}, _protocols(this, other)
    for suite in this.questions:
        reason = _refusal(this.questions[suite], other.questions.get(suite))
        found, missing = ([], []) if reason else _differences(suite, this.of(suite), other.of(suite))
        if not found:
            refused[suite] = reason or "no question has a counted answer in both"
        rows += found
        notes += missing
    if not rows:
        reasons = "; ".join(f"{suite}: {reason}" for suite, reason in refused.items())
        raise BenchError(
            f"{this.folder} and {other.folder} can't be compared. {reasons}. Bench both on the same suites"
        )
    return Compared(_name(this), _name(other), rows, refused, notes)


def _name(bench: Bench) -> str:
    return f"{bench.header['model']['name']} ({bench.folder})"


def _protocols(this: Bench, other: Bench) -> list[str]:
    """Say how the two were asked otherwise: by protocol, and suite by suite."""
    ours, theirs = asdict(this.protocol), asdict(other.protocol)
    pairs = [(name, ours[name], theirs[name]) for name in ours if name not in ("n", "k", "seed")]
    entries = {entry["name"]: entry for entry in other.header["suites"]}
    for entry in this.header["suites"]:
        there = entries.get(entry["name"], entry)
        pairs += [(f"{entry['name']}: {name}", entry[name], there[name]) for name in ("instruction", "max_tokens")]
    return [f"{name} was {here!r} here and {there!r} there" for name, here, there in pairs if here != there]


def _refusal(ours: Sequence[Question], theirs: Sequence[Question] | None) -> str:
    """Say why a suite can't be compared; empty where it can."""
    if theirs is None:
        return "the other bench lacks this suite"
    there = {question.id: question for question in theirs}
    both = [(question, there[question.id]) for question in ours if question.id in there]
    if not both:
        return "no question is in both"
    parts: dict[str, Callable[[Question], object]] = {
        "prompts": lambda question: question.prompt,
        "data": lambda question: (question.gold, question.data),
    }
    for name, part in parts.items():
        differing = [a.id for a, b in both if part(a) != part(b)]
        if differing:
            return f"the {name} of {len(differing)} of {len(both)} shared questions differ, first {differing[0]!r}"
    return ""


def _differences(suite: str, ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[Difference], list[str]]:
    counted = [questions_of(row for row in rows if row.counted) for rows in (ours, theirs)]
    pairs = [(part, counted[1][question]) for question, part in counted[0].items() if question in counted[1]]
    if not pairs:
        return [], []
    depths = tuple(max(row.sample for row in rows) + 1 for rows in (ours, theirs))
    found = [_pass_at_1(suite, pairs, depths)]
    full = [(a[: depths[0]], b[: depths[1]]) for a, b in pairs if (len(a), len(b)) == depths]
    if depths[0] == depths[1] > 1 and full and any(row.extracted is not None for a, b in full for row in (*a, *b)):
        found.append(_votes(suite, full, depths[0]))
    return found, _missing(suite, ours, theirs)


Pairs = Sequence[tuple[list[Row], list[Row]]]


def _pass_at_1(suite: str, pairs: Pairs, depths: tuple[int, ...]) -> Difference:
    means = [(_mean(a), _mean(b)) for a, b in pairs]
    same = [(a[: len(b)], b[: len(a)]) for a, b in pairs]
    flips = [sum(row.right for row in a) - sum(row.right for row in b) for a, b in same]
    if max(len(a) for a, _ in same) == 1:
        return _difference(suite, "pass@1", means, mcnemar(flips.count(1), flips.count(-1)), "McNemar, exact", depths)
    return _difference(suite, "pass@1", means, sign_flip(flips), "sign permutation, exact", depths)


def _votes(suite: str, pairs: Pairs, k: int) -> Difference:
    won = [(float(vote(a) > 0.5), float(vote(b) > 0.5)) for a, b in pairs]
    p = mcnemar(sum(a > b for a, b in won), sum(a < b for a, b in won))
    return _difference(suite, f"majority@{k}, ties not won", won, p, "McNemar, exact", (k, k))


def _mean(rows: Sequence[Row]) -> float:
    return sum(row.right for row in rows) / len(rows)


def _difference(
    suite: str, metric: str, pairs: Sequence[tuple[float, float]], p: float, test: str, depths: tuple[int, ...]
) -> Difference:
    found, n = paired_interval([a - b for a, b in pairs]), len(pairs)
    this, other = (sum(side) / n for side in zip(*pairs))
    better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return Difference(
        suite, metric, this, other, found.value, found.low, found.high, p, test, better, worse, n, depths[0], depths[1]
    )


def _missing(suite: str, ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    shares = [sum(not row.counted for row in rows) / len(rows) for rows in (ours, theirs)]
    return [
        f"{suite}: {100 * share:.1f}% of the answers {where} are missing, so its difference is not to be relied on"
        for share, where in zip(shares, ("here", "there"))
        if share > MAX_MISSING
    ]
