import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import SamplingError
from aftershock.generate import SamplingParams
from aftershock.generate.sampler import Sampler, check_params, inverse_cdf

VOCAB = 9
OPTIONS = [
    SamplingParams(),
    SamplingParams(temperature=0.6, top_p=0.95),
    SamplingParams(temperature=1.7),
    SamplingParams(top_k=3),
    SamplingParams(top_p=0.5),
    SamplingParams(min_p=0.3),
    SamplingParams(logit_bias={2: 4.0, 5: -math.inf}),
    SamplingParams(temperature=0.8, top_p=0.9, top_k=5, min_p=0.05, logit_bias={1: 2.0, 3: -1.0}),
    SamplingParams(temperature=1e-8),
]


def reference(logits, params):
    """The distribution by the textbook, one token at a time, in float64."""
    x = [float(value) + params.logit_bias.get(i, 0.0) for i, value in enumerate(logits)]
    best = max(x)
    weights = [math.exp((value - best) / params.temperature) for value in x]
    order = sorted(range(len(x)), key=lambda i: (-weights[i], i))
    kept = order[: params.top_k or len(x)]
    mass, total, nucleus = 0.0, sum(weights[i] for i in kept), []
    for i in kept:
        if mass < params.top_p * total:
            nucleus.append(i)
        mass += weights[i]
    nucleus = [i for i in nucleus if weights[i] > 0 and weights[i] >= params.min_p * weights[order[0]]]
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(x))]


@pytest.mark.parametrize("params", OPTIONS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_distribution_is_the_textbooks(params, seed):
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 2
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = Sampler(params, VOCAB, torch.device("cpu"))(logits.expand(2000, VOCAB), grid)
    wanted = torch.tensor(reference(logits, params), dtype=torch.float64)
    shares = torch.bincount(drawn.tokens, minlength=VOCAB) / 2000
    assert torch.allclose(shares.double(), wanted, atol=1.1e-3)
    assert torch.allclose(drawn.sampled_logprobs.double().exp(), wanted[drawn.tokens], atol=1e-5)
    assert torch.allclose(drawn.logprobs, logits.log_softmax(-1)[drawn.tokens], atol=1e-6)


def test_greedy_takes_the_likeliest_after_bias_and_is_certain_of_it():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    uniforms = torch.tensor([0.9, 0.9], dtype=torch.float64)
    greedy = Sampler(SamplingParams(temperature=0), 3, logits.device)(logits, uniforms)
    assert greedy.tokens.tolist() == [1, 0]
    assert greedy.sampled_logprobs.tolist() == [0, 0]
    assert torch.allclose(greedy.logprobs, logits.log_softmax(-1)[[0, 1], [1, 0]])
    biased = Sampler(SamplingParams(temperature=0, logit_bias={2: 9.0}), 3, logits.device)(logits, uniforms)
    assert biased.tokens.tolist() == [2, 2]


def test_ties_keep_exactly_k():
    drawn = Sampler(SamplingParams(top_k=2), VOCAB, torch.device("cpu"))(
        torch.zeros(100, VOCAB), torch.linspace(0, 0.999, 100, dtype=torch.float64)
    )
    assert set(drawn.tokens.tolist()) == {0, 1}


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(0, 1, width=32) | st.just(0.0), min_size=1, max_size=20).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_inverse_cdf_is_the_first_token_past_the_mass(probs, uniform):
    token = int(inverse_cdf(torch.tensor([probs]), torch.tensor([uniform], dtype=torch.float64)))
    assert torch.tensor(probs)[token] > 0
    mass = np.cumsum(np.array(probs, dtype=np.float32).astype(np.float64))
    goal = min(uniform * mass[-1], np.nextafter(mass[-1], 0))
    assert mass[token] > goal
    assert token == 0 or mass[token - 1] <= goal


def test_the_very_last_uniform_never_falls_past_the_end():
    probs = torch.tensor([[0.1, 0.2, 0.7, 0.0]])
    assert int(inverse_cdf(probs, torch.tensor([1 - 2.0**-53], dtype=torch.float64))) == 2


@pytest.mark.parametrize("params", OPTIONS)
def test_a_row_does_not_know_its_neighbours(params):
    torch.manual_seed(0)
    logits, uniforms = torch.randn(64, 301) * 3, torch.rand(64, dtype=torch.float64)
    sampler = Sampler(params, 301, logits.device)
    together = sampler(logits, uniforms)
    order = torch.randperm(64)
    for part, shuffled in zip(together, sampler(logits[order], uniforms[order])):
        assert torch.equal(part[order], shuffled)
    for row in (0, 13, 63):
        alone = sampler(logits[row : row + 1], uniforms[row : row + 1])
        assert [float(part[row]) for part in together] == [float(part[0]) for part in alone]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 1.0}, "min_p is 1.0"),
        ({"stop": ("a", "")}, "stop is"),
        ({"stop": "ab"}, "stop is 'ab'"),
        ({"logit_bias": {10: 1.0}}, "token ids from 0 to 9"),
        ({"logit_bias": {-1: 1.0}}, "token ids"),
        ({"logit_bias": {1: math.nan}}, "token ids"),
        ({"logit_bias": {1: math.inf}}, "token ids"),
    ],
)
def test_params_that_make_no_sense_are_refused_by_name(change, words):
    with pytest.raises(SamplingError, match=words.replace("(", r"\(")):
        check_params(SamplingParams(**change), 10)
