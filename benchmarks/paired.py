"""What the benchmarks that compare share: sides that alternate, ratios with intervals, the machine, one JSON object."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np

from aftershock.cost.hardware import cores, cpu_name, memory_bytes

T = TypeVar("T")
RESAMPLES = 2_000
WIDE = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "bf16")  # what sets processors of a name apart
PACKAGES = ("aftershock", "torch", "transformers", "trl", "accelerate", "numpy")


@dataclass(frozen=True)
class Row:
    """One comparison: each side's median over `n` rounds in `unit`, and how many times better ours is, at 95%.

    In a share-of-limit row `theirs` is the limit, so that `ratio` is the share reached.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    unit: str
    n: int


def alternate(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call every side once a round, in turn, and return what each gave by round.

    Every second round goes backwards, so that neither side always follows the other.
    """
    told: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            told[name].append(sides[name]())
    return told


def compare(name: str, ours: Sequence[float], theirs: Sequence[float], unit: str, digits: int = 4) -> Row:
    """Return the row of two sides measured in the same rounds; seconds (`unit` "s") are better when fewer.

    The ratio is the median of the rounds' own ratios, so that what slows a whole round cancels out; its interval is
    the percentile bootstrap over rounds. That can't reach past the rounds seen: below 6 it covers less than 95%.
    """
    pairs = np.array([ours, theirs], dtype=float)
    ratios = pairs[1] / pairs[0] if unit == "s" else pairs[0] / pairs[1]
    draws = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), (2.5, 97.5))
    found = (statistics.median(ours), statistics.median(theirs), float(np.median(ratios)), float(low), float(high))
    one, other, ratio, least, most = (float(f"{value:.{digits}g}") for value in found)
    return Row(name, one, other, ratio, least, most, unit, len(ratios))


def machine(threads: int) -> dict[str, object]:
    """Return what a number was measured on: processor, memory, load, threads, versions, date, command."""
    from aftershock.models.native import build

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["python", *(os.path.relpath(word) if word == sys.argv[0] else word for word in sys.argv)]),
        "processor": cpu_name(),
        "instructions": instructions(),
        "cores": cores(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "threads": threads,
        "native_step": build.why_not() or "compiled",
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}},
        "commit": _commit(),
    }


def instructions() -> list[str]:
    """Return which of WIDE the processor has, as Linux names them: a cloud's processors may all bear one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    there = {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
    return [name for name in WIDE if name in there]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every comparing benchmark takes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=cores())
    made.add_argument("--rounds", type=int, help="how often each side runs; by default what the benchmark says")
    made.add_argument("--only", default="", metavar="TEXT", help="only what has this in its name")
    made.add_argument("--small", action="store_true", help="the small set, which `make bench` runs")
    made.add_argument("--note", default="", help="kept with the results, such as: shared, busy cores")
    made.add_argument("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")
    made.add_argument("--out", type=Path, help="write the same object here")
    return made


def tell(row: Row) -> None:
    """Say a row as soon as it is known, on stderr."""
    ends = f"{row.ratio:7.3g} [{row.low:.3g}, {row.high:.3g}]"
    print(
        f"{row.name:44}{row.ours:10.4g}{row.theirs:10.4g} {row.unit:9} {ends}  n = {row.n}", file=sys.stderr, flush=True
    )


def report(
    rows: Sequence[Row], given: argparse.Namespace, before: Mapping[str, object], done: bool = True, **more: object
) -> None:
    """Write the rows with the machine (as it was `before` them), the note and whatever else is to be told.

    A long benchmark calls it after each case, not yet `done`, so that what was measured outlives being stopped.
    """
    told = {"rows": [asdict(row) for row in rows], "machine": dict(before), "note": given.note, **more}
    text = json.dumps(told, indent=1, ensure_ascii=False)
    if given.json and done:
        print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
