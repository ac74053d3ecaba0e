"""A plan in words and columns: what each stage takes, what it rests on, and what to do next."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aftershock.cost.ledger import GRID_KG_PER_KWH
from aftershock.plan.loads import PROMPT_TOKENS, SCENARIOS
from aftershock.table import columns

if TYPE_CHECKING:
    from aftershock.plan.stages import Plan, StagePlan

HEADS = ["stage", "kind", "made from", "parameters", "memory", "steps", "tokens", "time", "usd", "kWh", "kg CO2"]


def page(plan: "Plan") -> str:
    """Return the whole plan as text."""
    rows = [[*_row(stage), *_cost(plan, stage.seconds)] for stage in plan.stages]
    total = ["all" if plan.seeds == 1 else f"all, {plan.seeds} seeds", *[""] * 6, *_cost(plan, plan.seconds)]
    misfits = [f"does not fit: {said}" for said in plan.misfits]
    return "\n".join([columns([HEADS, *rows, total]), *misfits, plan.rests_on])


def grounds(plan: "Plan") -> str:
    """Return what the numbers are worth, in words."""
    least, likely, most = (f"{scenario.share:.0%}" for scenario in SCENARIOS)
    unknown = ", ".join(stage.name for stage in plan.stages if not stage.seconds)
    lines = [f"sizes unknown, not in the sums: {unknown}"] if unknown else []
    if plan.machine.device == "cpu":
        lines.append(f"time on {plan.machine.name}, {plan.machine.cores} cores: {plan.rates}")
    else:
        fitted = "efficiencies fitted on published runs, none of them ours (docs/cost.md)"
        lines.append(f"time on {plan.machine.name}: {fitted}; aftershock itself runs on one device as yet")
        lines += [f"layout of {stage.name}: {stage.layout}" for stage in _laid_out(plan)]
    if again := [stage.name for stage in plan.stages if stage.again]:
        lines.append(f"layers computed twice, as memory is short or the recipe has it so: {', '.join(again)}")
    lines.append(
        f"lengths: as measured for the shipped models; else prompts of {PROMPT_TOKENS} tokens and completions of "
        f"{likely} of max_tokens ({least} to {most})"
    )
    carbon = f"{plan.co2:g} kg CO2 a kWh (the world's in 2023: {GRID_KG_PER_KWH:g}, Ember)"
    lines.append(f"price and power: {plan.machine.source}; {carbon}")
    return "\n".join(lines)


def _laid_out(plan: "Plan") -> "list[StagePlan]":
    """Return the first stage of each layout, where there is more than one device."""
    found: dict[str, StagePlan] = {}
    for stage in plan.stages if plan.machine.name[:2] != "1x" else ():
        found.setdefault(stage.layout, stage)
    return [stage for layout, stage in found.items() if layout]


def _row(stage: "StagePlan") -> list[str]:
    parameters = "?" if stage.parameters is None else shorter(stage.parameters)
    held = "?" if stage.memory_gb is None else f"{stage.memory_gb:.1f} GB" + ("!" if stage.misfit else "")
    more = f" +{len(stage.inputs) - 2}" if len(stage.inputs) > 2 else ""
    inputs = ", ".join(stage.inputs[:2]) + more or "-"
    return [
        stage.name,
        stage.kind,
        inputs,
        parameters,
        held,
        ranged(stage.steps, "{:,}"),
        ranged(stage.tokens, shorter),
    ]


def _cost(plan: "Plan", seconds: list[float]) -> list[str]:
    bill = plan.bill(seconds)
    likely = [dollars(bill[key][1]) if bill[key] else "?" for key in ("kwh", "kg_co2")]
    return [ranged(seconds, duration), ranged(bill["usd"], dollars), *likely]


def ranged(values: Sequence[float], form: str | Callable[[float], str]) -> str:
    """Return `likely (least to most)`; one value where they look alike, `?` where nothing is known."""
    shown = [form.format(value) if isinstance(form, str) else form(value) for value in values]
    if not shown:
        return "?"
    least, likely, most = shown
    return likely if least == most else f"{likely} ({least} to {most})"


def shorter(value: float) -> str:
    """Return a count in a few letters.

    >>> shorter(1_945_984), shorter(671e9), shorter(12)
    ('1.9M', '671.0B', '12')
    """
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}"


def dollars(usd: float) -> str:
    """Return dollars, kWh or kg to two digits or more."""
    return f"{usd:,.0f}" if usd >= 10 else f"{usd:.2g}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    >>> duration(42), duration(600), duration(9000), duration(1e6), duration(1e8)
    ('42 s', '10 min', '2.5 h', '11.6 days', '1,157 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days" if seconds < 100 * 86400 else f"{seconds / 86400:,.0f} days"
