"""Each loss against loops over tokens written from its paper's equation, in value and gradient."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aftershock.errors import TrainingError
from aftershock.learn.batch import Whole
from aftershock.learn.losses import LOSSES, Terms
from aftershock.learn.losses.kl import estimate
from aftershock.recipe import CLIPS, LossTable

KINDS = sorted(LOSSES)
LONGEST = 9  # the stage's max_tokens


def terms(seed, sequences=5, spread=0.5):
    """Return Terms in float64 whose ratios go well outside any clip range; 2 more sequences are in another batch."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST, (sequences,), generator=rng)
    m = int(lengths.sum())
    noise = [torch.randn(m, generator=rng, dtype=torch.float64) * spread for _ in range(3)]
    base = -torch.rand(m, generator=rng, dtype=torch.float64) * 3
    advantages = torch.randn(sequences, generator=rng, dtype=torch.float64).repeat_interleave(lengths)
    return Terms(
        logprobs=base.clone().requires_grad_(),
        old_logprobs=base + noise[0],
        sampler_logprobs=base + noise[0] + noise[1],
        advantages=advantages,
        lengths=lengths,
        whole=Whole(m + 11, sequences + 2, LONGEST),
        reference_logprobs=base + noise[2],
    )


# ---- the papers' equations, one token at a time ----


def sequences(t):
    """Yield (log pi, log old, log sampler, log reference, A) of each sequence as lists of scalars."""
    columns = [column.split(t.lengths.tolist()) for column in (t.logprobs, t.old_logprobs, t.sampler_logprobs)]
    for lp, old, sampler, ref, a in zip(
        *columns, t.reference_logprobs.split(t.lengths.tolist()), t.advantages.split(t.lengths.tolist())
    ):
        yield list(lp), old.tolist(), sampler.tolist(), ref.tolist(), a[0].item()


def ppo(ratio, a, table):
    inside = min(max(ratio.item(), 1 - table.clip_low), 1 + table.clip_high)
    return ratio * a if ratio.item() * a <= inside * a else inside * a


def tis(old, sampler, table):
    return min(math.exp(old - sampler), table.importance_cap) if table.importance_cap else 1.0


def k3(lp, ref):
    return torch.exp(ref - lp) - (ref - lp) - 1


def token_terms(row, table):
    """Return the bracket of GRPO's equation for each token of a sequence."""
    lps, olds, samplers, refs, a = row
    return [
        tis(old, sampler, table) * ppo(torch.exp(lp - old), a, table) - table.kl * k3(lp, ref)
        for lp, old, sampler, ref in zip(lps, olds, samplers, refs)
    ]


def plain_grpo(t, table):
    return -sum(sum(token_terms(row, table)) / len(row[0]) for row in sequences(t)) / t.whole.sequences


def plain_dr_grpo(t, table):
    return -sum(sum(token_terms(row, table)) / LONGEST for row in sequences(t)) / t.whole.sequences


def plain_dapo(t, table):
    return -sum(sum(token_terms(row, table)) for row in sequences(t)) / t.whole.tokens


def plain_gspo(t, table):
    total = 0.0
    for lps, olds, samplers, refs, a in sequences(t):
        n = len(lps)
        s = torch.exp(sum(lp - old for lp, old in zip(lps, olds)) / n)
        weight = tis(sum(olds) / n, sum(samplers) / n, table)
        total = total + weight * ppo(s, a, table) - table.kl * sum(map(k3, lps, refs)) / n
    return -total / t.whole.sequences


def plain_cispo(t, table):
    total = 0.0
    for lps, olds, samplers, refs, a in sequences(t):
        for lp, old, sampler, ref in zip(lps, olds, samplers, refs):
            bounded = min(max(math.exp(lp.item() - old), 1 - table.clip_low), 1 + table.clip_high)
            total = total + tis(old, sampler, table) * bounded * a * lp - table.kl * k3(lp, ref)
    return -total / t.whole.tokens


PLAIN = {
    "grpo": plain_grpo,
    "dr_grpo": plain_dr_grpo,
    "dapo": plain_dapo,
    "gspo": plain_gspo,
    "cispo": plain_cispo,
}


def gradient(loss, t):
    return torch.autograd.grad(loss, t.logprobs)[0]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10**6), kl=st.sampled_from([0.0, 0.1]), cap=st.sampled_from([0.0, 1.0, 2.0]))
def test_loss_equals_its_paper_s_equation(kind, seed, kl, cap):
    t, table = terms(seed), LossTable(kind=kind, kl=kl, importance_cap=cap, clip_low=0.2, clip_high=0.3)
    ours, plain = LOSSES[kind](t, table).loss, PLAIN[kind](t, table)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient(ours, t), gradient(plain, t), rtol=1e-9, atol=1e-12)


# ---- clipping ----


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
def test_clipping_silences_exactly_the_tokens_outside(kind):
    t, table = terms(3, sequences=40), LossTable(kind=kind, clip_low=0.2, clip_high=0.3, importance_cap=0)
    value = LOSSES[kind](t, table)
    ratio = (t.logprobs - t.old_logprobs).exp()
    outside = ((ratio > 1.3) & (t.advantages > 0)) | ((ratio < 0.8) & (t.advantages < 0))
    assert 0.2 < outside.double().mean() < 0.8
    assert gradient(value.loss, t).eq(0).equal(outside)
    assert value.sums["clip_fraction"] == outside.sum()


def test_gspo_silences_whole_sequences():
    t, table = terms(4, sequences=40), LossTable(kind="gspo", clip_low=0.05, clip_high=0.05, importance_cap=0)
    value = LOSSES["gspo"](t, table)
    ratio, a = t.sequence_means(t.logprobs - t.old_logprobs).exp(), t.sequence_advantages
    outside = (((ratio > 1.05) & (a > 0)) | ((ratio < 0.95) & (a < 0))).repeat_interleave(t.lengths)
    assert 0.2 < outside.double().mean() < 0.8
    assert gradient(value.loss, t).eq(0).equal(outside)
    assert value.sums["clip_fraction"] == outside.sum()


def test_cispo_bounds_weights_and_silences_nothing():
    t, table = terms(5, sequences=40), LossTable(kind="cispo", clip_low=1.0, clip_high=0.3, importance_cap=0)
    value = LOSSES["cispo"](t, table)
    ratio = (t.logprobs - t.old_logprobs).exp().detach()
    grads = gradient(value.loss, t)
    torch.testing.assert_close(grads, -ratio.clamp(max=1.3) * t.advantages / t.whole.tokens)
    assert (ratio > 1.3).any()
    assert grads.ne(0).all()
    assert value.sums["clip_fraction"] == (ratio > 1.3).sum()


def test_ratio_metrics():
    t = terms(6)
    value = LOSSES["dapo"](t, LossTable(kl=0.1))
    ratio = (t.logprobs - t.old_logprobs).exp().detach()
    assert value.sums["ratio_mean"].item() == pytest.approx(ratio.sum().item())
    assert value.maxima["ratio_max"].item() == pytest.approx(ratio.max().item())
    assert value.sums["approx_kl"].item() == pytest.approx((ratio - 1 - ratio.log()).sum().item())
    assert value.sums["kl"].item() == pytest.approx(sum(map(k3, t.logprobs, t.reference_logprobs)).item())


# ---- KL and importance ----


@settings(deadline=None, max_examples=50)
@given(lp=st.floats(-8, 0), ref=st.floats(-8, 0))
def test_k2_and_k3_are_never_negative(lp, ref):
    lp, ref = torch.tensor(lp, dtype=torch.float64), torch.tensor(ref, dtype=torch.float64)
    assert estimate("k2", lp, ref) >= 0
    assert estimate("k3", lp, ref) >= 0
    assert estimate("k1", lp, ref) == lp - ref


def test_kl_estimators_agree_with_the_kl_of_near_policies():
    """k1 and k3 are unbiased, so exact in expectation; k2 agrees to second order in the distance."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=rng, dtype=torch.float64)
    policy = logits.log_softmax(0)
    reference = (logits + 0.01 * torch.randn(50, generator=rng, dtype=torch.float64)).log_softmax(0)
    exact = (policy.exp() * (policy - reference)).sum()
    mean = {kind: (policy.exp() * estimate(kind, policy, reference)).sum() for kind in ("k1", "k2", "k3")}
    torch.testing.assert_close(mean["k1"], exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(mean["k3"], exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(mean["k2"], exact, rtol=0.02, atol=0)


def test_kl_gradients_are_what_the_docs_say():
    """As losses over the policy's own tokens: k1 pulls nowhere, k2 along KL(p || ref), k3 along KL(ref || p)."""
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(9, generator=rng, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(9, generator=rng, dtype=torch.float64).log_softmax(0)

    def pull(f):
        policy = logits.log_softmax(0)
        return torch.autograd.grad(f(policy), logits)[0]

    def sampled(kind):
        return pull(lambda p: (p.exp().detach() * estimate(kind, p, reference)).sum())

    torch.testing.assert_close(sampled("k1"), torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(sampled("k2"), pull(lambda p: (p.exp() * (p - reference)).sum()))
    torch.testing.assert_close(sampled("k3"), pull(lambda p: (reference.exp() * (reference - p)).sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weight_is_one_where_sampler_and_learner_agree(kind):
    t = terms(7)
    agreed = Terms(**{**vars(t), "sampler_logprobs": t.old_logprobs})
    on, off = (LOSSES[kind](agreed, LossTable(kind=kind, importance_cap=cap)).loss for cap in (2.0, 0.0))
    torch.testing.assert_close(on, off)
    assert not torch.allclose(LOSSES[kind](t, LossTable(kind=kind, importance_cap=2.0)).loss, off)


def test_importance_weight_is_truncated():
    t = terms(8)
    extreme = Terms(**{**vars(t), "sampler_logprobs": t.old_logprobs - 5})
    table = LossTable(kind="dapo", importance_cap=3.0)
    bare = LOSSES["dapo"](extreme, LossTable(kind="dapo", importance_cap=0.0)).loss
    torch.testing.assert_close(LOSSES["dapo"](extreme, table).loss, 3 * bare)


# ---- dials ----


@pytest.mark.parametrize("kind", KINDS)
def test_unset_clips_take_the_paper_s_values_and_set_ones_stay(kind):
    table = LossTable(kind=kind)
    assert (table.clip_low, table.clip_high) == CLIPS[kind]
    table = LossTable(kind=kind, clip_high=0.5)
    assert (table.clip_low, table.clip_high) == (CLIPS[kind][0], 0.5)


def test_a_cap_that_shrinks_everything_is_refused():
    with pytest.raises(ValidationError, match="importance_cap"):
        LossTable(importance_cap=0.5)


def test_what_a_loss_lacks_is_named():
    t = terms(9)
    with pytest.raises(TrainingError, match="max_tokens"):
        LOSSES["dr_grpo"](Terms(**{**vars(t), "whole": Whole(5, 2)}), LossTable(kind="dr_grpo"))
    with pytest.raises(TrainingError, match="reference"):
        LOSSES["grpo"](Terms(**{**vars(t), "reference_logprobs": None}), LossTable(kind="grpo", kl=0.1))


def test_weights_of_the_three_means():
    """With ratio 1 and A = 1, a token's gradient is its weight: 1/(N |o|), 1/(N L), 1/tokens."""
    rng = random.Random(0)
    lengths = torch.tensor([rng.randint(1, 8) for _ in range(4)])
    m = int(lengths.sum())
    zeros, ones = torch.zeros(m), torch.ones(m)
    t = Terms(zeros.clone().requires_grad_(), zeros, zeros, ones, lengths, Whole(m, 4, LONGEST))
    per = lengths.repeat_interleave(lengths)
    want = {"grpo": -1 / (4 * per), "dr_grpo": -ones / (4 * LONGEST), "dapo": -ones / m}
    for kind, weights in want.items():
        torch.testing.assert_close(gradient(LOSSES[kind](t, LossTable(kind=kind)).loss, t), weights)
