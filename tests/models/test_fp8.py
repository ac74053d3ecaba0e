"""FP8 products: what rounding to tiles keeps, gradients, Hopper's layout, and which layers of a model take part."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.learn import Learner, pack_documents
from aftershock.models import build, fp8, make_fp8
from aftershock.models.fp8 import TILE, Quantised
from aftershock.recipe import OptimTable

CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 64,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "intermediate_size": 144,
    "moe_intermediate_size": 48,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_attention_heads": 2,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def representable(*shape, seed=0):
    """Values that E4M3 holds exactly, each tile's largest 448 times a power of two."""
    rng = torch.Generator().manual_seed(seed)
    x = 448 * 0.5 ** torch.randint(0, 3, shape, generator=rng) * (2 * torch.randint(0, 2, shape, generator=rng) - 1)
    x[:, ::TILE] = 448
    x[::TILE] = 448
    return x


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 140), st.integers(1, 300), st.sampled_from([1, TILE]), st.integers(-12, 9), st.integers(0, 99))
def test_every_tile_uses_the_whole_range_and_rounds_to_three_bits(tall, wide, rows, power, seed):
    x = drawn(tall, wide, seed=seed) * 10.0**power
    found = Quantised.of(x, rows)
    assert found.values.shape == x.shape
    assert found.scales.shape == (-(-tall // rows), -(-wide // TILE))
    assert found.values[:rows, :TILE].float().abs().max() == fp8.LARGEST
    unit = found.scales.repeat_interleave(rows, 0)[:tall].repeat_interleave(TILE, 1)[:, :wide]
    off = (found.plain() - x).abs()
    assert (off <= x.abs() * 2.0**-4 * 1.001 + unit * 2.0**-10).all()


def test_an_outlier_spoils_its_own_tile_alone():
    x = drawn(4, 3 * TILE)
    spoilt = x.clone()
    spoilt[1, TILE + 5] = 1e6
    same = Quantised.of(spoilt, 1).plain() == Quantised.of(x, 1).plain()
    assert not same[1, TILE : 2 * TILE].all()
    same[1, TILE : 2 * TILE] = True
    assert same.all()
    assert Quantised.of(torch.zeros(2, 5), 1).plain().count_nonzero() == 0


def gradients(multiply, x, weight, grad):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    out = multiply(x, weight)
    out.backward(grad)
    return out.detach(), x.grad, weight.grad


@pytest.mark.parametrize("tokens", [0, 3, 200])
def test_what_fp8_can_hold_is_multiplied_exactly_both_ways(tokens):
    given = representable(tokens, 160), representable(130, 160, seed=1), representable(tokens, 130, seed=2)
    for ours, theirs in zip(gradients(fp8.linear, *given), gradients(F.linear, *given)):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6 * 448**2)


def test_gradients_are_rounded_along_what_is_summed():
    x, weight, grad = drawn(300, 160), drawn(130, 160, seed=1), drawn(300, 130, seed=2)
    out, to_x, to_weight = gradients(fp8.linear, x, weight, grad)
    held = Quantised.of(weight, TILE).plain()
    torch.testing.assert_close(out, Quantised.of(x, 1).plain() @ held.t())
    torch.testing.assert_close(to_x, Quantised.of(grad, 1).plain() @ held)
    turned = Quantised.of(Quantised.of(x, 1).plain().t(), 1).plain()
    torch.testing.assert_close(to_weight, Quantised.of(grad.t(), 1).plain() @ turned.t())
    for ours, plain in zip((out, to_x, to_weight), gradients(F.linear, x, weight, grad)):
        assert 0.01 < (ours - plain).norm() / plain.norm() < 0.06


def cublas(a, b, *, scale_a, scale_recipe_a, scale_b, scale_recipe_b, output_dtype):
    """What scaled_mm computes on Hopper, with the layouts it demands there (PyTorch's own tests say which)."""
    assert a.is_contiguous()
    assert b.t().is_contiguous()

    def plain(values, scales, recipe):
        tall, wide = values.shape[0], values.shape[1] // TILE
        if recipe == F.ScalingType.BlockWise1x128:
            assert scales.shape == (tall, wide)
            assert scales.stride(0) == 1
            return values.float() * scales.repeat_interleave(TILE, 1)
        padded = -(-wide // 4) * 4
        assert scales.shape == (padded, tall // TILE)
        assert scales.stride() == (1, padded)
        return values.float() * scales.t()[:, :wide].repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)

    assert not any(size % TILE for size in (*a.shape, *b.shape))
    return (plain(a, scale_a, scale_recipe_a) @ plain(b.t(), scale_b, scale_recipe_b).t()).to(output_dtype)


@pytest.mark.parametrize("tokens", [5, 256])
def test_hoppers_product_is_given_the_layout_it_reads(monkeypatch, tokens):
    given = drawn(tokens, 256), drawn(640, 256, seed=1), drawn(tokens, 640, seed=2)
    emulated, calls = gradients(fp8.linear, *given), []
    monkeypatch.setattr(fp8, "_is_native", lambda x: True)
    monkeypatch.setattr(F, "scaled_mm", lambda *args, **more: calls.append(1) or cublas(*args, **more))
    for ours, theirs in zip(gradients(fp8.linear, *given), emulated):
        torch.testing.assert_close(ours, theirs)
    assert len(calls) == 3


def test_layers_take_part_under_autocast_alone_and_the_rest_never():
    plain, tokens = build(CONFIG, seed=0), torch.arange(40).view(2, 20)
    model = copy.deepcopy(plain)
    make_fp8(model)
    changed = {name for name, module in model.named_modules() if type(module).__module__ == fp8.__name__}
    assert {name.rsplit(".", 1)[-1] for name in changed} == {
        *("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "experts")
    }
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(model(tokens), plain(tokens))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours, theirs = model(tokens), plain(tokens)
    assert 0.005 < (ours - theirs).norm() / theirs.norm() < 0.2


def batches(seed):
    tokens = torch.randint(0, 64, (4, 24), generator=torch.Generator().manual_seed(seed))
    return pack_documents([tuple(row) for row in tokens.tolist()], 1 << 12)


def test_a_learner_trains_by_it_and_computes_layers_again_to_the_same_bits():
    told = []
    for recompute in ("never", "always"):
        learner = Learner(build(CONFIG, seed=0), OptimTable(lr=3e-3, precision="fp8", recompute=recompute))
        told.append([learner.step(batches(0))["loss"] for _ in range(12)])
    assert told[0] == told[1]
    assert told[0][-1] < 0.8 * told[0][0]
    half = Learner(build(CONFIG, seed=0), OptimTable(lr=3e-3, precision="bfloat16"))
    beside = [half.step(batches(0))["loss"] for _ in range(12)]
    assert told[0] != beside
    assert told[0][:3] == pytest.approx(beside[:3], rel=0.05)
