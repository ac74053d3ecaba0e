"""R1-Zero over several seeds: accuracy, length and behaviour before and after, and what each seed took.

    python benchmarks/zero_seeds.py --seeds 0 1 2 --out runs/seeds

Runs recipes/nano/zero.toml once a seed (a finished seed is read back, an unfinished one resumed) and prints a table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes" / "nano" / "zero.toml"
METRICS = ("pass@1", "majority@k", "pass@k", "mean_tokens", "check_or_retry_rate", "switch_rate")


def run(seed: int, out: Path, overrides: list[str]) -> dict:
    """Return the summary of one seed's run."""
    folder = out / f"seed-{seed}"
    more = [word for override in [f"run.seed={seed}", *overrides] for word in ("--set", override)]
    command = [
        sys.executable,
        "-m",
        "aftershock",
        "run",
        str(RECIPE),
        "--out",
        str(folder),
        "--resume",
        "--json",
        *more,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def table(summaries: list[dict]) -> str:
    """Return one row a seed, suite and metric, then the spread of pass@1 over the seeds."""
    lines = ["| seed | suite | metric | before | after | n | k |", "|---|---|---|---|---|---|---|"]
    for summary in summaries:
        evals = {(m["suite"], m["metric"], m["when"]): m for m in summary["stages"][-1]["evals"]}
        for suite in dict.fromkeys(suite for suite, _, _ in evals):
            for metric in METRICS:
                before, after = (evals[suite, metric, when] for when in ("before", "after"))
                lines.append(
                    f"| {summary['seed']} | {suite} | {metric} | {told(before)} | {told(after)} "
                    f"| {after['n']} | {after['k']} |"
                )
    return "\n".join(lines + spread(summaries))


def told(measured: dict) -> str:
    """Return a value with its 95% interval; shares in percent."""
    scale = 1 if measured["metric"] == "mean_tokens" else 100
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(scale * measured[name] for name in ("value", "low", "high")))


def spread(summaries: list[dict]) -> list[str]:
    """Return how far the seeds lie apart in pass@1 after, by suite, and what each took."""
    said = [""]
    evals = [m for s in summaries for m in s["stages"][-1]["evals"] if (m["metric"], m["when"]) == ("pass@1", "after")]
    for suite in dict.fromkeys(m["suite"] for m in evals):
        values = [100 * m["value"] for m in evals if m["suite"] == suite]
        said.append(
            f"{suite}: pass@1 after {min(values):.1f} to {max(values):.1f}, {max(values) - min(values):.1f} apart"
        )
    for summary in summaries:
        stage = summary["stages"][-1]
        said.append(
            f"seed {summary['seed']}: {stage['seconds']:.0f} s, {stage['tokens']:,} tokens, ${stage['usd']:.4f}"
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    print(table([run(seed, given.out, given.overrides) for seed in given.seeds]))


if __name__ == "__main__":
    main()
