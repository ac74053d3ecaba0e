"""The story of a run as one self-contained HTML page, made from the run's files alone."""

import importlib
from pathlib import Path

from aftershock.errors import AftershockError

__all__ = ["write"]


def write(folder: Path) -> Path:
    """Make `folder/report.html` from whatever the run has written so far, and return its path.

    The page needs no network and is the same bytes for the same files. Raises RunError where the folder is no run, and
    AftershockError where matplotlib or jinja2 is missing.
    """
    for library in ("matplotlib", "jinja2"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise AftershockError(
                f'the report needs {library}, which is missing: pip install "aftershock[report]", '
                f"then aftershock report {folder}"
            ) from error
    from aftershock.report.page import make

    return make(Path(folder))
