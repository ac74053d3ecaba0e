"""Plans: what they say of recipes whose cost was measured, and of what nobody can know."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aftershock.cost.hardware import cpu
from aftershock.errors import RecipeError
from aftershock.models import build
from aftershock.pipeline import plan as plans
from aftershock.recipe import load_recipe

NANO = Path("recipes/nano")
DENSE = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("aftershock.cost.hardware.detect", lambda: cpu("EPYC", 2, 8.0))


@pytest.fixture
def recipe(tmp_path):
    def written(text, **files):
        for name, content in files.items():
            (tmp_path / f"{name}.jsonl").write_text(content)
        (tmp_path / "recipe.toml").write_text('[run]\nname = "x"\n' + text)
        return load_recipe(tmp_path / "recipe.toml")

    return written


@pytest.mark.parametrize(("name", "measured"), [("zero", 416), ("pretrain", 44 * 60)])
def test_the_nano_recipes_that_were_measured_are_planned_within_a_factor_of_two(name, measured):
    """Measured: the first lines of the two recipes."""
    least, likely, most = plans.plan(load_recipe(NANO / f"{name}.toml")).seconds
    assert measured / 2 < likely < measured * 2
    assert least < measured < most


RL = """
[stage.zero]
kind = "rl"
from = "{source}"
steps = 10
problems_per_step = 8
samples_per_problem = 4
max_tokens = 100
{more}
[stage.zero.eval]
problems = 5
samples = 2
every = 4
quick_problems = 3
[[stage.zero.tasks]]
name = "countdown"
[[stage.zero.tasks]]
name = "arithmetic"
"""


def test_tokens_of_rl_are_counted_to_the_last(recipe):
    stage = plans.plan(recipe(RL.format(source="base", more="dynamic_sampling = 3"))).stages[0]
    rollouts, examined = 10 * 8 * 4, 2 * (2 * 5 * 2 + 2 * 3)
    for tokens, scenario in zip(stage.tokens, plans.SCENARIOS, strict=True):
        written = scenario.share * 100
        draws = 1 + 2 * scenario.draws
        assert tokens == pytest.approx(rollouts * (60 + written) + (draws * rollouts + examined) * written)
    assert stage.steps == [10, 10, 10]
    assert stage.seconds == sorted(stage.seconds)


def test_a_reference_takes_time_and_memory(recipe):
    plain = plans.plan(recipe(RL.format(source="base", more=""))).stages[0]
    held = plans.plan(recipe(RL.format(source="base", more="loss.kl = 0.01"))).stages[0]
    assert held.memory_gb - plain.memory_gb == pytest.approx(4 * plain.parameters / 1e9)
    assert 1.1 < held.seconds[1] / plain.seconds[1] < 1.4


def test_models_of_the_hub_are_planned_without_a_download(recipe):
    zero = recipe(RL.format(source="hub:Qwen/Qwen2.5-7B", more=""))
    found = plans.plan(zero, "H100-SXM")
    assert found.stages[0].parameters == 7_615_616_512  # Qwen2.5-7B's model card: 7.61B
    assert found.stages[0].memory_gb > 16 * 7.6
    assert found.machine.name == "H100-SXM"
    assert found.as_dict()["total"]["usd"][1] == pytest.approx(found.seconds[1] / 3600 * 2.69)
    with pytest.raises(RecipeError, match=r"'H100' .*nearest: .*H100-SXM"):
        plans.plan(zero, "H100")


def test_a_small_model_on_a_gpu_waits_for_its_forwards(recipe):
    found = plans.plan(recipe(RL.format(source="base", more="")), "H100-SXM").stages[0]
    assert found.seconds[1] > 10 * 8 * 4 * 15 / 256 * plans.GPU_FORWARD_SECONDS


SFT = """
[stage.tuned]
kind = "sft"
data = [{data}]
epochs = 3
tokens_per_step = 100
[stage.after]
kind = "rl"
from = "tuned"
steps = 1
[[stage.after.tasks]]
name = "countdown"
"""


def test_data_that_is_here_is_weighed_and_data_that_is_not_is_said_to_be_unknown(recipe):
    row = json.dumps({"prompt": "p", "completion": "c" * 400}) + "\n"
    known = plans.plan(recipe(SFT.format(data='"mine.jsonl"'), mine=row * 10)).stages[0]
    assert known.tokens[1] == pytest.approx(3 * 10 * len(row) / 4)
    assert known.steps == [33, 33, 33]
    found = plans.plan(recipe(SFT.format(data='"mine.jsonl", "hub:org/name"'), mine=row))
    assert found.stages[0].seconds == found.stages[0].tokens == []
    assert found.stages[0].memory_gb > 0
    assert found.seconds == found.stages[1].seconds
    assert "sizes unknown, not in the sums: tuned" in str(found)
    assert json.loads(json.dumps(found.as_dict()))["stages"][0]["usd"] == []


def test_data_of_an_earlier_stage_is_what_it_keeps(recipe):
    sample = '[stage.cold]\nkind = "sample"\nproblems = 640\nkeep = 2\n[[stage.cold.tasks]]\nname = "countdown"\n'
    cold, tuned, _ = plans.plan(recipe(sample + SFT.format(data='"cold"'))).stages
    assert tuned.inputs == ["cold"]
    assert cold.steps == [10, 10, 10]
    assert tuned.tokens == pytest.approx([3 * 640 * 2 * s.kept * (60 + s.share * 256) for s in plans.SCENARIOS])


def test_parameters_and_weights_are_those_of_the_model_that_will_be_built(recipe):
    model = "\n".join(f"{key} = {json.dumps(value)}" for key, value in DENSE.items())
    text = f'[stage.new]\nkind = "pretrain"\nsteps = 2\nvocab_size = 300\n[stage.new.model]\n{model}\n'
    stage = plans.plan(recipe(text + '[[stage.new.tasks]]\nname = "countdown"\n')).stages[0]
    assert stage.parameters == sum(p.numel() for p in build({"vocab_size": 300, **DENSE}, seed=0).parameters())


@pytest.mark.parametrize(("owner", "size"), [("base", 431), ("road-base", 768), ("hub:Qwen/Qwen2.5-7B", 152064)])
def test_a_new_model_s_vocabulary_is_that_of_the_tokenizer_it_takes(recipe, owner, size):
    model = "\n".join(f"{key} = {json.dumps(value)}" for key, value in DENSE.items())
    text = f'[stage.new]\nkind = "pretrain"\ntokenizer = "{owner}"\nsteps = 2\n[stage.new.model]\n{model}\n'
    again = text.replace("stage.new", "stage.next").replace(owner, "new")  # an earlier stage's
    tasks = '[[stage.{}.tasks]]\nname = "countdown"\n'
    found = plans.plan(recipe(text + tasks.format("new") + again + tasks.format("next"))).stages
    wanted = sum(p.numel() for p in build({"vocab_size": size, **DENSE}, seed=0).parameters())
    assert [stage.parameters for stage in found] == [wanted, wanted]


def test_a_model_of_unknown_shape_is_said_to_be_unknown(recipe):
    stage = plans.plan(recipe(RL.format(source="hub:someone/else", more=""))).stages[0]
    assert stage.parameters is stage.memory_gb is None
    assert stage.seconds == []
    assert stage.steps == [10, 10, 10]


def test_price_and_power_of_the_recipe_win(recipe):
    zero = recipe(RL.format(source="base", more=""))
    object.__setattr__(zero, "run", zero.run.model_copy(update={"usd_per_hour": 7.0}))
    found = plans.plan(zero)
    assert found.machine == replace(cpu("EPYC", 2, 8.0), usd_per_hour=7.0)
    assert found.bill([3600.0])["usd"] == [7.0]


def test_seeds_multiply_the_whole_and_not_the_stages(recipe):
    text = RL.format(source="base", more="")
    once, thrice = plans.plan(recipe(text)), plans.plan(recipe(f"seeds = [4, 5, 6]\n{text}"))
    assert thrice.stages == once.stages
    assert thrice.seconds == [3 * seconds for seconds in once.seconds]
    assert thrice.as_dict()["total"]["usd"] == thrice.bill(thrice.seconds)["usd"]
    assert "\nall, 3 seeds " in str(thrice)
