"""Rows of benchmarks: from the hub through `datasets`, or from the original's own file in a folder."""

import csv
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftershock.bench.suite import Source
from aftershock.errors import BenchError

Row = Mapping[str, Any]
_GATED = re.compile(r"gated|401|403|must be authenticated|ask for access", re.IGNORECASE)
_COMMIT = re.compile(r"@([0-9a-f]{40})/")


@dataclass(frozen=True)
class Table:
    """Rows, and where they came from: a file with its hash, or a dataset at a commit."""

    origin: str
    rows: Iterable[Row]


def load(source: Source, data: Path | None) -> Table:
    """Return a source's rows, from the folder `data` where one is given, else from the hub.

    Raises BenchError where the file, the hub, or the right to read the dataset is missing, or a file is no such file.
    """
    if data is None:
        return _from_hub(source)
    paths = [data / name for name in source.files if (data / name).is_file()][:1]
    paths = [data / name for name in source.parts if (data / name).is_file()] or paths
    if not paths:
        names = ", ".join(source.parts or source.files)
        raise BenchError(
            f"{data} holds none of {names}: put the original's file there under one of these names, or leave out "
            f"--data to read {source.hub} from the hub"
        )
    return Table(
        ", ".join(f"{path.name} (sha256 {_digest(path)})" for path in paths),
        (row for path in paths for row in _read(path)),
    )


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _read(path: Path) -> Iterator[Row]:
    try:
        yield from _READERS["".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix](path)
    except (ValueError, OSError, EOFError) as error:
        raise BenchError(f"{path} can't be read as {path.suffix}: {error}; fetch it again") from error


def _json_lines(path: Path) -> Iterator[Row]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} holds no object")
                yield row


def _json(path: Path) -> Iterator[Row]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ValueError("it is no list of objects")
    return iter(rows)


def _csv(path: Path) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(path).iter_batches(64):
        yield from batch.to_pylist()


_READERS = {".jsonl": _json_lines, ".jsonl.gz": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _from_hub(source: Source) -> Table:
    try:
        import datasets
    except ImportError as error:
        raise BenchError(
            f'reading {source.hub} needs datasets: pip install "aftershock[bench]", {_instead(source)}'
        ) from error
    revision = source.revision or "main"
    try:
        if source.parts:  # streamed: such a source is large, and most of it may not be wanted
            files = [f"hf://datasets/{source.hub}@{revision}/{part}" for part in source.parts]
            stream = datasets.load_dataset("json", data_files=files, split="train", streaming=True)
            return Table(f"{source.hub}@{revision}", _guarded(source, stream))
        rows = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # the libraries below raise a dozen kinds
        raise _refusal(source, error) from error
    commit = _COMMIT.search(" ".join(rows.info.download_checksums or {}))
    return Table(f"{source.hub}@{commit.group(1) if commit else rows._fingerprint}", rows)


def _guarded(source: Source, stream: Iterable[Row]) -> Iterator[Row]:
    try:
        yield from stream
    except Exception as error:
        raise _refusal(source, error) from error


def _refusal(source: Source, error: Exception) -> BenchError:
    cause = f"{type(error).__name__}: {str(error)[:300]}"
    if _GATED.search(cause):
        return BenchError(
            f"{source.hub} is gated: accept its terms at https://huggingface.co/datasets/{source.hub}, log in with "
            f"`hf auth login` and run again, {_instead(source)} ({cause})"
        )
    return BenchError(
        f"{source.hub} can't be read from the hub: see that the network is up, {_instead(source)} ({cause})"
    )


def _instead(source: Source) -> str:
    return f"or get {' or '.join(source.parts or source.files)} and name its folder with --data"
