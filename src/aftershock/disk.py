"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aftershock.errors import RunError

STRAY = ".tmp-"  # what is being written carries this prefix; a killed process leaves such names behind
STRAYS = (STRAY + "*", ".*.partial", ".*.old")  # the last two from saving a model


@contextlib.contextmanager
def writing(path: Path, needed: int) -> Iterator[None]:
    """Turn a failure to write `needed` bytes at `path` into a RunError that says what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(_failure(path, needed, error)) from error


def _failure(path: Path, needed: int, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full: {path} needs {size(needed)} and {size(free_bytes(path))} are free; "
            "free some space and run again with --resume (the last checkpoint is whole)"
        )
    return f"can't write {path}: {error.strerror or error}; check the folder and its permissions"


def free_bytes(path: Path) -> int:
    """Return how many bytes are free where `path` lies or will lie."""
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free


def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one move: a kill or a full disk leaves the old file, or none, never half of one."""
    beside = path.with_name(STRAY + path.name)
    with writing(path, len(data)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flush(beside, data)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Put `value` at `path` as indented JSON, in one move."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the JSON at `path`, None where there is no file; RunError where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path} is damaged: not valid JSON ({error}); restore it, or begin in another folder") from None


def flush(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's names, so that a rename outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Add one line to a file; where it does not fit, the file is left as it was."""
    data = (line + "\n").encode()
    before = path.stat().st_size if path.exists() else 0
    with writing(path, len(data)), open(path, "ab", buffering=0) as file:
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before)
            raise


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no half of it is ever seen under its name."""
    if folder.exists():
        aside = folder.with_name(STRAY + folder.name)
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        shutil.rmtree(aside)


def remove_strays(folder: Path) -> None:
    """Remove what a killed process left half written in `folder` and below."""
    for stray in [found for pattern in STRAYS for found in folder.rglob(pattern)]:
        if stray.is_dir() and not stray.is_symlink():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)


def lock(folder: Path) -> int:
    """Take the folder for this process alone and return the lock's handle; RunError names the process that has it."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 1000).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise RunError(
            f"{folder} is in use by {holder}; wait for it to end, stop it, or give another folder with --out"
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle
