"""What comes from outside: rows of files in the usual formats, rows of the hub's datasets, weights of its models."""

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from aftershock.errors import AftershockError, CheckpointError

Row = Mapping[str, Any]
# The models inside the package by name, with their folders under assets/: one that knows three families of reasoning,
# one for the whole road, which knows a little of everything, and two small dense ones for its students.
SHIPPED = {"base": "nano", "road-base": "nano-road", "small-qwen": "nano-qwen", "small-llama": "nano-llama"}
HUB = "hub:"  # before ORG/NAME, wherever a recipe names what is on the hub
HUB_NAME = re.compile(r"hub:[\w.-]+/[\w.-]+(@[\w./-]+)?")
# Safetensors alone: a pickle that was never fetched can't be opened.
_FETCHED = [
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "*.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"),
]
_GATED = re.compile(r"gated|401|403|must be authenticated|ask for access", re.IGNORECASE)


def shipped_base(name: str = "base") -> Path:
    """Return the folder of a nano base model that ships inside the package, by its name in recipes and commands."""
    return Path(str(files("aftershock") / "assets" / SHIPPED[name]))


def read_rows(path: Path, error: type[AftershockError]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `.jsonl`, `.jsonl.gz`, `.json`, `.csv` or `.parquet` file; `error` where it can't be read."""
    kind = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if kind not in _READERS:
        raise error(f"{path} can't be read: its name should end in {', '.join(_READERS)}")
    try:
        yield from _READERS[kind](path)
    except (ValueError, OSError, EOFError) as cause:
        raise error(f"{path} can't be read as {path.suffix}: {cause}; fetch it again, or name another") from cause


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _object(line, number)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as cause:
        raise ValueError(f"line {number}: not JSON ({cause})") from cause
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: holds a {type(row).__name__}, wanted a JSON object")
    return row


def _json(path: Path) -> Iterator[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError("it is no list of objects")
    return iter(rows)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(path).iter_batches(64):
        yield from batch.to_pylist()


_READERS = {".jsonl": _json_lines, ".jsonl.gz": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def hub_rows(name: str, error: type[AftershockError], instead: str, *options: str | None, **more: Any) -> Any:
    """Return a dataset of the hub as `datasets.load_dataset(name, ...)` gives it.

    `error` where the library, the network, the dataset or the right to read it is missing; `instead` tells what else
    can be done.
    """
    try:
        import datasets
    except ImportError as cause:
        raise error(f'reading {name} needs datasets: pip install "aftershock[bench]", {instead}') from cause
    try:
        return datasets.load_dataset(name, *options, **more)
    except Exception as cause:  # the libraries below raise a dozen kinds
        raise refusal(f"datasets/{name}", error, instead, cause) from cause


def hub_folder(name: str) -> Path:
    """Return the folder of a model of the hub, `hub:ORG/NAME[@REVISION]`, downloaded where it isn't yet.

    Only safetensors, config and tokenizer are fetched. Raises CheckpointError where the network, the model or the
    right to read it is missing.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=_FETCHED))
    except Exception as cause:
        instead = "or download the model elsewhere and name its folder"
        raise refusal(repository, CheckpointError, instead, cause) from cause


def refusal(place: str, error: type[AftershockError], instead: str, cause: Exception) -> AftershockError:
    """Return the `error` that says why the hub gave nothing: `place` is a path there, such as `datasets/ORG/NAME`."""
    told = f"{type(cause).__name__}: {str(cause)[:300]}"
    name = place.removeprefix("datasets/")
    if type(cause).__name__ == "RepositoryNotFoundError":
        return error(f"{name} is not on the hub, or is private: see that the name is right, {instead} ({told})")
    if _GATED.search(told):
        return error(
            f"{name} is gated: accept its terms at https://huggingface.co/{place}, log in with "
            f"`hf auth login` and run again, {instead} ({told})"
        )
    return error(f"{name} can't be read from the hub: see that the network is up, {instead} ({told})")
