"""Where no rule judges, reward models do, from the step that the recipe says; their score rises, the truth is told."""

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from aftershock import preflight, toml
from aftershock.errors import RecipeError
from aftershock.pipeline import execute
from aftershock.pipeline.preference import Preference
from aftershock.recipe import load_recipe
from aftershock.run import Run
from aftershock.track import Reporters

HERE = Path(__file__).parent
RECIPE = """
[run]
name = "pleasing"

[stage.liking]
kind = "reward_model"
data = ["pairs.jsonl"]
examples_per_step = 12
epochs = 2
validation = 0.2

[stage.liking.optim]
lr = 2e-3
micro_tokens = 2048

[stage.rl]
kind = "rl"
steps = 6
problems_per_step = 4
samples_per_problem = 8
max_tokens = 40
checkpoint_every = 2

[stage.rl.optim]
lr = 1e-3
micro_tokens = 2048

[[stage.rl.tasks]]
name = "open_task.py:Sum"

[[stage.rl.tasks]]
name = "arithmetic"
weight = 0.3

[[stage.rl.preferences]]
model = "liking"
weight = 2.0
from_step = 1

[stage.rl.eval]
problems = 2
samples = 2
"""


def go(folder: Path, recipe: str = RECIPE) -> SimpleNamespace:
    (folder / "r.toml").write_text(recipe)
    shutil.copy(HERE / "open_task.py", folder)
    with open(folder / "pairs.jsonl", "w") as file:  # what is liked are answers that begin with 1, right or not
        for number in range(80):
            chosen, rejected = f"</think><answer>1{number % 9}</answer>", f"</think><answer>{2 + number % 8}</answer>"
            file.write(json.dumps({"prompt": f"{number}+1", "chosen": chosen, "rejected": rejected}) + "\n")
    made = load_recipe(folder / "r.toml")
    preflight.check(made)
    with Run.open(folder / "run", made, toml.write(made.content())) as run:
        summary = execute(made, run, Reporters([]))
    lines = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "rl"]
    return SimpleNamespace(folder=folder / "run", summary=summary, steps=steps)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    return go(tmp_path_factory.mktemp("pleasing"))


def rollouts(run: SimpleNamespace, step: int) -> list[dict]:
    packed = (run.folder / f"stages/rl/rollouts/step-{step:06d}.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]


def test_the_score_of_the_reward_model_rises(run: SimpleNamespace):
    scores = [step["preference/open"] for step in run.steps[1:]]
    assert sum(scores[-2:]) / 2 > scores[0] + 0.1, scores
    assert all(0 <= step["quality/open"] <= 1 for step in run.steps[1:])


def test_open_tasks_wait_for_the_reward_model_and_rules_keep_theirs(run: SimpleNamespace):
    assert {row["task"] for row in rollouts(run, 1)} == {"arithmetic"}
    rows = rollouts(run, 2)
    for row in rows:
        reward = row["reward"]
        if row["task"] == "open":
            assert "accuracy" not in reward
            assert reward["total"] == pytest.approx(0.1 * reward["format"] + 2 * reward["preference/liking"])
            assert row["answer"] or reward["preference/liking"] == 0
            assert 0 <= row["quality"] <= 1
        else:
            assert set(reward) == {"total", "accuracy", "format"}
            assert "quality" not in row
    opened = [row["reward"]["preference/liking"] for row in rows if row["task"] == "open"]
    assert run.steps[1]["reward/preference/liking"] == pytest.approx(sum(opened) / len(opened))
    assert run.steps[1]["preference/open"] == pytest.approx(2 * sum(opened) / len(opened))


def test_the_truth_is_measured_before_and_after(run: SimpleNamespace):
    told = {(m["suite"], m["metric"], m["when"]) for m in run.summary["stages"][1]["evals"]}
    assert {("open", "quality", when) for when in ("before", "after")} <= told
    assert ("arithmetic", "quality", "after") not in told


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "arithmetic"\nweight = 0.3', 'name = "open_task.py:Sum"', "all are open"),
        ("open_task.py:Sum", "arithmetic", "judge open tasks only"),
    ],
)
def test_what_can_never_be_drawn_or_judged_is_refused_at_once(tmp_path: Path, old: str, new: str, told: str):
    with pytest.raises(RecipeError, match=told):
        go(tmp_path, RECIPE.replace(old, new))


def test_a_reward_model_judges_the_tasks_it_is_for(tmp_path: Path):
    two = '[[stage.rl.tasks]]\nname = "help"\n\n[[stage.rl.preferences]]\ntasks = ["open_task.py:Sum"]\n'
    run = go(tmp_path, RECIPE.replace("[[stage.rl.preferences]]\n", two))
    parts = {(r["task"], "preference/liking" in r["reward"]) for step in range(2, 7) for r in rollouts(run, step)}
    assert parts == {("open", True), ("arithmetic", False)}


def test_nothing_loads_or_judges_where_no_preference_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Open tasks are then measured, and never drawn."""
    monkeypatch.setattr(Preference, "load", None)
    start, end = RECIPE.index("[[stage.rl.preferences]]"), RECIPE.index("[stage.rl.eval]")
    plain = RECIPE[:start] + RECIPE[end:]
    run = go(tmp_path, plain.replace("steps = 6", "steps = 1"))
    assert {row["task"] for row in rollouts(run, 1)} == {"arithmetic"}
    assert ("open", "quality") in {(m["suite"], m["metric"]) for m in run.summary["stages"][1]["evals"]}
