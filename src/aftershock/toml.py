"""TOML in and out: files read with errors that name the line, `--set` overrides, and values written back."""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aftershock.errors import RecipeError

Key = tuple[str | int, ...]


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; RecipeError says why it can't be read, with the line where that is known."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file; {_beside(path)}") from None
    except (IsADirectoryError, PermissionError) as error:
        raise RecipeError(f"{path}: can't be read ({error.strerror}); give the path of a TOML file") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None


def _beside(path: Path) -> str:
    names = [str(found) for found in path.parent.glob("*.toml")]
    near = difflib.get_close_matches(str(path), names, n=1)
    return f"did you mean {near[0]}?" if near else "check the path"


def parse_override(text: str) -> tuple[Key, Any]:
    """Return the key and the value of `a.0.b=VALUE`; VALUE is TOML, or the bare string where it is not TOML.

    >>> parse_override("stage.zero.steps=40"), parse_override("stage.zero.from=base")
    ((('stage', 'zero', 'steps'), 40), (('stage', 'zero', 'from'), 'base'))
    """
    dotted, equals, value = text.partition("=")
    parts = [part.strip() for part in dotted.split(".")]
    if not equals or not all(parts):
        raise RecipeError(f"--set {text}: should be KEY=VALUE, such as stage.zero.steps=40")
    return tuple(int(part) if part.isdecimal() else part for part in parts), _value(value.strip())


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def set_in(tables: dict[str, Any], key: Key, value: Any) -> None:
    """Put `value` at `key`, making the tables in between; RecipeError where the way leads through something else."""
    place: Any = tables
    for depth, part in enumerate(key[:-1]):
        place = _child(place, part, key[: depth + 1])
    last = key[-1]
    if isinstance(place, list):
        _child(place, last, key)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[str(last)] = value
    else:
        raise RecipeError(f"--set {dotted(key)}: {dotted(key[:-1])} is {place!r}, which holds no keys")


def _child(place: Any, part: str | int, key: Key) -> Any:
    if isinstance(place, dict):
        return place.setdefault(str(part), {})
    if not isinstance(place, list):
        raise RecipeError(f"--set {dotted(key)}: {dotted(key[:-1])} is {place!r}, which holds no keys")
    if not isinstance(part, int) or part >= len(place):
        raise RecipeError(
            f"--set {dotted(key)}: {dotted(key[:-1])} is a list of {len(place)}; "
            f"{part!r} should be a number from 0 to {len(place) - 1}"
        )
    return place[part]


def dotted(key: Iterable[str | int]) -> str:
    """Return `stage.zero.tasks.0.name` for its parts."""
    return ".".join(str(part) for part in key)


def literal(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        pairs = (f"{_name(name)} = {literal(item)}" for name, item in value.items() if item is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else literal(name)


def write(tables: dict[str, Any], prefix: tuple[str, ...] = ()) -> str:
    """Return nested tables as TOML text: `read` gives the same tables back, but for keys that are None."""
    plain = {name: value for name, value in tables.items() if not _is_table(value) and value is not None}
    lines = [f"{_name(name)} = {literal(value)}" for name, value in plain.items()]
    for name, value in tables.items():
        if _is_table(value):
            lines += _table_lines(value, (*prefix, name))
    return "\n".join(lines) + ("\n" if not prefix else "")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(item, dict) for item in value)
    )


def _table_lines(value: Any, path: tuple[str, ...]) -> list[str]:
    header = ".".join(_name(part) for part in path)
    if isinstance(value, dict):
        only_tables = bool(value) and all(_is_table(item) for item in value.values())
        return [*([] if only_tables else ["", f"[{header}]"]), *filter(None, [write(value, path)])]
    return [line for item in value for line in ("", f"[[{header}]]", *filter(None, [write(item, path)]))]
