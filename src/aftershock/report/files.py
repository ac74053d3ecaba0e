"""Read a run's folder as it is: whole, half-way or damaged. What can't be read is named, never guessed."""

import gzip
import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aftershock.errors import RunError

Row = dict[str, Any]

BEGUN = {"run": "name", "versions": "versions", "hardware": "hardware"}
MAX_ROLLOUT_FILES = 200  # evenly spread over the stage, so that a long run's report is still made in a minute
MAX_HASHED_BYTES = 2 * 1024**3


@dataclass
class StageFiles:
    """What is on disk of one stage. `table` is the recipe's, `record` the summary's; both {} where they lack it."""

    name: str
    kind: str
    folder: Path
    table: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    timings: list[Row] = field(default_factory=list)
    before: list[Row] = field(default_factory=list)
    after: list[Row] = field(default_factory=list)
    reliability: list[Row] = field(default_factory=list)  # of a reward model, by confidence


@dataclass
class RunFiles:
    """What is on disk of a run; `missing` says in words what is not there or can't be read."""

    folder: Path
    summary: dict[str, Any]
    recipe_text: str
    recipe: dict[str, Any]
    stages: list[StageFiles]
    missing: list[str]

    @property
    def name(self) -> str:
        """The run's name: from the summary, else the recipe, else the folder."""
        return str(self.summary.get("run") or self.recipe.get("run", {}).get("name") or self.folder.resolve().name)

    @property
    def seed(self) -> int | None:
        """The run's seed; None where neither summary nor recipe is there."""
        return self.summary.get("seed", self.recipe.get("run", {}).get("seed"))

    @property
    def finished(self) -> bool:
        """Whether the summary says that every stage came to its end."""
        return bool(self.summary.get("finished"))


def read(folder: Path) -> RunFiles:
    """Read a run's folder; RunError where it is no folder or holds nothing of a run."""
    if not folder.is_dir():
        raise RunError(f"run folder {str(folder)!r} does not exist: give the folder named by --out")
    missing: list[str] = []
    summary = _begun(folder, missing) | _json(folder / "summary.json", missing)
    recipe_text, recipe = _recipe(folder / "recipe.toml", missing)
    metrics = lines(folder / "metrics.jsonl", missing)
    timings = lines(folder / "timings.jsonl", missing)
    if not (summary or recipe or metrics):
        raise RunError(f"folder {str(folder)!r} holds no summary.json, recipe.toml or metrics.jsonl: it is not a run")
    stages = [
        _stage(folder, name, summary, recipe, metrics, timings, missing) for name in _names(summary, recipe, metrics)
    ]
    return RunFiles(folder, summary, recipe_text, recipe, stages, missing)


def _begun(folder: Path, missing: list[str]) -> dict[str, Any]:
    """Return what run.json knows from the first moment on, under the names that summary.json will give it."""
    facts = _json(folder / "run.json", missing)
    return {key: facts[name] for key, name in BEGUN.items() if name in facts}


def _names(summary: dict[str, Any], recipe: dict[str, Any], metrics: list[Row]) -> list[str]:
    """Return the stages in the recipe's order, then any that only the summary or the metrics know."""
    known = [*_table(recipe.get("stage")), *(record["name"] for record in _records(summary))]
    return list(dict.fromkeys([*known, *(str(row["stage"]) for row in metrics if "stage" in row)]))


def _records(summary: dict[str, Any]) -> list[dict[str, Any]]:
    found = summary.get("stages")
    return [r for r in found if isinstance(r, dict) and "name" in r] if isinstance(found, list) else []


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _stage(
    folder: Path,
    name: str,
    summary: dict[str, Any],
    recipe: dict[str, Any],
    metrics: list[Row],
    timings: list[Row],
    missing: list[str],
) -> StageFiles:
    table = _table(_table(recipe.get("stage")).get(name))
    record = next((r for r in _records(summary) if r["name"] == name), {})
    stage = StageFiles(
        name, str(record.get("kind") or table.get("kind") or "?"), folder / "stages" / name, table, record
    )
    stage.metrics = [row for row in metrics if row.get("stage") == name]
    stage.timings = [row for row in timings if row.get("stage") == name]
    if not stage.record.get("evals"):  # a stage that is still at work keeps them here
        stage.record = {**record, "evals": _evals(stage.folder / "eval-before.json")}
    if stage.kind == "rl" and stage.metrics:
        stage.before = lines(stage.folder / "eval-before.jsonl.gz", missing)
    stage.reliability = _evals(stage.folder / "calibration.json")
    if stage.metrics and stage.kind not in ("sample", "reward_model"):  # they write no answers to held-out problems
        stage.after = lines(stage.folder / "eval-after.jsonl.gz", missing)
    return stage


def _evals(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def _label(path: Path) -> str:
    return "/".join(path.parts[path.parts.index("stages") :]) if "stages" in path.parts else path.name


def _json(path: Path, missing: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{_label(path)} is not there")
    except (OSError, ValueError) as error:
        missing.append(f"{_label(path)} can't be read ({type(error).__name__})")
    else:
        if isinstance(found, dict):
            return found
        missing.append(f"{_label(path)} is not a table")
    return {}


def _recipe(path: Path, missing: list[str]) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except FileNotFoundError:
        missing.append(f"{path.name} is not there")
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} can't be read ({type(error).__name__})")
    return "", {}


def lines(path: Path, missing: list[str]) -> list[Row]:
    """Read JSON lines, plain or gzipped; lines that a killed process left half-written are counted, not fatal."""
    rows: list[Row] = []
    bad = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                row = _row(line)
                bad += row is None
                rows += [row] if row is not None else []
    except FileNotFoundError:
        missing.append(f"{_label(path)} is not there")
    except (OSError, EOFError, ValueError) as error:
        missing.append(f"{_label(path)} breaks off ({type(error).__name__}); what was readable is used")
    if bad:
        missing.append(f"{_label(path)}: {bad} line{'s' * (bad > 1)} can't be read")
    return rows


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def rollout_rows(stage: StageFiles, missing: list[str]) -> Iterator[Row]:
    """Yield the rows of a stage's rollouts, file by file; of more than `MAX_ROLLOUT_FILES` files an even choice."""
    paths = sorted((stage.folder / "rollouts").glob("*.jsonl.gz"))
    if not paths:
        missing.append(f"stages/{stage.name}/rollouts is not there")
    stride = -(-len(paths) // MAX_ROLLOUT_FILES) or 1
    for path in paths[::stride]:
        yield from lines(path, missing)


def model_facts(folder: Path) -> dict[str, Any]:
    """Return `parameters`, `bytes` and `config` of a model folder, from the headers of its safetensors; {} without."""
    weights = sorted(folder.glob("*.safetensors"))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parameters = sum(_parameters(path) for path in weights)
    except (OSError, ValueError, KeyError):
        return {}
    return {"parameters": parameters, "bytes": sum(path.stat().st_size for path in weights), "config": config}


def _parameters(path: Path) -> int:
    """Count a file's numbers from its header: 8 bytes of length, then JSON of name -> dtype, shape, offsets."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for axis in tensor["shape"]:
                size *= axis
            total += size
    return total


def hashes(run: RunFiles) -> list[tuple[str, str]]:
    """Return (path, SHA-256) of the recipe and of every stage's weights, largest files left to the reader."""
    paths = [run.folder / "recipe.toml"]
    for stage in run.stages:
        paths += sorted((stage.folder / "model").glob("*.safetensors"))
    found = []
    for path in paths:
        if path.is_file():
            large = path.stat().st_size > MAX_HASHED_BYTES
            found.append((_label(path), "not computed: larger than 2 GiB" if large else _sha256(path)))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
