"""The draw in C is the sampler's own: the same token for the same uniform number, and the same log-probabilities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.generate.sampler import Sampler
from aftershock.generate.types import SamplingParams
from aftershock.models.native import build

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no native step: {build.why_not()}")
temperatures = st.sampled_from([1.0, 0.7, 0.05, 2.5])


def both(logits, uniforms, temperature, bias=None):
    params, cpu = SamplingParams(temperature=temperature, logit_bias=bias or {}), torch.device("cpu")
    return [
        Sampler(params, logits.shape[1], cpu, native=native)(logits, torch.tensor(uniforms, dtype=torch.float64))
        for native in (True, False)
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.sampled_from([1, 7, 40, 64, 130, 768]),
    temperatures,
    st.integers(1, 3),
    st.sampled_from([{}, {0: -math.inf, 3: 2.0}, {6: -1e4}]),
)
def test_it_draws_as_the_sampler(seed, rows, vocab, temperature, threads, bias):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocab, generator=generator) * 4
    logits[torch.rand(logits.shape, generator=generator) < 0.2] = -math.inf
    logits[:, -1] = 1.0
    bias = {token: value for token, value in bias.items() if token < vocab - 1}
    uniforms = torch.rand(rows, generator=generator, dtype=torch.float64).tolist()
    torch.set_num_threads(threads)
    ours, theirs = both(logits, [1e-30, *uniforms][:rows], temperature, bias)
    torch.set_num_threads(1)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.allclose(ours.logprobs, theirs.logprobs, atol=3e-6, rtol=2e-6)
    assert torch.allclose(ours.sampled_logprobs, theirs.sampled_logprobs, atol=3e-6, rtol=5e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("massive", [0, 63, 64, 100, 199])
def test_a_token_without_mass_is_never_drawn(uniform, massive):
    logits = torch.full((1, 200), -1000.0)
    logits[0, massive] = 5.0
    drawn, _ = both(logits, [uniform], 1.0)
    assert drawn.tokens.tolist() == [massive]
    assert (drawn.logprobs.item(), drawn.sampled_logprobs.item()) == (0, 0)


def test_shares_are_the_softmax_s():
    logits, count = torch.tensor([[1.0, 0.0, -math.inf, 2.0]]), 4000
    uniforms = ((torch.arange(count) + 0.5) / count).tolist()
    drawn, _ = both(logits.expand(count, -1), uniforms, 0.5)
    shares = drawn.tokens.bincount(minlength=4) / count
    assert (shares - (logits[0] / 0.5).softmax(-1)).abs().max() < 1 / count


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_told_by_its_row_s_log_probability_alone(bad):
    logits = torch.zeros(3, 70)
    logits[1, 69] = bad
    drawn, _ = both(logits, [0.3, 0.3, 0.3], 1.0)
    assert drawn.logprobs.isnan().tolist() == drawn.sampled_logprobs.isnan().tolist() == [False, True, False]
    assert drawn.tokens.max() < 70


def test_where_it_is_not_used():
    cpu = torch.device("cpu")
    for params in (
        SamplingParams(temperature=0),
        SamplingParams(temperature=1e-9),
        SamplingParams(top_k=3),
    ):
        assert not Sampler(params, 10, cpu, native=True).native
    assert not Sampler(SamplingParams(), 10, cpu).native
