"""benchmarks/plan_fit.py gets a machine's prices back from what a run of it would have taken."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from aftershock.plan import machine
from aftershock.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
try:
    import plan_fit
finally:
    sys.path.pop(0)

RECIPE = Path("recipes/nano/r1.toml")


@pytest.fixture
def rates():
    """Of a machine that decodes three times as fast as the reference and trains at 1.5 times its speed."""
    known = machine.rates(2)
    prices = known.prices
    sampling = ("decoded", "forward", "dense", "row", "completion", "program")
    quick = {name: getattr(prices, name) / 3 for name in sampling}
    quick |= {"float32": prices.float32 / 1.5, "bfloat16": prices.bfloat16 / 1.5}
    return replace(known, prices=replace(prices, **quick))


def told(name: str, rates, capsys, *given: str) -> dict:
    sys.argv = ["plan_fit.py", name, "--json", *given]
    plan_fit.main()
    return json.loads(capsys.readouterr().out)


def test_a_run_s_ledger_gives_its_prices_and_what_they_miss_on_other_stages(tmp_path, monkeypatch, rates, capsys):
    recipe = load_recipe(RECIPE)
    stages = plan_fit.timed(recipe, {name: {"seconds": 1.0} for name in recipe.stage})
    lines = [{"stage": one.name, "seconds": machine.seconds(one.planned, rates)} for one in stages]
    (tmp_path / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copy(RECIPE, tmp_path / "recipe.toml")
    shutil.copy(RECIPE.parent / "world.jsonl", tmp_path)
    monkeypatch.setattr(plan_fit, "HELD", 10.0)  # prices may go as far as the ledger says
    found = told(str(tmp_path), rates, capsys)
    assert found["path"] == machine.decoding()
    assert found["held_out_medians"]["planned"] < 0.1
    assert max(abs(row["planned"]) for row in found["rows"]) < 0.25
    before = machine.PRICES[found["path"]]
    assert found["prices"]["row"] < asdict(before)["row"] / 2


def test_counted_tokens_and_seconds_of_learning_make_equations_of_their_own():
    recipe = load_recipe(RECIPE)
    counted = {"seconds": 100.0, "trained": 2e5, "sampled": 3e5, "learning": 40.0}
    (one,) = plan_fit.timed(recipe, {"zero": counted})
    (trained, learning), (sampled, sampling) = one.counted
    assert (learning, sampling) == (40.0, 60.0)
    assert sampled["row"] == 3e5 != one.planned["row"]
    assert trained["step"] == 30


def test_a_table_of_seconds_will_do(rates, capsys):
    found = told("benchmarks/results/r1_idle.csv", rates, capsys, "--recipe", str(RECIPE), "--fit", "zero,cold")
    roles = {row["stage"]: row["role"] for row in found["rows"]}
    assert roles["zero"] == "fitted"
    assert roles["final"] == "held out"
    assert len(roles) == 9
