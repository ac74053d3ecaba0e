"""Tasks and models that won't do are refused before a run begins."""

from pathlib import Path

import pytest

from aftershock import preflight
from aftershock.errors import RecipeError
from aftershock.recipe import load_recipe

FRESH = """
[run]
name = "fresh"
[stage.new]
kind = "pretrain"
steps = 1
[[stage.new.tasks]]
name = "countdown"
[stage.new.model]
model_type = "llama"
hidden_size = 64
num_hidden_layers = 2
intermediate_size = 96
num_attention_heads = 4
num_key_value_heads = 2
torch_dtype = "float32"
"""
NANO = sorted(Path("recipes/nano").glob("*.toml"))


@pytest.mark.parametrize("path", NANO, ids=str)
def test_shipped_recipes_pass(path):
    preflight.check(load_recipe(path))


@pytest.fixture
def fresh(tmp_path):
    path = tmp_path / "fresh.toml"
    path.write_text(FRESH)
    return path


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tasks.0.name=countdwn", "stage.new.tasks.0: no task is named 'countdwn' (nearest: countdown)"),
        ("tasks.0.name=nowhere.py:Mine", "stage.new.tasks.0: can't read the task file"),
        ("model.tie_word_embedings=true", 'llama has no such key, did you mean "tie_word_embeddings"?'),
        ("model.model_type=gpt9", "stage.new.model: "),
        ("model.hidden_size=wide", "hidden_size"),
    ],
)
def test_tasks_and_models_that_will_not_do_are_refused(fresh, override, words):
    with pytest.raises(RecipeError) as caught:
        preflight.check(load_recipe(fresh, [f"stage.new.{override}"]))
    assert words in str(caught.value)


def test_keys_that_only_hugging_face_reads_are_let_through(fresh):
    preflight.check(load_recipe(fresh))


def test_open_tasks_cannot_be_sampled_from_as_their_hidden_check_would_choose(tmp_path):
    path = tmp_path / "open.toml"
    tasks = "".join(f'[[stage.more.tasks]]\nname = "{name}"\n' for name in ("countdown", "help"))
    path.write_text(f'[run]\nname = "x"\n[stage.more]\nkind = "sample"\nproblems = 4\n{tasks}')
    with pytest.raises(RecipeError, match=r"^stage\.more\.tasks\.1: help is open: .* data of the sft stage instead$"):
        preflight.check(load_recipe(path))
