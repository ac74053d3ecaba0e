"""Run the small set of benchmarks and compare its ratios with the kept ones: `make bench`.

    python benchmarks/ratios.py [--keep] [--threads 1] [--note TEXT]

A ratio has fallen when it is over 10% below the kept one and neither one's 95% interval holds the other; a kept row
that is not measured any more counts as fallen. results/ratios.json holds the ratios of each kind of machine that they
were kept on: processor, instructions, threads. On a kind of which none are kept there is nothing to fall from, which is
a warning; `--keep` writes what was measured there, in place of what this kind had.
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
SMALL = ("decode.py", "rl_step.py", "train.py")
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


def run(script: str, threads: int) -> dict[str, Any]:
    """Return the JSON object of one benchmark's small set."""
    command = [sys.executable, str(HERE / script), "--small", "--json", "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=SECONDS)
    return json.loads(done.stdout)


def kind(machine: Mapping[str, Any]) -> str:
    """Return in words what must be alike for ratios to be compared."""
    instructions = "+".join(machine.get("instructions", ())) or "unknown instructions"
    return f"{machine['processor']} ({instructions}), threads {machine['threads']}"


def read() -> dict[str, dict[str, Any]]:
    """Return what is kept, by kind of machine; {} where nothing is."""
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else []
    return {kind(one["machine"]): one for one in kept}


def keep(told: Sequence[Mapping[str, Any]], note: str) -> None:
    """Keep the ratios of some benchmarks' objects for this kind of machine; other kinds' stay."""
    now = {"rows": whole(told), "machine": told[-1]["machine"], "note": note}
    kept = read() | {kind(now["machine"]): now}
    KEPT.write_text(json.dumps([*kept.values()], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"kept {len(now['rows'])} ratios for {kind(now['machine'])} in {KEPT}")


def whole(told: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of whole steps and calls, by the clock and in processor time; others are details of these."""
    rows = [row for one in told for row in one["rows"]]
    return [row for row in rows if ":" not in row["name"] or row["name"].endswith(": processor")]


def compare(told: Sequence[Mapping[str, Any]]) -> str:
    """Return what to say where nothing has fallen; SystemExit says what has."""
    rows, here, kept = whole(told), kind(told[-1]["machine"]), read()
    if here not in kept:
        said = f"WARN: no ratios are kept for this kind of machine, {here}, only for: {'; '.join(kept) or 'none'}"
        return f"{said}\nkeep {len(rows)} for it, with its cores idle: python benchmarks/ratios.py --keep"
    if worse := fallen(kept[here]["rows"], rows):
        sys.exit(f"make bench: over 10% below the ratios kept for {here}:\n" + "\n".join(worse))
    return f"{len(rows)} ratios, none over 10% below those kept for {here}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="one by default: what else runs disturbs that least")
    parser.add_argument("--keep", action="store_true", help="keep these ratios from now on, for this kind of machine")
    parser.add_argument("--note", default="", help="kept with them, such as: shared, busy cores")
    given = parser.parse_args()
    told = [run(script, given.threads) for script in SMALL]
    if wrong := {name: why for one in told for name, why in one.get("failed", {}).items()}:
        sys.exit(f"not measured: {wrong}")
    if given.keep:
        keep(told, given.note)
    else:
        print(compare(told))


if __name__ == "__main__":
    main()
