"""Fit a CPU's prices (plan/machine.py) on one run's ledger, and say how far they are off on stages held out.

    python benchmarks/plan_fit.py RUN [--fit zero,cold-data,cold,helpful,control,student-qwen] [--threads 2] [--json]
    python benchmarks/plan_fit.py benchmarks/results/r1_idle.csv --recipe recipes/nano/r1.toml

RUN is a run's folder, whose timings.jsonl says what each stage took; or a CSV file with columns `stage` and `seconds`.
Run it on the machine that made the run, with nothing beside it; prices are those of the reference machine where
`aftershock check --measure` has kept this one's speeds, else of this one. The run's decoding path is this
environment's: native with a C compiler, torch with AFTERSHOCK_NATIVE=0.

Of a folder, prices are fitted on the tokens that were counted, so that a wrong guess at lengths can't hide in them; a
stage of RL gives two equations, its sampling and its learning. There are few stages, so each price is held to the one
that stands in plan/machine.py as by one more equation, to within a factor of e. Held out: the other stages, as counted
and as the plan foretells them from the recipe alone, lengths and all.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import log, sqrt
from pathlib import Path
from statistics import median
from typing import Any

from aftershock import graph
from aftershock.plan import machine
from aftershock.plan.held import How
from aftershock.plan.loads import SCENARIOS, Load, lineages, load
from aftershock.plan.machine import Prices, Rates
from aftershock.plan.stages import Planner, works
from aftershock.recipe import BenchStage, Recipe, RLStage, load_recipe

FIT = "zero,cold-data,cold,helpful,control,student-qwen"
HELD = 5.0  # how far, in logs, a price may go from the one before for the price of a factor of e in an equation
Work = dict[str, float]


@dataclass(frozen=True)
class Timed:
    """A stage's seconds, its work by the plan, and by what was counted in parts that were timed apart."""

    name: str
    seconds: float
    planned: Work
    counted: list[tuple[Work, float]]


def timed(recipe: Recipe, told: Mapping[str, Mapping[str, float]]) -> list[Timed]:
    """Return the stages that were timed and whose work is known; `told` has seconds, and tokens where counted."""
    known = lineages(recipe)
    planner = Planner(
        recipe, machine.Place(machine.place(None).machine), known, graph.inputs(recipe.content()["stage"]), "auto"
    )
    found = []
    for name, stage in recipe.stage.items():
        if name not in told:
            continue
        planned, counted = Work(), list[tuple[Work, float]]()
        for model, config in planner.models(name):
            guess = load(stage, recipe, known, SCENARIOS[1], model)
            if config is None or guess is None:
                break
            other = planner.beside(stage, config)
            how = How.of(stage).here(config, native=True)
            for work in works(stage, guess, how, config, other):
                planned = joined(planned, work)
            if not isinstance(stage, BenchStage):
                trained, sampled = works(stage, counted_load(guess, told[name]), how, config, other)
                counted = parts(told[name], trained, sampled, isinstance(stage, RLStage))
        else:
            found.append(Timed(name, told[name]["seconds"], planned, counted or [(planned, told[name]["seconds"])]))
    return found


def counted_load(guess: Load, told: Mapping[str, float]) -> Load:
    """Return a stage's load with the tokens that were counted, in as many completions as planned."""
    sampled, trained = told.get("sampled", 0.0), told.get("trained", 0.0)
    longer = sampled / guess.sampled if sampled and guess.sampled else 1.0
    return replace(
        guess,
        trained=trained or guess.trained,
        sampled=sampled or guess.sampled,
        written=guess.written * longer,
        steps=told.get("steps") or guess.steps,
    )


def parts(told: Mapping[str, float], trained: Work, sampled: Work, split: bool) -> list[tuple[Work, float]]:
    """Return a stage's equations: work and its seconds; learning apart where that was timed."""
    learning = told.get("learning", 0.0)
    if not (split and learning):
        return [(joined(trained, sampled), told["seconds"])]
    return [(trained, learning), (sampled, told["seconds"] - learning)]


def joined(one: Work, other: Work) -> Work:
    """Return the sum of two works."""
    return {kind: one.get(kind, 0.0) + other.get(kind, 0.0) for kind in one | other}


def ledger(folder: Path) -> dict[str, dict[str, float]]:
    """Return what a run's timings.jsonl says of each stage: seconds, tokens and, in RL, seconds of learning."""
    told: dict[str, dict[str, float]] = {}
    for line in map(json.loads, (folder / "timings.jsonl").read_text(encoding="utf-8").splitlines()):
        stage = told.setdefault(line["stage"], dict.fromkeys(("seconds", "trained", "sampled", "learning"), 0.0))
        for name, key in (("seconds", "seconds"), ("sampled", "sampled_tokens"), ("learning", "learn_seconds")):
            stage[name] += line.get(key) or 0.0
        stage["trained"] += line.get("learned_tokens", line.get("trained_tokens")) or 0.0
    return told


def table(path: Path) -> dict[str, dict[str, float]]:
    """Return the seconds in a CSV file by stage."""
    return {row["stage"]: {"seconds": float(row["seconds"])} for row in csv.DictReader(path.read_text().splitlines())}


def fit(stages: Sequence[Timed], before: Prices, at: Rates) -> Prices:
    """Return the prices with the least sum of squared logs, of foretold over taken and of new over old prices."""

    def missed(prices: Prices) -> float:
        rates = replace(at, prices=prices)
        errors = [
            log(machine.seconds(work, rates) / taken)
            for one in stages
            for work, taken in one.counted
            if work and taken > 0
        ]
        both = zip(asdict(prices).values(), asdict(before).values())
        moved = [log(new / old) / HELD for new, old in both if old]
        return sum(error**2 for error in (*errors, *moved))

    best, step = before, 1.3
    while step > 1.002:
        tried = [
            replace(best, **{field.name: getattr(best, field.name) * by})
            for field in fields(Prices)
            for by in (step, 1 / step)
        ]
        found = min(tried, key=missed)
        best, step = (found, step) if missed(found) < missed(best) - 1e-9 else (best, sqrt(step))
    return best


def off(work: Work, seconds: float, at: Rates) -> float:
    """Return foretold over taken, less one."""
    return machine.seconds(work, at) / seconds - 1


def rows(stages: Sequence[Timed], fitted: Sequence[str], at: Rates) -> list[dict[str, Any]]:
    """Return each stage's errors at these rates: with its tokens as counted, and as planned."""
    made = []
    for one in stages:
        whole = Work()
        for work, _ in one.counted:
            whole = joined(whole, work)
        errors = {"counted": off(whole, one.seconds, at), "planned": off(one.planned, one.seconds, at)}
        role = "fitted" if one.name in fitted else "held out"
        made.append({"stage": one.name, "seconds": round(one.seconds, 1), "role": role, **errors})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--recipe", type=Path, help="where RUN is a CSV file")
    parser.add_argument("--fit", default=FIT, help="stages to fit on")
    parser.add_argument("--threads", type=int, default=2, help="that the run had")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.run.is_dir()
    recipe = load_recipe(given.recipe or given.run / "recipe.toml")
    stages = timed(recipe, ledger(given.run) if folder else table(given.run))
    path, at = machine.decoding(), machine.rates(given.threads)
    before = at.prices
    wanted = given.fit.split(",")
    prices = fit([one for one in stages if one.name in wanted], before, at)
    told = rows(stages, wanted, replace(at, prices=prices))
    held = [row for row in told if row["role"] == "held out"]
    medians = {key: median(abs(row[key]) for row in held) for key in ("counted", "planned")} if held else {}
    if given.json:
        print(json.dumps({"path": path, "prices": asdict(prices), "rows": told, "held_out_medians": medians}))
        return
    print(f'PRICES["{path}"] = Prices({", ".join(f"{value:.3g}" for value in asdict(prices).values())})')
    print("| stage | seconds | | tokens as counted | as planned |\n|---|---|---|---|---|")
    for row in told:
        print(
            f"| {row['stage']} | {row['seconds']:g} | {row['role']} | {row['counted']:+.0%} | {row['planned']:+.0%} |"
        )
    print(f"median of held-out stages' absolute errors: {', '.join(f'{key} {m:.0%}' for key, m in medians.items())}")


if __name__ == "__main__":
    main()
