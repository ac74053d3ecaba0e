"""Both divergences and their gradients against the plain formulas and TRL's; chunks and splits change nothing."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_tiny import VOCAB, TinyModel, random_samples
from torch.autograd.graph import saved_tensors_hooks

from aftershock.learn import Distiller, distiller, pack
from aftershock.learn.losses.distill import TOLD, divergence
from aftershock.recipe import OptimTable

KINDS = ["forward_kl", "reverse_kl"]
OPTIM = OptimTable(lr=1e-2, clip_norm=1e9)


def logits(seed, rows=7, vocab=11):
    rng = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, vocab, generator=rng, dtype=torch.float32) * 3
    return student.requires_grad_(), teacher


def plain(student, teacher, kind, temperature):
    """The textbook form, left to autograd."""
    p, q = ((x.double() / temperature).softmax(-1) for x in (student, teacher))
    return ((q * (q / p).log()).sum(-1) if kind == "forward_kl" else (p * (p / q).log()).sum(-1)).float()


@settings(deadline=None, max_examples=25)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 999), temperature=st.floats(0.3, 3))
def test_value_and_gradient_are_those_of_the_plain_formula(kind, seed, temperature):
    student, teacher = logits(seed)
    each, told = divergence(student, teacher, kind, temperature)
    want = plain(student, teacher, kind, temperature)
    torch.testing.assert_close(each, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(told[:, TOLD.index(kind)], each)
    pull = torch.randn(len(each), generator=torch.Generator().manual_seed(seed))
    ours, theirs = (torch.autograd.grad((x * pull).sum(), student)[0] for x in (each, want))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_value_and_gradient_equal_trl(kind):
    pytest.importorskip("trl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer
    student, teacher = logits(3)
    beta = 0 if kind == "forward_kl" else 1
    theirs = GKDTrainer.generalized_jsd_loss(student, teacher, beta=beta, temperature=0.7)
    ours = divergence(student, teacher, kind, 0.7)[0].mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_the_two_differ_and_are_nothing_between_equals():
    student, teacher = logits(0)
    forward, reverse = (divergence(student, teacher, kind, 1.0)[0] for kind in KINDS)
    assert (forward > 0).all()
    assert (reverse > 0).all()
    assert not torch.allclose(forward, reverse, rtol=0.01)
    for kind in KINDS:
        each, told = divergence(student, student.detach(), kind, 1.0)
        assert each.abs().max() < 1e-6
        assert told[:, TOLD.index("agreement")].eq(1).all()
        assert torch.autograd.grad(each.sum(), student)[0].abs().max() < 1e-6


def test_what_is_told_beside_is_the_students_entropy_and_the_share_of_equal_choices():
    student, teacher = logits(1)
    told = dict(zip(TOLD, divergence(student, teacher, "forward_kl", 1.0)[1].T))
    torch.testing.assert_close(told["entropy"], torch.distributions.Categorical(logits=student).entropy().detach())
    assert told["agreement"].tolist() == (student.argmax(-1) == teacher.argmax(-1)).float().tolist()


def test_the_larger_vocabulary_is_cut_to_the_smaller():
    student, teacher = logits(2, vocab=11)
    wide = torch.cat([teacher, torch.full((len(teacher), 5), 9.0)], -1)
    torch.testing.assert_close(*(divergence(student, t, "reverse_kl", 1.0)[0] for t in (teacher, wide)))


def step(kind="reverse_kl", micro_tokens=10_000, seed=0, **optim):
    student, teacher = TinyModel(seed), TinyModel(seed + 1)
    learner = Distiller(student, teacher, OPTIM.model_copy(update=optim), kind, 0.8)
    metrics = learner.step(pack(random_samples(seed), micro_tokens))
    return {name: p.grad.clone() for name, p in student.named_parameters()}, metrics


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 99), micro_tokens=st.integers(1, 40), chunk=st.integers(1, 9))
def test_no_split_into_batches_or_chunks_changes_the_step(kind, seed, micro_tokens, chunk):
    whole, told = step(kind, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distiller, "CHUNK_BYTES", chunk * 2 * 4 * VOCAB)
        parts, told_parts = step(kind, micro_tokens, seed)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert told_parts == pytest.approx(told, rel=1e-4, abs=1e-6)


def test_a_step_tells_both_divergences_and_its_loss_is_the_chosen_one():
    for kind in KINDS:
        _, told = step(kind)
        assert told["loss"] == pytest.approx(told[kind], rel=1e-5)
        assert {*TOLD, "grad_norm", "lr", "tokens"} <= told.keys()


def test_the_gradient_of_a_step_is_that_of_the_models_whole_logits():
    samples = random_samples(4)
    student, teacher = TinyModel(4), TinyModel(5)
    losses = []
    for s in samples:
        tokens = torch.tensor([s.prompt + s.completion])
        both = (model(tokens)[0, len(s.prompt) - 1 : -1] for model in (student, teacher))
        losses.append(plain(*both, "reverse_kl", 0.8))
    torch.cat(losses).mean().backward()
    want = {name: p.grad for name, p in student.named_parameters()}
    torch.testing.assert_close(step(seed=4)[0], want, rtol=1e-4, atol=1e-6)


def test_steps_bring_the_student_to_the_teacher_which_stays_as_it_is():
    student, teacher = TinyModel(0), TinyModel(1)
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    learner = Distiller(student, teacher, OPTIM, "forward_kl", total_steps=60)
    batches = pack(random_samples(0), 10_000)
    told = [learner.step(batches) for _ in range(60)]
    assert told[-1]["forward_kl"] < 0.2 * told[0]["forward_kl"]
    assert told[-1]["agreement"] > told[0]["agreement"]
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_neither_head_sees_more_than_a_chunk_and_no_logits_are_kept(monkeypatch):
    monkeypatch.setattr(distiller, "CHUNK_BYTES", 8 * 4 * 2 * VOCAB)
    student, teacher = TinyModel(0), TinyModel(1)
    learner = Distiller(student, teacher, OPTIM, "reverse_kl")
    (batch,) = pack(random_samples(0, groups=30, size=4), 100_000)
    rows, kept = [], []
    for model in (student, teacher):
        model.head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))

    def keep(tensor):
        kept.append(tensor.shape)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.step([batch])
    assert max(rows) == 8
    assert int(batch.mask.sum()) > 100
    assert not [shape for shape in kept if len(shape) == 2 and shape[-1] == VOCAB and shape[0] > 8]


def test_bfloat16_keeps_the_heads_in_float32():
    seen = []
    student, teacher = TinyModel(0), TinyModel(1)
    for model in (student, teacher):
        model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    Distiller(student, teacher, OPTIM.model_copy(update={"precision": "bfloat16"}), "forward_kl").step(
        pack(random_samples(0), 10_000)
    )
    assert set(seen) == {torch.float32}
