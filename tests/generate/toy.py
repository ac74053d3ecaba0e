"""A model small enough to reason about: one attention layer over a plain KV cache, as models.base asks."""

import math
from types import SimpleNamespace

import torch
from torch import nn

from aftershock.models.base import KVCache, LanguageModel
from aftershock.text import train_tokenizer

HEADS = 4
TEXTS = ["try 3*7+5=26, too big; no. yes, that works.", "试一试 3*7+5=26，太大了；"] * 30


class ToyCache(KVCache):
    def __init__(self, rows, capacity, room, width):
        self.rows, self.capacity, self.room = rows, capacity, room
        self.keys = torch.zeros(rows, room, width)
        self.values = torch.zeros(rows, room, width)
        self.copied = []

    def copy_rows(self, source, target, length):
        self.copied.append((source.tolist(), target.tolist(), length))
        for held in (self.keys, self.values):
            held[target, :length] = held[source, :length]

    def widen(self, room, rows):
        assert self.room < room <= self.capacity
        for name in ("keys", "values"):
            old = getattr(self, name)
            setattr(self, name, torch.zeros(rows, room, old.shape[-1]))
            getattr(self, name)[:, : self.room] = old[:rows]
        self.rows, self.room = rows, room

    @property
    def bytes(self):
        return 8 * self.rows * self.capacity * self.keys.shape[-1]


class ToyLM(LanguageModel):
    """`calls` records (batch, time, starts) of every forward, so that tests can see what the scheduler did.

    Every matrix product has at least four rows and sixteen columns, so that each row's bits don't depend on the rest.
    """

    def __init__(self, vocab=300, width=64, positions=4096, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(vocab_size=vocab, max_position_embeddings=positions)
        self.embed = nn.Embedding(vocab, width)
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(width, width // HEADS) for _ in range(2))
        self.head = nn.Linear(width, vocab)
        self.dropout = nn.Dropout(0.5)  # so that a forgotten eval() is seen
        self.calls, self.prefilled, self.caches = [], [], []

    def hidden(self, tokens, *, segments=None, cache=None, rows=None, starts=None):
        self.calls.append((*tokens.shape, None if starts is None else starts.tolist()))
        x = self.dropout(self.embed(tokens) * 3)
        batch, time, width = x.shape
        at = torch.arange(time).expand(batch, time) + (0 if starts is None else starts[:, None])
        x = x + torch.sin(at[..., None] * (1 + torch.arange(width)) / width)
        keys, values = self.key(x), self.value(x)
        if cache is not None:
            assert int(at.max()) < cache.room
            if rows is not None:
                self.prefilled.append((tokens.tolist(), starts.tolist()))
            rows = torch.arange(batch) if rows is None else rows
            cache.keys[rows[:, None], at] = keys
            cache.values[rows[:, None], at] = values
            longest = -(-(int(at.max()) + 1) // 16) * 16
            keys, values = cache.keys[rows, :longest], cache.values[rows, :longest]
        scores = self.query(x).view(batch, time * HEADS, -1) @ keys.mT
        unseen = (torch.arange(keys.shape[1]) > at[..., None]).repeat_interleave(HEADS, 1)
        return x + (scores.masked_fill(unseen, -math.inf).softmax(-1) @ values).view(batch, time, width)

    def logits(self, hidden):
        return self.head(hidden)

    def new_cache(self, rows, capacity, room=None):
        self.caches.append(ToyCache(rows, capacity, room or capacity, self.key.out_features))
        return self.caches[-1]

    def cache_bytes(self, rows, capacity):
        return 8 * rows * capacity * self.key.out_features


def toy_tokenizer():
    return train_tokenizer(TEXTS, 300)
