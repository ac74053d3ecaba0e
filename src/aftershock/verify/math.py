"""The verdict on a mathematical answer: extracted strictly, compared exactly, with algebra at arm's length."""

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aftershock.errors import VerifierError
from aftershock.verify.boxed import boxed_answer
from aftershock.verify.math_form import TooDeep, shape, tidy
from aftershock.verify.math_same import differs
from aftershock.verify.shared import SharedPool
from aftershock.verify.verdict import Verdict

SECONDS = 5.0  # for algebra on one answer


def math_answer(completion: str, gold: str) -> Verdict:
    r"""Judge the last balanced `\boxed{...}` after the reasoning against the gold answer, given without a box.

    Right: equal in meaning. Wrong: all else, no box included. Unverifiable: a gold answer that can't be read, or
    algebra that took longer than SECONDS or crashed; the reason says which. The rules are listed in docs/math.md.

    Decided here, in microseconds: same writing; words and letters; numbers (integers, decimals, fractions, mixed,
    scientific, money, percent, degrees, units, bases) and lists, sets, tuples and intervals of them. The rest goes to
    math-verify in worker processes, which any thread, asyncio task, actor or forked child may use at once.
    """
    return math_answers([(completion, gold)])[0]


def math_answers(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """Return `math_answer` for each (completion, gold), in order; algebra is shared out among all free workers."""
    verdicts: list[Verdict | None] = [_by_form(completion, gold) for completion, gold in pairs]
    left = [number for number, verdict in enumerate(verdicts) if verdict is None]
    answers = [boxed_answer(pairs[number][0])[0] or "" for number in left]
    jobs = [(0, pairs[number][1], answer) for number, answer in zip(left, answers)]
    for number, answer, verdict in zip(left, answers, _pool().check_many(jobs) if jobs else []):
        verdicts[number] = replace(verdict, extracted=answer)
    return [verdict for verdict in verdicts if verdict is not None]


class _Undecided(Exception):
    """Form alone doesn't tell."""


def _by_form(completion: str, gold: str) -> Verdict | None:
    """Return the verdict where no algebra is needed."""
    answer, why = boxed_answer(completion)
    if not gold.strip():
        return Verdict("unverifiable", "the gold answer is empty", answer)
    if answer is None:
        return Verdict("wrong", why)
    wanted = tidy(gold)
    try:
        shape(wanted)
    except TooDeep as error:
        return Verdict("unverifiable", f"the gold answer has {error}", answer)
    try:
        difference = differs(wanted, tidy(answer), _undecided)
    except TooDeep as error:
        return Verdict("wrong", str(error), answer)
    except _Undecided:
        return None
    except Exception as error:  # ours: neither right nor wrong
        return Verdict("unverifiable", f"{type(error).__name__}: {error}", answer)
    return Verdict("wrong" if difference else "right", difference, answer)


def _undecided(gold: str, answer: str) -> bool:
    raise _Undecided


class _Loader:
    """Stands for the task on its way to a worker: sympy is imported there, never here."""

    def __reduce__(self) -> Any:
        return _load, ()


def _load() -> Any:
    from aftershock.verify.math_algebra import MathTask

    return MathTask()


_lock = threading.Lock()
_shared: SharedPool | None = None


def _pool() -> SharedPool:
    global _shared
    with _lock:
        if _shared is None:
            if importlib.util.find_spec("math_verify") is None:
                raise VerifierError(
                    "math-verify isn't installed, and this answer needs it: pip install 'aftershock[math]'"
                )
            _shared = SharedPool([_Loader()], seconds=SECONDS)
        return _shared
