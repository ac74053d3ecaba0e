"""A recipe trains a prediction module, drafts with it in sampling and in RL, and says how many drafts were accepted."""

import json
import math
from pathlib import Path

import pytest
from test_rl import RECIPE, SHORT

from aftershock import toml
from aftershock.cost import flops
from aftershock.errors import SamplingError, TrainingError
from aftershock.models import load
from aftershock.pipeline import execute
from aftershock.recipe import load_recipe
from aftershock.run import Run
from aftershock.track import Reporters

MODULE = [
    "stage.start.model.num_nextn_predict_layers=1",
    "stage.start.mtp_weight=0.3",
    "stage.start.steps=6",
    "stage.start.tokenizer=base",
]
SAMPLED = """
extends = "{base}"

[stage.made]
kind = "sample"
from = "start"
problems = 4
samples_per_problem = 2
max_tokens = 24
draft = 1

[[stage.made.tasks]]
name = "remainders"
"""


def go(out: Path, *overrides: str, only: list[str]) -> dict[str, list[dict]]:
    """Run stages of the tiny recipe, with one that samples, and return their metrics by stage."""
    (out / "sampled.toml").write_text(SAMPLED.format(base=RECIPE))
    recipe = load_recipe(out / "sampled.toml", [*SHORT, "stage.zero.steps=2", *overrides])
    with Run.open(out / "run", recipe, toml.write(recipe.content())) as run:
        execute(recipe, run, Reporters([]), only)
    rows = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]
    return {name: [row for row in rows if row["stage"] == name] for name in only}


def test_a_module_is_trained_and_drafts_in_sampling_and_rl(tmp_path: Path):
    told = go(tmp_path, *MODULE, "stage.zero.draft=2", only=["start", "made", "zero"])
    config = load(tmp_path / "run/stages/start/model").config.to_dict()
    assert config["num_nextn_predict_layers"] == 1
    first, *_, last = told["start"]
    assert last["mtp_loss"] < first["mtp_loss"] < 1.2 * math.log(config["vocab_size"])
    assert 0 < last["mtp_acceptance"] <= 1
    for name, draft in (("made", 1), ("zero", 2)):
        for row in told[name]:
            assert row["tokens_per_forward"] == pytest.approx(1 + draft * row["draft_acceptance"])
            assert 1 < row["tokens_per_forward"] <= 1 + draft
    plain = flops.work(config, 40.0, 1000).flops
    assert 1.3 * plain < flops.work(config, 40.0, 1000, prediction=True).flops < 2 * plain


def test_without_a_module_neither_is_begun(tmp_path: Path):
    with pytest.raises(TrainingError, match="mtp_weight"):
        go(tmp_path, "stage.start.mtp_weight=0.3", "stage.start.tokenizer=base", only=["start"])


@pytest.mark.parametrize("stage", ["made", "zero"])
def test_nor_is_sampling(tmp_path: Path, stage: str):
    with pytest.raises(SamplingError, match="draft is 3"):
        go(tmp_path, f"stage.{stage}.draft=3", f"stage.{stage}.from=base", only=[stage])
