"""The sequences being decoded, one a row of the cache, kept in host memory as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BYTES_A_TOKEN = 12  # of the record: int32 token and two float32 log-probabilities


class Request(NamedTuple):
    """One completion wanted: sample number `sample` of prompt number `prompt`; `key` addresses its randomness."""

    prompt: int
    sample: int
    key: int


@dataclass(frozen=True)
class Group:
    """The requests that share a prompt: it is prefilled once for all of them."""

    tokens: tuple[int, ...]
    requests: list[Request]


class Rows:
    """State of every row; rows 0..active-1 are in use, the others rest at length 0.

    `last` is the token to feed next, `lengths` how many the cache holds before it, `steps` how many were drawn,
    `groups` its prompt's number. What was drawn is recorded in `tokens`, `logprobs` and `sampled_logprobs`
    [rows, max_tokens].
    """

    def __init__(self, count: int, max_tokens: int) -> None:
        self.active = 0
        self.owners: list[Request | None] = [None] * count
        self.last = np.zeros(count, dtype=np.int64)
        self.lengths = np.zeros(count, dtype=np.int64)
        self.steps = np.zeros(count, dtype=np.int64)
        self.groups = np.zeros(count, dtype=np.int64)
        self.keys = np.zeros(count, dtype=np.uint64)
        self.tokens = np.zeros((count, max_tokens), dtype=np.int32)
        self.logprobs = np.zeros((count, max_tokens), dtype=np.float32)
        self.sampled_logprobs = np.zeros((count, max_tokens), dtype=np.float32)
        self.state: list[np.ndarray] = [
            self.groups,
            self.keys,
            self.last,
            self.lengths,
            self.steps,
            self.tokens,
            self.logprobs,
            self.sampled_logprobs,
        ]
        self._index = np.arange(count)

    def place(self, row: int, request: Request, prompt: Sequence[int]) -> None:
        """Begin `request` in `row`, whose cache holds all of the prompt but its last token."""
        self.owners[row] = request
        self.last[row] = prompt[-1]
        self.lengths[row] = len(prompt) - 1
        self.steps[row] = 0
        self.groups[row] = request.prompt
        self.keys[row] = request.key

    def move(self, source: list[int], target: list[int]) -> None:
        """Put the sequences of rows `source` into rows `target`."""
        for array in (self.last, self.lengths, self.steps, self.groups, self.keys):
            array[target] = array[source]
        longest = int(self.steps[source].max())
        for record in (self.tokens, self.logprobs, self.sampled_logprobs):
            record[target, :longest] = record[source, :longest]
        for old, new in zip(source, target):
            self.owners[new] = self.owners[old]

    def shrink(self, active: int) -> None:
        """Let rows from `active` on rest."""
        self.last[active:] = 0
        self.lengths[active:] = 0
        self.active = active

    def owner(self, row: int) -> Request:
        """Return whose completion is in a row that is in use."""
        request = self.owners[row]
        assert request is not None
        return request

    def forwards(self, row: int) -> int:
        """Return how many forwards of the model have drawn the row's tokens."""
        return int(self.steps[row])

    def record(
        self, tokens: np.ndarray, logprobs: np.ndarray, sampled_logprobs: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        """Write down one drawn token for each active row, or each of `rows` Int[n]; each argument is as long."""
        rows = self._index[: self.active] if rows is None else rows
        here = (rows, self.steps[rows])
        self.tokens[here] = tokens
        self.logprobs[here] = logprobs
        self.sampled_logprobs[here] = sampled_logprobs
        self.last[rows] = tokens
        self.lengths[rows] += 1
        self.steps[rows] += 1
