"""The three forms of the forward, the cache, and new weights."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_models_config import DENSE, SPARSE
from transformers.modeling_layers import MtpLayer
from transformers.models.deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3DecoderLayer,
    DeepseekV3RMSNorm,
    DeepseekV3RotaryEmbedding,
)

from aftershock.errors import CapacityError, CheckpointError
from aftershock.models import Segments, build
from aftershock.models.layers import Packing, _causal

VARIED = {**SPARSE, "initializer_range": 0.3, "num_nextn_predict_layers": 1, "first_k_dense_replace": 0}


def shaken(config: dict, seed: int = 0):
    """A model whose norms and correction biases are random too."""
    model = build(config, seed=seed).eval()
    draw = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.ndim == 1:
            tensor.add_(torch.empty(tensor.shape).normal_(0, 0.2, generator=draw))
    return model


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(lambda x: sum(x) > 0), st.integers(1, 3))
@example([1] * 11 + [12], 1)
def test_packing_brings_every_token_to_its_place_and_back(lengths, shared):
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    total = sum(lengths)
    packing = Packing.of(Segments(bounds, max(lengths)), total)
    x = torch.arange(total * 2 * 3).view(1, total, 2, 3)
    assert torch.equal(packing.gather(packing.spread(x, 2 * shared)), x.repeat_interleave(shared, 2))
    wanted = [p for n in lengths for p in range(n)]
    assert packing.positions.tolist() == wanted
    for block, (count, longest) in zip(packing.spread(x, 2), packing.shapes):
        assert block.shape == (count, 2, longest, 3)
        assert longest <= max(lengths)
    assert sum(count * longest for count, longest in packing.shapes) <= 1.42 * total


@torch.no_grad()
def test_long_and_short_attention_agree(monkeypatch):
    q, k, v = (torch.randn(2, 3, 40, dim, generator=torch.Generator().manual_seed(0)) for dim in (8, 8, 6))
    short = _causal(q, k, v, 0.3)
    monkeypatch.setattr("aftershock.models.layers._SHORT", 8)
    assert (short - _causal(q, k, v, 0.3)).abs().max() < 1e-5


@torch.no_grad()
def test_absorbed_equals_naive():
    """One layer, the same input: keys and values unfolded from the latents, or the unfolding moved to the queries."""
    model = shaken({**VARIED, "rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.1}})
    attention = model.model.layers[1].self_attn
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    context = model._context(torch.zeros(2, 9, dtype=torch.long), None)
    q_plain, q_rope, latent, k_rope = attention._project(x, context)
    naive = attention._naive(q_plain, q_rope, latent, k_rope, context)
    bias = torch.full((9, 9), float("-inf")).triu(1).expand(2, 9, 9)
    absorbed = attention._absorbed(q_plain, q_rope, torch.cat((latent, k_rope.squeeze(2)), -1), bias)
    assert naive.abs().max() > 0.1
    assert (naive - absorbed).abs().max() < 1e-5


def test_the_latent_cache_is_one_tensor_a_layer_and_its_size_is_said_beforehand():
    model = build(VARIED, seed=0)
    cache = model.new_cache(3, 20)
    assert [[tuple(store.shape) for store in layer] for layer in cache.layers] == [[(3, 20, 4 + 4)]] * 2
    dense = build({**DENSE, "num_key_value_heads": 2}, torch.bfloat16, seed=0)
    for some in (model, dense):
        assert some.cache_bytes(3, 20) == some.new_cache(3, 20).bytes


@pytest.fixture(params=["0", "1"])
def moved_by(request, monkeypatch):
    """Rows of a cache move by PyTorch or in C."""
    monkeypatch.setenv("AFTERSHOCK_NATIVE", request.param)


@pytest.mark.parametrize("config", [VARIED, {**DENSE, "num_key_value_heads": 2, "initializer_range": 0.3}])
@torch.no_grad()
def test_rows_may_be_named_or_left_out_and_copied(config, moved_by):
    model = shaken(config)
    batch = torch.randint(0, 10, (2, 8), generator=torch.Generator().manual_seed(0))
    start = torch.zeros(2, dtype=torch.long)
    plain, named = model.new_cache(4, 8), model.new_cache(4, 8)
    swap = torch.tensor([1, 0])
    model.hidden(batch[:, :5], cache=plain, starts=start)
    model.hidden(batch[swap, :5], cache=named, rows=swap, starts=start)
    for one, other in zip(plain.layers, named.layers):
        assert all((a - b).abs().max() < 1e-6 for a, b in zip(one, other))
    before = [store.clone() for layer in plain.layers for store in layer]
    plain.copy_rows(torch.tensor([1, 1]), torch.tensor([2, 3]), 5)
    for old, new in zip(before, [store for layer in plain.layers for store in layer]):
        assert torch.equal(new[2:, :5], old[[1, 1], :5])
        assert torch.equal(new[:2], old[:2])
    rows, at = torch.tensor([3, 0, 2]), torch.tensor([5, 5, 5])
    copied = model.hidden(batch[[1, 0, 1], 5:6], cache=plain, rows=rows, starts=at)
    full = model.hidden(batch)
    assert (copied[:, 0] - full[[1, 0, 1], 5]).abs().max() < 1e-5


@torch.no_grad()
def test_padding_written_past_a_row_is_harmless():
    model = shaken(VARIED)
    batch = torch.randint(0, 10, (2, 8), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(2, 8)
    padded = batch.clone()
    padded[0, 2:] = 9
    model.hidden(padded, cache=cache, starts=torch.zeros(2, dtype=torch.long))
    step = model.hidden(batch[:, [2]], cache=cache, starts=torch.tensor([2, 2]))
    assert (step[0, 0] - model.hidden(batch)[0, 2]).abs().max() < 1e-5


@pytest.mark.parametrize("config", [VARIED, {**DENSE, "num_key_value_heads": 2, "initializer_range": 0.3}])
@torch.no_grad()
def test_a_cache_laid_out_for_more_holds_what_it_held_and_zeros(config, monkeypatch, moved_by):
    monkeypatch.setattr("aftershock.models.causal_lm._MOVED", 2)
    monkeypatch.setattr("aftershock.models.causal_lm._EARLY", 0)
    model = shaken(config)
    batch = torch.randint(0, 10, (5, 7), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache(6, 12, room=4)
    size = cache.bytes
    model.hidden(batch[:, :4], cache=cache, starts=torch.zeros(5, dtype=torch.long))
    before = [store.clone() for layer in cache.layers for store in layer]
    for held in cache._held:
        for flat in held:
            flat[flat.numel() * 4 // 12 :] = float("nan")  # memory that was never laid out
    cache.widen(11, rows=5)
    assert (cache.rows, cache.room, cache.bytes) == (5, 11, size)
    for old, new in zip(before, [store for layer in cache.layers for store in layer]):
        assert torch.equal(new[:, :4], old[:5])
        assert not new[:, 4:].any()
    step = model.hidden(batch[:, 4:5], cache=cache, starts=torch.full((5,), 4))
    assert (step[:, 0] - model.hidden(batch)[:, 4]).abs().max() < 1e-5


def test_a_full_cache_is_refused():
    model = build(DENSE, seed=0)
    with pytest.raises(CapacityError, match="9 tokens, its room is 8"):
        model.hidden(torch.zeros(1, 1, dtype=torch.long), cache=model.new_cache(1, 8), starts=torch.tensor([8]))


@torch.no_grad()
def test_positions_past_the_first_table_and_dynamic_scaling():
    model = build({**DENSE, "max_position_embeddings": 2048}, seed=0)
    tokens = torch.randint(0, 10, (1, 1100))
    long = model.hidden(tokens)
    assert (long[:, :30] - model.hidden(tokens[:, :30])).abs().max() < 1e-5
    dynamic = {**DENSE, "max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    with pytest.raises(CapacityError, match="dynamic"):
        build(dynamic, seed=0).hidden(tokens)


@torch.no_grad()
def test_mtp_equals_transformers_module():
    """transformers has the module apart (MtpLayer); it counts layers from 0, hence no dense ones here."""
    model = shaken(VARIED)
    config = DeepseekV3Config(**VARIED, q_lora_rank=None, n_group=1, topk_group=1, num_key_value_heads=4)
    config.routed_scaling_factor, config._attn_implementation = 1.0, "sdpa"
    config._experts_implementation = "eager"
    layer = MtpLayer(config, DeepseekV3DecoderLayer, DeepseekV3RMSNorm, 0).eval()
    outer = ("enorm", "hnorm", "eh_proj")
    state = {}
    for name, tensor in model.model.mtp[0].state_dict().items():
        if name.startswith("shared_head.norm"):
            name = name.replace("shared_head.norm", "post_norm")
        elif not name.startswith(outer):
            name = f"mtp_block.{name}"
        state[name] = tensor
    layer.load_state_dict(state)
    batch = torch.randint(0, 10, (2, 12), generator=torch.Generator().manual_seed(0))
    hidden = model.hidden(batch)
    positions = torch.arange(11)[None]
    rotary = DeepseekV3RotaryEmbedding(config)(hidden, positions)
    wanted = layer(model.model.embed_tokens(batch[:, 1:]), hidden[:, :-1], rotary, None, positions, None)
    ours = model.mtp_hidden(hidden, batch)
    assert (ours[:, :-1] - wanted).abs().max() < 1e-4
    bounds = torch.tensor([0, 12, 24])
    packed = model.mtp_hidden(hidden.flatten(0, 1)[None], batch.flatten()[None], Segments(bounds, 12))
    assert (packed.view(2, 12, -1)[:, :-1] - wanted).abs().max() < 1e-4
    assert model.mtp_logits(ours).shape == (2, 12, 10)
    with pytest.raises(CheckpointError, match="has 1 multi-token-prediction modules, module 2"):
        model.mtp_hidden(hidden, batch, depth=2)


def test_new_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(VARIED, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = build(VARIED, seed=5).state_dict(), build(VARIED, seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert not torch.equal(first["model.layers.0.mlp.gate.weight"], first["model.layers.1.mlp.gate.weight"])
    assert abs(first["model.layers.0.mlp.experts.down_proj"].std() - 0.3) < 0.03
    deeper = build({**VARIED, "num_hidden_layers": 3}, seed=5).state_dict()
    assert torch.equal(
        deeper["model.layers.1.self_attn.o_proj.weight"], first["model.layers.1.self_attn.o_proj.weight"]
    )


def test_parameters_are_ordinary_leaves_and_all_get_a_gradient():
    for config in (VARIED, DENSE):
        model = build(config, seed=0).train()
        tokens = torch.randint(0, 10, (1, 40), generator=torch.Generator().manual_seed(0))
        segments = Segments(torch.tensor([0, 25, 40]), 25)
        hidden = model.hidden(tokens, segments=segments)
        loss = model.logits(hidden).logsumexp(-1).sum()
        if config is VARIED:
            loss = loss + model.mtp_logits(model.mtp_hidden(hidden, tokens, segments)).logsumexp(-1).sum()
        loss.backward()
        for name, weight in model.named_parameters():
            assert weight.is_leaf, name
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
