"""Before and after on the same problems, chosen by a rule that looks at ids only, never at how the answers came out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from aftershock.report.curves import outcome_of
from aftershock.report.files import Row
from aftershock.text.behaviour import CHECK_MARKS, RETRY_MARKS

PER_TASK = 2
MAX_TASKS = 6
MAX_SHOWN = 4000  # characters of a reasoning; the middle of a longer one is left out, and said to be

_MARKS = re.compile(
    "|".join(rf"\b{re.escape(m)}" if m.isascii() else m for m in (*CHECK_MARKS, *RETRY_MARKS)), re.IGNORECASE
)
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Side:
    """One completion as shown."""

    outcome: str
    reason: str
    tokens: str
    reasoning: Markup
    answer: str
    cut_off: bool


@dataclass(frozen=True)
class Pair:
    """A problem with a completion of the model before the stage and one after it."""

    task: str
    problem: str
    prompt: str
    before: Side | None
    after: Side


@dataclass(frozen=True)
class Transition:
    """Of one task's problems, how many went from one outcome to another at the sample shown."""

    task: str
    n: int
    gained: int
    kept: int
    lost: int
    never: int


@dataclass(frozen=True)
class Pairs:
    """What the page shows of before and after: the rule in words, the pairs, one that got worse, and the counts."""

    rule: str
    shown: list[Pair]
    worse: Pair | None
    transitions: list[Transition]


def choose(before: Sequence[Row], after: Sequence[Row]) -> Pairs | None:
    """Pair the rows of the same problem and sample; None where no problem is in both.

    Shown are the first `PER_TASK` problems of each task in the order of their ids, at the lowest sample number. A stage
    that has no before (a base model has none) shows what came after alone.
    """
    sample = min((int(row.get("sample", 0)) for row in after), default=0)
    first, second = _at_sample(before, sample), _at_sample(after, sample)
    keys = sorted(first.keys() & second.keys() if before else second, key=lambda key: tuple(map(_natural, key)))
    if not keys:
        return None
    tasks = list(dict.fromkeys(key[0] for key in keys))
    shown = [key for task in tasks[:MAX_TASKS] for key in [key for key in keys if key[0] == task][:PER_TASK]]
    worse = next((key for key in keys if before and _moves(first[key], second[key]) == "lost"), None)
    return Pairs(
        _rule(sample, len(tasks)),
        [_pair(key, first.get(key), second[key]) for key in shown],
        _pair(worse, first[worse], second[worse]) if worse else None,
        [_transition(task, first, second, keys) for task in tasks] if before else [],
    )


def _rule(sample: int, tasks: int) -> str:
    some = f" ({MAX_TASKS} of {tasks} tasks)" if tasks > MAX_TASKS else ""
    return (
        f"Shown: sample {sample} of the first {PER_TASK} held-out problems of each task in the order of their ids"
        f"{some}, whatever came of them."
    )


def _at_sample(rows: Iterable[Row], sample: int) -> dict[Key, Row]:
    found: dict[Key, Row] = {}
    for row in rows:
        if int(row.get("sample", 0)) == sample:
            found.setdefault((str(row.get("task")), str(row.get("problem")), str(row.get("language", ""))), row)
    return found


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which `p2` comes before `p10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _moves(before: Row, after: Row) -> str:
    was, now = outcome_of(before) == "right", outcome_of(after) == "right"
    return {(False, True): "gained", (True, True): "kept", (True, False): "lost", (False, False): "never"}[was, now]


def _transition(task: str, before: dict[Key, Row], after: dict[Key, Row], keys: Sequence[Key]) -> Transition:
    moves = [_moves(before[key], after[key]) for key in keys if key[0] == task]
    return Transition(task, len(moves), *(moves.count(move) for move in ("gained", "kept", "lost", "never")))


def _pair(key: Key, before: Row | None, after: Row) -> Pair:
    return Pair(key[0], key[1], str(after.get("prompt") or ""), _side(before) if before else None, _side(after))


def _side(row: Row) -> Side:
    verdict = row.get("verdict")
    reason = str(verdict.get("reason") or "") if isinstance(verdict, dict) else ""
    reasoning, answer = str(row.get("reasoning") or ""), str(row.get("answer") or "")
    return Side(
        outcome_of(row),
        reason,
        str(row.get("tokens", "?")),
        marked(_clipped(reasoning)),
        _clipped(answer),
        row.get("finish_reason") == "length",
    )


def _clipped(text: str) -> str:
    if len(text) <= MAX_SHOWN:
        return text
    half = MAX_SHOWN // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def marked(text: str) -> Markup:
    """Return the text escaped, with the words that count as checking or retrying in `<mark>`.

    >>> str(marked("3*7=21 <wait"))
    '3*7=21 &lt;<mark>wait</mark>'
    """
    parts, end = [], 0
    for match in _MARKS.finditer(text):
        parts += [escape(text[end : match.start()]), Markup("<mark>{}</mark>").format(match.group())]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])
