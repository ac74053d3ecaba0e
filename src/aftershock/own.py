"""Classes of the user's own, named as `path/to/file.py:Class`: tasks and benchmark suites alike."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from aftershock.errors import AftershockError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (nearest: a, b)" with the names most like `name`, or nothing where none is."""
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (nearest: {', '.join(close)})" if close else ""


def own_class(
    path: Path, attribute: str, base: type[T], kind: str, error: type[AftershockError], missing: str
) -> type[T]:
    """Return the class `attribute` of a user's file, a complete subclass of `base` with a `name`.

    Else raises `error`, whose message calls the thing a `kind`; `missing` says where a file is looked for.
    """
    module = own_module(path, kind, error, missing)
    found = getattr(module, attribute, None)

    def fits(value: object) -> bool:
        return isinstance(value, type) and issubclass(value, base) and value is not base

    if found is None:
        there = [name for name, value in vars(module).items() if fits(value) and not inspect.isabstract(value)]
        listed = ", ".join(there) or "none"
        raise error(f"{path} has no {attribute!r}{nearest(attribute, there)}; the {kind}s in it are: {listed}")
    if not fits(found):
        wanted = f"{base.__module__.removesuffix('.base')}.{base.__name__}"
        raise error(f"{attribute!r} in {path} is no {kind}: make it a subclass of {wanted}")
    if inspect.isabstract(found):
        lacks = ", ".join(sorted(found.__abstractmethods__))
        raise error(f"{attribute!r} in {path} lacks {lacks}: define each, as docs/{kind}s.md shows")
    if not found.name:
        raise error(f'{attribute!r} in {path} has no name: set `name = "..."` in the class')
    checked: type[T] = found
    return checked


def own_module(path: Path, kind: str, error: type[AftershockError], missing: str) -> ModuleType:
    """Import a user's file once for each state it was in; files beside it can be imported by it."""
    try:
        stamp = f"{path}:{path.stat().st_mtime_ns}"
    except OSError as cause:
        raise error(f"can't read the {kind} file {path}: {cause.strerror}; {missing}") from cause
    name = f"aftershock_own_{hashlib.blake2b(stamp.encode(), digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"can't import the {kind} file {path}: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as cause:
        del sys.modules[name]
        if not isinstance(cause, Exception):
            raise
        raise error(f"{path} can't be imported: {type(cause).__name__}: {cause}") from cause
    return module
