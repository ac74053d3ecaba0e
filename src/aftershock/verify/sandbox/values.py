"""Read what a sandbox claims: JSON of plain values, from a program that may have written anything at all."""

import json
from collections.abc import Callable
from typing import Any

from aftershock.verify.sandbox.inside import DEEPEST

_MOST_COLLISIONS = 4096  # values of one hash make a set's or dict's building quadratic; honest ones hardly collide


def decode(text: bytes) -> Any:
    """Return the plain value that `inside.encode` wrote as `text`; ValueError for everything else, in bounded time."""
    try:
        return _plain(json.loads(text), 0)
    except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from error


def _plain(value: Any, depth: int) -> Any:
    if depth > DEEPEST + 1:  # the message around a value is a list
        raise ValueError(f"nested more than {DEEPEST} deep")
    if isinstance(value, list):
        return [_plain(part, depth + 1) for part in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag not in _TYPES:
        raise ValueError(f"unknown tag {tag[:20]!r}")
    if tag in "tsfd":
        inner = [_plain(part, depth + 1) for part in inner]
    return _TYPES[tag](inner)


def _unalike(values: list[Any]) -> list[Any]:
    if len(values) - len(set(map(hash, values))) > _MOST_COLLISIONS:
        raise ValueError("thousands of values with the same hash")
    return values


_TYPES: dict[str, Callable[[Any], Any]] = {
    "t": tuple,
    "s": lambda parts: set(_unalike(parts)),
    "f": lambda parts: frozenset(_unalike(parts)),
    "d": lambda parts: dict(zip(_unalike(parts[::2]), parts[1::2], strict=True)),
    "b": bytes.fromhex,
    "i": lambda digits: int(digits, 16),
    "n": float,
    "c": lambda parts: complex(float(parts[0]), float(parts[1])),
}
