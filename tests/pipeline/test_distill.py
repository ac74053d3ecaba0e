"""Students of both shapes learn from their teacher, by samples and by logits."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from walk import walk

from aftershock import toml
from aftershock.errors import DataError, RecipeError
from aftershock.generate import Completion
from aftershock.models import load
from aftershock.pipeline import distill
from aftershock.pipeline.corpus import pack_traces
from aftershock.pipeline.distill import _indices
from aftershock.pipeline.evaluate import Judged
from aftershock.recipe import load_recipe
from aftershock.report import words
from aftershock.sources import shipped_base
from aftershock.tasks import Problem
from aftershock.text import Tokenizer, train_tokenizer

RECIPE = Path(__file__).parent / "students.toml"
STAGES = ("qwen", "llama", "lessons", "qwen-taught", "llama-taught", "follower", "reader", "control")


def go(out: Path, text: str) -> dict:
    """Run a recipe's text from the folder of `out`, and return its summary."""
    path = out.parent / "recipe.toml"
    path.write_text(text)
    return json.loads((walk(path, out) / "summary.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("students") / "run"
    summary = go(out, RECIPE.read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = {name: [line for line in lines if line["stage"] == name] for name in STAGES}
    return SimpleNamespace(folder=out, summary=summary, steps=steps, stages={s["name"]: s for s in summary["stages"]})


@pytest.mark.slow
def test_students_take_the_teachers_tokenizer_with_its_vocabulary(whole: SimpleNamespace):
    teacher = Tokenizer.load(shipped_base())
    for name in ("qwen", "llama"):
        folder = whole.folder / f"stages/{name}/model"
        assert (folder / "tokenizer.json").read_bytes() == (shipped_base() / "tokenizer.json").read_bytes()
        config = load(folder).config.to_dict()
        assert config["model_type"] == ("qwen2" if name == "qwen" else "llama")
        assert (config["vocab_size"], config["bos_token_id"], config["eos_token_id"]) == (
            teacher.vocab_size,
            teacher.bos,
            teacher.eos,
        )


@pytest.mark.slow
def test_samples_of_the_teacher_teach_both_shapes(whole: SimpleNamespace):
    assert len((whole.folder / "stages/lessons/data.jsonl").read_text().splitlines()) > 10
    for name in ("qwen-taught", "llama-taught"):
        losses = [step["loss"] for step in whole.steps[name]]
        assert losses[-1] < 0.9 * losses[0], name
        transformers = pytest.importorskip("transformers")
        transformers.AutoModelForCausalLM.from_pretrained(whole.folder / f"stages/{name}/model")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("follower", "reverse_kl"), ("reader", "forward_kl")])
def test_logits_of_the_teacher_teach(whole: SimpleNamespace, name: str, kind: str):
    steps = whole.steps[name]
    assert steps[-1][kind] < 0.9 * steps[0][kind]
    for step in steps:
        assert step["loss"] == pytest.approx(step[kind], rel=1e-5)
        assert {"forward_kl", "reverse_kl", "entropy", "agreement", "grad_norm", "lr"} <= step.keys()
    assert ("right" in steps[0]) == (name == "follower")


def test_the_report_says_how_a_student_was_taught():
    stages = toml.read(RECIPE)["stage"]
    (follower,), (reader,) = (words.method(stages[name]) for name in ("follower", "reader"))
    assert "its own completions of problems (arithmetic at difficulty 1 in English)" in follower
    assert "8 completions" in follower
    assert "by reverse KL" in follower
    assert "token of lessons" in reader
    assert "by forward KL" in reader


@pytest.mark.slow
def test_the_student_is_measured_and_the_teachers_forward_is_on_the_bill(whole: SimpleNamespace):
    measured = {(m["metric"], m["when"]) for m in whole.stages["follower"]["evals"]}
    assert {("pass@1", "before"), ("pass@1", "after")} <= measured
    assert whole.stages["reader"]["evals"] == []
    # The teacher of 1.9M parameters costs far more than the student of 0.1M trained beside it.
    reader, taught = whole.stages["reader"], whole.stages["llama-taught"]
    assert reader["flops"] / reader["tokens"] > 3 * taught["flops"] / taught["tokens"]
    assert {(m["metric"], m["when"]) for m in whole.stages["control"]["evals"]} == measured


def small(folder: Path, words: str) -> str:
    """Return a recipe of a student with a tokenizer of its own that is to follow the shipped base."""
    from aftershock.models import build, save

    tokenizer = train_tokenizer([words], 280)
    fields = toml.read(RECIPE)["stage"]["qwen"]["model"] | {"vocab_size": tokenizer.vocab_size}
    fields |= {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    save(build(fields, seed=0), folder / "other", tokenizer=tokenizer)
    tables = toml.read(RECIPE)
    return toml.write({"run": tables["run"], "stage": {"follower": tables["stage"]["follower"] | {"from": "other"}}})


def test_another_tokenizer_is_refused_in_words(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"share no tokenizer .*431 tokens.*tokenizer = 'base'"):
        go(tmp_path / "run", small(tmp_path, "what is it"))


def test_tokenizers_differ_by_number_or_by_merges_and_not_by_their_template():
    base = Tokenizer.load(shipped_base())
    assert base.difference(base.with_template("chat")) == ""
    state = json.loads(base.fast.to_str())
    state["model"]["merges"] = [*state["model"]["merges"][1:], state["model"]["merges"][0]]
    other = Tokenizer(type(base.fast).from_str(json.dumps(state)), base.config)
    assert "merged by other rules" in base.difference(other)
    assert "is number" in base.difference(train_tokenizer(["abc"], 280))


def test_rows_longer_than_the_limit_are_left_out_and_none_left_is_told(tmp_path: Path):
    (tmp_path / "lessons.jsonl").write_text(json.dumps({"prompt": "1+1?", "completion": "so it is 2 " * 30}) + "\n")
    stage = toml.read(RECIPE)["stage"]["reader"] | {"from": "base", "data": ["lessons.jsonl"]}
    with pytest.raises(DataError, match="no example of lessons"):
        go(tmp_path / "run", toml.write({"run": {"name": "x"}, "stage": {"reader": stage}}))


def test_every_epoch_takes_all_rows_in_an_order_of_its_own():
    context = SimpleNamespace(seed=0, name="reader")
    taken = [index for step in range(6) for index in _indices(10, 5, step, context)]
    epochs = [taken[start : start + 10] for start in range(0, 30, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(_indices(3, 7, 0, context))[:3] != [0, 0, 0]


def test_the_end_token_that_a_student_wrote_has_its_loss_and_a_cut_one_has_none_to_learn(monkeypatch):
    ended = Completion((0, 7), (5, 6, 1), (0.0,) * 3, (0.0,) * 3, "", "", "", "stop")
    cut = Completion((0, 7), (5, 6, 5), (0.0,) * 3, (0.0,) * 3, "", "", "", "length")
    monkeypatch.setattr(
        distill, "sample", lambda *_: [Judged(Problem("t", "t-1", "?", "", "en", 1, {}), [ended, cut], [])]
    )
    monkeypatch.setattr(distill, "rows", lambda *_: [])
    monkeypatch.setattr(distill, "draw_problems", lambda *_: [])
    stage = load_recipe(RECIPE).stage["follower"]
    context = SimpleNamespace(seed=0, name="follower", folder=SimpleNamespace(rollouts=lambda *_: None))
    documents, told, sampled = distill._own(stage, context, None, None, [])(0)
    (batch,) = pack_traces(documents, 64)
    assert batch.tokens[batch.mask].tolist() == [5, 6, 1, 5, 6, 5]
    assert (told["truncated"], sampled) == (0.5, 6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"follower": {"teacher": "nobody"}}, "stage.follower.teacher"),
        ({"follower": {"teacher": "reader"}}, "stands before this one"),
        ({"follower": {"data": ["lessons"]}}, "on_policy = false"),
        ({"follower": {"tasks": []}}, "there is no task"),
        ({"reader": {"data": []}}, "stage.reader.data"),
        ({"reader": {"data": ["qwen"]}}, "is not an earlier stage that makes data"),
        ({"qwen": {"tokenizer": "llama"}}, "stage.qwen.tokenizer"),
        ({"llama": {"from": "qwen"}}, "is for new weights"),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_anything_runs(tmp_path: Path, change: dict, words: str):
    tables = toml.read(RECIPE)
    for name, keys in change.items():
        tables["stage"][name] |= keys
    (tmp_path / "recipe.toml").write_text(toml.write(tables))
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")):
        load_recipe(tmp_path / "recipe.toml")
