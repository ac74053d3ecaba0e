"""Speeds from the roofline, and one job under several schedules."""

import subprocess
import sys
from dataclasses import replace

import pytest

from aftershock.cost import decoding, memory, time
from aftershock.cost.cluster import parse
from aftershock.cost.layout import Layout
from aftershock.cost.simulation import Lengths, Setup, simulate
from aftershock.cost.simulation.rates import rates
from aftershock.cost.simulation.schedules import KINDS, schedules
from aftershock.cost.simulation.schedules import _trainer as trainer
from aftershock.errors import CapacityError
from aftershock.known import known_config

SMALL = known_config("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B")
LENGTHS = Lengths(2000, 8192, 0.7)


def test_rates_are_the_rooflines() -> None:
    cluster, cut = parse("8xH100"), Lengths(2000, 8192, 0.7)
    sampler, trainer, shared = Layout(4, 2, zero=0), Layout(8), {"batch": 256, "rows": 64, "prompt": 100}
    found = rates(SMALL, cluster.chip, sampler, trainer, LENGTHS, passes=0, **shared)
    engine = decoding.Engine(SMALL, cluster, sampler)
    assert dict(found.decode)[1] == engine.step(1, 100 + cut.context)
    assert dict(found.decode)[64] == engine.step(64, 100 + cut.context)
    trained = time.training(SMALL, cluster, trainer, time.Training(2100, 256 * 2100, 256 * 2100), whole=False).likely
    assert 256 * 2100 / (found.train * 8) == pytest.approx(trained)
    twice = rates(SMALL, cluster.chip, sampler, trainer, LENGTHS, passes=0, factor=2, **shared)
    assert (twice.train, twice.prefill) == pytest.approx((found.train / 2, found.prefill / 2))
    assert twice.decode[5][1] == pytest.approx(2 * found.decode[5][1])


def test_taking_turns_agrees_with_the_estimate_that_simulates_nothing() -> None:
    cluster, sampler, trainer = parse("8xH100"), Layout(8, zero=0), Layout(8)
    found = rates(SMALL, cluster.chip, sampler, trainer, LENGTHS, batch=512, rows=64, prompt=100, passes=1)
    setup = Setup(found, LENGTHS, 8, batch=512, prompt=100, steps=40, network=cluster.chip.network * time.WIRE)
    cut = Lengths(2000, 8192, 0.7)
    told = decoding.rl_step(SMALL, cluster, sampler, trainer, 512, 100, cut, passes=1, loop=(1, 1, 1)).likely
    assert simulate(setup).step_seconds == pytest.approx(told, rel=0.15)


def test_running_ahead_pays_where_lengths_differ_and_one_chip_takes_turns() -> None:
    job = {"batch": 256, "group": 16, "prompt": 60, "steps": 30}
    found = schedules(SMALL, parse("8xH100@2"), LENGTHS, **job)
    assert list(found) == list(KINDS)
    assert found["4 updates ahead"].hours < found["one step off"].hours < found["in turn"].hours
    assert found["4 updates ahead"].hours < 0.5 * found["in turn"].hours  # at the worst split it is 0.73
    assert found["in turn"].usd == pytest.approx(found["in turn"].hours * 8 * 2)
    assert list(schedules(SMALL, parse("1xH100"), LENGTHS, **job)) == ["in turn"]


def test_a_shared_prompt_is_read_and_learned_from_once_a_group() -> None:
    cluster, layouts, lengths = parse("8xH100"), (Layout(8, zero=0), Layout(8)), Lengths(500, 4096, 0.7)
    found = rates(SMALL, cluster.chip, *layouts, lengths, batch=256, rows=32, prompt=1600)
    setup = Setup(found, lengths, 8, batch=256, group=16, prompt=1600, steps=8)
    each, once = simulate(setup), simulate(replace(setup, shared=True))
    few = simulate(replace(setup, prompt=100, shared=False))  # as many tokens of prompts come with a completion
    assert [step.end for step in once.steps] == [step.end for step in few.steps]
    assert each.steps[0].tokens - once.steps[0].tokens == 256 * 1500
    assert each.hours > 1.2 * once.hours


def test_moments_of_a_byte_fit_fewer_chips() -> None:
    large = known_config("deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
    job = {"batch": 64, "group": 8, "prompt": 60, "steps": 2}
    with pytest.raises(CapacityError, match="no layout fits"):
        schedules(large, parse("16xH100"), LENGTHS, **job)
    assert "in turn" in schedules(large, parse("16xH100"), LENGTHS, **job, moments=memory.ADAM_8BIT)


def test_activations_are_computed_again_where_nothing_else_fits() -> None:
    large = known_config("deepseek-ai/DeepSeek-R1")
    length = time.Training(6060, batch=8192 * 6060)
    assert [trainer(large, parse(f"{chips}xH800"), length)[1] for chips in (256, 512)] == [True, False]
    job = {"batch": 8192, "rows": 32, "prompt": 60}
    layouts, lengths = (Layout(16, 32, 32, zero=0), Layout(16, 1, 16, 16)), Lengths(6000, 32_768, 0.7)
    plain, again = (
        rates(large, parse("H800").chip, *layouts, lengths, recompute=r, **job).train for r in (False, True)
    )
    assert again < 0.85 * plain


def test_simulating_needs_no_torch() -> None:
    code = "import sys, aftershock.cost.simulation.schedules; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
