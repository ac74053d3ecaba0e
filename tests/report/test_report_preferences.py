"""The report shows whether a reward model can be believed, and both curves of reward hacking."""

import gzip
import json
from pathlib import Path

import pytest

from aftershock.report.curves import Curves, samples_by_step
from aftershock.report.files import read, rollout_rows
from aftershock.report.page import render
from aftershock.report.scores import scores_of

RECIPE = """
[run]
name = "pleasing"
[stage.liking]
kind = "reward_model"
data = ["pairs.jsonl"]
[stage.all]
kind = "rl"
steps = 4
[[stage.all.tasks]]
name = "help"
[[stage.all.preferences]]
model = "liking"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a reward model and of the stage that it has a say in, as the pipeline leaves them."""
    out = tmp_path_factory.mktemp("preferences")
    (out / "recipe.toml").write_text(RECIPE)
    metrics = [{"stage": "liking", "step": s, "loss": 0.7 / s, "accuracy": 0.5 + s / 10} for s in (1, 2, 3)]
    metrics[-1] |= {"validation_loss": 0.3, "validation_accuracy": 0.91}
    for step in (1, 2):
        metrics.append(
            {"stage": "all", "step": step, "reward": 1.0, "preference/help": step / 4, "quality/help": 0.9 - step / 5}
        )
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (out / "timings.jsonl").write_text("")
    score = {"when": "after", "low": 0.8, "high": 0.97, "n": 40, "k": 1, "seed": 0, "suite": "held-out pairs"}
    evals = [score | {"metric": "accuracy", "value": 0.91}, score | {"metric": "calibration_error", "value": 0.85}]
    stages = [{"name": "liking", "kind": "reward_model", "evals": evals}, {"name": "all", "kind": "rl", "evals": []}]
    (out / "summary.json").write_text(json.dumps({"run": "pleasing", "seed": 0, "finished": True, "stages": stages}))
    (out / "stages/liking").mkdir(parents=True)
    bins = [{"confidence": 0.6, "right": 0.5, "low": 0.2, "high": 0.8, "n": 10}]
    (out / "stages/liking/calibration.json").write_text(json.dumps(bins))
    (out / "stages/all/rollouts").mkdir(parents=True)
    for step in (1, 2):
        rows = [
            {"step": step, "problem": f"p{i}", "task": "help", "verdict": {"outcome": "right"}, "tokens": 3,
             "reward": {"total": 1.0, "format": 1.0, "preference/liking": 0.5}, "quality": 0.9 - step / 5}
            for i in range(4)
        ]  # fmt: skip
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (out / f"stages/all/rollouts/step-{step:06d}.jsonl.gz").write_bytes(gzip.compress(text))
    return out


def charts(folder: Path, number: int) -> dict:
    stage = read(folder).stages[number]
    samples = samples_by_step(rollout_rows(stage, []))
    return {chart.title: chart for chart in Curves(stage, samples, scores_of(stage)[0], 0, "").charts()}


def test_a_reward_models_accuracy_and_calibration_are_drawn(folder: Path):
    drawn = charts(folder, 0)
    assert set(drawn) == {"Loss", "Preferences told right", "Is it right as often as it says?"}
    points = drawn["Is it right as often as it says?"].series[0]
    assert (points.steps, points.values, points.low, points.high) == ([60], [50], [20], [80])


def test_score_and_truth_are_drawn_together(folder: Path):
    chart = charts(folder, 1)["Pleasing or good: help"]
    truth, score = chart.series
    assert truth.values == pytest.approx([0.7, 0.5])
    assert truth.low is not None
    assert score.values == [0.25, 0.5]
    assert "Accuracy" not in charts(folder, 1), "no rule judges an open task"


def test_the_page_tells_it_in_words(folder: Path):
    page = render(read(folder))
    for words in ("which of two answers is preferred", "preferences told right", "91.0%", "[80.0, 97.0]", "1 × liking"):
        assert words in page
    assert "eval-after" not in page.split("Missing from this page")[1].split("</ul>")[0].replace("all/eval", "")
