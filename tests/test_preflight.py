"""Tasks and models that won't do are refused before a run begins."""

from pathlib import Path

import pytest

from aftershock import preflight
from aftershock.errors import RecipeError
from aftershock.recipe import load_recipe

NANO = sorted(Path("recipes/nano").glob("*.toml"))


@pytest.mark.parametrize("path", NANO, ids=str)
def test_shipped_recipes_pass(path):
    preflight.check(load_recipe(path))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["stage.zero.tasks.1.name=arithmetc"],
            "stage.zero.tasks.1: no task is named 'arithmetc' (nearest: arithmetic)",
        ),
        (["stage.zero.tasks.0.name=nowhere.py:Mine"], "stage.zero.tasks.0: can't read the task file"),
    ],
)
def test_unknown_tasks_are_refused(overrides, words):
    with pytest.raises(RecipeError) as caught:
        preflight.check(load_recipe("recipes/nano/zero.toml", overrides))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "stage.base.model.norm_topk_prb=true",
            'norm_topk_prb = True: deepseek_v3 has no such key, did you mean "norm_t',
        ),
        ("stage.base.model.model_type=gpt9", "stage.base.model: "),
        ("stage.base.model.hidden_size=wide", "hidden_size"),
    ],
)
def test_models_that_can_not_be_are_refused(override, words):
    with pytest.raises(RecipeError) as caught:
        preflight.check(load_recipe("recipes/nano/pretrain.toml", [override]))
    assert words in str(caught.value)
