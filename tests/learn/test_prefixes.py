"""What completions of one prompt begin with alike, computed once, gives what each sequence's own copy gives."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from learn_tiny import VOCAB, TinyModel, unpack
from test_packing import bare
from test_sharing import DENSE, LATENT

from aftershock import models
from aftershock.learn import Distiller, Learner, Sample, pack, split
from aftershock.learn.losses import LOSSES
from aftershock.models.native import build
from aftershock.recipe import LossTable, OptimTable

torch.set_num_threads(1)
OPTIM = OptimTable(clip_norm=1e9, lr=1e-12)
PROMPTS = (5,), (5, 6, 5), (7, 8)
FORKED = [(1, 2, 3), (1, 2, 3, 1), (1, 2, 3), (1, 2, 2, 1, 1), (1, 2, 2, 1, 2), (3,), (1, 2, 2, 2)]


@st.composite
def samples(draw):
    """Return samples of few prompts and three tokens: some are equal, and some begin others."""
    texts = st.lists(st.integers(1, 3), min_size=1, max_size=7).map(tuple)
    drawn = draw(st.lists(st.tuples(st.sampled_from(PROMPTS), texts), min_size=1, max_size=16))
    return [sample(number, *texts) for number, texts in enumerate(drawn)]


def sample(number, prompt, completion):
    """Return one with log-probabilities and an advantage that no other has."""
    told = tuple(-2.0 - (5 * number + at) % 7 / 8 for at in range(len(completion)))
    return Sample(prompt, completion, told, (-1.0) ** number * (1 + number / 8), PROMPTS.index(prompt))


WHOLE = [sample(number, PROMPTS[number % 2], text) for number, text in enumerate([*FORKED, *FORKED])]


@settings(deadline=None, max_examples=100)
@given(samples(), st.integers(1, 90))
@example(WHOLE, 1000)
def test_each_prefix_is_laid_once(given_samples, micro_tokens):
    batches = pack(given_samples, micro_tokens, deep=True)
    assert sorted(unpack(batches), key=repr) == sorted(map(bare, unpack(pack(given_samples, micro_tokens))), key=repr)
    for batch in batches:
        texts = [(one.prompt, one.prompt + one.completion) for one in unpack([batch])]
        prefixes = {(prompt, text[: at + 1]) for prompt, text in texts for at in range(len(text))}
        assert len(batch.tokens) == len(prefixes)
        assert len(batch.segments.bounds) - 1 < 2 * len(set(texts)), "a segment that nothing parts from"
        assert batch.segments.longest == batch.segments.lengths().max()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=7, unique=True), st.integers(1, 40))
def test_where_nothing_is_shared_the_pack_is_the_same(firsts, micro_tokens):
    made = [sample(number, (7, 8), (first, 1, 2)) for number, first in enumerate(firsts)]
    for one, other in zip(pack(made, micro_tokens), pack(made, micro_tokens, deep=True), strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert other.reads is None


def moved(model, seed):
    """Return a copy that is a little off."""
    other, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for weight in other.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=rng)
    return other


def learnt(config, loss, parts):
    """Return metrics and gradients of steps on packed parts, as off-policy as a second mini-batch is."""
    model = models.build(config, seed=0)
    learner = Learner(model, OPTIM, loss)
    if learner.reference is not None:
        learner.reference = moved(model, 1)
    old = Learner(moved(model, 2), OPTIM, loss)
    told, grads = [], []
    for batches in parts:
        told.append(learner.step(old.old_logprobs(batches)))
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return [{name: v for name, v in row.items() if not name.startswith("load")} for row in told], grads


def agree(config, loss, given_samples, micro_tokens):
    flat, deep = (
        [pack(part, micro_tokens, max_tokens=7, deep=deep) for part in split(given_samples, 2)]
        for deep in (False, True)
    )
    for one, other in zip(learnt(config, loss, flat), learnt(config, loss, deep)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    sizes = [sum(len(batch.tokens) for batches in parts for batch in batches) for parts in (flat, deep)]
    assert sizes[1] <= sizes[0]
    return sizes[1] < sizes[0]


@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_gradient_are_those_of_every_sequence_s_own_copy(kind):
    assert agree(DENSE, LossTable(kind=kind, kl=0.1), WHOLE, 1000)

    @settings(deadline=None, max_examples=8)
    @given(samples(), st.integers(8, 90))
    def check(given_samples, micro_tokens):
        agree(DENSE, LossTable(kind=kind, kl=0.1), given_samples, micro_tokens)

    check()


def test_so_of_a_mixture():
    assert agree(LATENT, LossTable(kind="gspo"), WHOLE, 1000)
    assert agree(LATENT, LossTable(), WHOLE, 30)


@pytest.mark.parametrize("config", [DENSE, LATENT], ids=["dense", "latent"])
def test_so_by_pytorch_alone(config, monkeypatch):
    in_c = learnt(config, LossTable(), [pack(WHOLE, 1000, deep=True)])
    monkeypatch.setenv(build.SWITCH, "0")
    assert agree(config, LossTable(), WHOLE, 1000)
    torch.testing.assert_close(in_c, learnt(config, LossTable(), [pack(WHOLE, 1000, deep=True)]), rtol=1e-3, atol=1e-5)


def test_a_token_has_each_reader_s_own_values():
    """Two equal samples, sampled with other log-probabilities and of opposite advantage: their gradients cancel out."""
    one = sample(0, (7, 8), (1, 2, 3))
    other = replace(one, logprobs=(-1.0, -0.5, -3.0), advantage=-one.advantage)
    (batch,) = pack([one, other], 100, deep=True)
    assert batch.tokens.tolist() == [7, 8, 1, 2, 3]
    assert unpack([batch]) == [bare(one), bare(other)]
    learner = Learner(TinyModel(), OPTIM, LossTable(importance_cap=0))
    told = learner.step([batch])
    assert told["tokens"] == 6
    assert told["grad_norm"] == pytest.approx(0, abs=1e-6)


def test_a_teacher_is_followed_in_each_reader():
    told = [
        Distiller(TinyModel(0), TinyModel(1), OPTIM, "forward_kl").step(pack(WHOLE, 1000, deep=deep))
        for deep in (False, True)
    ]
    assert told[0] == pytest.approx(told[1], rel=1e-4)


def test_a_learner_says_whether_it_pays():
    assert max(max(one.prompt + one.completion) for one in WHOLE) < VOCAB
    model = models.build(DENSE, seed=0)
    assert Learner(model, OPTIM).shares_deeply == (build.library("train") is not None)
    assert not Learner(model, OPTIM.model_copy(update={"precision": "bfloat16"})).shares_deeply
    assert not Learner(TinyModel(), OPTIM).shares_deeply
