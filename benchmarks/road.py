"""What the nano road gave and took, from the folder of its seeds: a row a model, the findings' verdicts, a row a stage.

    aftershock run recipes/nano/findings.toml --out runs/findings
    python benchmarks/road.py runs/findings

Numbers are of the bench stages, pooled over seeds and clustered by problem as on the findings page; time is the mean.
"""

import argparse
import json
from pathlib import Path

from aftershock.report.evidence import Evidence, gather

RULED = ("countdown", "arithmetic", "remainders")
COLUMNS = (
    ("reasoning", RULED, "pass@1"),
    ("code", ("programs",), "pass@1"),
    ("facts", ("facts",), "pass@1"),
    ("instructions", ("instructions",), "pass@1"),
    ("help", ("help",), "quality"),
    ("harm", ("harm",), "quality"),
    ("consistent", (*RULED, "programs"), "language_consistency"),
    ("readable", (*RULED, "programs"), "readable_rate"),
    ("tokens", (*RULED, "programs"), "mean_tokens"),
)


def models(evidence: Evidence, names: list[str]) -> list[str]:
    """Return the rows of a table of models, each number with its interval."""
    lines = ["| model | " + " | ".join(name for name, *_ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for model in names:
        cells = []
        for name, tasks, metric in COLUMNS:
            unit = "tokens" if metric == "mean_tokens" else "share"
            found = evidence.level(name, model, metric, tasks, unit)
            cells.append(f"{found.text.split()[0].lstrip('+')} {found.interval.replace('+', '')}" if found else "-")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return lines


def verdicts(folder: Path) -> list[str]:
    """Return a row a question that the findings ask, with what was found."""
    lines = ["| finding | verdict | asked | found | 95% interval | n | by seed |", "|---" * 7 + "|"]
    for finding in json.loads((folder / "findings.json").read_text())["findings"]:
        for check in finding["checks"]:
            number = check["number"]
            scale = 100 if number and number["unit"] in ("share", "points", "ratio") else 1
            told = ["-"] * 4
            if number:
                value, low, high = (f"{scale * number[key]:.1f}" for key in ("value", "low", "high"))
                seeds = ", ".join(f"{scale * one:.1f}" for one in number["seeds"].values())
                told = [value, f"[{low}, {high}]", f"{number['n']} {number['of']}", seeds]
            lines.append(f"| {finding['name']} | {finding['verdict']} | {check['text']} | " + " | ".join(told) + " |")
        lines += [f"| {finding['name']} | {finding['verdict']} | {note} | - | - | - | - |" for note in finding["notes"]]
    return lines


def costs(folders: list[Path]) -> list[str]:
    """Return a row a stage: seconds, tokens and FLOPs, means over the seeds."""
    lines = ["| stage | kind | seconds | tokens | TFLOP | usd |", "|---" * 6 + "|"]
    runs = [json.loads((folder / "summary.json").read_text())["stages"] for folder in folders]
    sums = [0.0, 0.0, 0.0, 0.0]
    for stages in zip(*runs):
        values = [sum(one[key] for one in stages) / len(stages) for key in ("seconds", "tokens", "flops", "usd")]
        sums = [a + b for a, b in zip(sums, values)]
        lines.append(_cost(stages[0]["name"], stages[0]["kind"], values))
    return [*lines, _cost("all", "", sums)]


def _cost(name: str, kind: str, values: list[float]) -> str:
    seconds, tokens, flops, usd = values
    return f"| {name} | {kind} | {seconds:,.0f} | {tokens:,.0f} | {flops / 1e12:.2f} | {usd:.4f} |"


def main() -> None:
    """Print the three tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of seed-0, seed-1 ...")
    folder = parser.parse_args().folder
    evidence = gather(folder)
    asked = next(iter(evidence.runs.values())).recipe["stage"].values()
    names = [model for stage in asked if stage["kind"] == "bench" for model in stage["models"]]
    folders = [run.folder for run in evidence.runs.values()]
    print("\n".join([*models(evidence, names), "", *verdicts(folder), "", *costs(folders)]))


if __name__ == "__main__":
    main()
