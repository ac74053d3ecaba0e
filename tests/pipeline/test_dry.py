"""Dry runs: every kind of stage in miniature, offline, with stand-ins where the recipe names what isn't here."""

from pathlib import Path

import pytest

from aftershock.errors import AftershockError
from aftershock.known import known_config, names
from aftershock.models import ModelConfig
from aftershock.pipeline import dry
from aftershock.recipe import load_recipe

ROAD = """
[run]
name = "road"
[stage.zero]
kind = "rl"
from = "hub:Qwen/Qwen2.5-7B"
steps = 8000
problems_per_step = 32
max_tokens = 32768
[stage.zero.loss]
kl = 0.001
reference_every = 400
[[stage.zero.tasks]]
name = "dataset:gsm8k"
[[stage.zero.tasks]]
name = "countdown"
difficulty = 2
[stage.cold]
kind = "sample"
from = "zero"
problems = 5000
[[stage.cold.tasks]]
name = "arithmetic"
[stage.tuned]
kind = "sft"
from = "hub:Qwen/Qwen2.5-7B"
data = ["cold", "hub:org/others", "mine.jsonl"]
[stage.tuned.lora]
rank = 64
[[stage.tuned.tasks]]
name = "arithmetic"
[stage.student]
kind = "pretrain"
steps = 5000
[stage.student.model]
model_type = "llama"
hidden_size = 4096
num_hidden_layers = 32
intermediate_size = 14336
num_attention_heads = 32
num_key_value_heads = 8
[[stage.student.tasks]]
name = "arithmetic"
[stage.helpful]
kind = "reward_model"
from = "tuned"
data = ["hub:org/pairs"]
[stage.safe]
kind = "reward_model"
from = "tuned"
form = "pointwise"
judges = "whole"
data = ["hub:org/labels"]
[stage.all]
kind = "rl"
from = "tuned"
steps = 1700
preferences = [{ model = "helpful", from_step = 1300 }, { model = "safe", from_step = 1300 }]
[[stage.all.tasks]]
name = "countdown"
[[stage.all.tasks]]
name = "help"
[stage.pupil]
kind = "distill"
from = "hub:Qwen/Qwen2.5-1.5B"
teacher = "all"
steps = 500
[[stage.pupil.tasks]]
name = "countdown"
"""


@pytest.fixture
def road(tmp_path):
    path = tmp_path / "road.toml"
    path.write_text(ROAD)
    (tmp_path / "mine.jsonl").write_text('{"prompt": "Who are you?", "completion": "A model."}\n')
    return path


def test_a_road_for_real_models_runs_in_miniature_and_says_what_stood_in(road):
    said = []
    lines = dry.dry_run(load_recipe(road), said.append)
    assert [line.split(":")[0] for line in lines[:8]] == list(load_recipe(road).stage)
    assert said == lines
    assert "rl, 2 steps" in lines[0]
    told = "\n".join(lines[8:])
    assert "hub:Qwen/Qwen2.5-7B: a qwen2 of random weights" in told
    assert "dataset:gsm8k: 32 invented sums" in told
    assert "hub:org/others: 32 invented rows" in told
    assert "hub:org/pairs" in told
    assert "hub:org/labels" in told
    assert "mine.jsonl" not in told


def test_data_that_a_miniature_can_not_make_is_made_for_what_comes_next(tmp_path):
    cold = '[stage.cold]\nkind = "sample"\nproblems = 9\n[[stage.cold.tasks]]\nname = "remainders"\n'
    tuned = '[stage.tuned]\nkind = "sft"\ndata = ["cold"]\n'
    (tmp_path / "road.toml").write_text(f'[run]\nname = "road"\n{cold}{tuned}')
    assert "tuned: sft, " in dry.dry_run(load_recipe(tmp_path / "road.toml"))[1]


def test_of_a_long_file_rows_from_all_over_it_are_taken(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{number}\n" for number in range(1000)))
    (tmp_path / "recipe.toml").write_text(ROAD)
    workshop = dry._Workshop(load_recipe(tmp_path / "recipe.toml"), tmp_path)
    rows = [*map(int, Path(workshop._data("mine.jsonl", "completion")).read_text().split())]
    assert (len(rows), rows[0]) == (dry.ROWS, 0)
    assert rows[-1] > 900
    assert len(path.read_text().split()) == 1000


def test_what_is_wrong_in_a_late_stage_is_found(road):
    (road.parent / "mine.jsonl").write_text('{"question": "Who are you?"}\n')
    with pytest.raises(AftershockError, match=r"mine.jsonl, row 1: wanted `prompt` and `completion`"):
        dry.dry_run(load_recipe(road))


@pytest.mark.parametrize("name", names())
def test_a_miniature_keeps_the_architecture_and_its_options(name):
    whole, small = known_config(name), dry._small_config(known_config(name))
    ModelConfig.from_dict(small)
    changed = {key for key in whole if whole[key] != small[key]}
    assert changed <= {*dry._SMALL_MODEL, "num_attention_heads", "num_key_value_heads"}
    grouped = whole["num_key_value_heads"] < whole["num_attention_heads"]
    assert grouped == (small["num_key_value_heads"] < small["num_attention_heads"])


def test_every_number_of_a_miniature_is_within_its_bound(road, tmp_path):
    small = dry._Workshop(load_recipe(road), tmp_path).miniature()
    zero = small.stage["zero"]
    assert (zero.steps, zero.max_tokens, zero.loss.reference_every, zero.tasks[1].difficulty) == (2, 16, 1, 2)
    assert (zero.loss.kl, zero.eval.problems, small.stage["tuned"].lora.rank) == (0.001, 2, 4)
