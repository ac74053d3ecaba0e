"""The loop of reinforcement learning: what a step does to the weights, and what stops it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aftershock import toml
from aftershock.errors import VerifierError
from aftershock.generate import Completion, Engine
from aftershock.learn import Batch
from aftershock.models import load
from aftershock.pipeline import execute, rl
from aftershock.pipeline.evaluate import Judged
from aftershock.recipe import load_recipe
from aftershock.run import Run
from aftershock.tasks import Problem
from aftershock.track import Reporters
from aftershock.verify.verdict import Reward, Verdict

RECIPE = Path(__file__).parent / "tiny.toml"
SHORT = ["stage.zero.steps=3", "stage.zero.eval.every=0", "stage.zero.eval.problems=1", "stage.zero.eval.samples=2"]


def go(out: Path, *overrides: str) -> SimpleNamespace:
    """Run a recipe in this process; return its folder, summary and the metrics of its RL stage."""
    recipe = load_recipe(RECIPE, [*SHORT, *overrides])
    with Run.open(out, recipe, toml.write(recipe.content())) as run:
        summary = execute(recipe, run, Reporters([]))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(folder=out, summary=summary, steps=[line for line in lines if line["stage"] == "zero"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One start for all tests of this file; the recipe's own first stage, cut short."""
    out = tmp_path_factory.mktemp("start") / "run"
    go(out, "stage.start.steps=6", "stage.zero.steps=1")
    return f"stage.zero.from={out / 'stages/start/model'}"


def only_zero(base: str) -> list[str]:
    return [base, "stage.start.steps=1"]


def test_a_format_reward_alone_is_learnt_from(base: str, tmp_path: Path):
    """Weights move, and only where groups carry signal."""
    dials = ["stage.zero.optim.lr=1e-2", "stage.zero.reward.overlong_buffer=0", "stage.zero.loss.kl=0"]
    run = go(tmp_path / "run", *only_zero(base), *dials, "stage.zero.loss.reference_every=0")
    before, after = load(base.split("=")[1]), load(run.folder / "stages/zero/model")
    moved = any(not torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values()))
    assert moved == any(step["no_signal"] < 1 for step in run.steps)
    for step in run.steps:
        assert ("loss" in step) == (step["no_signal"] < 1)


def test_overlong_shaping_makes_signal_and_moves_weights(base: str, tmp_path: Path):
    run = go(tmp_path / "run", *only_zero(base))
    assert all("reward/overlong" in step for step in run.steps)
    before, after = load(base.split("=")[1]), load(run.folder / "stages/zero/model")
    assert any(not torch.equal(a, b) for a, b in zip(before.state_dict().values(), after.state_dict().values()))
    assert all(step["mismatch"] < 1e-4 for step in run.steps if "mismatch" in step), "sampler and learner part ways"


def test_an_exact_stage_learns_from_the_sampler_s_own_log_probabilities(base: str, tmp_path: Path):
    run = go(tmp_path / "run", *only_zero(base), "stage.zero.steps=2", "stage.zero.exact=true")
    gaps = [step["mismatch_max"] for step in run.steps if "mismatch_max" in step]
    assert gaps
    assert not any(gaps)


def test_a_refreshed_reference_is_the_policy(base: str, tmp_path: Path):
    dials = ["stage.zero.loss.kl=0.1", "stage.zero.optim.lr=1e-2", "stage.zero.minibatches=1"]
    kept = go(tmp_path / "kept", *only_zero(base), *dials, "stage.zero.loss.reference_every=0")
    fresh = go(tmp_path / "fresh", *only_zero(base), *dials, "stage.zero.loss.reference_every=1")
    assert kept.steps[-1]["kl"] > 1e-4
    assert all(abs(step["kl"]) < 1e-6 for step in fresh.steps)


def test_minibatches_leave_the_policy_and_clip(base: str, tmp_path: Path):
    dials = ["stage.zero.optim.lr=3e-2", "stage.zero.minibatches=3"]
    run = go(tmp_path / "run", *only_zero(base), *dials)
    assert max(step["ratio_max"] for step in run.steps) > 1.05
    assert max(step["clip_fraction"] for step in run.steps) > 0


def test_down_sampling_learns_from_part_of_each_group(base: str, tmp_path: Path):
    steps = {}
    for dial in ("down_sample=0", "down_sample=2", "down_sample_spread=1"):
        run = go(tmp_path / dial, *only_zero(base), f"stage.zero.{dial}", "stage.zero.minibatches=1")
        lines = [json.loads(line) for line in (run.folder / "timings.jsonl").read_text().splitlines()]
        steps[dial] = next(line for line in lines if line["stage"] == "zero" and line["step"] == 1)
    everything, *some = steps.values()
    for part in some:
        assert part["sampled_tokens"] == everything["sampled_tokens"]
        assert 0 < part["trained_tokens"] < everything["trained_tokens"]


@pytest.mark.parametrize(("deep", "tokens"), [(True, 6), (False, 11)])
def test_what_completions_begin_with_alike_is_learnt_once_where_that_pays(deep: bool, tokens: int):
    texts = [(3, 4, 1), (3, 4, 5), (3, 4, 5)]
    completions = [Completion((8, 9), text, (0.0,) * 3, (0.0,) * 3, "", "", "", "stop") for text in texts]
    rewards = [Reward(total, {}, Verdict("right", "", "")) for total in (1.0, 0.0, 0.0)]
    batches: list[Batch] = []
    learner = SimpleNamespace(shares_deeply=deep, step_minibatches=lambda parts: batches.extend(*parts) or {})
    stage = load_recipe(RECIPE, [*SHORT, "stage.zero.minibatches=1"]).stage["zero"]
    timings: dict[str, float] = {}
    judged = Judged(Problem("t", "t-1", "?", ""), completions, rewards)
    rl._learn(SimpleNamespace(stage=stage, learner=learner), [judged], timings)
    assert [len(batch.tokens) for batch in batches] == [tokens] == [timings["learned_tokens"]]
    assert batches[0].lengths.tolist() == [3, 3, 3]


def test_dynamic_sampling_draws_on_for_signal(base: str, tmp_path: Path):
    plain = [*only_zero(base), "stage.zero.reward.overlong_buffer=0"]
    few = go(tmp_path / "few", *plain)
    more = go(tmp_path / "more", *plain, "stage.zero.dynamic_sampling=3")

    def sampled(run: SimpleNamespace) -> int:
        lines = [json.loads(line) for line in (run.folder / "timings.jsonl").read_text().splitlines()]
        return sum(line["sampled_tokens"] for line in lines if line["stage"] == "zero")

    assert sampled(more) > sampled(few)


def test_a_failing_verifier_stops_the_run_with_its_cause(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = (RECIPE.parent / "add_task.py").read_text()
    broken = task.replace("        return Verdict(", "        raise OSError('no such judge')\n        return Verdict(")
    (tmp_path / "broken.py").write_text(broken)
    recipe = tmp_path / "broken.toml"
    recipe.write_text(RECIPE.read_text().replace("add_task.py:Add", "broken.py:Add"))
    answer = Completion((1,), (2, 3), (0.0, 0.0), (0.0, 0.0), "</think><answer>1</answer>", "", "1", "stop")
    monkeypatch.setattr(Engine, "generate", lambda self, prompts, params, **_: [[answer] * params.n for _ in prompts])
    loaded = load_recipe(recipe, [*SHORT, *only_zero(base)])
    with (
        Run.open(tmp_path / "run", loaded, toml.write(loaded.content())) as run,
        pytest.raises(VerifierError, match="no such judge"),
    ):
        execute(loaded, run, Reporters([]))
