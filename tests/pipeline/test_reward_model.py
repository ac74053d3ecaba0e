"""A reward model learns what is preferred and is measured on what it has not seen."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walk import walk

from aftershock.errors import DataError, RecipeError
from aftershock.models import Scorer, load
from aftershock.pipeline import calibration
from aftershock.pipeline.calibration import Forecast
from aftershock.pipeline.preference import CENTRE, read, sigmoid
from aftershock.pipeline.reward_model import _parsed
from aftershock.recipe import load_recipe
from aftershock.sources import shipped_base
from aftershock.text import Tokenizer

RECIPE = """
[run]
name = "judges"

[stage.helpful]
kind = "reward_model"
data = ["pairs.jsonl"]
examples_per_step = 12
validation = 0.2
epochs = 2
checkpoint_every = 4

[stage.helpful.optim]
lr = 2e-3
micro_tokens = 2048
"""


def pairs(folder: Path, count: int = 90) -> None:
    """Right sums are preferred to refusals, whatever was thought before."""
    with open(folder / "pairs.jsonl", "w") as file:
        for number in range(count):
            a, b = random.Random(number).sample(range(10, 99), 2)
            chosen, rejected = f"{a}+{b}={a + b}</think>{a + b}", "hm</think>no no"
            file.write(json.dumps({"prompt": f"{a}+{b}?", "chosen": chosen, "rejected": rejected}) + "\n")


def run(folder: Path, out: str, recipe: str = RECIPE) -> Path:
    (folder / "r.toml").write_text(recipe)
    return walk(folder / "r.toml", folder / out)


def evals(folder: Path) -> dict[str, dict]:
    return {m["metric"]: m for m in json.loads((folder / "summary.json").read_text())["stages"][-1]["evals"]}


def test_it_learns_and_is_measured(tmp_path: Path):
    pairs(tmp_path)
    whole = run(tmp_path, "whole")
    found = evals(whole)
    assert found["accuracy"]["value"] >= 0.9
    assert set(found) == {"accuracy", "calibration_error", "brier"}
    assert all(m["low"] <= m["value"] <= m["high"] and m["n"] > 5 for m in found.values())
    rows = gzip.decompress((whole / "stages/helpful/heldout.jsonl.gz").read_bytes()).decode().splitlines()
    scores = [score for row in rows for score in json.loads(row)["scores"]]
    scorer = load(whole / "stages/helpful/model", kind=Scorer)
    assert scorer.config.extras[CENTRE] == pytest.approx(sum(scores) / len(scores))


def test_judgements_of_one_text_are_learnt_too(tmp_path: Path):
    with open(tmp_path / "pairs.jsonl", "w") as file:
        for number in range(100):
            text = "burn it" if number % 2 else "fetch help"
            row = {"prompt": f"what about {number // 2}?", "completion": text, "label": not number % 2}
            file.write(json.dumps(row) + "\n")
    folder = run(tmp_path, "out", RECIPE.replace("data =", 'form = "pointwise"\njudges = "whole"\ndata ='))
    assert evals(folder)["accuracy"]["value"] >= 0.9
    assert load(folder / "stages/helpful/model", kind=Scorer).config.extras[CENTRE] == 0


def test_tasks_teach_on_their_train_split_and_measure_on_the_other(tmp_path: Path):
    tasks = 'examples = 32\n[[stage.helpful.tasks]]\nname = "help"\nlanguages = ["en", "zh"]\n[stage.helpful.optim]'
    folder = run(tmp_path, "out", RECIPE.replace('data = ["pairs.jsonl"]', "").replace("[stage.helpful.optim]", tasks))
    assert evals(folder)["accuracy"]["n"] >= 4
    harm = tasks.replace('"help"', '"harm"')
    with pytest.raises(DataError, match="'harm' has nothing pairwise"):
        run(tmp_path, "harm", RECIPE.replace('data = ["pairs.jsonl"]', "").replace("[stage.helpful.optim]", harm))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {
            "prompt": [{"role": "user", "content": "p"}],
            "chosen": [{"role": "assistant", "content": "c"}],
            "rejected": [{"role": "assistant", "content": "r"}],
        },
        {
            "chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}],
            "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}],
        },
    ],
)
def test_pairs_are_read_in_all_of_trls_forms(row: dict):
    lesson = _parsed(row, "pairwise", "here")
    assert (lesson.prompt, lesson.texts) == (({"role": "user", "content": "p"},), ("c", "r"))


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"prompt": "p", "chosen": "c"}, "pairwise"),
        ({"chosen": "c", "rejected": "r"}, "pairwise"),
        ({"prompt": [], "chosen": "c", "rejected": "r"}, "pairwise"),
        ({"prompt": "p", "chosen": 3, "rejected": "r"}, "pairwise"),
        ({"prompt": "p", "completion": "c", "label": "yes"}, "pointwise"),
        ({"prompt": "p", "completion": "c"}, "pointwise"),
    ],
)
def test_rows_that_teach_nothing_are_told(row: dict, form: str):
    with pytest.raises(DataError, match="here: wanted `prompt`"):
        _parsed(row, form, "here")


def test_what_is_too_long_is_left_out_and_nothing_left_is_told(tmp_path: Path):
    pairs(tmp_path, 20)
    with pytest.raises(DataError, match="0 examples to train on"):
        run(tmp_path, "out", RECIPE.replace("epochs = 2", "max_length = 8"))


def test_reasoning_is_hidden_from_a_judge_of_answers():
    tokenizer = Tokenizer.load(shipped_base())
    prompt = ({"role": "user", "content": "2+2?"},)
    shown = read(prompt, "cunning</think><answer>4</answer>", "answer", tokenizer)
    assert shown == read(prompt, "plain</think><answer>4</answer>", "answer", tokenizer)
    assert shown == read(prompt, "<answer>4</answer>", "answer", tokenizer, prefilled=False)
    assert shown != read(prompt, "plain</think><answer>4</answer>", "whole", tokenizer)
    assert "plain" in tokenizer.decode(read(prompt, "plain</think><answer>4</answer>", "whole", tokenizer))
    assert shown[-1] == tokenizer.eos


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('[stage.zero]\nkind = "rl"\nsteps = 2\nfrom = "helpful"\n[[stage.zero.tasks]]\nname = "help"\n', "zero.from"),
        (
            '[stage.zero]\nkind = "rl"\nsteps = 2\n[[stage.zero.tasks]]\nname = "help"\n'
            '[[stage.zero.preferences]]\nmodel = "helpfull"\nfrom_step = 2\n',
            'did you mean "helpful"',
        ),
    ],
)
def test_a_reward_model_is_named_for_what_it_is(tmp_path: Path, change: str, told: str):
    (tmp_path / "r.toml").write_text(RECIPE + change)
    with pytest.raises(RecipeError, match=told):
        load_recipe(tmp_path / "r.toml")


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-9, 9), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_calibration_is_its_formulas(told: list[tuple[int, float, bool]]):
    forecasts = [Forecast(str(g), m, y) for g, m, y in told]
    found = {m.metric: m for m in calibration.measure(forecasts, "s", 0)}
    chances = [(sigmoid(m), y) for _, m, y in told]
    assert found["brier"].value == pytest.approx(sum((p - y) ** 2 for p, y in chances) / len(told))
    bins: dict[int, list[float]] = {}
    for f in forecasts:
        bins.setdefault(f.bin, []).append(f.right - f.confidence)
    assert found["calibration_error"].value == pytest.approx(sum(abs(sum(b)) for b in bins.values()) / len(told))
    assert all(m.low <= m.value <= m.high for m in found.values())
    assert sum(row["n"] for row in calibration.reliability(forecasts)) == len(told)


def test_a_model_that_knows_its_chances_is_found_calibrated_and_a_boaster_is_not():
    rng = random.Random(0)
    margins = [rng.gauss(0, 1.5) for _ in range(1500)]
    honest = [Forecast(str(i), m, rng.random() < 1 / (1 + math.exp(-m))) for i, m in enumerate(margins)]
    boaster = [Forecast(f.group, 5 * f.margin, f.label) for f in honest]
    errors = [
        next(m for m in calibration.measure(f, "s", 0) if m.metric == "calibration_error") for f in (honest, boaster)
    ]
    assert errors[0].value < 0.05 < 0.1 < errors[1].low
