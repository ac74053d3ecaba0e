"""Rows of benchmarks: from the hub through `datasets`, or from the original's own file in a folder."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aftershock import disk
from aftershock.bench.suite import Source
from aftershock.errors import BenchError
from aftershock.sources import Row, hub_rows, read_rows, refusal

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
        ", ".join(f"{path.name} (sha256 {disk.sha256(path)[:16]})" for path in paths),
        (row for path in paths for row in read_rows(path, BenchError)),
    )


def _from_hub(source: Source) -> Table:
    revision, instead = source.revision or "main", _instead(source)
    if source.parts:  # streamed: such a source is large, and most of it may not be wanted
        files = [f"hf://datasets/{source.hub}@{revision}/{part}" for part in source.parts]
        stream = hub_rows("json", BenchError, instead, data_files=files, split="train", streaming=True)
        return Table(f"{source.hub}@{revision}", _guarded(source, stream))
    rows = hub_rows(source.hub, BenchError, instead, source.config, split=source.split, revision=source.revision)
    commit = _COMMIT.search(" ".join(rows.info.download_checksums or {}))
    return Table(f"{source.hub}@{commit.group(1) if commit else rows._fingerprint}", rows)


def _guarded(source: Source, stream: Iterable[Row]) -> Iterator[Row]:
    try:
        yield from stream
    except Exception as error:
        raise refusal(f"datasets/{source.hub}", BenchError, _instead(source), error) from error


def _instead(source: Source) -> str:
    return f"or get {' or '.join(source.parts or source.files)} and name its folder with --data"
