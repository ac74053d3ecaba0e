"""What `aftershock plan` was asked, and its answer: a recipe's plan, a published bill, or a recipe for a budget."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftershock.cost.cluster import parse
from aftershock.cost.ledger import GRID_KG_PER_KWH
from aftershock.errors import RecipeError
from aftershock.own import nearest
from aftershock.plan import bill, dial, machine, tiers
from aftershock.plan.stages import plan
from aftershock.recipe import load_recipe


@dataclass(frozen=True)
class Asked:
    """The options of the command, as given."""

    recipe: str
    on: str | None = None
    layout: str = "auto"
    against: str | None = None
    budget: str | None = None
    out: Path = Path("r1-budget.toml")
    co2: float = GRID_KG_PER_KWH
    overrides: tuple[str, ...] = ()
    simulate: bool = False


def answer(asked: Asked) -> tuple[dict[str, Any], str]:
    """Return the answer as JSON-able values and as text, whose last line says what to do next."""
    if asked.recipe in bill.BILLS or asked.budget is not None:
        _refuse_what_only_a_file_takes(asked)
    if asked.recipe in bill.BILLS:
        return bill.bill(asked.recipe, asked.on)
    if asked.budget is not None:
        return _dialled(asked)
    if asked.recipe == dial.GOAL:
        raise RecipeError(f'{dial.GOAL} is dialled to a budget: add --budget "20 minutes" or "$30", or name a file')
    if not Path(asked.recipe).suffix and not Path(asked.recipe).exists():
        names = (dial.GOAL, *bill.BILLS)
        raise RecipeError(f"{asked.recipe!r} is no file and none of {', '.join(names)}{nearest(asked.recipe, names)}")
    return _planned(asked)


def _refuse_what_only_a_file_takes(asked: Asked) -> None:
    """RecipeError for an option that a published bill, or a recipe for a budget, would pass over in silence."""
    plain = Asked(asked.recipe)
    names = {"simulate": "--simulate", "layout": "--layout", "against": "--against", "co2": "--co2"}
    names |= {"overrides": "--set", "budget": "--budget"} if asked.recipe in bill.BILLS else {}
    for name, option in names.items():
        if getattr(asked, name) != getattr(plain, name):
            what = f"the published bill of {asked.recipe}" if asked.recipe in bill.BILLS else "a recipe for a budget"
            raise RecipeError(f"{option} needs a recipe's file, and {what} has none: leave it out, or name a file")


def _dialled(asked: Asked) -> tuple[dict[str, Any], str]:
    if asked.recipe != dial.GOAL or asked.overrides:
        raise RecipeError(f"--budget chooses the sizes of {dial.GOAL}: write aftershock plan {dial.GOAL} --budget ...")
    found = dial.dial(str(asked.budget), asked.on, asked.out)
    return found.as_dict(), f"{found}\nnext: {_run(str(found.path))}"


def _planned(asked: Asked) -> tuple[dict[str, Any], str]:
    recipe = load_recipe(asked.recipe, [*asked.overrides])
    found = plan(recipe, asked.on, asked.layout, asked.co2)
    data, told = found.as_dict(), [str(found)]
    if asked.against:
        count = parse(asked.on).count if asked.on and asked.on != machine.HERE else 1
        beside = tiers.tiers(recipe, found, asked.against, count, asked.layout)
        data["against"], data["crossover"] = tiers.as_dicts(beside), tiers.crossover(beside)
        told += ["", tiers.table(beside)]
    if asked.simulate:
        from aftershock.plan import simulated

        runs = simulated.simulated(recipe, asked.on)
        data["simulated"] = simulated.as_dicts(runs)
        told += ["", simulated.told(runs)]
    return data, "\n".join([*told, f"next: {_next(asked, found.misfits)}"])


def _next(asked: Asked, misfits: list[str]) -> str:
    if misfits:
        return "change what does not fit (--set KEY=VALUE), or name a larger machine with --on"
    if asked.on not in (None, machine.HERE):
        return f"{_run(asked.recipe)} there; other machines beside it: --against H200,H20"
    return _run(asked.recipe)


def _run(path: str) -> str:
    return f"aftershock run {shlex.quote(path)} --out runs/{shlex.quote(Path(path).stem)}"
