"""What a program is tested with, and how much of the machine it may use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CallTest:
    """Call `function(*args, **kwargs)` of the program; it must return `expected`. All of them plain values.

    Plain are None, bool, int, float, complex, str, bytes and lists, tuples, sets, frozensets and dicts of plain values.
    """

    function: str
    args: tuple[Any, ...]
    expected: Any
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AssertTests:
    """Python source of assertions, which runs apart from the program and reaches it only by calls of plain values.

    With an `entry_point`, as in HumanEval, `source` defines `check(candidate)`, which is called with that function of
    the program. Without one, as in MBPP, `source` names the program's functions as it likes. `setup` runs before
    `source` and beside it, never in the program's process: helpers defined there are not the program's to change.
    """

    source: str
    entry_point: str | None = None
    setup: str = ""


@dataclass(frozen=True)
class StdioTest:
    """Run the program with `stdin` as its input; it must print `stdout`, lines compared without trailing space."""

    stdin: str
    stdout: str


ProgramTest = CallTest | AssertTests | StdioTest


@dataclass(frozen=True)
class Limits:
    """What a program with all its tests may use; what one process asks for beyond it is refused or ends it."""

    cpu_seconds: float = 10.0
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 29
    processes: int = 16
    file_bytes: int = 1 << 24
    output_bytes: int = 1 << 20
