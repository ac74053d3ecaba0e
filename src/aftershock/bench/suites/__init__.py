"""The suites by name: one file a benchmark, the generated ones made of tasks, and users' own."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from aftershock import tasks
from aftershock.bench.suite import Suite
from aftershock.errors import BenchError
from aftershock.own import nearest, own_class

# Imported when asked for: `datasets` and what else a suite needs stay out of the others' way.
_FILED = {
    "gsm8k": "mathematics:Gsm8k",
    "math500": "mathematics:Math500",
    "aime24": "mathematics:Aime24",
    "aime25": "mathematics:Aime25",
    "gpqa-diamond": "choice:Gpqa",
    "mmlu-pro": "choice:MmluPro",
    "humaneval": "functions:HumanEval",
    "humaneval+": "functions:HumanEvalPlus",
    "mbpp": "functions:Mbpp",
    "mbpp+": "functions:MbppPlus",
    "livecodebench": "livecodebench:LiveCodeBench",
    "ifeval": "ifeval:IfEval",
    "cruxeval-i": "cruxeval:CruxInput",
    "cruxeval-o": "cruxeval:CruxOutput",
}
GROUPS = {
    "generated": ("arithmetic", "countdown", "remainders"),  # what the shipped base was made for
    "ours": tuple(tasks.names()),
    "math": ("gsm8k", "math500", "aime24", "aime25"),
    "code": ("humaneval", "humaneval+", "mbpp", "mbpp+", "livecodebench", "cruxeval-i", "cruxeval-o"),
    "cruxeval": ("cruxeval-i", "cruxeval-o"),
    "r1": ("aime24", "math500", "gpqa-diamond", "mmlu-pro", "ifeval", "livecodebench"),
}
_GYM = "gym"


def names() -> list[str]:
    """Return the names of all suites but reasoning-gym's and users' own."""
    return [*_FILED, *GROUPS["ours"]]


def expand(asked: Sequence[str]) -> list[str]:
    """Return names with each group's members in its place, none twice: `generated ours gym math code cruxeval r1`."""
    members = (_gym() if name == _GYM else GROUPS.get(name, (name,)) for name in asked)
    return list(dict.fromkeys(name for group in members for name in group))


def find(name: str, data: Path | None = None) -> Suite:
    """Return the suite of a name, which reads its rows from the folder `data` or, without one, from the hub.

    Names are those of `names()`, `gym:DATASET`, and `path/to/file.py:Class`. What stands behind `@` is the suite's to
    read: a generated one's difficulty and languages (`countdown@3`, `countdown@3/zh`), a window of LiveCodeBench's.
    Raises BenchError for a name that is none, with the nearest.
    """
    stem, _, option = name.partition("@")
    if ".py:" in name:
        return _own(name, data)
    suite: Suite
    if stem in GROUPS["ours"] or stem.startswith(f"{_GYM}:"):
        from aftershock.bench.suites.generated import TaskSuite

        suite = TaskSuite(stem, option)
    elif stem in _FILED:
        module, attribute = _FILED[stem].split(":")
        made = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        suite = made(data, option)
    else:
        known = [*names(), *GROUPS, _GYM]
        raise BenchError(
            f"no suite is named {name!r}{nearest(stem, known)}. There are {', '.join(names())}; the groups "
            f"{', '.join([*GROUPS, _GYM])}; gym:DATASET (reasoning-gym) and path/to/my_suite.py:MySuite (your own)"
        )
    suite.name = name
    return suite


def _own(name: str, data: Path | None) -> Suite:
    path, _, attribute = name.rpartition(":")
    place = Path(path).expanduser().resolve()
    # mypy sees an abstract class where any class is meant.
    made = own_class(place, attribute, Suite, "suite", BenchError, "its path is relative to where you are")  # type: ignore[type-abstract]
    return made(data)


def _gym() -> list[str]:
    from aftershock.bench.suites.generated import gym_names

    return gym_names()
