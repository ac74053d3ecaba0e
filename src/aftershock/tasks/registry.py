"""Tasks by name: built in, `gym:DATASET` of reasoning-gym, `dataset:NAME`, or a user's own `path/to/file.py:Class`."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aftershock.errors import TaskError
from aftershock.own import nearest, own_class
from aftershock.tasks.base import Task

# Imported when asked for, so that a worker loads the one it needs.
_BUILT_IN = {
    "countdown": ("aftershock.tasks.countdown", "Countdown"),
    "arithmetic": ("aftershock.tasks.arithmetic", "Arithmetic"),
    "facts": ("aftershock.tasks.world", "Facts"),
    "harm": ("aftershock.tasks.requests", "Harm"),
    "help": ("aftershock.tasks.requests", "Help"),
    "instructions": ("aftershock.tasks.instructions", "Instructions"),
    "programs": ("aftershock.tasks.programs", "Programs"),
    "remainders": ("aftershock.tasks.remainders", "Remainders"),
    "self": ("aftershock.tasks.world", "Self"),
    "translate": ("aftershock.tasks.world", "Translate"),
    "write": ("aftershock.tasks.world", "Write"),
}
_GYM = "gym:"
_DATASETS = {"dataset": "DatasetTask", "prompts": "Prompts"}
_RELATIVE = "its path is relative to the recipe"


@dataclass(frozen=True)
class Spec:
    """What a task is made from; equal specs make equal tasks in any process. A file's `name` holds its full path."""

    name: str
    difficulty: int = 1
    languages: tuple[str, ...] = ("en",)


def names() -> list[str]:
    """Return the names of the built-in tasks."""
    return sorted(_BUILT_IN)


def task(name: str, difficulty: int = 1, languages: Iterable[str] = ("en",), base: str | Path | None = None) -> Task:
    """Return a task by its name in a recipe; the path of a user's file is relative to `base` (default: where we are).

    Raises TaskError for an unknown name (with the nearest), a file, class or dial that won't do.
    """
    if ".py:" in name:
        path, _, attribute = name.rpartition(":")
        name = f"{_resolved(path, base)}:{attribute}"
    kind, _, source = name.partition(":")
    if kind in _DATASETS:
        from aftershock.tasks.dataset import is_file

        name = f"{kind}:{_resolved(source, base) if is_file(source) else source}"
    return from_spec(Spec(name, difficulty, tuple(languages)))


def _resolved(path: str, base: str | Path | None) -> Path:
    return (Path(base or ".") / Path(path).expanduser()).resolve()


def from_spec(spec: Spec) -> Task:
    """Return the task that a spec describes."""
    if spec.difficulty < 1 or not spec.languages:
        raise TaskError(
            f"task {spec.name!r} has difficulty={spec.difficulty}, languages={list(spec.languages)}; "
            "wanted: a difficulty of at least 1 and at least one language"
        )
    made = _make(spec)
    if made.levels is not None and spec.difficulty > made.levels:
        raise TaskError(f"task {spec.name!r} has difficulty={spec.difficulty}; it goes from 1 to {made.levels}")
    made.spec = spec
    return made


def _make(spec: Spec) -> Task:
    if spec.name.startswith(_GYM):
        from aftershock.tasks.gym import GymTask

        return GymTask(spec.name.removeprefix(_GYM), spec.difficulty, spec.languages)
    kind, _, source = spec.name.partition(":")
    if kind in _DATASETS:
        from aftershock.tasks import dataset

        from_rows: Task = getattr(dataset, _DATASETS[kind])(source, spec.difficulty, spec.languages)
        return from_rows
    if ".py:" in spec.name:
        path, _, attribute = spec.name.rpartition(":")
        own: type[Task] = own_class(Path(path), attribute, Task, "task", TaskError, _RELATIVE)  # type: ignore[type-abstract]
        return own(spec.difficulty, spec.languages)
    if spec.name not in _BUILT_IN:
        raise TaskError(
            f"no task is named {spec.name!r}{nearest(spec.name, names())}. Built in are {', '.join(names())}; "
            "others are gym:DATASET (reasoning-gym), dataset:gsm8k, dataset:math, dataset:path/to/file.jsonl, "
            "prompts:path/to/file.jsonl (no rule judges those) and path/to/my_task.py:MyTask (your own)"
        )
    module, attribute = _BUILT_IN[spec.name]
    made: Task = getattr(importlib.import_module(module), attribute)(spec.difficulty, spec.languages)
    return made
