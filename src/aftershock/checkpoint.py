"""Checkpoints on disk: tensors and scalars of one step, with a SHA-256 for every file, whole or not there."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aftershock import disk
from aftershock.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2  # the last one, and the one before it in case the last is damaged
TENSORS, STATE, SUMS = "tensors.safetensors", "state.json", "SHA256SUMS"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps; tensors are on the CPU."""

    step: int
    tensors: "dict[str, Tensor]"
    scalars: dict[str, Any]


def write(folder: Path, checkpoint: Checkpoint, marks: Mapping[str, int]) -> None:
    """Add a checkpoint to `folder` and drop those before the last two.

    `marks` go beside the scalars: how long the run's line files were at that moment. Where the disk is full, RunError
    says what is needed, and the checkpoints that were there remain.
    """
    final = folder / f"step-{checkpoint.step:06d}"
    beside = folder / (disk.STRAY + final.name)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.tensors.values())
    with disk.writing(final, needed):
        try:
            _fill(beside, checkpoint, marks)
            disk.remove_folder(final)
            os.replace(beside, final)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        disk.sync_folder(folder)
    for old in steps(folder)[:-KEPT]:
        disk.remove_folder(old)


def _fill(folder: Path, checkpoint: Checkpoint, marks: Mapping[str, int]) -> None:
    from safetensors.torch import save

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = {"step": checkpoint.step, "scalars": checkpoint.scalars, "marks": dict(marks)}
    disk.flush(folder / TENSORS, save(_apart(checkpoint.tensors)))
    disk.flush(folder / STATE, json.dumps(state, ensure_ascii=False, indent=1).encode())
    disk.flush(folder / SUMS, _sums(folder).encode())
    disk.sync_folder(folder)


def _apart(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return contiguous CPU tensors of which no two share memory, as safetensors wants them."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if address in seen else plain
        seen.add(address)
    return apart


def _sums(folder: Path) -> str:
    """Return the lines that `sha256sum --check SHA256SUMS` reads."""
    return "".join(f"{disk.sha256(folder / name)}  {name}\n" for name in (TENSORS, STATE))


def steps(folder: Path) -> list[Path]:
    """Return the checkpoints' folders, earliest first."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name[5:]))


def damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint's files, None where every byte is as it was written."""
    missing = [name for name in (TENSORS, STATE, SUMS) if not (folder / name).is_file()]
    if missing:
        return f"{folder / missing[0]} is missing"
    written, now = (folder / SUMS).read_text(errors="replace"), _sums(folder)
    for old, new in zip(written.splitlines(), now.splitlines()):
        if old != new:
            return f"{folder / new[66:]} is damaged: its SHA-256 is {new[:64]}, {SUMS} has {old[:64]}"
    return None if written == now else f"{folder / SUMS} is damaged"


def latest(folder: Path) -> tuple[int, dict[str, int]] | None:
    """Return step and marks of the last checkpoint, None where there is none; CheckpointError where it is damaged."""
    found = steps(folder)
    if not found:
        return None
    wrong = damage(found[-1])
    if wrong:
        raise CheckpointError(f"{wrong}. {_way_back(found)}")
    state = _state(found[-1])
    return state["step"], state["marks"]


def _way_back(found: list[Path]) -> str:
    good = [path for path in found[:-1] if damage(path) is None]
    if good:
        bad = " ".join(f"'{path}'" for path in found[found.index(good[-1]) + 1 :])
        return f"The checkpoint before it, {good[-1].name}, is whole: to go back to it, rm -r {bad} and --resume again"
    return f"No whole checkpoint is left: to begin the stage again, rm -r '{found[-1].parent}' and --resume again"


def read(folder: Path) -> Checkpoint | None:
    """Return the last checkpoint, checked as by `latest`."""
    from safetensors.torch import load_file

    if latest(folder) is None:
        return None
    last = steps(folder)[-1]
    state = _state(last)
    return Checkpoint(state["step"], load_file(last / TENSORS), state["scalars"])


def _state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATE).read_text(encoding="utf-8"))
