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
        above = owner
        while segments.parents is not None and (above >= 0).any():
            above = segments.parents[above].where(above >= 0, -1)
            same |= above[:, None] == owner[None]
        see = see * same
    return see / see.sum(-1, keepdim=True)


def unpack(batches):
    """Read the sequences back from the tensors of batches, as samples of no group: each token, then what lies before.

    Where their tokens lie is checked against how far each segment is said to reach.
    """
    found = []
    for batch in batches:
        places, before, positions = batch.mask.nonzero()[:, 0], batch.segments.before(), batch.segments.positions()
        read = places if batch.reads is None else places[batch.reads]
        assert set(read.tolist()) == set(places.tolist())
        columns = (read, batch.sampler_logprobs, batch.advantages)
        for counted, logprobs, advantages in zip(*(column.split(batch.lengths.tolist()) for column in columns)):
            path = [int(counted[-1])]
            while positions[path[0]] > 0:
                path.insert(0, int(before[path[0]]))
            assert positions[path].tolist() == [*range(len(path))]
            assert path[-len(counted) :] == counted.tolist()
            assert advantages.unique().numel() == 1
            prompt, completion = batch.tokens[path].split([len(path) - len(counted), len(counted)])
            texts = tuple(prompt.tolist()), tuple(completion.tolist())
            found.append(Sample(*texts, tuple(logprobs.tolist()), advantages[0].item()))
    return found


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
