"""What was foretold of a run is kept in its folder, and stops nothing."""

import json

import pytest

from aftershock import pipeline, toml
from aftershock.errors import RecipeError
from aftershock.recipe import Recipe
from aftershock.run import Run
from aftershock.track import Reporter


class Heard(Reporter):
    """Keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def walk(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "KINDS", {"rl": lambda stage, context: []})

    def walked(steps=4, **how):
        stage = {"kind": "rl", "steps": steps, "tasks": [{"name": "countdown"}]}
        recipe = Recipe.model_validate({"run": {"name": "test"}, "stage": {"zero": stage}})
        heard = Heard()
        with Run.open(tmp_path / "run", recipe, toml.write(recipe.content()), **how) as run:
            pipeline.execute(recipe, run, heard)
        path = tmp_path / "run/plan.json"
        return (json.loads(path.read_text()) if path.exists() else None), heard.notes

    return walked


def test_the_plan_is_kept_and_made_again_only_for_another_recipe(walk, monkeypatch):
    first, _ = walk()
    (stage,) = first["stages"]
    assert stage["name"] == "zero"
    assert all(len(stage[name]) == 3 for name in ("tokens", "seconds", "usd", "kwh"))
    monkeypatch.setattr(pipeline, "_foretold", lambda recipe: {"stages": []})
    assert walk(resume=True)[0] == first
    assert walk(steps=5, redo=True)[0]["stages"] == []


def test_a_plan_that_can_not_be_made_is_noted(walk, monkeypatch):
    def fails(recipe):
        raise RecipeError("no such machine")

    monkeypatch.setattr(pipeline, "_foretold", fails)
    assert walk() == (None, ["no plan to compare with: no such machine"])
