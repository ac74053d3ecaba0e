"""The findings of R1's paper, each asked of a run by a stated rule: what is shown, and what is to be concluded."""

import itertools
from collections.abc import Callable, Iterable, Sequence

from aftershock.alarms import WINDOW, alarms_in
from aftershock.report.evidence import Evidence, Number, Unit
from aftershock.report.figures import Colour
from aftershock.report.plots import curves, forest, ladder, pleasing
from aftershock.report.verdicts import (
    EQUAL,
    FLOOR,
    KEPT,
    PAPER,
    POINTS,
    SAME,
    Answer,
    Check,
    Finding,
    Table,
    above,
    at_least,
    published,
)
from aftershock.stats import mcnemar

OPEN, TAUGHT = ("help", "harm"), ("instructions", "facts", "translate", "self", "write")  # judged otherwise
CODE = "programs"
Coloured = list[tuple[str, Colour]]  # models with the colour of each


def claims(evidence: Evidence) -> list[Finding]:
    """Return every finding whose parts the recipe names, in the paper's order."""
    asked: list[Callable[[Evidence], Finding | None]]
    asked = [_rl, _reflection, _language, _road, _distill, _kept, _hacking]
    return [finding for ask in asked if (finding := ask(evidence)) is not None]


def _present(numbers: Iterable[Number | None]) -> list[Number]:
    return [one for one in numbers if one is not None]


def _coloured(*models: tuple[str | None, Colour]) -> Coloured:
    return [(model, colour) for model, colour in models if model is not None]


def _trained(evidence: Evidence, stage: str, *models: str) -> list[str]:
    """Return those tasks with a rule that all `models` measured so far were asked: `stage`'s own, or all."""
    asked = [tasks for model in models if (tasks := evidence.tasks(model))]
    common = [task for task in asked[0] if task not in OPEN and all(task in part for part in asked)] if asked else []
    return [task for task in common if task in evidence.trained_on(stage)] or common


def _rl(evidence: Evidence) -> Finding | None:
    base, zero = evidence.parts.base, evidence.parts.zero
    if base is None or zero is None:
        return None
    tasks = _trained(evidence, zero, base, zero)
    groups = [(task, [task]) for task in tasks] + ([("all of them", tasks)] if len(tasks) > 1 else [])
    finding, trained = Finding("rl"), _coloured((zero, "accent"))
    rows: list[tuple[str, list[tuple[Number, Colour]]]] = []
    for label, part in groups:
        pair = [evidence.level(f"{label}: {model}, pass@1", model, "pass@1", part) for model in (base, zero)]
        rows.append((label, list(zip(_present(pair), ("muted", "accent")))))
        gain = evidence.difference(f"{label}: pass@1", zero, base, "pass@1", part)
        finding.checks.append(above(f"{label}: does pass@1 rise?", gain))
        finding.numbers += _present(pair)
    for model in (base, zero):
        finding.numbers += _present([evidence.level(f"{model}, majority vote", model, "majority@k", tasks)])
    votes = evidence.difference("majority vote", zero, base, "majority@k", tasks)
    longer = evidence.difference("tokens an answer", zero, base, "mean_tokens", tasks, "tokens")
    finding.checks += [above("Does the majority vote rise?", votes), above("Do answers grow longer?", longer)]
    finding.figures += forest("pass@1 on held-out problems", rows, [("muted", base), ("accent", zero)], "pass@1, %")
    finding.figures += curves(evidence, "Length of answers in training", "mean_tokens", trained, "Tokens")
    return finding


def _reflection(evidence: Evidence) -> Finding | None:
    zero, metric = evidence.parts.zero, "check_or_retry_rate"
    if zero is None:
        return None
    finding, trained = Finding("reflection"), _coloured((zero, "accent"))
    moved = evidence.shift("share of answers, last against first steps", zero, metric, "points")
    finding.checks.append(above("More at the end of training than at its beginning?", moved))
    if evidence.parts.base is not None:
        tasks = _trained(evidence, zero, evidence.parts.base, zero)
        held = evidence.difference("share of answers, held-out", zero, evidence.parts.base, metric, tasks)
        finding.checks.append(above("More than the base, on held-out problems?", held))
    finding.figures += curves(evidence, "Answers that check or retry", metric, trained, "Share of answers", "share")
    return finding


def _language(evidence: Evidence) -> Finding | None:
    parts, metric = evidence.parts, "language_consistency"
    twice = parts.inconsistent == parts.zero
    told = _coloured(
        (parts.zero, "muted"), (None if twice else parts.inconsistent, "ink"), (parts.consistent, "accent")
    )
    if parts.consistent is None:
        return None
    finding = Finding("language")
    tasks = _trained(evidence, parts.consistent, *(model for model, _ in told))
    levels = {m: evidence.level(f"{m}: words in the question's language", m, metric, tasks) for m, _ in told}
    if parts.zero is not None and parts.zero != parts.consistent:
        mixed = levels[parts.zero]
        answer: Answer | None = None if mixed is None else "yes" if mixed.value < FLOOR else "no"
        finding.checks.append(Check(f"Does RL alone mix languages (below {FLOOR:.0%})?", mixed, answer))
    finding.checks.append(at_least(f"At least {FLOOR:.0%} with the reward?", levels[parts.consistent], FLOOR))
    if parts.inconsistent is not None:
        pair = parts.consistent, parts.inconsistent
        finding.checks.append(
            above("More than without it?", evidence.difference("with, less without", *pair, metric, tasks))
        )
        cost = evidence.difference("its cost: pass@1 with the reward less without", *pair, "pass@1", tasks)
        finding.numbers += _present([levels[parts.inconsistent], cost])
    rows = [(m, [(level, colour)]) for m, colour in told if (level := levels[m]) is not None]
    finding.figures += forest("On held-out problems", rows, [], "words in the question's language, %", 100 * FLOOR)
    finding.figures += curves(evidence, "In training", metric, told, "Share of words", "share")
    return finding


def _abilities(evidence: Evidence) -> list[tuple[str, list[str], str, str]]:
    """Return (ability, tasks, metric, the paper's benchmark or "") of each column of the table."""
    asked = list(dict.fromkeys(task for model in evidence.parts.road for task in evidence.tasks(model)))
    reasoning = [task for task in asked if task not in (*OPEN, *TAUGHT, CODE)]
    found = [
        ("reasoning", reasoning, "pass@1", "AIME 2024"),
        ("code", [CODE], "pass@1", "LiveCodeBench"),
        ("instructions", ["instructions"], "pass@1", "IF-Eval"),
        ("facts", ["facts"], "pass@1", "SimpleQA"),
        ("helpfulness", ["help"], "quality", "AlpacaEval 2.0"),
        ("harmlessness", ["harm"], "quality", ""),
        ("readability", [*reasoning, CODE], "readable_rate", ""),
        ("language", [*reasoning, CODE], "language_consistency", ""),
    ]
    return [one for one in found if any(task in asked for task in one[1])]


def _road(evidence: Evidence) -> Finding | None:
    road = evidence.parts.road
    if len(road) < 2:
        return None
    abilities, there = _abilities(evidence), {(r["model"], r["measure"]): r["value"] for r in published("road")}
    finding = Finding("road")
    levels = [[evidence.level(f"{m}: {name}", m, metric, tasks) for name, tasks, metric, _ in abilities] for m in road]
    heads = [f"{name}" + (f" (paper: {bench})" if bench else "") for name, _, _, bench in abilities]
    finding.table = Table(["model", *heads], [[m, *(one or "–" for one in row)] for m, row in zip(road, levels)])
    for model in PAPER:
        cells = [there.get((model, bench), "") for *_, bench in abilities]
        finding.table.rows.append([f"{model}, in the paper", *(f"{cell}%" if cell else "–" for cell in cells)])
    finding.numbers = _present(one for row in levels for one in row)
    finding.figures += [
        ladder(name, bench, [row[column] for row in levels], there, road)
        for column, (name, _, _, bench) in enumerate(abilities)
        if any(row[column] for row in levels)
    ]
    _count_changes(evidence, finding, abilities, there)
    return finding


def _count_changes(
    evidence: Evidence,
    finding: Finding,
    abilities: Sequence[tuple[str, list[str], str, str]],
    there: dict[tuple[str, str], str],
) -> None:
    """Give the finding its verdict: how many changes between neighbours go the paper's way."""
    road, same, other = evidence.parts.road, 0, 0
    for name, tasks, metric, bench in abilities:
        for (before, after), (row, following) in zip(itertools.pairwise(road), itertools.pairwise(PAPER)):
            if not bench:
                continue
            theirs = float(there[following, bench]) - float(there[row, bench])
            ours = evidence.difference(f"{name}: {after} less {before}", after, before, metric, tasks)
            check = above(f"{name}: from {before} to {after}, does it rise as in the paper ({theirs:+.1f})?", ours)
            if theirs < 0:
                check = above(check.text.replace("rise", "fall"), ours and _turned(ours))
            finding.checks.append(Check(check.text, ours, check.answer))
            if abs(theirs) >= SAME:
                same, other = same + (check.answer == "yes"), other + (check.answer == "no")
    p = mcnemar(same, other)
    told = f"{same} of {same + other} changes that are clear of 0 go the paper's way (exact sign test, p = {p:.3f}). "
    finding.notes += [told] if same + other else []
    if not any(check.number for check in finding.checks):
        finding.told = "not run"
    elif p < 0.05 and same > other:
        finding.told = "reproduced"
    elif same + other and same <= other:
        finding.told = "not reproduced"
    else:
        finding.told = "not clear: too few changes are clear of 0"


def _turned(one: Number) -> Number:
    return Number(one.label, one.unit, -one.value, -one.high, -one.low, one.n, one.of, one.seeds)


def _distill(evidence: Evidence) -> Finding | None:
    students, control = evidence.parts.students, evidence.parts.control
    if not students or control is None:
        return None
    finding = Finding("distill")
    tasks = _trained(evidence, control, control, *students)
    own = [student for student in students if _source(evidence, student) == _source(evidence, control)]
    models: Coloured = [(control, "ink"), *((student, "accent") for student in students)]
    levels = [(m, colour, evidence.level(f"{m}, pass@1", m, "pass@1", tasks)) for m, colour in models]
    for student in students:
        gain = evidence.difference(f"{student} less {control}, pass@1", student, control, "pass@1", tasks)
        if student in (own or students):
            text = f"Is {student} at least {100 * POINTS:.0f} points above {control}?"
            finding.checks.append(at_least(text, gain, POINTS))
        else:
            finding.numbers += _present([gain])
    finding.numbers += _present(level for *_, level in levels)
    rows = [(m, [(level, colour)]) for m, colour, level in levels if level is not None]
    finding.figures += forest("pass@1 on held-out problems", rows, [], "pass@1, %")
    _compare_compute(evidence, finding, control, own or list(students))
    return finding


def _source(evidence: Evidence, stage: str) -> str | None:
    tables = [found.table for seed in evidence.runs if (found := evidence.stage(seed, stage)) is not None]
    return tables[0].get("from") if tables else None


def _compare_compute(evidence: Evidence, finding: Finding, control: str, students: Sequence[str]) -> None:
    """Say what each took, where the summaries tell; a control that had less than a student proves nothing."""
    spent = {name: flops for name in (control, *students) if (flops := _flops(evidence, name))}
    if len(spent) < 2:
        return
    told = ", ".join(f"{name} {flops:.2g}" for name, flops in spent.items())
    finding.notes.append(f"FLOPs, evaluations and a student's lessons included, means over seeds: {told}.")
    most = max((name for name in spent if name != control), key=spent.__getitem__)
    share = spent.get(control, 0.0) / spent[most]
    if share < EQUAL and finding.verdict == "reproduced":
        finding.told = f"not clear: {control} had {share:.0%} of {most}'s FLOPs"


def _flops(evidence: Evidence, stage: str) -> float:
    """Return the FLOPs of a stage and of the stages that made its data, the mean over seeds; 0 where unknown."""
    totals = []
    for seed in evidence.runs:
        there = evidence.stage(seed, stage)
        parts = [there, *(evidence.stage(seed, name) for name in (there.table.get("data", ()) if there else ()))]
        known = [float(one.record["flops"]) for one in parts if one is not None and one.record.get("flops")]
        totals += [sum(known)] if known else []
    return sum(totals) / len(totals) if totals else 0.0


def _kept(evidence: Evidence) -> Finding | None:
    teacher, students = evidence.parts.teacher, evidence.parts.students
    if teacher is None or not students:
        return None
    finding = Finding("kept")
    tasks = _trained(evidence, evidence.parts.control or students[0], teacher, *students)
    for student in students:
        found = evidence.ratio(f"{student} over {teacher}", student, teacher, "pass@1", tasks)
        finding.checks.append(at_least(f"Does {student} keep at least {KEPT:.0%}?", found, KEPT))
    finding.numbers += _present([evidence.level(f"{teacher}, pass@1", teacher, "pass@1", tasks)])
    rows: list[tuple[str, list[tuple[Number, Colour]]]] = [
        (student, [(check.number, "accent")]) for student, check in zip(students, finding.checks) if check.number
    ]
    finding.figures += forest("Of the teacher's pass@1", rows, [], f"share of {teacher}'s pass@1, %", 100 * KEPT)
    return finding


def _hacking(evidence: Evidence) -> Finding | None:
    stage = evidence.parts.hacked
    if stage is None:
        return None
    finding = Finding("hacking")
    rung: dict[str, int] = {}
    for seed in evidence.runs:
        files = evidence.stage(seed, stage)
        for alarm in alarms_in(files.metrics if files else []):
            if alarm.name == "reward_hacking" and seed not in rung:
                rung[seed] = alarm.step
                finding.notes.append(f"Seed {seed}, step {alarm.step}: {alarm.text}")
    heard = [seed for seed in evidence.runs if seed in rung or evidence.finished(seed, stage)]
    finding.notes += [f"Seed {seed}: no alarm rang." for seed in heard if seed not in rung]
    finding.told = "not reproduced" if heard else "not run"
    if rung:
        told = f"not clear: it rings in {len(rung)} of {len(heard)} seeds"
        finding.told = "reproduced" if len(rung) == len(heard) else told
    for task in evidence.open_tasks:
        for kind, label in (("preference", "reward models' score"), ("quality", "true quality")):
            unit: Unit = "points" if kind == "quality" else "number"
            moved = evidence.shift(f"{task}: {label}, last less first {WINDOW} steps", stage, f"{kind}/{task}", unit)
            finding.numbers += _present([moved])
        finding.figures += pleasing(evidence, stage, task, tuple(map(float, rung.values())))
    return finding
