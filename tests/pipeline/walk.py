"""Walk a recipe from Python, and break off where a test wants it."""

from pathlib import Path

from aftershock import toml
from aftershock.pipeline import execute
from aftershock.recipe import load_recipe
from aftershock.run import Run
from aftershock.track import make_reporter


def walk(recipe: Path, out: Path, resume: bool = False, breaks: int | None = None) -> Path:
    """Run a recipe file into `out`; with `breaks`, as if interrupted right after so many steps were recorded."""
    read = load_recipe(recipe)
    with Run.open(out, read, toml.write(read.content()), resume) as opened:
        reporter = make_reporter(None, out, terminal=False)
        if breaks is not None:
            steps = iter(range(breaks))

            def step(*_):
                if next(steps, None) is None:
                    raise KeyboardInterrupt

            reporter.step = step
        execute(read, opened, reporter)
    return out
