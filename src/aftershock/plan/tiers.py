"""The same recipe on other chips, side by side; and in words where the cheaper chip wins, and what that hangs on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aftershock.cost.cluster import parse
from aftershock.plan.page import dollars, duration, ranged
from aftershock.plan.spread import AUTO
from aftershock.plan.stages import Plan, plan
from aftershock.recipe import Recipe
from aftershock.table import columns

HEADS = ["machine", "usd an hour", "time", "usd", "kWh", "training", "sampling", "fits"]


@dataclass(frozen=True)
class Tier:
    """One machine's plan, with the likely dollars of its training and of its sampling."""

    plan: Plan

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.plan.machine.name

    @property
    def parts(self) -> tuple[float, float]:
        """Likely dollars of all training, and of all sampling."""
        hourly = self.plan.seeds * self.plan.machine.usd_per_hour / 3600
        known = [stage for stage in self.plan.stages if stage.seconds]
        return hourly * sum(one.training[1] for one in known), hourly * sum(one.sampling[1] for one in known)

    @property
    def usd(self) -> float:
        """Likely dollars of the whole."""
        return sum(self.parts)


def tiers(recipe: Recipe, first: Plan, others: str, count: int, chosen: str = AUTO) -> list[Tier]:
    """Return the plan that is there and those of the chips in `others` (`H20,4090`), as many of each unless it says."""
    found = [Tier(first)]
    for name in filter(None, map(str.strip, others.split(","))):
        cluster = parse(name)
        same = name if cluster.count > 1 or name.startswith("1x") else f"{count}x{name}"
        found.append(Tier(plan(recipe, same, chosen, first.co2)))
    return found


def table(found: Sequence[Tier]) -> str:
    """Return the tiers as columns, and below them the crossover."""
    return "\n".join([columns([HEADS, *map(_row, found)]), crossover(found)])


def as_dicts(found: Sequence[Tier]) -> list[dict[str, Any]]:
    """Return the tiers as JSON-able values."""
    return [
        {
            "machine": tier.name,
            "usd_per_hour": tier.plan.machine.usd_per_hour,
            "seconds": tier.plan.seconds,
            **tier.plan.bill(tier.plan.seconds),
            "usd_of_training": tier.parts[0],
            "usd_of_sampling": tier.parts[1],
            "fits": not tier.plan.misfits,
        }
        for tier in found
    ]


def crossover(found: Sequence[Tier]) -> str:
    """Return in words which tier is cheapest, and for each other one what would have to change for it to win."""
    fitting = [tier for tier in found if not tier.plan.misfits] or list(found)
    best = min(fitting, key=lambda tier: tier.usd)
    told = [f"cheapest that fits: {best.name}, ${dollars(best.usd)}"]
    return "\n".join([*told, *(_against(best, other) for other in found if other is not best)])


def _against(best: Tier, other: Tier) -> str:
    if other.plan.misfits:
        return f"{other.name}: does not fit: {other.plan.misfits[0]}"
    mine, its = best.parts, other.parts
    even = other.plan.machine.usd_per_hour * best.usd / other.usd
    price = f"{other.name} draws even at ${even:.2f} an hour instead of {other.plan.machine.usd_per_hour:.2f}"
    cheaper = [name for name, a, b in zip(("training", "sampling"), mine, its) if b < a]
    if not cheaper:
        return f"{price}; it is dearer in training and in sampling alike"
    index = ("training", "sampling").index(cheaper[0])
    times = (its[1 - index] - mine[1 - index]) / (mine[index] - its[index])
    share = its[index] / mine[index]
    return (
        f"{price}; its {cheaper[0]} costs {share:.2f} of {best.name}'s, so it wins where there is over {times:.1f} "
        f"times as much {cheaper[0]} beside the rest"
    )


def _row(tier: Tier) -> list[str]:
    found, bill = tier.plan, tier.plan.bill(tier.plan.seconds)
    parts = [f"${dollars(part)}" for part in tier.parts]
    hourly = f"{found.machine.usd_per_hour:,.2f}"
    cells = [ranged(found.seconds, duration), ranged(bill["usd"], dollars), ranged(bill["kwh"], dollars)]
    return [tier.name, hourly, *cells, *parts, "no" if found.misfits else "yes"]
