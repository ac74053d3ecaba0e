"""`aftershock plan RECIPE --on CLUSTER --simulate`."""

import json
from pathlib import Path

import pytest

from aftershock.errors import RecipeError
from aftershock.plan.asked import Asked, answer

RECIPES = Path(__file__).parents[2] / "recipes"
MATH = str(RECIPES / "qwen" / "zero-math-7b.toml")


def test_stages_of_rl_are_played_through_under_three_schedules() -> None:
    data, told = answer(Asked(MATH, "16xH100@2", overrides=("stage.zero.steps=20",), simulate=True))
    found = json.loads(json.dumps(data))["simulated"]["zero"]
    assert list(found) == ["in turn", "one step off", "4 updates ahead"]
    assert found["one step off"]["hours"] < found["in turn"]["hours"]
    assert found["in turn"]["usd"] == pytest.approx(found["in turn"]["hours"] * 16 * 2)
    assert found["in turn"]["staleness"] == [1.0]
    assert "zero, in turn: 20 steps on 16 chips" in told
    assert told.splitlines()[-1].startswith("next: ")


def test_fewer_completions_learnt_from_are_a_shorter_step() -> None:
    def of(*overrides: str) -> dict:
        asked = Asked(MATH, "16xH100@2", overrides=("stage.zero.steps=20", *overrides), simulate=True)
        return answer(asked)[0]["simulated"]["zero"]["in turn"]

    whole, half = of(), of("stage.zero.down_sample=4")
    assert half["step_seconds"] < whole["step_seconds"]
    spent = {name: one["tokens_per_second"] * one["hours"] for name, one in {"whole": whole, "half": half}.items()}
    assert 0.5 < spent["half"] / spent["whole"] < 0.6  # of 8 a problem; its prompt is read once as before


def test_a_plan_without_it_simulates_nothing() -> None:
    data, told = answer(Asked(MATH, "16xH100"))
    assert "simulated" not in data
    assert "in turn" not in told


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Asked(str(RECIPES / "nano" / "zero.toml"), simulate=True), "--on 64xH100"),
        (Asked(str(RECIPES / "nano" / "pretrain.toml"), "8xH100", simulate=True), "no stage of RL"),
        (Asked("deepseek-v3", simulate=True), "--simulate needs a recipe's file"),
        (Asked("r1", budget="$30", simulate=True), "--simulate needs a recipe's file"),
    ],
)
def test_what_cannot_be_simulated_is_refused(asked: Asked, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        answer(asked)
