"""Rows of one prompt that have drawn the same are computed once, and nothing of that is seen in what they draw."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.generate import Engine, SamplingParams
from aftershock.generate.decoder import Decoder
from aftershock.models import load
from aftershock.models.native import build, step
from aftershock.sources import shipped_base
from aftershock.text import Tokenizer

pytestmark = pytest.mark.skipif(build.library() is None, reason=f"no native step: {build.why_not()}")
PROMPTS = ["Work out 3*7.", "Work out 12-5+", "Which is larger?", "试一试"]


@pytest.fixture(scope="module", params=["small-qwen", "nano"])
def loaded(request):
    folder = shipped_base("base" if request.param == "nano" else request.param)
    return load(folder, torch.float32), Tokenizer.load(folder)


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    if request.param == "large":
        monkeypatch.setattr(step, "_LARGE", 0)


def bits(completions):
    return [[(c.tokens, c.logprobs, c.sampled_logprobs, c.finish_reason) for c in group] for group in completions]


def counted(monkeypatch):
    """Return a list that gets, of each decoder made from now on, the count of rows that it fed."""
    made, new = [], Decoder.__init__

    def init(self, *given):
        new(self, *given)
        made.append(self._draws)

    monkeypatch.setattr(Decoder, "__init__", init)
    return made


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_sample_is_what_it_is_alone(loaded, size, temperature, threads, monkeypatch):
    model, tokenizer = loaded
    params = SamplingParams(n=9, max_tokens=50, temperature=temperature, stop=("then", ";"), logit_bias={1: 0.5})
    fed = counted(monkeypatch)
    torch.set_num_threads(threads)
    together = [Engine(model, tokenizer, max_rows=rows).generate(PROMPTS, params) for rows in (64, 10)]
    torch.set_num_threads(1)
    alone = Engine(model, tokenizer, max_rows=1).generate(PROMPTS, params)
    assert bits(together[0]) == bits(together[1]) == bits(alone)
    drawn = sum(len(completion.tokens) for group in alone for completion in group)
    assert fed[2].fed == drawn
    assert fed[0].fed < 0.9 * drawn


def test_nothing_is_shared_among_prompts(loaded, monkeypatch):
    model, tokenizer = loaded
    fed = counted(monkeypatch)
    params = SamplingParams(max_tokens=20, temperature=0.001)
    engine = Engine(model, tokenizer, max_rows=64)
    one, other = engine.generate([PROMPTS[0], PROMPTS[0] + " Then"], params)
    assert fed[0].fed == len(one[0].tokens) + len(other[0].tokens)


def test_of_samples_that_never_part_one_is_computed(loaded, size, monkeypatch):
    model, tokenizer = loaded
    fed = counted(monkeypatch)
    params = SamplingParams(n=8, max_tokens=30, temperature=0.001)
    (group,) = Engine(model, tokenizer, max_rows=64).generate(PROMPTS[:1], params)
    assert len({tuple(completion.tokens) for completion in group}) == 1
    assert fed[0].fed == len(group[0].tokens)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 20), st.integers(1, 40), st.sampled_from([0.2, 0.7, 1.5]), st.data())
def test_whatever_waits_and_whatever_ends(seed, samples, rows, temperature, data):
    folder = shipped_base("small-qwen")
    engine = Engine(load(folder, torch.float32), Tokenizer.load(folder), max_rows=rows)
    params = SamplingParams(n=samples, max_tokens=data.draw(st.integers(1, 40)), temperature=temperature, seed=seed)
    found = engine.generate(PROMPTS[:3], params)
    engine.max_rows = 1
    assert bits(found) == bits(engine.generate(PROMPTS[:3], params))
