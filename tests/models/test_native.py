"""The native step gives the forward's values, and a row the same bits whoever shares its batch and does the work."""

import copy
import functools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import CapacityError
from aftershock.models import build, make_exact
from aftershock.models.native import build as native_build

pytestmark = pytest.mark.skipif(native_build.library() is None, reason=f"no native step: {native_build.why_not()}")
torch.set_num_threads(1)
SHARED = {
    "vocab_size": 40,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
KINDS = {
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 24, "num_key_value_heads": 6},
    "llama": {
        "model_type": "llama",
        "head_dim": 72,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
}
steps = st.lists(st.tuples(st.integers(0, 46), st.integers(0, 39)), min_size=1, max_size=29)


def made(kind):
    """Return a model whose biases and norms are not the plain ones of a new model."""
    model = build({**SHARED, **KINDS[kind]}, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(params=[*KINDS, "large"])
def model(request, monkeypatch):
    if request.param == "large":
        monkeypatch.setattr("aftershock.models.native.step._LARGE", 0)
    model = made("qwen2" if request.param == "large" else request.param)
    assert model.native
    return model


@functools.cache
def drawn(number, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def filled(model, rows, room):
    """Return a cache whose row i holds the same random keys and values, however many rows and whatever room."""
    cache = model.new_cache(rows, room)
    for number, store in enumerate(store for layer in cache.layers for store in layer):
        store.copy_(drawn(number, 64, 64, *store.shape[2:])[:rows, :room])
    return cache


@torch.inference_mode()
def stepped(model, feeds, room=64, threads=1):
    """Return a step's logits and the cache after it; `feeds` are a start and a token each row."""
    torch.set_num_threads(threads)
    cache = filled(model, len(feeds), room)
    starts, tokens = torch.tensor(feeds).T
    try:
        return model.decode(tokens, starts, cache), cache
    finally:
        torch.set_num_threads(1)


def by_torch(model, feeds, room=64):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native_build.SWITCH, "0")
        return stepped(model, feeds, room)


def test_values_are_the_forward_s(model):
    @settings(deadline=None, max_examples=25)
    @given(steps, st.sampled_from([48, 64]))
    def check(feeds, room):
        (ours, cache), (theirs, other) = stepped(model, feeds, room), by_torch(model, feeds, room)
        assert not torch.equal(ours, theirs) or len(feeds) < 3
        assert (ours - theirs).abs().max() < 2e-5 * theirs.std().clamp(min=1)
        for ours_layer, theirs_layer in zip(cache.layers, other.layers):
            for mine, yours in zip(ours_layer, theirs_layer):
                assert (mine - yours).abs().max() < 2e-5

    check()


def test_a_row_s_bits_are_its_own(model):
    @settings(deadline=None, max_examples=25)
    @given(steps, st.sampled_from([48, 64]), st.integers(1, 3), st.data())
    def check(feeds, room, threads, data):
        together, _ = stepped(model, feeds, room, threads)
        for row in {0, len(feeds) - 1, data.draw(st.integers(0, len(feeds) - 1))}:
            alone, _ = stepped(model, [(0, 1)] * row + [feeds[row]])
            assert torch.equal(together[row], alone[row])

    check()


@torch.inference_mode()
def prefilled(model, prompts, threads=1, rows=None):
    """Return the cache [row][store] of prompts fed to `rows` in C."""
    torch.set_num_threads(threads)
    cache, rows = model.new_cache(8, 128), rows or range(len(prompts))
    try:
        assert model.prefill(prompts, rows, cache)
    finally:
        torch.set_num_threads(1)
    return [[s[row, : len(p)] for layer in cache.layers for s in layer] for row, p in zip(rows, prompts)]


@torch.inference_mode()
def alone(model, prompt):
    """Return PyTorch's cache [store] of one prompt."""
    cache = model.new_cache(1, 128)
    model.hidden(torch.tensor([prompt]), cache=cache, starts=torch.tensor([0]))
    return [store[0, : len(prompt)] for layer in cache.layers for store in layer]


def check_prefill(model):
    """Prompts of 0 to 100 tokens, over chunks and threads: PyTorch's values, and bits of their own."""
    prompts = [
        [(7 * number + at) % 40 for at in range(length)] for number, length in enumerate((100, 1, 0, 17, 63, 31))
    ]
    whole = prefilled(model, prompts)
    for prompt, ours in zip(prompts, whole):
        for mine, theirs in zip(ours, alone(model, prompt) if prompt else ours):
            assert (mine - theirs).abs().max() < 2e-5 if prompt else not mine.numel()
    for other in (prefilled(model, prompts, 3), prefilled(model, prompts[::-1], 1, [7, 0, 3, 5, 1, 2])[::-1]):
        assert all(torch.equal(one, two) for ours, theirs in zip(whole, other) for one, two in zip(ours, theirs))
    assert torch.equal(prefilled(model, prompts[3:4])[0][-1], whole[3][-1])


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_prefilled_end_to_end(kind):
    check_prefill(made(kind))


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_large_model_s_prompts_are_prefilled_some_tokens_at_a_time(kind, monkeypatch):
    """So that a prompt's tokens are in several calls, and several workers have parts of them."""
    monkeypatch.setattr("aftershock.models.native.step._LARGE", 0)
    monkeypatch.setattr("aftershock.models.native.step._AT_ONCE", 30)
    check_prefill(made(kind))


def test_many_rows_pass_in_chunks_and_by_threads():
    model = made("qwen3")
    feeds = [(number % 47, number % 40) for number in range(64)] * 4
    whole = [stepped(model, feeds[:64], threads=threads)[0] for threads in (1, 3)]
    assert torch.equal(*whole)
    with torch.inference_mode():
        cache = model.new_cache(256, 64)
        for name, store in zip("kv" * 2, (store for layer in cache.layers for store in layer)):
            store.fill_(0.1 if name == "k" else 0.2)
        starts, tokens = torch.tensor(feeds).T
        logits = model.decode(tokens, starts, cache)
    assert torch.equal(logits[:64], logits[64:128])
    assert torch.equal(logits[:64], logits[192:])


@torch.inference_mode()
def test_what_a_learner_writes_is_seen(model):
    feeds, weight = [(5, 1), (9, 2), (0, 3)], model.model.layers[1].mlp.down_proj.weight
    cache, (starts, tokens) = filled(model, 3, 64), torch.tensor(feeds).T
    before = model.decode(tokens, starts, cache)
    assert torch.equal(model.decode(tokens, starts, cache), before)
    with torch.inference_mode(False), torch.no_grad():
        weight.mul_(1.5)
    within = model.decode(tokens, starts, cache)
    assert not torch.equal(within, before)
    assert (within - by_torch(model, feeds)[0]).abs().max() < 1e-4
    weight.data.mul_(2)  # which no tensor tells
    assert (stepped(model, feeds)[0] - by_torch(model, feeds)[0]).abs().max() < 1e-4
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.ones(72, 48))
    assert (stepped(model, feeds)[0] - by_torch(model, feeds)[0]).abs().max() < 1e-4


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_weights_of_its_own(copied):
    model, feeds = made("qwen3"), [(5, 1), (9, 2), (0, 3)]
    before, _ = stepped(model, feeds)
    other = copied(model)
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    assert torch.equal(stepped(model, feeds)[0], before)
    assert torch.allclose(stepped(other, feeds)[0], 2 * before, atol=1e-4)


def test_what_is_not_native():
    model, feeds = made("qwen2"), [(5, 1)]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stepped(model, feeds)[0], by_torch(model, feeds)[0])
    assert not copy.deepcopy(model).bfloat16().native
    adapted = copy.deepcopy(model)
    adapted.model.layers[0].self_attn.q_proj = torch.nn.Sequential(adapted.model.layers[0].self_attn.q_proj)
    assert not adapted.native
    make_exact(model)
    assert model.native
    make_exact(adapted)
    assert not adapted.native


def test_faults_are_told(model):
    with pytest.raises(IndexError, match="tokens from 1 to 40 were fed; the model knows 0 to 39"):
        stepped(model, [(5, 1), (6, 40)])
    with pytest.raises(CapacityError, match="65 tokens, its room is 64"):
        stepped(model, [(64, 1)])
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight[3, 3] = float("nan")
    assert stepped(model, [(5, 1), (6, 2)])[0].isnan().all()


@torch.inference_mode()
def test_what_was_never_cleared_is_not_read(model):
    cache, rows, starts = model.new_cache(3, 40, room=8), torch.tensor([0, 2]), torch.tensor([3, 2])
    assert cache.raw
    assert cache.room == 24
    for store in (store for layer in cache._held for store in layer):
        store.fill_(float("nan"))
    assert model.prefill([[1, 2, 3], [4, 5]], rows.tolist(), cache)
    cache.widen(40, 3)
    found = model.hidden(torch.tensor([[6, 7], [8, 9]]), cache=cache, rows=rows, starts=starts)
    for states, prompt in zip(found, ([1, 2, 3, 6, 7], [4, 5, 8, 9])):
        torch.testing.assert_close(states, model.hidden(torch.tensor([prompt]))[0, -2:], rtol=1e-4, atol=1e-4)
