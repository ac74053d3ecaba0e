"""The learner's passes in C against the same in float64, and where they are taken at all."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import VOCAB, theirs

from aftershock.learn.logprobs import _Select, token_logprobs
from aftershock.models import build, rope
from aftershock.models.base import Segments
from aftershock.models.config import Rope
from aftershock.models.native import build as library
from aftershock.models.native import train

pytestmark = pytest.mark.skipif(library.library("train") is None, reason=f"no C library: {library.why_not('train')}")
SIZES = {"rows": st.integers(1, 300), "width": st.integers(1, 70), "threads": st.integers(1, 3)}


def normal(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def value_and_gradients(function, inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    (out * normal(*out.shape, seed=9).to(out.dtype)).sum().backward()
    return [out.detach(), *(x.grad for x in inputs)]


def agree(native, plain, inputs, threads):
    torch.set_num_threads(threads)
    try:
        found = value_and_gradients(native, inputs)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(found, value_and_gradients(native, inputs)))  # on one thread
    for one, other in zip(found, value_and_gradients(plain, [x.double() for x in inputs]), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=2e-6 * (1 + other.abs().max().item()))


@given(**SIZES)
@settings(max_examples=25, deadline=None)
def test_norm(rows, width, threads):
    inputs = normal(1, rows, width, scale=3), normal(width, seed=1)
    agree(lambda x, w: train.rms_norm(x, w, 1e-6), lambda x, w: F.rms_norm(x, (width,), w, 1e-6), inputs, threads)


@given(**SIZES)
@settings(max_examples=25, deadline=None)
def test_norm_beside_what_it_is_of(rows, width, threads):
    x, more, weight = normal(1, rows, width, scale=3), normal(1, rows, width, seed=2), normal(width, seed=1)

    def plain(x, w, more=0.0):
        return torch.cat((x + more, F.rms_norm(x + more, (width,), w, 1e-6)))

    agree(lambda x, w: torch.cat(train.add_norm(x, None, w, 1e-6)), plain, (x, weight), threads)
    agree(lambda x, w, more: torch.cat(train.add_norm(x, more, w, 1e-6)), plain, (x, weight, more), threads)


@pytest.mark.parametrize("read", [0, 1])
def test_norm_beside_what_it_is_of_where_one_of_both_is_read(read):
    inputs = [normal(1, 9, 20).requires_grad_(), normal(1, 9, 20, seed=1).requires_grad_()]
    weight = normal(20, seed=2).requires_grad_()
    found, total = train.add_norm(*inputs, weight, 1e-6)[read], sum(inputs)
    wanted = (total, F.rms_norm(total, (20,), weight, 1e-6))[read]
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(**SIZES)
@settings(max_examples=25, deadline=None)
def test_gated_unit_and_its_halves_side_by_side(rows, width, threads):
    gate, up = normal(rows, width, scale=4), normal(rows, width, seed=1)
    agree(train.gated, lambda g, u: F.silu(g) * u, (gate, up), threads)
    plain = lambda both: F.silu(both[:, :width]) * both[:, width:]  # noqa: E731
    agree(train.gated_halves, plain, (torch.cat((gate, up), 1),), threads)


@given(rows=st.integers(1, 90), heads=st.integers(1, 5), pairs=st.integers(1, 20), interleave=st.booleans())
@settings(max_examples=25, deadline=None)
def test_rotation(rows, heads, pairs, interleave):
    table = rope.RotaryTable(Rope(), 2 * pairs, 512, interleave=interleave)
    cos, sin = (part[None, :rows, None] for part in table.upto(rows, torch.device("cpu")))
    agree(
        lambda x: train.rotate(x, cos, sin, interleave=interleave),
        lambda x: rope.rotate(x, cos.double(), sin.double(), interleave=interleave),
        (normal(1, rows, heads, 2 * pairs),),
        2,
    )


def test_several_rotations_are_each_ones():
    cos, sin = (part[None, :9, None] for part in rope.RotaryTable(Rope(), 8, 512, interleave=False).upto(9, "cpu"))
    xs = normal(2, 9, 3, 8).requires_grad_(), normal(2, 9, 1, 8, seed=1).requires_grad_()
    together = train.rotate_all(xs, cos, sin, interleave=False)
    alone = [train.rotate(x, cos, sin, interleave=False) for x in xs]
    ups = [normal(*x.shape, seed=2) for x in xs]
    assert all(map(torch.equal, together, alone))
    assert all(map(torch.equal, torch.autograd.grad(together, xs, ups), torch.autograd.grad(alone, xs, ups)))


@given(rows=st.integers(1, 40), vocab=st.sampled_from([1, 7, 8, 33, 768, 9001]), scale=st.sampled_from([0.1, 3, 30]))
@settings(max_examples=25, deadline=None)
def test_log_probability_of_a_target(rows, vocab, scale):
    logits, targets = normal(rows, vocab, scale=scale), torch.arange(rows) * 7 % vocab
    agree(lambda x: train.select(x, targets)[0], lambda x: _Select.apply(x, targets)[0], (logits,), 2)
    entropy = _Select.apply(logits.double(), targets)[1]
    torch.testing.assert_close(train.select(logits, targets)[1].double(), entropy, rtol=1e-4, atol=1e-5)


def gradients(name):
    model = build(theirs(name).config.to_dict(), seed=0).train()
    bounds = torch.tensor([0, 9, 9, 30, 34, 41, 44], dtype=torch.int32)
    tokens = torch.arange(44) * 5 % VOCAB
    segments = Segments(bounds, 34, torch.tensor([-1, 0, 0, 2, 2, -1]))
    logprobs, entropy = token_logprobs(model, tokens, segments, segments.before() >= 0)
    logprobs.sum().backward()
    return [logprobs, entropy, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "deepseek_v3"])
def test_a_model_learns_the_same_with_and_without(name, monkeypatch):
    calls = []
    monkeypatch.setattr(train, "call", lambda what, job, call=train.call: calls.append(what) or call(what, job))
    native = gradients(name)
    assert {"norm_forward", "norm_backward", "turn", "select_backward", "gated_backward"} <= set(calls)
    monkeypatch.setenv(library.SWITCH, "0")
    for one, other in zip(native, gradients(name), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * (1 + other.abs().max().item()))


def test_sampling_does_not_take_them(monkeypatch):
    monkeypatch.setattr(train, "call", None)
    with torch.inference_mode():
        build(theirs("qwen2").config.to_dict(), seed=0)(torch.arange(5)[None])
