"""A long run from the first part of it, so that a plan doesn't wait for what repeats itself.

Steps of one policy's lengths are alike once the pipe is full: those after the part that is simulated are taken to be
its last three quarters over and over. Failures are rare in so short a part, so they are put in at what they cost on
average, by the same rules by which the simulation plays them.
"""

from dataclasses import replace
from functools import cache
from math import inf

from aftershock.cost.simulation.learner import simulate
from aftershock.cost.simulation.outcome import Outcome, Step
from aftershock.cost.simulation.setup import Setup

MOST = 131_072  # completions that are simulated
FEWEST = 32  # steps that are simulated, whatever their size


def longer(setup: Setup) -> Outcome:
    """Return what a run of `setup.steps` steps comes to, failures at their average; exact up to MOST completions."""
    part = once(replace(setup, steps=min(setup.steps, max(FEWEST, MOST // setup.batch)), mtbf_hours=inf))
    return _with_failures(_repeated(part, setup.steps), setup)


@cache
def once(setup: Setup) -> Outcome:
    """Return `simulate(setup)`, which several stages of a recipe may have in common."""
    return simulate(setup)


def _repeated(part: Outcome, steps: int) -> Outcome:
    """Return the run with all but its first quarter again and again, until there are so many steps."""
    first = len(part.steps) // 4
    later, begun = part.steps[first:], part.steps[first - 1].end if first else 0.0
    span, more = part.steps[-1].end - begun, list[Step]()
    for index in range(steps - len(part.steps)):
        rounds, place = divmod(index, len(later))
        more.append(replace(later[place], end=later[place].end + span * (rounds + 1)))
    found = replace(part, steps=(*part.steps, *more))
    return replace(found, usd=part.usd * found.hours / part.hours)


def _with_failures(run: Outcome, setup: Setup) -> Outcome:
    """Return the run with failures of chips at a constant rate, at what each costs on average.

    One of a learner's chip, or of any chip where they take turns, stops the job: for a restart, in which nothing more
    fails, and half of what lies between two checkpoints, in which more may. One of an engine's stops that engine alone.
    """
    seconds, stopping = run.hours * 3600, setup.learners or setup.chips
    rate, redone = 1 / (setup.mtbf_hours * 3600), setup.checkpoint_every * seconds / len(run.steps) / 2
    stops = rate * stopping * seconds / max(1 - rate * stopping * redone, 1e-3)
    cost = setup.restart_seconds + redone
    times = 1 + stops * cost / seconds
    engines = rate * (setup.chips - stopping) * (seconds + stops * redone)
    wasted = stops * cost * setup.chips + engines * setup.restart_seconds * setup.chips_per_engine
    return replace(
        run,
        steps=tuple(replace(step, end=step.end * times) for step in run.steps),
        usd=run.usd * times,
        idle={kind: 1 - (1 - share) / times for kind, share in run.idle.items()},
        failures=stops + engines,
        lost_chip_hours=wasted / 3600,
    )
