"""Latent attention of a native step: the forward's values for any sizes, and a row's bits its own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_config import SPARSE
from test_models_forms import shaken
from test_native import by_torch, check_prefill, native_build, stepped, steps

pytestmark = pytest.mark.skipif(native_build.library() is None, reason=f"no native step: {native_build.why_not()}")
DENSE_MLP = {**SPARSE, "first_k_dense_replace": 2, "vocab_size": 40, "initializer_range": 0.2}
YARN = {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.1}}
latents = st.fixed_dictionaries(
    {
        "num_attention_heads": st.integers(1, 6),
        "kv_lora_rank": st.sampled_from([3, 8, 10, 44]),
        "q_lora_rank": st.sampled_from([None, 5, 24]),
        "qk_nope_head_dim": st.sampled_from([1, 8, 18]),
        "qk_rope_head_dim": st.sampled_from([2, 6, 8]),
        "v_head_dim": st.sampled_from([2, 8, 17]),
        "rope_interleave": st.booleans(),
        "attention_bias": st.booleans(),
        "seed": st.integers(0, 9),
    }
)


def made(seed=0, **change):
    model = shaken({**DENSE_MLP, "hidden_size": 8 * change["num_attention_heads"], **change}, seed=seed)
    assert model.native
    return model


@settings(deadline=None, max_examples=40)
@given(latents, st.sampled_from([{}, YARN]), steps)
def test_values_are_the_forward_s(change, scaling, feeds):
    model = made(**change, **scaling)
    (ours, cache), (theirs, other) = stepped(model, feeds), by_torch(model, feeds)
    assert (ours - theirs).abs().max() < 2e-5 * theirs.std().clamp(min=1)
    for mine, yours in zip(cache.layers, other.layers):
        assert (mine[0] - yours[0]).abs().max() < 2e-5


@pytest.mark.parametrize("large", [False, True])
def test_a_row_s_bits_are_its_own(large, monkeypatch):
    if large:
        monkeypatch.setattr("aftershock.models.native.step._LARGE", 0)

    @settings(deadline=None, max_examples=15)
    @given(latents, steps, st.integers(1, 3), st.data())
    def check(change, feeds, threads, data):
        model = made(**change)
        together, _ = stepped(model, feeds * 2, threads=threads)
        row = data.draw(st.integers(0, 2 * len(feeds) - 1))
        alone, _ = stepped(model, [(0, 1)] * row + [(feeds * 2)[row]])
        assert torch.equal(together[row], alone[row])
        assert (alone - by_torch(model, [(0, 1)] * row + [(feeds * 2)[row]])[0]).abs().max() < 1e-4

    check()


@pytest.mark.parametrize("change", [{}, {"q_lora_rank": None, "first_k_dense_replace": 1}])
def test_prompts_are_prefilled_end_to_end(change):
    check_prefill(made(num_attention_heads=3, **change))
