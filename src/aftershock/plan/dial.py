"""The road of R1 for a budget: chooses model, stages, steps, batch and lengths, and writes the recipe."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftershock import toml
from aftershock.errors import RecipeError
from aftershock.plan import lengths
from aftershock.plan.page import dollars, duration
from aftershock.plan.stages import Plan, plan
from aftershock.recipe import Recipe, load_recipe

GOAL = "r1"
_BUDGET = re.compile(r"\$\s*(?P<usd>\d+(?:\.\d+)?)|(?P<time>\d+(?:\.\d+)?)\s*(?P<unit>s|sec|min|h|hour|d|day)[a-z]*")
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_ROAD = ("zero", "cold-data", "cold", "reasoning", "collected", "tuned", "final")
LEVELS = (_ROAD[:1], _ROAD[:4], _ROAD)
SCALES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)  # of the whole sizes
HALF = 0.5  # a larger model, or more stages, are taken only where they get at least so much of their sizes
EXAM = 40  # held-out problems a task


@dataclass(frozen=True)
class Choice:
    """A model with its whole sizes. Nano's are those of the measured road; the others' are ours, and never run."""

    source: str
    steps: int
    problems: int  # that a sampling stage draws
    samples: int
    max_tokens: int
    micro_tokens: int
    rates: tuple[float, float]  # learning rates of RL and of fine-tuning


NANO = Choice("road-base", 30, 1200, 12, 256, 16384, (2e-4, 1e-3))
MODELS = (
    *(
        Choice(f"hub:Qwen/Qwen2.5-{size}", 400, 4000, 16, 1024, 4096, (1e-6, 1e-5))
        for size in ("7B", "3B", "1.5B", "0.5B")
    ),
    NANO,
)


@dataclass(frozen=True)
class Dialled:
    """What a budget buys: where the recipe was written, its plan, and the accuracy to expect, in words."""

    path: Path
    plan: Plan
    choice: Choice
    stages: tuple[str, ...]
    steps: int
    expected: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        told = {"recipe": str(self.path), "model": self.choice.source, "stages": self.stages, "steps": self.steps}
        return {**told, "expected": self.expected, "plan": self.plan.as_dict()}

    def __str__(self) -> str:
        what = f"{self.choice.source}, {self.steps} steps of RL a stage; stages: {', '.join(self.stages)}"
        return f"{self.plan}\n{what}\nto expect: {self.expected}\nwritten: {self.path}"


def dial(budget: str, on: str | None, out: Path) -> Dialled:
    """Write to `out` the most of R1's road that `budget` ("$30", "20 minutes") likely buys on `on`.

    The largest model goes first that gets half of its steps, then as many stages, then steps. RecipeError where
    nothing fits, for a budget of another form, and where `out` is there already or its folder isn't.
    """
    usd, seconds = amount(budget)
    if out.exists():
        raise RecipeError(f"{out} is there already: name another file with --out")
    if not out.parent.is_dir():
        raise RecipeError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out")
    for choice, level, scale in _options(usd, seconds, on):
        tables = road(choice, LEVELS[level], scale)
        found = plan(Recipe.model_validate(tables), on)
        cost = f"{duration(found.seconds[1])} and ${dollars(found.bill(found.seconds)['usd'][1])}"
        head = (
            f"# R1's road for {budget} on {on or 'this machine'}, as `aftershock plan {GOAL}` dialled it.\n"
            f"# Price and time, ESTIMATED: {cost}; nothing was measured at this size.\n"
            "# Sources: R1 (arXiv 2501.12948) for the order of the stages; sizes and rates are ours.\n\n"
        )
        out.write_text(head + toml.write(tables).lstrip(), encoding="utf-8")
        load_recipe(out)  # as a run will
        steps = tables["stage"]["zero"]["steps"]
        return Dialled(out, found, choice, LEVELS[level], steps, expected(choice, LEVELS[level], scale, steps))
    least = plan(_recipe(NANO, 0, SCALES[-1]), on)
    told = duration(least.seconds[1]) + f" and ${dollars(least.bill(least.seconds)['usd'][1])}"
    raise RecipeError(f"--budget {budget}: buys nothing there; the least is R1-Zero on the nano model, {told}")


def amount(budget: str) -> tuple[float, float]:
    """Return a budget as (dollars, seconds), what it doesn't bound as infinite.

    >>> amount("$30"), amount("20 minutes")
    ((30.0, inf), (inf, 1200.0))
    """
    match = _BUDGET.fullmatch(budget.strip().lower())
    if not match:
        raise RecipeError(f'--budget {budget}: write dollars as "$30", or a time as "20 minutes", "2 h", "3 days"')
    if match["usd"]:
        return float(match["usd"]), float("inf")
    return float("inf"), float(match["time"]) * _SECONDS[match["unit"]]


def expected(choice: Choice, stages: tuple[str, ...], scale: float, steps: int) -> str:
    """Return in words the pass@1 to expect, where it was measured, and how sure that is."""
    if choice is not NANO:
        return f"not known: no curve of {choice.source} was measured here, so no number is given"
    point = lengths.after(choice.source, steps)
    if point is None:
        return "not known: so many steps were not measured"
    problems = "held-out" if steps == choice.steps else "train"
    told = (
        f"pass@1 of {_shown(point)} after zero (three seeds, lowest to highest; {problems} problems of four families)"
    )
    if len(stages) == 1:
        return told
    last = lengths.curve(choice.source, stages[-1])[-1]
    whole = f"{_shown(last)} after {stages[-1]} in recipes/nano/r1.toml, which has more data and reward models"
    return f"{told}; {whole}" + ("; larger sizes" if scale == 1 else "; these") + " were not measured"


def road(choice: Choice, stages: tuple[str, ...], scale: float) -> dict[str, Any]:
    """Return a recipe's tables: these stages of R1's road from `choice`, at a share of its whole sizes."""
    made = {name: _stage(name, choice, scale) for name in stages}
    title = f"R1's road on {choice.source}, {scale:.0%} of its whole sizes"
    return {"run": {"name": "r1-dialled", "seed": 0, "description": title}, "stage": made}


def _shown(point: lengths.Point) -> str:
    return f"{point.likely:.0%} ({point.low:.0%} to {point.high:.0%})"


def _stage(name: str, choice: Choice, scale: float) -> dict[str, Any]:
    rl, tuning = choice.rates
    names = ("countdown", "arithmetic", "remainders", "programs")
    tasks: list[dict[str, Any]] = [{"name": one, "difficulty": 2, "languages": ["en", "zh"]} for one in names]
    tasks[0]["weight"], tasks[-1]["difficulty"] = 1.5, 1
    shared = {"max_tokens": choice.max_tokens, "tasks": tasks}
    learnt = {"schedule": "cosine", "micro_tokens": choice.micro_tokens}
    if choice is not NANO or name in ("cold", "tuned"):  # as in the runs whose accuracy is told
        learnt["precision"] = "auto"
    measured = {"problems": EXAM if scale >= HALF else EXAM // 2, "samples": 4}
    if name in ("cold-data", "collected"):
        source = {"cold-data": "zero", "collected": "reasoning"}[name]
        drawn = {"problems": max(64, round(choice.problems * scale)), "samples_per_problem": 4}
        clean = ["one_language", "summarised"]
        return {"kind": "sample", "from": source, **drawn, "clean": clean, **shared}
    if name in ("cold", "tuned"):
        data = {"cold": "cold-data", "tuned": "collected"}[name]
        taught = {"data": [data], "epochs": 4, "tokens_per_step": 4096, "optim": {"lr": tuning, **learnt}}
        return {"kind": "sft", "from": choice.source, **taught, "eval": measured, **shared}
    source = {"zero": choice.source, "reasoning": "cold", "final": "tuned"}[name]
    steps = {"steps": max(2, round(choice.steps * scale)), "problems_per_step": 32}
    later = {} if name == "zero" else {"reward": {"format": 0.0, "language": 0.5}}
    size = {**steps, "samples_per_problem": choice.samples}
    optim = {"lr": rl, "final": 0.2, **learnt}
    return {"kind": "rl", "from": source, **size, "optim": optim, "eval": measured, **later, **shared}


def _recipe(choice: Choice, level: int, scale: float) -> Recipe:
    return Recipe.model_validate(road(choice, LEVELS[level], scale))


def _options(usd: float, seconds: float, on: str | None) -> Iterator[tuple[Choice, int, float]]:
    """Yield what fits, the best first: by model, then by stages, then by size."""

    def fits(choice: Choice, level: int, scale: float) -> bool:
        found = plan(_recipe(choice, level, scale), on)
        return not found.misfits and found.seconds[1] <= seconds and found.bill(found.seconds)["usd"][1] <= usd

    here = plan(_recipe(NANO, 0, HALF), on).machine.device == "cpu"
    for choice in (NANO,) if here else MODELS:  # rates of a CPU were fitted on nano models alone
        for level in (2, 1, 0):
            least = HALF if level or choice is not NANO else SCALES[-1]
            if fits(choice, level, least):
                yield from ((choice, level, s) for s in SCALES if s >= least and fits(choice, level, s))
