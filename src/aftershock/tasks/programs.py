"""Small programs: write a function that does what is said, judged in the sandbox on calls that are never shown."""

import os
import random
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from aftershock.address import generator
from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import PHRASES, Voice, answered, guesses
from aftershock.verify.code import run_code
from aftershock.verify.program import CallTest, Limits
from aftershock.verify.verdict import Verdict

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=3.0, memory_bytes=1 << 27, processes=4, output_bytes=1 << 16)
AT_ONCE = 1 + min(os.cpu_count() or 1, 8)  # programs: two thirds of a sandbox's time go by in waiting
CALLS = 6
LARGEST = 9  # number in a problem
GUESSES = 0.5  # share of blind tries in a mixed trace
CHECKS = 0.4
SLIPS = 0.15  # share of steps at which another one is taken, seen and mended
MISSED_BRACKETS = 0.3  # share of places for brackets at which they are forgotten first

# What a step is called in each language, and what it makes of the expression so far; n is the step's number.
STEPS = {
    "add": ("add {n}", "加{n}", "{e}+{n}"),
    "take": ("take away {n}", "减{n}", "{e}-{n}"),
    "times": ("times {n}", "乘{n}", "{e}*{n}"),
    "rest": ("the rest by {n}", "除以{n}的余数", "{e}%{n}"),
}
FOLDS = {
    "sum": ("the sum", "总和", "sum({e})"),
    "max": ("the largest", "最大", "max({e})"),
    "min": ("the smallest", "最小", "min({e})"),
    "len": ("how many", "个数", "len({e})"),
}
LISTS = {
    "above": ("those above {n}", "大于{n}的", "[v for v in {e} if v>{n}]"),
    "each": ("each times {n}", "每个乘{n}", "[v*{n} for v in {e}]"),
    "back": ("backwards", "倒过来", "{e}[::-1]"),
    "sorted": ("in order", "排好", "sorted({e})"),
}
# difficulty -> which kinds of step, in order
LEVELS = {1: "nn", 2: "nnn", 3: "fn", 4: "lf", 5: "lfn", 6: "llfn"}
_KINDS = {"n": STEPS, "f": FOLDS, "l": LISTS}
_NAMES_F = re.compile(r"\bf\b")  # what doesn't is not worth a sandbox
_BINDS_TIGHTER = ("times", "rest")  # than a sum that stands before them


@dataclass(frozen=True)
class Draft:
    """An expression as far as it is written; `loose` where a product would tear its last sum apart."""

    text: str
    loose: bool = False

    def then(self, name: str, n: int, careless: bool = False) -> "Draft":
        """Return the draft after one more step; a careless writer forgets the brackets."""
        form = next(kind[name] for kind in _KINDS.values() if name in kind)[2]
        tight = name in _BINDS_TIGHTER
        inner = f"({self.text})" if tight and self.loose and not careless else self.text
        return Draft(form.format(e=inner, n=n), loose=name in ("add", "take"))


class Programs(Task):
    """Write f, of a number x or a list a of numbers, as a chain of steps. Difficulty 1 to 6: `LEVELS`.

    Programs of 1 and 2 have no word in them, so that reasoning about them can be in Chinese alone."""

    name = "programs"
    levels = max(LEVELS)
    speaks = tuple(PHRASES)
    waits = True

    def __init__(self, difficulty: int = 1, languages: tuple[str, ...] = ("en",)) -> None:
        super().__init__(difficulty, languages)
        self._judge = lru_cache(maxsize=4096)(_judge)  # a group of samples often writes the same program
        self._begun: dict[Asked, Future[Verdict]] = {}

    def make(self, rng: random.Random) -> Problem:
        """Draw the steps, and the calls it will be judged on."""
        kinds = LEVELS[self.difficulty]
        argument = "x" if kinds[0] == "n" else "a"
        steps = [[rng.choice(sorted(_KINDS[kind])), rng.randint(2, LARGEST)] for kind in kinds]
        draft = _write(argument, steps)
        language = rng.choice(self.languages)
        data = {"argument": argument, "steps": steps, "code": draft.text, "calls": _calls(argument, draft.text)}
        prompt = _prompt(argument, steps, language)
        return Problem(
            self.name, f"programs-{draft.text}", prompt, _program(argument, draft), language, self.difficulty, data
        )

    def content(self, problem: Problem) -> str:
        """What is to be written, whatever the language."""
        return problem.id

    def begin(self, problem: Problem, answer: str) -> None:
        """Run the program beside others, `AT_ONCE` of them, so that `check` of it waits less."""
        asked = _asked(problem, answer)
        if _NAMES_F.search(answer) and asked not in self._begun:
            self._begun[asked] = _threads().submit(self._judge, *asked)

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when the program's f returns what is wanted at every call."""
        if not _NAMES_F.search(answer):
            return Verdict("wrong", "it defines no f", answer)
        asked = _asked(problem, answer)
        begun = self._begun.pop(asked, None)
        # One that waits behind others isn't waited for: a check has its own time.
        late = begun is None or begun.cancel()
        return replace(self._judge(*asked) if late or begun is None else begun.result(), extracted=answer)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Off by one at the end."""
        return f"{problem.gold}{rng.choice('+-')}1"

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: a guess, or the expression step by step, at times tried out on a number."""
        voice, argument = Voice(problem.language, rng), problem.data["argument"]
        steps = [(name, n) for name, n in problem.data["steps"]]
        if guesses(style, GUESSES, rng):
            wrong = [(name if rng.random() < 0.5 else _other(name, rng), n) for name, n in steps]
            return answered(rng.choice(("", voice().guess)), _program(argument, _write(argument, wrong, careless=True)))
        drafts, draft = [], Draft(argument)
        for name, n in steps:
            slip, draft = _slip(draft, name, n, rng), draft.then(name, n)
            drafts.append(draft.text if slip == draft else f"{slip.text}{voice().wait}{draft.text}")
        text = ";".join(drafts)
        if rng.random() < CHECKS:
            given, wanted = rng.choice(problem.data["calls"])
            text += f"{voice().check}{argument}={str(given).replace(' ', '')}:{wanted}{voice().right}"
        return answered(text, _program(argument, draft))


def _slip(draft: Draft, name: str, n: int, rng: random.Random) -> Draft:
    """Return the draft as it is first written: most often rightly."""
    taken = _other(name, rng) if rng.random() < SLIPS else name
    return draft.then(taken, n, careless=rng.random() < MISSED_BRACKETS)


def _write(argument: str, steps: list[Any], careless: bool = False) -> Draft:
    draft = Draft(argument)
    for name, n in steps:
        draft = draft.then(name, n, careless)
    return draft


def _program(argument: str, draft: Draft) -> str:
    return f"def f({argument}):return {draft.text}"


def _prompt(argument: str, steps: list[Any], language: str) -> str:
    """Say the steps in words, in the order they are taken."""
    column = 1 if language == "zh" else 0
    words = [next(kind[name] for kind in _KINDS.values() if name in kind)[column].format(n=n) for name, n in steps]
    if language == "zh":
        return f"写f({argument}):{','.join(words)}。"
    return f"Write f({argument}): {', then '.join(words)}."


def _calls(argument: str, code: str) -> list[list[Any]]:
    """Return arguments with what the function makes of them; they depend on the code alone. Lists hold no largest of
    nothing: where a step leaves none, another list is drawn.
    """
    rng = generator("programs", code)
    calls: list[list[Any]] = []
    while len(calls) < CALLS:
        given: Any = rng.randint(-9, 20) if argument == "x" else [rng.randint(0, 12) for _ in range(rng.randint(3, 6))]
        try:
            calls.append([given, eval(code, {"__builtins__": _BUILTINS}, {argument: given})])
        except ValueError:  # max of nothing
            continue
    return calls


_BUILTINS = {"sum": sum, "max": max, "min": min, "len": len, "sorted": sorted}


def _other(name: str, rng: random.Random) -> str:
    return rng.choice(sorted(next(kind for kind in _KINDS.values() if name in kind)))


Asked = tuple[str, tuple[Any, ...]]  # a program, and the calls that judge it


def _asked(problem: Problem, answer: str) -> Asked:
    return answer, tuple((_frozen(given), wanted) for given, wanted in problem.data["calls"])


def _frozen(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, "program")


def _judge(program: str, calls: tuple[Any, ...]) -> Verdict:
    tests = [CallTest("f", (list(given) if isinstance(given, tuple) else given,), wanted) for given, wanted in calls]
    return run_code(program, tests, LIMITS)
