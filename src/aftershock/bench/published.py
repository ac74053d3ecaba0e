"""Our numbers beside published ones, with all that is known to differ between the two.

`published/*.csv` has one number a row: the suite by our name, the model, percent, and where it stands. What its source
doesn't tell (k, temperature, top-p, the limit on tokens, worked examples) is empty there and called unknown here.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files

from aftershock.bench.measure import measure, told
from aftershock.bench.store import Bench
from aftershock.bench.types import Protocol
from aftershock.stats import Measurement

ALWAYS = (
    "Not the same model, nor its prompt and template: no table gives their wording or a hash. Published values come "
    "without an interval. Whether a suite's rows were the very same is not known either"
)
HEADINGS = ("suite", "metric", "model", "percent", "there instead", "source")
NARROW = ("suite", "metric", "model", "percent", "note")
FIRST = "DeepSeek-R1"


@dataclass(frozen=True)
class Published:
    """One published number, as its file has it: text throughout, empty where the source is silent."""

    suite: str
    model: str
    metric: str
    percent: str
    n: str
    k: str
    temperature: str
    top_p: str
    max_tokens: str
    shots: str
    published_as: str
    source: str


@dataclass(frozen=True)
class Beside:
    """A line of the table: our own measurement (no `source`), or a published one with how its protocol differs."""

    suite: str
    metric: str
    model: str
    percent: float
    text: str
    differs: str
    source: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row for a table with `HEADINGS`."""
        return (self.suite, self.metric, self.model, self.text, self.differs, self.source)


def published() -> list[Published]:
    """Return all published numbers, those of the R1 family first."""
    found = []
    for file in sorted((files("aftershock.bench") / "published").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".csv"):
            rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
            found += [Published(**{field.name: row[field.name] for field in fields(Published)}) for row in rows]
    return sorted(found, key=lambda one: not one.model.startswith(FIRST))


def compare_published(bench: Bench) -> list[Beside]:
    """Return, for each suite and metric of the bench that was published, ours and then theirs, R1's family first.

    A dial in a suite's name (`livecodebench@...`) chooses among its rows and keeps the published name before it.
    """
    known, found = published(), []
    for entry in bench.header["suites"]:
        name, rows = entry["name"], bench.of(entry["name"])
        theirs = [one for one in known if one.suite == name.partition("@")[0]]
        for ours in measure(name, rows, entry["k"], bench.protocol.seed):
            same = [one for one in theirs if one.metric == ours.metric]
            if same:
                found += [_ours(bench, ours), *(_theirs(bench.protocol, ours, one) for one in same)]
    return found


def footnoted(lines: Sequence[Beside]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return rows for a narrow table with `NARROW` headings, and the notes they name: what differs, and the source."""
    notes: dict[str, str] = {}
    rows: list[tuple[str, ...]] = []
    for line in lines:
        note = "; ".join(filter(None, (line.differs, line.source)))
        number = notes.setdefault(note, f"[{len(notes) + 1}]")
        rows.append((line.suite, line.metric, line.model, line.text, number))
    return rows, [f"{number} {note}" for note, number in notes.items()]


def _ours(bench: Bench, ours: Measurement) -> Beside:
    asked = bench.protocol
    basis = (
        f"here: n {ours.n}, k {ours.k}, temperature {asked.temperature:g}, top-p {asked.top_p:g}, "
        f"max tokens {asked.max_tokens}, seed {ours.seed}"
    )
    name = f"this bench: {bench.header['model']['name']}"
    return Beside(ours.suite, ours.metric, name, 100 * ours.value, told(ours), basis, "")


def _theirs(protocol: Protocol, ours: Measurement, one: Published) -> Beside:
    differs = _differs(protocol, ours, one)
    return Beside(ours.suite, ours.metric, one.model, float(one.percent), f"{one.percent}%", differs, one.source)


def _differs(protocol: Protocol, ours: Measurement, one: Published) -> str:
    """Say what was otherwise there, what is unknown, and under which name it was published if not ours."""
    pairs: Sequence[tuple[str, str, float]] = (
        ("n", one.n, ours.n),
        ("k", one.k, ours.k),
        ("temperature", one.temperature, protocol.temperature),
        ("top-p", one.top_p, protocol.top_p),
        ("max tokens", one.max_tokens, protocol.max_tokens),
        ("worked examples", one.shots, 0),
    )
    parts = [f"{name} {theirs}" for name, theirs, mine in pairs if theirs and not _in(mine, theirs)]
    unknown = [name for name, theirs, _ in pairs if not theirs]
    parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
    named = one.published_as.endswith(f" {one.metric}")
    return "; ".join(parts if named else [*parts, f"called {one.published_as}"])


def _in(value: float, text: str) -> bool:
    """Whether a value is the one published, or in the range published (`4-64`)."""
    low, _, high = text.partition("-")
    return float(low) <= value <= float(high or low)
