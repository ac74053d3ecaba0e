"""A mixture of experts in a native step: the forward's choice and values, whoever shares the experts."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_models_config import SPARSE
from test_models_forms import shaken
from test_native import by_torch, native_build, stepped, steps

from aftershock.models.moe import Gate

pytestmark = pytest.mark.skipif(native_build.library() is None, reason=f"no native step: {native_build.why_not()}")
MIXED = {**SPARSE, "vocab_size": 40, "initializer_range": 0.3}
mixtures = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([16, 28, 48]),
        "moe_intermediate_size": st.sampled_from([1, 8, 19]),
        "n_shared_experts": st.integers(0, 2),
        "first_k_dense_replace": st.integers(0, 1),
        "norm_topk_prob": st.booleans(),
        "routed_scaling_factor": st.sampled_from([1.0, 2.5]),
        "seed": st.integers(0, 9),
    }
)
GROUPS = [(1, 1, 1, 8), (1, 1, 8, 8), (2, 1, 2, 8), (4, 2, 3, 8), (4, 3, 5, 12), (1, 1, 3, 5)]


def made(groups=(2, 1, 2, 8), seed=0, **change):
    sizes = dict(zip(("n_group", "topk_group", "num_experts_per_tok", "n_routed_experts"), groups))
    model = shaken({**MIXED, **sizes, **change}, seed=seed)
    assert model.native
    return model


def near(model, run):
    """Return how near to another choice a gate comes in `run`: the least gap between two experts or two groups."""
    gaps = []

    def see(gate, given, _):
        biased = gate.scores(given[0]) + gate.e_score_correction_bias
        groups = biased.unflatten(1, (gate.config.n_group, -1)).topk(2).values.sum(-1)
        gaps.extend(float(x.sort(-1).values.diff().abs().min()) for x in (biased, groups) if x.shape[1] > 1)

    hooks = [gate.register_forward_hook(see) for gate in model.modules() if isinstance(gate, Gate)]
    result = run()
    for hook in hooks:
        hook.remove()
    return min(gaps), result


@settings(deadline=None, max_examples=40)
@given(mixtures, st.sampled_from(GROUPS), steps)
def test_values_are_the_forward_s(change, groups, feeds):
    model = made(groups, **change)
    gap, (theirs, _) = near(model, lambda: by_torch(model, feeds))
    assume(gap > 1e-5)
    assert (stepped(model, feeds)[0] - theirs).abs().max() < 2e-5 * theirs.std().clamp(min=1)


@pytest.mark.parametrize("large", [False, True])
def test_a_row_s_bits_are_its_own(large, monkeypatch):
    if large:
        monkeypatch.setattr("aftershock.models.native.step._LARGE", 0)

    @settings(deadline=None, max_examples=15)
    @given(mixtures, st.sampled_from(GROUPS), steps, st.integers(1, 3), st.data())
    def check(change, groups, feeds, threads, data):
        model, feeds = made(groups, **change), feeds * 2
        together, _ = stepped(model, feeds, threads=threads)
        row = data.draw(st.integers(0, len(feeds) - 1))
        alone, _ = stepped(model, [(0, 1)] * row + [feeds[row]])
        assert torch.equal(together[row], alone[row])

    check()


def test_an_expert_that_all_rows_take():
    model, feeds = made(), [(5, 1)] * 58
    theirs, _ = by_torch(model, feeds)
    assert (stepped(model, feeds)[0] - theirs).abs().max() < 2e-5 * theirs.std()


@torch.inference_mode()
def test_a_moved_bias_moves_the_choice_alone():
    model, feeds = made(), [(9, 4), (0, 30)]
    before, _ = stepped(model, feeds)
    gate = model.model.layers[1].mlp.gate
    gate.e_score_correction_bias += 0.5
    assert torch.equal(stepped(model, feeds)[0], before)
    gate.e_score_correction_bias[torch.tensor([0, 3])] += 9
    after, _ = stepped(model, feeds)
    assert not torch.equal(after, before)
    assert (after - by_torch(model, feeds)[0]).abs().max() < 2e-5 * after.std().clamp(min=1)


def test_of_equal_experts_the_first_is_taken_and_a_nan_is_not_passed_over():
    model, feeds = made((1, 1, 1, 8), first_k_dense_replace=0), [(9, 4), (0, 30)]
    mlp = model.model.layers[1].mlp
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.zero_()
            layer.mlp.gate.e_score_correction_bias.zero_()
    before, _ = stepped(model, feeds)
    with torch.no_grad():
        mlp.experts.down_proj[1:].zero_()
    assert torch.equal(stepped(model, feeds)[0], before)
    with torch.no_grad():
        mlp.gate.weight[5] = float("nan")
    assert stepped(model, feeds)[0].isnan().all()
