"""Every recipe that ships: it opens with its price, its stages are planned, and a dry run goes through all of them."""

import re
import socket
from pathlib import Path

import pytest

from aftershock import preflight
from aftershock.pipeline.dry import dry_run
from aftershock.plan import plan
from aftershock.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
REAL = [path for path in RECIPES if path.parent.name != "nano"]
each = pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
each_real = pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)


@pytest.fixture
def offline(monkeypatch):
    """No connection can be opened but to this machine's own sockets."""

    def refuse(self, address):
        raise AssertionError(f"a dry run asked for {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@each
def test_a_recipe_opens_with_its_price_and_is_possible(path):
    head = re.match(r"(#.*\n)+", path.read_text()).group(0)
    assert "Price and time" in head
    preflight.check(load_recipe(path))


@each_real
def test_a_real_models_recipe_says_where_its_numbers_come_from_and_what_it_lacks(path):
    head = re.match(r"(#.*\n)+", path.read_text()).group(0)
    for said in ("Sources:", "What to expect:", "NOT RUN at this size"):
        assert said in head


@each_real
def test_a_plan_knows_every_model_and_the_price_at_the_top_is_its(path):
    head = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    found = plan(load_recipe(path), re.search(r"--on (H\d+)", head).group(1))
    assert all(stage.parameters for stage in found.stages)
    assert f"{max(stage.memory_gb for stage in found.stages):.0f} GB of memory" in head
    if any(stage.seconds for stage in found.stages):
        dollars = found.bill(found.seconds)["usd"][1]
        told = float(re.search(r"and \$([\d.,]+) \(", head).group(1).replace(",", ""))
        assert told == pytest.approx(dollars, rel=0.05)


@pytest.mark.slow
@each
def test_a_dry_run_goes_through_every_stage_without_a_network(path, offline):
    recipe = load_recipe(path)
    lines = dry_run(recipe)
    assert [line.partition(":")[0] for line in lines[: len(recipe.stage)]] == list(recipe.stage)
