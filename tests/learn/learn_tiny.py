"""A language model of a few hundred weights, and random samples, for the tests of this folder."""

import functools
import random

import torch
from torch import nn

from aftershock.learn import Sample
from aftershock.models.base import LanguageModel

VOCAB = 23


class TinyModel(LanguageModel):
    """Each position sees the mean of the embeddings of its segment so far; enough to notice a wrong bound or shift."""

    def __init__(self, seed=0, tied=False):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, 12, _weight=torch.randn(VOCAB, 12, generator=rng))
        self.mix = nn.Parameter(torch.randn(12, 12, generator=rng) * 0.3)
        self.norm = nn.Parameter(torch.ones(12))
        self.head = nn.Linear(12, VOCAB, bias=False)
        self.head.weight = self.embed.weight if tied else nn.Parameter(torch.randn(VOCAB, 12, generator=rng) * 0.3)
        self.register_buffer("bias", torch.zeros(3))

    def hidden(self, tokens, *, segments=None, cache=None, rows=None, starts=None):
        x = self.embed(tokens)
        x = x + _see(tokens, segments).to(x.dtype) @ x
        return torch.tanh(x @ self.mix) * self.norm

    def logits(self, hidden):
        return self.head(hidden)

    def new_cache(self, rows, capacity):
        raise NotImplementedError

    def cache_bytes(self, rows, capacity):
        raise NotImplementedError


def _see(tokens, segments):
    total = tokens.shape[1]
    see = torch.tril(torch.ones(total, total))
    if segments is not None:
        owner = torch.bucketize(torch.arange(total), segments.bounds[1:], right=True)
        same = owner[:, None] == owner[None]
        if segments.parents is not None:
            same |= segments.parents[owner][:, None] == owner[None]
        see = see * same
    return see / see.sum(-1, keepdim=True)


def random_samples(seed, groups=3, size=3, longest=6, noise=0.3):
    """Return samples whose sampler log-probabilities are the model's `TinyModel()` ones, off by some noise."""
    return list(_random_samples(seed, groups, size, longest, noise))


@functools.cache
def _random_samples(seed, groups, size, longest, noise):
    rng, model = random.Random(seed), TinyModel()
    samples = []
    for group in range(groups):
        prompt = tuple(rng.randrange(VOCAB) for _ in range(rng.randint(1, 4)))
        for _ in range(size):
            completion = tuple(rng.randrange(VOCAB) for _ in range(rng.randint(1, longest)))
            logits = model(torch.tensor([prompt + completion])).detach().log_softmax(-1)[0]
            own = [logits[len(prompt) + i - 1, token].item() for i, token in enumerate(completion)]
            logprobs = tuple(value + rng.gauss(0, noise) for value in own)
            samples.append(Sample(prompt, completion, logprobs, rng.uniform(-2, 2), group))
    return samples
