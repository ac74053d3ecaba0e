import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_tiny import VOCAB, TinyModel, random_samples
from torch.autograd.graph import saved_tensors_hooks

from aftershock.learn import pack, token_logprobs
from aftershock.learn.head import read_head
from aftershock.learn.logprobs import _Select, chunked, select
from aftershock.models.native import build


def plain(logits, targets):
    """The textbook form: keep the whole log-softmax."""
    logprobs = logits.float().log_softmax(-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


def setting(n, width=8, vocab=VOCAB, seed=0):
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=rng, requires_grad=True)
    weight = torch.randn(vocab, width, generator=rng, requires_grad=True)
    return hidden, weight, torch.randint(vocab, (n,), generator=rng)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 999))
def test_chunks_equal_the_plain_form_in_value_and_gradient(n, chunk, seed):
    hidden, weight, targets = setting(n, seed=seed)
    ours = chunked(lambda h: h @ weight.T, hidden, targets, chunk_bytes=chunk * VOCAB * 4)
    want = plain(hidden @ weight.T, targets)
    torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5)
    pull = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    got, expected = (torch.autograd.grad((lp * pull).sum(), (hidden, weight)) for lp in (ours[0], want[0]))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_gradient_is_right_by_finite_differences():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda x: _Select.apply(x, targets)[0], (logits,))


def test_bfloat16_logits_are_summed_in_float32():
    logits = (torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 4).bfloat16()
    targets = torch.tensor([1, 2, 3, 4])
    logprobs, entropy = select(logits, targets)
    assert logprobs.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close((logprobs, entropy), plain(logits.float(), targets), rtol=1e-5, atol=1e-5)


def test_memory_is_one_chunk_not_the_whole_logits():
    hidden, weight, targets = setting(512, vocab=4096)
    rows, kept = [], []

    def head(h):
        rows.append(len(h))
        return h @ weight.T

    def keep(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs, _ = chunked(head, hidden, targets, chunk_bytes=64 * 4096 * 4)
    logprobs.sum().backward()
    assert max(rows) == 64, "the head saw more than a chunk at once"
    assert sum(kept) < 512 * 4096 * 4 / 8, "the graph kept logits"


def test_packed_equals_each_sequence_alone():
    model, samples = TinyModel(), random_samples(0)
    (batch,) = pack(samples, 10_000)
    logprobs, entropy = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
    want = []
    for sample in samples:
        logits = model(torch.tensor([sample.prompt + sample.completion]))[0, len(sample.prompt) - 1 : -1]
        want.append(plain(logits, torch.tensor(sample.completion)))
    torch.testing.assert_close(logprobs, torch.cat([lp for lp, _ in want]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, torch.cat([e for _, e in want]), rtol=1e-5, atol=1e-5)


def test_head_keeps_float32_under_autocast():
    model = TinyModel()
    (batch,) = pack(random_samples(0), 10_000)
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        token_logprobs(model, batch.tokens, batch.segments, batch.mask)
    assert set(seen) == {torch.float32}


@pytest.mark.skipif(build.library("train") is None, reason="no C library")
@pytest.mark.parametrize(("rows", "chunk"), [(40, 1 << 20), (40, 4 * 17 * 7), (1, 1), (0, 100)])
@pytest.mark.parametrize("frozen", [False, True])
def test_head_in_one_step_is_the_plain_one(rows, chunk, frozen):
    """Kept whole; in chunks of 7; one row a chunk; nothing at all. Chunks want a weight smaller than the logits."""
    weight = torch.randn(17, 5).requires_grad_(not frozen)
    hidden, targets = torch.randn(rows, 5).requires_grad_(), torch.arange(rows) % 17
    up = torch.randn(rows)
    inputs = [hidden] if frozen else [hidden, weight]
    plain = select(hidden.double() @ weight.double().t(), targets) if rows else (torch.zeros(0), torch.zeros(0))
    found = read_head(hidden, weight, targets, lambda x, to: torch.mm(x, weight.detach().t(), out=to), chunk)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)
    if not rows:
        return
    wanted = torch.autograd.grad(plain[0], inputs, up.double())
    for _ in range(2):  # the second time what was kept has been used up
        for one, other in zip(torch.autograd.grad(found[0], inputs, up, retain_graph=True), wanted, strict=True):
            torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)
