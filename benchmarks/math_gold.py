"""What `math_answer` gets right and wrong: `python benchmarks/math_gold.py [--data FOLDER] [--write] [--json]`.

Judges our probes by kind (math_probes.py) and, with the originals of GSM8K and MATH-500 in FOLDER, every gold answer,
every reference solution, every perturbation and every harmless change. `--write` puts the tables into docs/math.md and
the counts into benchmarks/results/math_gold.json. A test holds that the tables are what is measured.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

from math_probes import NEAR, REWRITTEN, probes

from aftershock.verify.math import math_answers
from aftershock.verify.math_form import exact, quantity, shape, tidy
from aftershock.verify.math_perturb import perturbations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/math.md"


def judge(pairs: list[tuple[str, str]]) -> list[str]:
    """Return the outcome for each (answer, gold)."""
    return [verdict.outcome for verdict in math_answers([(f"\\boxed{{{answer}}}", gold) for answer, gold in pairs])]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def harmless(gold: str) -> dict[str, str]:
    """Return the changes near our perturbations that leave a gold answer's meaning as it was: they must be right."""
    text, form = tidy(gold), shape(tidy(gold))
    value = quantity(form.parts[0])
    found = {}
    if exact(text) == 0:
        found["sign of zero"] = f"-{text}"
    if len(form.parts) > 1 and not form.ordered and "\\pm" not in text:
        found["order of a list"] = ", ".join(reversed(form.parts))
    if value.unit and value.unit != "%":
        found["unit dropped"] = value.body
    return found


def probe_table() -> str:
    """Return the table of what is judged otherwise than it should be, by kind of answer, and the list of these."""
    rows: dict[str, list[int]] = {kind: [0, 0, 0, 0] for kind in [*REWRITTEN, *NEAR]}
    misses = []
    for table, wanted, column in ((REWRITTEN, "right", 0), (NEAR, "wrong", 2)):
        found = list(probes(table))
        for (kind, gold, answer), outcome in zip(found, judge([(answer, gold) for _, gold, answer in found])):
            rows[kind][column] += 1
            if outcome != wanted:
                rows[kind][column + 1] += 1
                misses.append(f"* {kind}: gold `{gold}`, answer `{answer}` is judged {outcome}")
    head = "| kind | rewritings | false negatives | near misses | false positives |\n|---|---|---|---|---|"
    total = ["**all**", *map(sum, zip(*rows.values()))]
    lines = [f"| {' | '.join(map(str, row))} |" for row in [*([kind, *counts] for kind, counts in rows.items()), total]]
    return "\n".join([head, *lines, "", *(misses or ["None is judged otherwise."])])


def gold_counts(data: Path) -> dict:
    """Return what is judged how, for each set: gold answers, solutions, perturbations and harmless changes."""
    gsm8k = [(row["answer"].rpartition("####")[2].strip(), None) for row in read(data / "gsm8k_test.jsonl")]
    math500 = [(row["answer"], row["solution"]) for row in read(data / "math500.jsonl")]
    return {name: _counts(rows) for name, rows in (("GSM8K", gsm8k), ("MATH-500", math500))}


def _counts(rows: list[tuple[str, str | None]]) -> dict:
    golds = [gold for gold, _ in rows]
    solutions = [(solution, gold) for gold, solution in rows if solution]
    changed = [(kind, answer, gold) for gold in golds for kind, answer in perturbations(gold).items()]
    kept = [(kind, answer, gold) for gold in golds for kind, answer in harmless(gold).items()]
    verdicts = math_answers([(answer, gold) for _, answer, gold in changed])
    missed = [(*what, verdict.outcome) for what, verdict in zip(changed, verdicts) if verdict.outcome != "wrong"]
    outcomes = judge([(answer, gold) for _, answer, gold in kept])
    return {
        "gold": dict(Counter(judge([(gold, gold) for gold in golds]))),
        "solution": dict(Counter(verdict.outcome for verdict in math_answers(solutions))),
        "perturbed": dict(Counter(kind for kind, _, _ in changed)),
        "perturbed not wrong": missed,
        "harmless": sorted({(kind, gold, answer, outcome) for (kind, answer, gold), outcome in zip(kept, outcomes)}),
        "harmless rows": len(kept),
    }


def gold_table(counts: dict) -> str:
    """Return the tables of gold answers, of perturbations by kind, and the harmless changes one by one."""
    sets = list(counts)
    lines = [f"| | {' | '.join(sets)} |", "|---|" + "---|" * len(sets)]

    def row(name: str, cells: list) -> None:
        lines.append(f"| {name} | {' | '.join(str(cell) for cell in cells)} |")

    row("gold answer boxed: right", [_of(counts[s]["gold"], "right") for s in sets])
    row("reference solution: right", [_of(counts[s]["solution"], "right") or "no box in it" for s in sets])
    totals = {s: sum(counts[s]["perturbed"].values()) for s in sets}
    row("perturbed: wrong", [f"{totals[s] - len(counts[s]['perturbed not wrong'])} of {totals[s]}" for s in sets])
    for kind in sorted({kind for s in sets for kind in counts[s]["perturbed"]}):
        row(f"... {kind}", [counts[s]["perturbed"].get(kind, 0) for s in sets])
    row("harmless changes: rows", [counts[s]["harmless rows"] for s in sets])
    lines += ["", "Harmless changes, each distinct one:", ""]
    lines += [
        f"* {s}, {kind}: gold `{gold}`, answer `{answer}` is {outcome}"
        for s in sets
        for kind, gold, answer, outcome in counts[s]["harmless"]
    ]
    return "\n".join(lines)


def _of(outcomes: dict, wanted: str) -> str:
    return f"{outcomes.get(wanted, 0)} of {sum(outcomes.values())}" if outcomes else ""


def block(name: str) -> re.Pattern[str]:
    """Return what finds the table of this name in the page, as its group 1."""
    return re.compile(rf"(?<=<!-- measured: {name} -->\n)(.*?)(?=\n<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    counts = gold_counts(given.data) if given.data else {}
    tables = {"probes": probe_table()} | ({"gold": gold_table(counts)} if counts else {})
    print(json.dumps(counts, indent=1) if given.json else "\n\n".join(tables.values()))
    if given.write:
        page = PAGE.read_text()
        for name, table in tables.items():
            page = block(name).sub(lambda _, table=table: table, page, count=1)
        PAGE.write_text(page)
        if counts:
            (ROOT / "benchmarks/results/math_gold.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
