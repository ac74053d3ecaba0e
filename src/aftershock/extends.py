"""A recipe's file together with those that it extends: one set of tables, and the file that each key stands in."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aftershock import toml
from aftershock.errors import RecipeError
from aftershock.sources import HUB, SHIPPED

EXTENDS = "extends"  # the key at a recipe's top
_MODEL_KEYS = ("from", "teacher", "tokenizer", "models")  # of stages: a text there can be a model's folder
_FILE_KEYS = ("data", "clean", "name")  # of stages and their tasks: FILE, dataset:FILE or FILE.py:Class


@dataclass(frozen=True)
class Written:
    """What a recipe's files say together; `files` are the recipe's own, then those it extends, each as it stands."""

    tables: dict[str, Any]
    files: list[tuple[Path, dict[str, Any]]]

    def place(self, key: toml.Key) -> Path:
        """Return the file that a key stands in; for one that is missing, that of the innermost table around it."""
        for end in range(len(key), 0, -1):
            for path, tables in self.files:
                if at(tables, key[:end]) is not None:
                    return path
        return self.files[0][0]


def read(path: Path, above: tuple[Path, ...] = ()) -> Written:
    """Return a recipe's tables over those of the recipe it extends: merged key by key, lists replaced, its own win.

    Paths in the extended file are relative to that file, so they are rewritten as seen from this one's folder. `above`
    are the files that led here. RecipeError for a file that isn't there, is no TOML, or leads back to one above.
    """
    own = toml.read(path)
    if EXTENDS not in own:
        return Written(own, [(path, own)])
    base, above = _base(path, own[EXTENDS]), (*above, path.resolve())
    if base.resolve() in above:
        raise RecipeError(f"{path}: extends = {toml.literal(own[EXTENDS])}: leads back to {base}; break the loop")
    under = read(base, above)
    moved = _moved(under.tables, base.resolve().parent, path.resolve().parent)
    said = {key: value for key, value in own.items() if key != EXTENDS}
    return Written(_merged(moved, said), [(path, own), *under.files])


def _base(path: Path, named: Any) -> Path:
    if not isinstance(named, str):
        raise RecipeError(f'{path}: extends = {named!r}: should be the path of another recipe, such as "r1.toml"')
    base = path.parent / Path(named).expanduser()
    if not base.is_file():
        why = f"there is no file {base}; the path is relative to the file it stands in"
        raise RecipeError(f"{path}: extends = {toml.literal(named)}: {why}")
    return base


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {name for name, value in over.items() if isinstance(value, dict) and isinstance(under.get(name), dict)}
    return under | {name: _merged(under[name], value) if name in both else value for name, value in over.items()}


def _moved(tables: dict[str, Any], old: Path, new: Path) -> dict[str, Any]:
    """Return tables of a recipe in folder `old` as they must read in folder `new` to name the same files."""
    stages = tables.get("stage")
    if old == new or not isinstance(stages, dict):
        return tables
    taken = {*SHIPPED, *stages}  # what these mean comes before what a path does

    def move(key: str, text: str) -> str:
        """Return a text as it must read; a task's or a cleaner's may have a path on either side of a colon."""
        if text in taken or text.startswith(HUB):
            return text
        if key in _MODEL_KEYS:
            return seen(text, Path(text, "config.json"))
        return ":".join(seen(part, Path(part)) if Path(part).suffix else part for part in text.split(":"))

    def seen(text: str, file: Path) -> str:
        lies = not file.is_absolute() and (old / file).is_file()
        return os.path.relpath(old / text, new) if lies else text

    return {**tables, "stage": _each_path(stages, "", move)}


def _each_path(value: Any, key: str, move: Callable[[str, str], str]) -> Any:
    """Return a copy of nested tables with `move(key, text)` in place of every text that can name a path."""
    if isinstance(value, dict):
        return {name: _each_path(inner, name, move) for name, inner in value.items()}
    if isinstance(value, list):
        return [_each_path(inner, key, move) for inner in value]
    return move(key, value) if isinstance(value, str) and key in (*_MODEL_KEYS, *_FILE_KEYS) else value


def at(tables: Any, key: toml.Key) -> Any:
    """Return what stands at a key of nested tables, None where nothing does."""
    for part in key:
        try:
            tables = tables[part]
        except (KeyError, IndexError, TypeError):
            return None
    return tables
