"""Long runs foretold from their first part, beside the same runs simulated to their end."""

from dataclasses import replace
from math import inf
from statistics import mean

import numpy as np
import pytest

from aftershock.cost.simulation import Lengths, Rates, Setup, longer, simulate

RATES = Rates(Rates.line(0.02, 0.001), train=4000.0, weight_bytes=1e9)
TURNS = Setup(RATES, Lengths(400, 2000, 0.6), samplers=8, batch=256, steps=200, network=1e9, usd_per_hour=2.0)
AHEAD = replace(TURNS, learners=8, staleness=4, in_order=False, recompute=True)


@pytest.fixture
def short(monkeypatch):
    """A quarter of the completions of the runs above is simulated."""
    monkeypatch.setattr(longer, "MOST", TURNS.batch * 50)


@pytest.mark.parametrize("setup", [TURNS, replace(AHEAD, staleness=1, in_order=True), AHEAD])
def test_a_quarter_of_a_run_tells_the_whole(short, setup: Setup) -> None:
    for seed in range(2):
        part, whole = (play(replace(setup, seed=seed)) for play in (longer.longer, simulate))
        assert len(part.steps) == len(whole.steps)
        assert part.hours == pytest.approx(whole.hours, rel=0.02)
        assert part.usd == pytest.approx(part.hours * setup.chips * 2)
        assert part.tokens_per_second == pytest.approx(whole.tokens_per_second, rel=0.02)
        assert part.idle == pytest.approx(whole.idle, abs=0.04)  # filling the pipe weighs more in fewer steps
        shares = [np.pad(found.staleness, (0, 9))[:9] for found in (part, whole)]
        assert np.abs(shares[0] - shares[1]).sum() / 2 < 0.02


def test_a_run_that_is_simulated_whole_is_as_it_was() -> None:
    setup = replace(TURNS, steps=longer.FEWEST)
    assert [step.end for step in longer.longer(setup).steps] == [step.end for step in simulate(setup).steps]
    assert longer.longer(replace(setup, steps=1)).hours == simulate(replace(setup, steps=1)).hours


def test_failures_are_put_in_at_their_average() -> None:
    setup = replace(TURNS, batch=32, steps=80, mtbf_hours=2.0, restart_seconds=60.0)
    seeds = [replace(setup, seed=seed) for seed in range(20)]
    free, told, played = (
        [play(one) for one in seeds]
        for play in (lambda one: longer.once(replace(one, mtbf_hours=inf)), longer.longer, simulate)
    )

    def means(name: str) -> list[float]:
        return [mean(getattr(run, name) for run in runs) for runs in (free, told, played)]

    without, foretold, found = means("hours")
    assert foretold - without == pytest.approx(found - without, rel=0.4)  # two failures a run: their mean is 12% wide
    assert foretold == pytest.approx(found, rel=0.05)
    for name in ("failures", "lost_chip_hours"):
        none, foretold, found = means(name)
        assert none == 0
        assert foretold == pytest.approx(found, rel=0.25)


def test_an_engine_s_failure_stops_no_job(short) -> None:
    setup = replace(AHEAD, samplers=64, learners=1, mtbf_hours=50.0)
    told, free = longer.longer(setup), longer.longer(replace(setup, mtbf_hours=inf))
    assert told.failures == pytest.approx(told.hours * 65 / 50, rel=0.01)
    assert told.hours < 1.02 * free.hours
    assert told.lost_chip_hours > free.lost_chip_hours == 0.0
