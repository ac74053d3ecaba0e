"""The losses of reward models equal their formulas and TRL's, a step is what it says, and packing changes nothing."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.learn.batch import pack_scored
from aftershock.learn.preference import RewardLearner, bradley_terry, logistic, score_all
from aftershock.models import build, scorer_of
from aftershock.recipe import OptimTable

CONFIG = {
    "model_type": "qwen2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.2,
}  # fmt: skip
DOCUMENTS = [[1, 2, 3, 4], [1, 2, 9], [5, 6, 7, 8, 3], [5, 6, 2], [7, 7], [7, 8]]


def learner(pairwise: bool = True, **options: object) -> RewardLearner:
    return RewardLearner(scorer_of(build(CONFIG, seed=0), seed=0), OptimTable(lr=1e-2, **options), pairwise, 10)


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_the_losses_are_their_formulas(pairs: list[tuple[float, float]]):
    scores = torch.tensor(pairs, dtype=torch.float64).flatten()
    assert bradley_terry(scores).item() == pytest.approx(sum(math.log1p(math.exp(r - c)) for c, r in pairs))
    labels = torch.tensor([1.0, 0.0] * len(pairs), dtype=torch.float64)
    wanted = sum(math.log1p(math.exp(-c)) + math.log1p(math.exp(r)) for c, r in pairs)
    assert logistic(scores, labels).item() == pytest.approx(wanted)


def test_the_loss_of_pairs_is_that_of_trls_reward_trainer():
    """Its own compute_loss, on scores that a stand-in for a model gives."""
    from trl import RewardTrainer

    scores = torch.tensor([1.5, -0.3, 0.2, 2.0])
    stub = SimpleNamespace(
        args=SimpleNamespace(center_rewards_coefficient=None),
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    arranged = torch.cat([scores[::2], scores[1::2]])[:, None]  # TRL puts the chosen ones first
    trls = RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=arranged), {"input_ids": None})
    torch.testing.assert_close(bradley_terry(scores) / 2, trls)


@pytest.mark.parametrize("pairwise", [True, False])
def test_a_step_is_the_same_however_it_is_packed_and_by_the_plain_formula(pairwise: bool):
    labels, each = [1.0, 0.0] * 3, 2 if pairwise else 1
    weights = []
    for micro in (64, 8):
        trained = learner(pairwise)
        metrics = trained.step(pack_scored(DOCUMENTS, labels, micro, each))
        weights.append(trained.model.score.weight.detach())
        plain = learner(pairwise).model
        scores = torch.stack([plain.score(plain.hidden(torch.tensor([d]))[0, -1])[0] for d in DOCUMENTS])
        loss = bradley_terry(scores) / 3 if pairwise else logistic(scores, torch.tensor(labels)) / 6
        assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
        assert metrics["examples"] == (3 if pairwise else 6)
        right = scores[::2] > scores[1::2] if pairwise else (scores > 0) == (torch.tensor(labels) > 0)
        assert metrics["accuracy"] == pytest.approx(right.float().mean().item())
    torch.testing.assert_close(weights[0], weights[1], atol=1e-6, rtol=1e-5)


def test_scores_come_in_the_order_of_the_documents():
    model = learner().model
    apart = [score_all(model, [document], 64)[0] for document in DOCUMENTS]
    assert score_all(model, DOCUMENTS, 6) == pytest.approx(apart, abs=1e-5)
    assert len({round(score, 4) for score in apart}) == len(apart)


@pytest.mark.parametrize(("pairwise", "precision"), [(True, "float32"), (False, "bfloat16")])
def test_what_can_be_told_apart_is_learnt(pairwise: bool, precision: str):
    """Which of the two ends in a 3 is the better one."""
    trained = learner(pairwise, precision=precision)
    documents = [[a, b, end] for a in range(5, 10) for b in range(10, 14) for end in (3, 4)]
    batches = pack_scored(documents, [1.0, 0.0] * 20, 64, 2 if pairwise else 1)
    for _ in range(10):
        metrics = trained.step(batches)
    assert metrics["accuracy"] >= 0.95
