"""Run the small set of benchmarks and compare its ratios with the kept ones: `make bench`.

    python benchmarks/ratios.py [--keep] [--threads 2]

A ratio has fallen when it is over 10% below the kept one and neither one's 95% interval holds the other; a kept row
that is not measured any more counts as fallen. `--keep` writes what was measured to results/ratios.json instead.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KEPT = HERE / "results" / "ratios.json"
SMALL = ("decode.py", "rl_step.py")
LOSS = 0.10
SECONDS = 3600  # of one benchmark

Row = Mapping[str, Any]


def fallen(kept: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Return what has become worse, one sentence a row; [] where nothing has."""
    measured = {row["name"]: row for row in now}
    said = []
    for old in kept:
        new = measured.get(old["name"])
        if new is None:
            said.append(f"{old['name']}: kept at {old['ratio']:g}, not measured now")
        elif new["ratio"] < (1 - LOSS) * old["ratio"] and new["ratio"] < old["low"] and new["high"] < old["ratio"]:
            said.append(f"{old['name']}: {_told(new)}, kept at {_told(old)}")
    return said


def _told(row: Row) -> str:
    return f"{row['ratio']:g} [{row['low']:g}, {row['high']:g}] (n = {row['n']})"


def run(script: str, threads: int | None) -> dict[str, Any]:
    """Return the JSON object of one benchmark's small set."""
    more = ["--threads", str(threads)] if threads else []
    command = [sys.executable, str(HERE / script), "--small", "--json", *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS)
    return json.loads(done.stdout)


def keep(told: Sequence[Mapping[str, Any]], note: str) -> None:
    """Keep the ratios of some benchmarks' objects from now on."""
    kept = {"rows": whole(told), "machine": told[-1]["machine"], "note": note}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"kept {len(kept['rows'])} ratios in {KEPT}")


def whole(told: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of whole steps and calls, by the clock and in processor time; others are details of these."""
    rows = [row for one in told for row in one["rows"]]
    return [row for row in rows if ":" not in row["name"] or row["name"].endswith(": processor")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--keep", action="store_true", help="keep these ratios from now on")
    parser.add_argument("--note", default="", help="kept with them, such as: shared, busy cores")
    given = parser.parse_args()
    told = [run(script, given.threads) for script in SMALL]
    if wrong := {name: why for one in told for name, why in one.get("failed", {}).items()}:
        sys.exit(f"not measured: {wrong}")
    if given.keep:
        keep(told, given.note)
        return
    rows = whole(told)
    if not KEPT.is_file():
        sys.exit(f"{KEPT} is missing: keep this machine's ratios first, with python benchmarks/ratios.py --keep")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    there, here = ((one["machine"]["processor"], one["machine"]["threads"]) for one in (kept, told[-1]))
    if there != here:
        print(
            f"kept on another machine: {there}, this is {here}; shares and ratios may differ for that", file=sys.stderr
        )
    if worse := fallen(kept["rows"], rows):
        sys.exit("make bench: over 10% below the kept ratios:\n" + "\n".join(worse))
    print(f"{len(rows)} ratios, none over 10% below the kept ones")


if __name__ == "__main__":
    main()
