"""Walk a recipe from Python, and break off where a test wants it; as a program, be killed once inside every stage."""

import os
import signal
import sys
from pathlib import Path

from aftershock import toml
from aftershock.pipeline import execute, sampling
from aftershock.recipe import Recipe, load_recipe
from aftershock.run import Run
from aftershock.track import Reporters, make_reporter


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


def walk_killed(recipe: Recipe, out: Path) -> None:
    """Run a recipe to its end in processes of which each kills itself, once in every stage, at the second step.

    That step is recorded then and in no checkpoint. The processes are forked from this one, which has computed nothing
    itself, so that libraries are imported once.
    """
    for victim in [*recipe.stage, None]:
        child = os.fork()
        if child == 0:
            _walk_until(recipe, out, victim)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if (os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0) != (signal.SIGKILL if victim else 0) or (
            os.WIFEXITED(status) and (victim or os.WEXITSTATUS(status))
        ):
            sys.exit(f"the process that was to end in stage {victim} ended with status {status}")


def _walk_until(recipe: Recipe, out: Path, victim: str | None) -> None:
    with Run.open(out, recipe, toml.write(recipe.content()), resume=True) as opened:
        at: list[str] = []

        def step(number: int, *_: object) -> None:
            if number == 2 and at[-1] == victim:
                os.kill(os.getpid(), signal.SIGKILL)

        reporter = Reporters([])
        reporter.start = lambda name, *_: at.append(name)
        reporter.step = step
        execute(recipe, opened, reporter)


if __name__ == "__main__":
    sampling.CHUNK = int(sys.argv[3])
    walk_killed(load_recipe(sys.argv[1]), Path(sys.argv[2]))
