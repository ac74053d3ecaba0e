"""An exact model's parts in C: a row's bits are its own, whatever it is computed with, and gradients are PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.models import Segments, build, make_exact
from aftershock.models.config import DeepseekConfig
from aftershock.models.moe import Experts, Gate
from aftershock.models.native import build as library
from aftershock.models.native import exact, linear, train
from aftershock.models.native.attend import Spans, attend
from aftershock.models.native.step import draw

pytestmark = pytest.mark.skipif(library.library("train") is None, reason=f"no native part: {library.why_not('train')}")

SMALL = {
    "vocab_size": 67,
    "hidden_size": 20,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
LATENT = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 12,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 10,
    "routed_scaling_factor": 1.5,
}
MODELS = {
    "qwen2": {**SMALL, **HEADS, "model_type": "qwen2"},
    "qwen3": {**SMALL, **HEADS, "model_type": "qwen3", "tie_word_embeddings": True},
    "deepseek_v3": {**SMALL, **LATENT, "model_type": "deepseek_v3"},
}


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same_gradients(found, wanted, leaves):
    up = random(*found.shape, seed=9)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(*(torch.autograd.grad(out, leaves, up) for out in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 120), st.integers(0, 60), st.integers(1, 70), st.integers(1, 130), st.booleans(), st.booleans())
def test_a_row_of_a_product_has_its_own_bits(rows, first, wide, outs, biased, in_place):
    x, weight, bias = random(200, wide), random(outs, wide, seed=1), random(outs, seed=2) if biased else None
    whole = linear.linear(x, weight, bias, in_place)
    assert torch.equal(linear.linear(x[first : first + rows], weight, bias, in_place), whole[first : first + rows])
    torch.testing.assert_close(whole, F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("in_place", [False, True])
def test_gradients_of_products(in_place):
    x, weight, bias = (random(*shape).requires_grad_() for shape in ((2, 9, 12), (5, 12), (5,)))
    same_gradients(linear.linear(x, weight, bias, in_place), F.linear(x, weight, bias), (x, weight, bias))
    x, weight = (random(*shape).requires_grad_() for shape in ((11, 3, 6), (3, 5, 6)))
    same_gradients(exact.each_head(x, weight, in_place), torch.einsum("rhi,hoi->rho", x, weight), (x, weight))
    x, weight, counts = random(11, 6).requires_grad_(), random(4, 5, 6).requires_grad_(), [0, 4, 7, 0]
    wanted = torch.cat([part @ matrix.t() for part, matrix in zip(x.split(counts), weight)])
    same_gradients(exact.each_expert(x, weight, counts, in_place), wanted, (x, weight))


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_choice_of_experts_is_the_gate_s(normed, groups):
    config = DeepseekConfig.from_dict(
        {**MODELS["deepseek_v3"], "n_group": groups, "topk_group": min(groups, 2), "norm_topk_prob": normed}
    )
    gate, x = Gate(config), random(50, 20).requires_grad_()
    with torch.no_grad():
        gate.weight.copy_(random(8, 20, seed=3))
        gate.e_score_correction_bias.copy_(random(8, seed=4) * 0.1)
    both = [
        exact.choose(F.linear(x, gate.weight), gate.e_score_correction_bias, config),
        gate.eval()(x),
    ]
    spread = [torch.zeros(50, 8).scatter(1, chosen, weights) for chosen, weights in both]
    assert (both[0][0].diff() > 0).all()
    same_gradients(*spread, (x, gate.weight))


def test_experts_together():
    """Spread to their experts, multiplied and added up again, as `moe.Experts`."""
    config = DeepseekConfig.from_dict(MODELS["deepseek_v3"])
    experts, x = Experts(config), random(30, 20).requires_grad_()
    for weight in experts.parameters():
        weight.data.copy_(random(*weight.shape, seed=5))
    chosen = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(i))[:3] for i in range(30)])
    weights = random(30, 3, seed=6).requires_grad_()
    wanted = experts(x, chosen, weights)
    make_exact(torch.nn.ModuleList([experts]))
    same_gradients(experts(x, chosen, weights), wanted, (x, weights, *experts.parameters()))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([(4, 2), (3, 1), (5, 5)]), st.integers(1, 20)
)
def test_attention_is_a_decoding_step_s(lengths, heads, dim):
    """A tree in a pack, each second segment going on from the one before, against each position read from a cache."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    parents = torch.tensor([-1, *(at // 2 * 2 for at in range(len(lengths) - 1))]) if len(lengths) > 1 else None
    segments = Segments(bounds, 0, parents)
    q, k, v = (random(1, int(bounds[-1]), n, dim, seed=n) for n in (heads[0], heads[1], heads[1]))
    packed = attend(q, k, v, 0.3, Spans.of(segments), exact=True)
    torch.testing.assert_close(packed, attend(q, k, v, 0.3, Spans.of(segments)), rtol=1e-4, atol=1e-5)
    for begin, end, at in zip(bounds, bounds[1:], range(len(lengths))):
        own = torch.arange(begin, end)
        while at > 0:
            at = int(parents[at])
            own = torch.cat((torch.arange(bounds[at], bounds[at + 1]), own))
        keys, values = (F.pad(x[:, own], (0, 0, 0, 0, 0, 3)) for x in (k, v))  # positions nobody sees yet
        before = len(own) - int(end - begin)
        read = exact.read(q[:, begin:end], keys, values, 0.3, torch.tensor([before]))
        assert torch.equal(read, packed[:, begin:end])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.floats(0.1, 30))
def test_log_probabilities_are_the_draw_s(vocab, by):
    logits = random(7, vocab) * by
    tokens, own, _ = draw(logits, torch.linspace(0, 0.999, 7).double(), 0.7)
    every = train.log_softmax(logits)
    assert torch.equal(every.gather(1, tokens[:, None])[:, 0], own)
    assert torch.equal(train.select(logits, tokens)[0], own)
    torch.testing.assert_close(every, logits.log_softmax(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_form_of_the_forward_has_the_step_s_bits(name, threads):
    """Native steps, a cache fed in parts, plain batches and packs: one and the same hidden state and logits."""
    model = build(MODELS[name], seed=0)
    make_exact(model)
    tokens = torch.randint(67, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = model(tokens)
        cache = model.new_cache(5, 32)
        steps = [model.decode(tokens[:, t], torch.full((3,), t), cache) for t in range(20)]
        other = model.new_cache(5, 32)
        first = model.hidden(tokens[:, :7], cache=other, starts=torch.zeros(3, dtype=torch.long))
        rest = model.hidden(tokens[:, 7:], cache=other, starts=torch.full((3,), 7))
    packed = model(tokens.flatten()[None], segments=Segments(torch.arange(4) * 20, 20))
    assert torch.equal(torch.stack(steps, 1), plain)
    assert torch.equal(model.logits(torch.cat((first, rest), 1)), plain)
    assert torch.equal(packed.view(3, 20, -1), plain)
    for one, two in zip(cache.layers, other.layers):
        assert all(torch.equal(a[:3, :20], b[:3, :20]) for a, b in zip(one, two))


def test_a_large_model_s_matrices_in_place(monkeypatch):
    """As the test above, where no copy of the matrices is made."""
    monkeypatch.setattr("aftershock.models.native.step._LARGE", 100)
    model = build(MODELS["deepseek_v3"], seed=0)
    make_exact(model)
    tokens = torch.randint(67, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        cache = model.new_cache(3, 32)
        assert model.prefill([row[:7].tolist() for row in tokens], range(3), cache)
        steps = [model.decode(tokens[:, t], torch.full((3,), t), cache) for t in range(7, 12)]
    packed = model(tokens.flatten()[None], segments=Segments(torch.arange(4) * 12, 12))
    assert torch.equal(torch.stack(steps, 1), packed.view(3, 12, -1)[:, 7:])
