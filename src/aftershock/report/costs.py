"""What a run cost and gained, stage by stage, beside what was planned: for the report and for `aftershock cost`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aftershock.cost.energy import ESTIMATED
from aftershock.cost.ledger import GRID_KG_PER_KWH, gain, per_point, total
from aftershock.disk import read_json
from aftershock.errors import RunError
from aftershock.report.evidence import seed_runs
from aftershock.report.files import RunFiles, StageFiles, read
from aftershock.report.scores import number, scores_of
from aftershock.table import columns

BILL = ("seconds", "tokens", "flops", "usd", "kwh")
ALL, UNKNOWN = "all stages", "–"
PLANNED = ("tokens", "seconds", "usd")  # what is shown beside its plan


Shown = tuple[str, str]  # a value, and its bounds


@dataclass(frozen=True)
class Cost:
    """One row of the bill; None is unknown. `points` and `usd_per_point` are [value, low, high] at 95%.

    `planned` has [least, likely, most] by name, and nothing where no plan was kept.
    """

    name: str
    seconds: float | None
    tokens: float | None
    flops: float | None
    usd: float | None
    kwh: float | None
    kwh_source: str
    kg_co2: float | None
    points: list[float] | None = None
    usd_per_point: list[float | None] | None = None
    planned: dict[str, list[float]] = field(default_factory=dict)
    done: bool = True
    basis: str = ""  # of the points: n, k, seed

    @property
    def gained(self) -> Shown:
        """The points."""
        return _bounded(self.points, "{:+.1f}".format)

    @property
    def a_point(self) -> Shown:
        """What one of them cost."""
        return _bounded(self.usd_per_point, money)

    @property
    def plans(self) -> list[Shown]:
        """What was planned of tokens, seconds and dollars."""
        return [_ranged(self.planned.get(name), form) for name, form in zip(PLANNED, (big, duration, money))]

    @property
    def ratio(self) -> float | None:
        """The time it took over what was likely; None before it has come to its end."""
        likely = self.planned.get("seconds", [0.0, 0.0])[1]
        return self.seconds / likely if self.done and likely and self.seconds is not None else None


def costs(run: RunFiles, kg_per_kwh: float = GRID_KG_PER_KWH) -> list[Cost]:
    """Return the bill of each stage, and of all of them where they are several."""
    plan = _plan(run.folder)
    rows = [_cost(stage, plan.get(stage.name, {}), run.finished, kg_per_kwh) for stage in run.stages]
    return [*rows, _all(rows, _source(run.stages))] if len(rows) > 1 else rows


def _plan(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return what was planned for each stage; nothing in a run's folder from before plans were kept."""
    try:
        found = read_json(folder / "plan.json")
    except RunError:  # damaged
        return {}
    stages = found.get("stages", []) if isinstance(found, dict) else []
    return {stage["name"]: {name: stage[name] for name in PLANNED if len(stage.get(name, ())) == 3} for stage in stages}


def _cost(stage: StageFiles, planned: dict[str, list[float]], finished: bool, kg_per_kwh: float) -> Cost:
    """Return a stage's bill: from the summary where it is there, else the sum of what its steps recorded so far."""
    told: dict[str, float | None] = {name: number(stage.record.get(name)) for name in BILL}
    if stage.timings and not any(value is not None for value in told.values()):
        told = {name: float(getattr(total(stage.timings), name)) for name in BILL}
    scores = [score for score in scores_of(stage)[0] if score.metric == "pass@1"]
    points = gain(map(asdict, scores))
    return Cost(
        name=stage.name,
        seconds=told["seconds"],
        tokens=told["tokens"],
        flops=told["flops"],
        usd=told["usd"],
        kwh=told["kwh"],
        kwh_source=_source([stage]),
        kg_co2=None if told["kwh"] is None else told["kwh"] * kg_per_kwh,
        points=points,
        usd_per_point=None if told["usd"] is None else per_point(told["usd"], points),
        planned=planned,
        done=finished or (stage.folder / "done.json").is_file(),
        basis=scores[-1].basis if points else "",
    )


def _source(stages: Sequence[StageFiles]) -> str:
    return total(line for stage in stages for line in stage.timings).kwh_source


def _all(rows: Sequence[Cost], source: str) -> Cost:
    def summed(name: str) -> float | None:
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        return math.fsum(known) if known else None

    planned = {
        name: [math.fsum(values) for values in zip(*(row.planned[name] for row in rows))]
        for name in PLANNED
        if all(name in row.planned for row in rows)
    }
    return Cost(
        name=ALL,
        seconds=summed("seconds"),
        tokens=summed("tokens"),
        flops=summed("flops"),
        usd=summed("usd"),
        kwh=summed("kwh"),
        kwh_source=source,
        kg_co2=summed("kg_co2"),
        planned=planned,
        done=all(row.done for row in rows),
    )


def assumptions(run: RunFiles, rows: Sequence[Cost]) -> list[str]:
    """Say what dollars, energy and CO2 were reckoned from, and what of the time was lost to kills."""
    found = run.summary.get("hardware")
    machine = found if isinstance(found, dict) else {}
    price, watts = number(machine.get("usd_per_hour")), number(machine.get("watts"))
    dollars = "an unrecorded price" if price is None else f"${price:g}"
    source = f" Price and power: {machine['source']}." if machine.get("source") else ""
    energy_by = _source(run.stages)
    if ESTIMATED in energy_by:
        energy_by += f", hours × {'unrecorded W' if watts is None else f'{watts:g} W'}"
    told = [f"USD = hours × {dollars} an hour. Energy: {energy_by}.{source}", GRID]
    if any(row.points for row in rows):
        told.append(POINTS)
    lost = math.fsum(number(row.get("seconds")) or 0.0 for s in run.stages for row in s.timings if row.get("lost"))
    return [*told, f"The time holds {duration(lost)} lost to a kill and done again."] if lost else told


POINTS = (
    "Points are of pass@1 on held-out problems, after less before, with 95% intervals that take the two for "
    "independent; where they reach 0, a point's cost has no bound. n and seed stand with each stage's scores."
)
GRID = f"CO2 = kWh × {GRID_KG_PER_KWH:g} kg, the world's mean in 2023 (Ember); yours: aftershock cost RUN --co2 KG."


def compare(folders: Sequence[Path], kg_per_kwh: float) -> tuple[dict[str, Any], str]:
    """Return what runs cost, as JSON-able values and as a table; a folder of seeds stands for each of them.

    RunError where a folder is no run.
    """
    runs = {str(one): costs(read(one), kg_per_kwh) for folder in folders for one in seed_runs(folder) or [folder]}
    told = {name: [asdict(row) | {"ratio": row.ratio} for row in rows] for name, rows in runs.items()}
    return {"kg_co2_per_kwh": kg_per_kwh, "runs": told}, _table(runs, kg_per_kwh)


def _table(runs: Mapping[str, Sequence[Cost]], kg_per_kwh: float) -> str:
    stages = dict.fromkeys(row.name for rows in runs.values() for row in rows if row.name != ALL)
    every = [(name, row) for name, rows in runs.items() for row in rows]
    ordered = [(name, row) for stage in (*stages, ALL) for name, row in every if row.name == stage]
    bill = [["run", "stage", "time", "planned", "x", "usd", "energy", "CO2", "tokens", "FLOPs"]]
    bill += [[name, *_row(row)] for name, row in ordered]
    gains = [["run", "stage", "points gained", "usd a point", "on"]]
    gains += [
        [name, row.name, " ".join(row.gained), " ".join(row.a_point), row.basis] for name, row in ordered if row.points
    ]
    whole = {name: rows[-1] for name, rows in runs.items() if rows}
    below = [f"CO2 = kWh x {kg_per_kwh:g} kg; planned: the likely time; x: time over that"]
    below += [f"energy of {name}: {row.kwh_source}" for name, row in whole.items()]
    first = next(iter(whole), "")
    below += [_ratios(name, row, first, whole[first]) for name, row in whole.items() if name != first]
    drawn = [columns([row[len(runs) == 1 :] for row in table]) for table in (bill, gains) if len(table) > 1]
    told = ["of pass@1 on held-out problems, [95% intervals]\n"] if len(gains) > 1 else []
    return "\n".join(["\n\n".join(drawn), *told, *below])


def _row(row: Cost) -> list[str]:
    times = [duration(row.seconds), row.plans[1][0], amount(row.ratio)]
    spent = [money(row.usd), energy(row.kwh), mass(row.kg_co2), big(row.tokens), amount(row.flops)]
    return [row.name, *times, *spent]


def _ratios(name: str, row: Cost, first: str, other: Cost) -> str:
    parts = []
    for what, label in (("seconds", "time"), ("tokens", "tokens"), ("flops", "FLOPs"), ("kwh", "kWh"), ("usd", "usd")):
        mine, its = getattr(row, what), getattr(other, what)
        parts += [f"{mine / its:.2f}x {label}"] if mine is not None and its else []
    return f"{name}, of {first}'s: {', '.join(parts)}"


def _ranged(values: Sequence[float] | None, form: Callable[[float], str]) -> Shown:
    if not values:
        return UNKNOWN, ""
    least, likely, most = map(form, values)
    return likely, "" if least == most else f"({least} to {most})"


def _bounded(values: Sequence[float | None] | None, form: Callable[[Any], str]) -> Shown:
    if not values:
        return UNKNOWN, ""
    value, low, high = values
    return form(value), f"[{form(low)}, {'no bound' if high is None else form(high)}]"


def duration(seconds: float | None) -> str:
    """Return seconds as `48 s`, `6 min 12 s` or `3 h 05 min`; a dash where unknown."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def big(value: float | None) -> str:
    """Return a count as `950`, `1.9M` or `12.4B`; a dash where unknown."""
    if value is None:
        return UNKNOWN
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def amount(value: float | None) -> str:
    """Return a quantity to three digits, large ones with their power of ten; a dash where unknown."""
    return UNKNOWN if value is None else f"{value:.3g}"


def energy(kwh: float | None) -> str:
    """Return kWh to three digits, little as Wh; a dash where unknown."""
    return _kilo(kwh, "Wh")


def mass(kg: float | None) -> str:
    """Return kg to three digits, little as g; a dash where unknown."""
    return _kilo(kg, "g")


def _kilo(value: float | None, unit: str) -> str:
    if value is None:
        return UNKNOWN
    return f"{1000 * value:.3g} {unit}" if value < 0.1 else f"{value:.3g} k{unit}"


def money(value: float | None) -> str:
    """Return dollars, with more digits where there are no cents; a dash where unknown."""
    if value is None:
        return UNKNOWN
    if value >= 1 or value <= 0:
        return f"${value:,.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}"
