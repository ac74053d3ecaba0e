"""A recorded decoding step is the forward, bit for bit, whatever rows and lengths it is replayed at."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.models import build
from aftershock.models.native.build import SWITCH

torch.set_num_threads(1)
SHARED = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}


def stepped(model, starts, inference=True, room=64):
    """Return a step's hidden state after random keys and values; outside inference mode it is never recorded."""
    starts = torch.tensor(starts)
    with torch.inference_mode() if inference else torch.no_grad():
        cache = model.new_cache(len(starts), 64, room)
        for number, store in enumerate(store for layer in cache.layers for store in layer):
            store.copy_(torch.randn(store.shape, generator=torch.Generator().manual_seed(number)))
        tokens = torch.arange(len(starts))[:, None] % 40
        return model.hidden(tokens, cache=cache, starts=starts).clone()


@pytest.fixture(autouse=True)
def by_pytorch_alone(monkeypatch):
    monkeypatch.setenv(SWITCH, "0")


@pytest.fixture(params=["qwen2", "qwen3", "llama"])
def model(request, monkeypatch):
    monkeypatch.setattr("aftershock.models.recorded._AFTER", 2)
    model = build({"model_type": request.param, **SHARED}, seed=0).eval()
    stepped(model, [5] * 8)
    stepped(model, [5] * 8)
    assert model._recorder._step is not None
    return model


def replayed(model):
    """Return what counts the replays of a recorded model from now on."""
    seen, step = [], model._recorder._step
    model._recorder._step = lambda *given: seen.append(1) or step(*given)
    return seen


def test_replayed_at_other_rows_and_lengths(model):
    seen = replayed(model)

    @settings(deadline=None, max_examples=25)
    @given(st.lists(st.integers(1, 47), min_size=1, max_size=3), st.integers(1, 3), st.sampled_from([48, 64]))
    def check(starts, eights, room):
        starts = (starts * 24)[: 8 * eights]
        before = len(seen)
        assert torch.equal(stepped(model, starts, room=room), stepped(model, starts, inference=False, room=room))
        assert len(seen) == before + 1

    check()


def test_what_a_learner_writes_is_seen_and_so_is_a_new_weight(model):
    starts, seen = [3, 9, 20, 33] * 2, replayed(model)
    first = stepped(model, starts)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    assert not torch.equal(stepped(model, starts), first)
    assert torch.equal(stepped(model, starts), stepped(model, starts, inference=False))
    assert len(seen) == 3
    old = model.model.layers[0].mlp.down_proj
    old.weight = torch.nn.Parameter(old.weight.detach() * 2)
    assert torch.equal(stepped(model, starts), stepped(model, starts, inference=False))
    assert len(seen) == 3


def test_a_copy_has_a_life_of_its_own(model):
    other, starts = copy.deepcopy(model), [3, 9, 20, 33] * 2
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    for _ in range(3):
        assert torch.equal(stepped(other, starts), stepped(other, starts, inference=False))
        assert torch.equal(stepped(model, starts), stepped(model, starts, inference=False))


@pytest.mark.parametrize("fault", [RuntimeError("no tracer"), AttributeError("torch.jit")])
def test_where_nothing_can_be_recorded_the_forward_stays(monkeypatch, fault):
    def refuse(*_, **__):
        raise fault

    monkeypatch.setattr("aftershock.models.recorded._AFTER", 1)
    monkeypatch.setattr("torch.jit.trace", refuse)
    model = build({"model_type": "llama", **SHARED}, seed=0).eval()
    assert torch.equal(stepped(model, [4] * 8), stepped(model, [4] * 8, inference=False))
    assert model._recorder._step is None
