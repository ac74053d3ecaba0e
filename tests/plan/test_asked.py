"""`aftershock plan` as asked: its three answers, other tiers beside it, its errors, and what it costs to ask."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import published
from aftershock.errors import RecipeError
from aftershock.plan.asked import Asked, answer
from aftershock.plan.page import duration
from aftershock.plan.stages import Plan, StagePlan, plan
from aftershock.plan.tiers import Tier, crossover
from aftershock.recipe import load_recipe

ZERO, REAL = "recipes/nano/zero.toml", "recipes/qwen/zero-countdown-3b.toml"


@pytest.mark.parametrize("asked", [[ZERO], ["recipes/qwen/r1-7b.toml", "--on", "64xH100"], ["deepseek-r1"]])
def test_asking_takes_under_two_seconds_and_no_torch(asked):
    script = (
        "import sys, time\nfrom aftershock.cli import app\n"
        f"sys.argv = ['aftershock', 'plan', *{asked!r}, '--json']\napp(standalone_mode=False)\n"
        "print('torch' in sys.modules, time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ)
    assert isinstance(json.loads(done.stdout), dict)
    loaded, seconds = done.stderr.split()[-2:]
    assert loaded == "False"
    assert float(seconds) < 2


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-r1"])
def test_a_bill_is_told_line_by_line_beside_the_published_one(name):
    data, text = answer(Asked(name))
    kept = ("name", "published_gpu_hours", "estimated_gpu_hours", "low", "high", "usd")
    assert [[line[key] for key in kept] for line in data["lines"]] == [
        [getattr(line, key) for key in kept] for line in published.bill(name)
    ]
    assert set(data["repeat_usd"]) == {"H100", "H200", "H20"}
    for said in ("left out of the published sum", "rest on", *(line["name"] for line in data["lines"])):
        assert said in text
    assert text.splitlines()[-1].startswith("next: ")
    elsewhere, _ = answer(Asked(name, on="H20"))
    assert elsewhere["lines"][0]["published_gpu_hours"] == data["lines"][0]["published_gpu_hours"]
    assert elsewhere["lines"][0]["estimated_gpu_hours"] > data["lines"][0]["estimated_gpu_hours"]


def test_a_recipe_is_planned_here_or_elsewhere_and_the_last_line_says_what_is_next():
    data, text = answer(Asked(ZERO, overrides=("stage.zero.steps=30",)))
    assert data["stages"][0]["steps"] == [30, 30, 30]
    assert text.splitlines()[-1] == f"next: aftershock run {ZERO} --out runs/zero"
    _, text = answer(Asked("recipes/qwen/zero-math-7b.toml", on="4090"))
    assert "does not fit: zero: no layout fits" in text
    assert text.splitlines()[-1].startswith("next: change what does not fit")


def test_a_stage_of_many_inputs_keeps_the_table_narrow():
    _, text = answer(Asked("recipes/nano/r1.toml"))
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert "zero, cold +7 " in rows["table"]
    assert "lessons, final " in rows["logits"]


def test_other_tiers_stand_beside_it_as_many_of_each():
    data, text = answer(Asked(REAL, on="2xH100", against="H20,4x4090"))
    assert [tier["machine"] for tier in data["against"]] == ["2xH100-SXM", "2xH20", "4xRTX-4090"]
    alone = plan(load_recipe(REAL), "2xH20")
    assert data["against"][1]["seconds"] == alone.seconds
    for tier in data["against"]:
        assert tier["usd_of_training"] + tier["usd_of_sampling"] == pytest.approx(tier["usd"][1])
    assert data["crossover"] in text


def _tier(name: str, hourly: float, training: float, sampling: float) -> Tier:
    found = plan(load_recipe(ZERO))
    stage = StagePlan("x", "rl", [], 1, 1.0, training=[training * 3600] * 3, sampling=[sampling * 3600] * 3)
    return Tier(Plan(replace(found.machine, name=name, usd_per_hour=hourly), [stage]))


def test_the_crossover_is_worked_out_in_words():
    """A costs 2 + 2, B 1 + 6: B wins where there is 4 times as much training, or at 4/7 of its price."""
    told = crossover([_tier("A", 1.0, 2, 2), _tier("B", 1.0, 1, 6)]).splitlines()
    assert told[0] == "cheapest that fits: A, $4"
    assert told[1].startswith("B draws even at $0.57 an hour instead of 1.00; its training costs 0.50 of A's")
    assert "over 4.0 times as much training" in told[1]
    assert "dearer in training and in sampling alike" in crossover([_tier("A", 1.0, 2, 2), _tier("C", 1.0, 3, 3)])


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked("r1"), 'add --budget "20 minutes"'),
        (Asked("deepseek-r2"), r"none of r1, .*\(nearest: .*deepseek-r1"),
        (Asked("nowhere.toml"), "there is no such file"),
        (Asked(ZERO, budget="$3"), "--budget chooses the sizes of r1"),
        (Asked(ZERO, on="8xH1000"), r"nearest: .*H100-SXM"),
        (Asked(ZERO, on="0xH100"), "write it as 8xH100"),
        (Asked(ZERO, layout="tensor=2"), "a CPU has no layout"),
        (Asked("deepseek-r1", layout="tensor=2"), "--layout needs a recipe's file"),
        (Asked("deepseek-v3", budget="$3"), "--budget needs a recipe's file"),
        (
            Asked("r1", budget="$3", against="H20"),
            "--against needs a recipe's file, and a recipe for a budget has none",
        ),
    ],
)
def test_errors_name_the_cause_and_what_to_do(asked, why):
    with pytest.raises(RecipeError, match=why):
        answer(asked)


@given(st.floats(0, 1e9))
def test_a_time_is_told_within_half_of_its_last_digit(seconds):
    value, unit = duration(seconds).split()
    size = {"s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    number = float(value.replace(",", ""))
    assert abs(number * size - seconds) <= size / (20 if "." in value else 2) * 1.001
    assert number < 100 or unit == "days"
