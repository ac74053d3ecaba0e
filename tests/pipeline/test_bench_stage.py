"""A bench stage: models side by side on the same problems with the same draws, each measured once whatever happens."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from walk import walk

from aftershock.errors import RecipeError
from aftershock.pipeline.dry import dry_run
from aftershock.plan import plan
from aftershock.recipe import load_recipe
from aftershock.report.files import read
from aftershock.report.page import render
from aftershock.sources import shipped_base
from aftershock.table import bench

RECIPE = """
[run]
name = "side by side"
seed = 4
[stage.start]
kind = "pretrain"
tokenizer = "base"
steps = 1
tokens_per_step = 256
max_tokens = 8
[stage.start.model]
model_type = "llama"
hidden_size = 16
num_hidden_layers = 1
intermediate_size = 16
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 128
[stage.start.eval]
problems = 1
samples = 1
[[stage.start.tasks]]
name = "arithmetic"
[stage.table]
kind = "bench"
models = ["base", "start", "./a copy"]
max_tokens = 16
[stage.table.eval]
problems = 3
samples = 4
[[stage.table.tasks]]
name = "arithmetic"
[[stage.table.tasks]]
name = "help"
"""

MODELS = ("base", "start", ".%2Fa%20copy")  # as their files are called


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(shipped_base(), folder / "a copy")
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def whole(recipe: Path) -> Path:
    return walk(recipe, recipe.parent / "run")


def rows(run: Path, model: str) -> list[dict]:
    text = gzip.decompress((run / f"stages/table/eval-{model}.jsonl.gz").read_bytes()).decode()
    return [{key: value for key, value in json.loads(line).items() if key != "step"} for line in text.splitlines()]


def evals(run: Path) -> list[dict]:
    return json.loads((run / "summary.json").read_text())["stages"][1]["evals"]


def test_every_model_is_measured_on_every_suite_under_its_name(whole: Path):
    found = {(m["when"], m["suite"], m["metric"]) for m in evals(whole)}
    for model in ("base", "start", "./a copy"):
        assert {(model, suite, "pass@1") for suite in ("arithmetic", "help", "all")} <= found
        assert (model, "help", "quality") in found
    assert {m["k"] for m in evals(whole)} == {4}


def test_the_report_and_the_table_show_them_side_by_side(whole: Path):
    page = render(read(whole))
    assert page.count("models on the same held-out problems") == 1
    assert all(f'<th scope="row">{model}</th>' in page for model in ("base", "start", "./a copy"))
    assert "answered the same held-out problems" in page
    assert [row.split("  ")[0] for row in bench(evals(whole)).splitlines()[3:6]] == ["base", "start", "./a copy"]


def test_all_answer_the_same_problems_with_the_same_draws(whole: Path):
    one, other, same = (rows(whole, model) for model in MODELS)
    assert one == same
    assert [row["prompt"] for row in one] == [row["prompt"] for row in other]
    assert [row["text"] for row in one] != [row["text"] for row in other]
    assert len(one) == 2 * 3 * 4


def test_killed_between_models_it_goes_on_with_the_next_and_ends_the_same(
    recipe: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from aftershock.pipeline import bench as stage

    asked = []

    def examine(*given):
        asked.append(given[-2])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return truly(*given)

    truly = stage.examine
    monkeypatch.setattr(stage, "examine", examine)
    with pytest.raises(KeyboardInterrupt):
        walk(recipe, tmp_path / "run")
    first = tmp_path / "run/stages/table/eval-base.json"
    written = first.stat().st_mtime_ns
    walk(recipe, tmp_path / "run", resume=True)
    assert first.stat().st_mtime_ns == written
    kept = ("stages/table/eval-*", "metrics.jsonl")
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for name in kept for path in folder.glob(name)}
        for folder in (whole, tmp_path / "run")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 7
    tokens = [
        json.loads((run / "summary.json").read_text())["stages"][1]["tokens"] for run in (whole, tmp_path / "run")
    ]
    assert tokens[0] == tokens[1] == sum(row["tokens"] for model in MODELS for row in rows(whole, model))


def test_a_plan_counts_every_model_and_a_dry_run_goes_through_it(recipe: Path):
    start, table = plan(load_recipe(recipe)).stages
    one = plan(load_recipe(recipe, ['stage.table.models=["base"]'])).stages[1]
    assert table.inputs == ["start"]
    assert table.steps == [3, 3, 3]
    assert table.tokens == [pytest.approx(3 * tokens) for tokens in one.tokens]
    assert table.parameters == one.parameters > start.parameters
    assert all(several > least for several, least in zip(table.seconds, one.seconds, strict=True))
    assert "./a copy: a deepseek_v3 of random weights" in "\n".join(dry_run(load_recipe(recipe)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("models=[]", "stage.table.models = []: is empty"),
        ('models=["base","base"]', 'models.1 = "base": stands there already'),
        ('models=["strat"]', 'models.0 = "strat": should be .*did you mean "start"'),
        ('models=["table"]', "models.0.*is no stage that makes weights"),
        ("tasks=[]", "there is no task"),
        ("eval.temperature=0", "is greedy"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_runs(recipe: Path, change: str, words: str):
    with pytest.raises(RecipeError, match=words.replace("[", r"\[")):
        load_recipe(recipe, [f"stage.table.{change}"])
