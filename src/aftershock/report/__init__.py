"""The story of a run as one self-contained HTML page, made from the run's files alone."""

import tomllib
from pathlib import Path

from aftershock.pages import need

__all__ = ["write", "write_all"]


def write(folder: Path) -> Path:
    """Make `folder/report.html` from whatever the run has written so far, and return its path.

    The page needs no network and is the same bytes for the same files. Raises RunError where the folder is no run, and
    AftershockError where matplotlib or jinja2 is missing.
    """
    need(f"aftershock report {folder}")
    from aftershock.report.page import make

    return make(Path(folder))


def write_all(folder: Path) -> dict[str, Path]:
    """Make every page that a folder has matter for, and return their paths by name.

    That is "report" for a run, and "findings" for a run whose recipe has that table and for a folder of seed-N runs.
    Raises as `write` does.
    """
    need(f"aftershock report {folder}")
    from aftershock.report import findings
    from aftershock.report.evidence import seed_runs

    if seed_runs(folder):
        return {"findings": findings.write(folder)}
    made = {"report": write(folder)}
    return made | ({"findings": findings.write(folder)} if _asks(folder / "recipe.toml") else {})


def _asks(recipe: Path) -> bool:
    """Whether a run's recipe can be read and has a [findings] table."""
    try:
        return "findings" in tomllib.loads(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
