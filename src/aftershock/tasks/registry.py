"""Tasks by name: built in, `gym:DATASET` of reasoning-gym, or `path/to/file.py:Class` of the user's own."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from aftershock.errors import TaskError
from aftershock.tasks.base import Task

# Imported when asked for, so that a worker loads the one it needs.
_BUILT_IN = {
    "countdown": ("aftershock.tasks.countdown", "Countdown"),
    "arithmetic": ("aftershock.tasks.arithmetic", "Arithmetic"),
    "remainders": ("aftershock.tasks.remainders", "Remainders"),
}
_GYM = "gym:"


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
        name = f"{(Path(base or '.') / Path(path).expanduser()).resolve()}:{attribute}"
    return from_spec(Spec(name, difficulty, tuple(languages)))


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
    if ".py:" in spec.name:
        path, _, attribute = spec.name.rpartition(":")
        return _own_class(Path(path), attribute)(spec.difficulty, spec.languages)
    if spec.name not in _BUILT_IN:
        raise TaskError(
            f"no task is named {spec.name!r}{nearest(spec.name, names())}. Built in are {', '.join(names())}; "
            "others are gym:DATASET (reasoning-gym) and path/to/my_task.py:MyTask (your own)"
        )
    module, attribute = _BUILT_IN[spec.name]
    made: Task = getattr(importlib.import_module(module), attribute)(spec.difficulty, spec.languages)
    return made


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (nearest: a, b)" with the names most like `name`, or nothing where none is."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(close)})" if close else ""


def _own_class(path: Path, attribute: str) -> type[Task]:
    module = own_module(path)
    found = getattr(module, attribute, None)
    if found is None:
        tasks = [name for name, value in vars(module).items() if _is_task(value) and not inspect.isabstract(value)]
        raise TaskError(
            f"{path} has no {attribute!r}{nearest(attribute, tasks)}; the tasks in it are: {', '.join(tasks) or 'none'}"
        )
    if not _is_task(found):
        raise TaskError(f"{attribute!r} in {path} is no task: make it a subclass of aftershock.tasks.Task")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise TaskError(f"{attribute!r} in {path} lacks {missing}: define each, as docs/tasks.md shows")
    if not found.name:
        raise TaskError(f'{attribute!r} in {path} has no name: set `name = "..."` in the class')
    checked: type[Task] = found
    return checked


def _is_task(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value is not Task


def own_module(path: Path) -> ModuleType:
    """Import a user's file once for each state it was in; files beside it can be imported by it."""
    try:
        stamp = f"{path}:{path.stat().st_mtime_ns}"
    except OSError as error:
        raise TaskError(
            f"can't read the task file {path}: {error.strerror}; its path is relative to the recipe"
        ) from error
    name = f"aftershock_own_{hashlib.blake2b(stamp.encode(), digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"can't import the task file {path}: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise TaskError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module
