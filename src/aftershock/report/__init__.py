"""The story of a run as one self-contained HTML page, made from the run's files alone."""

from pathlib import Path

from aftershock.pages import need

__all__ = ["write"]


def write(folder: Path) -> Path:
    """Make `folder/report.html` from whatever the run has written so far, and return its path.

    The page needs no network and is the same bytes for the same files. Raises RunError where the folder is no run, and
    AftershockError where matplotlib or jinja2 is missing.
    """
    need(f"aftershock report {folder}")
    from aftershock.report.page import make

    return make(Path(folder))
