"""Sequences of a training step, packed end to end into rows without padding."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aftershock.errors import TrainingError
from aftershock.models.base import Segments


@dataclass(frozen=True)
class Sample:
    """One rollout as the learner needs it.

    `logprobs` are the sampler's, one a completion token, under the model itself (before temperature and truncation);
    `advantage` is the whole completion's; `group` numbers the problem it was sampled for.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    logprobs: tuple[float, ...]
    advantage: float
    group: int = 0

    def __post_init__(self) -> None:
        if not self.prompt or not self.completion:
            raise TrainingError(
                f"a sample of group {self.group} has {len(self.prompt)} prompt and {len(self.completion)} completion "
                "tokens; both must have at least one: leave such a rollout out of the step"
            )
        if len(self.logprobs) != len(self.completion):
            raise TrainingError(
                f"a sample of group {self.group} has {len(self.logprobs)} log-probabilities for "
                f"{len(self.completion)} completion tokens; pass the engine's `logprobs` unchanged"
            )


@dataclass(frozen=True)
class Whole:
    """What all batches of one optimiser step hold together, by which losses divide.

    Dividing by the whole rather than by a batch's own counts makes every split into batches give the same gradient.
    `tokens` are those that count in the loss; `max_tokens` is the stage's limit, Dr. GRPO's constant divisor.
    """

    tokens: int
    sequences: int
    max_tokens: int = 0


@dataclass(frozen=True)
class Batch:
    """One row of sequences laid end to end: what one forward and backward takes.

    tokens: Long[total]. mask: Bool[total], True where the token's log-probability, predicted from the position
    before it, counts in the loss (never a sequence's first token). advantages: Float[total]. sequence: Long[total],
    the index of each token's sequence within this batch, for a shared prompt that of the first one after it.
    sampler_logprobs, old_logprobs (the learner's, before the first optimiser step on these rollouts) and
    reference_logprobs: Float[total], meaningful where mask is True; None where there are none. whole: the counts of the
    whole step.
    """

    tokens: Tensor
    segments: Segments
    mask: Tensor
    advantages: Tensor
    sequence: Tensor
    whole: Whole
    sampler_logprobs: Tensor | None = None
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch with its tensors on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, segments=self.segments.to(device), **moved)


@dataclass(frozen=True)
class _Row:
    """One sequence before packing; `logprobs` covers every token. `shared` ones come first, and rows share a copy."""

    tokens: Sequence[int]
    mask: Sequence[bool]
    advantage: float = 1.0
    logprobs: Sequence[float] | None = None
    shared: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.shared) + len(self.tokens)

    def joined(self) -> "_Row":
        """Return the row with a copy of its own."""
        size = len(self.shared)
        logprobs = None if self.logprobs is None else ((0.0,) * size + tuple(self.logprobs))
        return _Row((*self.shared, *self.tokens), (False,) * size + tuple(self.mask), self.advantage, logprobs)


def pack(samples: Sequence[Sample], micro_tokens: int, *, max_tokens: int = 0) -> list[Batch]:
    """Pack the samples of one optimiser step into batches of at most `micro_tokens` tokens of prompt and completion.

    Samples of one prompt lie together, and a batch holds (and computes) their prompt once. A sequence longer than
    `micro_tokens` gets a batch of its own. Deterministic: first fit, longest first, then the order given within and
    among batches. `max_tokens` is the stage's limit of a completion, which `dr_grpo` divides by.
    """
    same: dict[tuple[int, ...], list[_Row]] = {}
    for sample in samples:
        mask = (True,) * len(sample.completion)
        row = _Row(sample.completion, mask, sample.advantage, sample.logprobs, sample.prompt)
        same.setdefault(sample.prompt, []).append(row)
    units = [
        [rows[index] for index in members]
        for rows in same.values()
        for members in bins([*map(len, rows)], micro_tokens)
    ]
    return _pack_units(units, micro_tokens, max_tokens)


def pack_documents(
    documents: Sequence[Sequence[int]], micro_tokens: int, masks: Sequence[Sequence[bool]] | None = None
) -> list[Batch]:
    """Pack documents for next-token training: the loss is on every token but a document's first, or where its mask
    is True (a mask is as long as its document). Empty documents are refused.
    """
    masks = masks or [[False] + [True] * (len(document) - 1) for document in documents]
    for index, (document, mask) in enumerate(zip(documents, masks, strict=True)):
        if not document or len(mask) != len(document) or mask[0]:
            raise TrainingError(
                f"document {index} has {len(document)} tokens and a mask of {len(mask)}; it needs at least one token, "
                "a mask of the same length, and no loss on the first token, which nothing predicts"
            )
    return _pack_units([[_Row(tokens, mask)] for tokens, mask in zip(documents, masks)], micro_tokens)


def pack_scored(
    documents: Sequence[Sequence[int]], labels: Sequence[float], micro_tokens: int, together: int = 1
) -> list[Batch]:
    """Pack documents that a reward model scores: `mask` is True at a document's last token, where it is read, and
    `advantages` hold its label. Every `together` documents in a row (2 for a pair) share a batch, in their order.
    """
    masks = [[False] * (len(document) - 1) + [True] for document in documents]
    rows = [_Row(*row) for row in zip(documents, masks, labels, strict=True)]
    return _pack_units([rows[start : start + together] for start in range(0, len(rows), together)], micro_tokens)


def split(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """Split a rollout batch into at most `count` mini-batches, one optimiser step each, keeping groups whole.

    Groups stay in order and are shared out as evenly as their number allows.
    """
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    edges = [len(groups) * part // count for part in range(count + 1)]
    ordered = list(groups.values())
    parts = [[sample for group in ordered[low:high] for sample in group] for low, high in pairwise(edges)]
    return [part for part in parts if part]


def bins(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return indices of `lengths` in bins of at most `size` tokens (first fit, longest first), ordered by index.

    >>> bins([3, 9, 5, 4], size=8)
    [[0, 2], [1], [3]]
    """
    held: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((b for b, free in enumerate(room) if free >= lengths[index]), len(held))
        if place == len(held):
            held.append([])
            room.append(size)
        held[place].append(index)
        room[place] -= lengths[index]
    return sorted(sorted(members) for members in held)


def _pack_units(units: Sequence[Sequence[_Row]], micro_tokens: int, max_tokens: int = 0) -> list[Batch]:
    """Pack rows into batches, those of a unit into one."""
    rows = [row for unit in units for row in unit]
    whole = Whole(sum(sum(row.mask) for row in rows), len(rows), max_tokens)
    members = bins([sum(map(len, unit)) for unit in units], micro_tokens)
    return [_lay([row for index in indices for row in units[index]], whole) for indices in members]


def _lay(rows: Sequence[_Row], whole: Whole) -> Batch:
    """Lay rows end to end into one batch; what several share is laid once, before the first of them."""
    laid: list[tuple[int, _Row, int]] = []  # the sequence's index, what it lays, and where in `laid` its parent is
    homes: dict[tuple[int, ...], int] = {}
    readers = Counter(row.shared for row in rows)
    for number, row in enumerate(rows):
        if row.shared and readers[row.shared] > 1 and row.shared not in homes:
            homes[row.shared] = len(laid)
            laid.append((number, _Row((), (), 0.0, (), row.shared).joined(), -1))
        home = homes.get(row.shared, -1)
        laid.append((number, row.joined() if home < 0 else row, home))
    numbers, pieces, parents = zip(*laid)
    lengths = [len(piece.tokens) for piece in pieces]
    repeats = torch.tensor(lengths)
    logprobs = _joined((piece.logprobs or () for piece in pieces), np.float32)
    return Batch(
        tokens=_joined((piece.tokens for piece in pieces), np.int64),
        segments=Segments(
            bounds=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
            longest=max(map(len, rows)),
            parents=torch.tensor(parents) if homes else None,
        ),
        mask=_joined((piece.mask for piece in pieces), np.bool_),
        advantages=torch.tensor([piece.advantage for piece in pieces], dtype=torch.float32).repeat_interleave(repeats),
        sequence=torch.tensor(numbers).repeat_interleave(repeats),
        whole=whole,
        sampler_logprobs=logprobs if len(logprobs) else None,
    )


def _joined(parts: Iterable[Sequence[float]], kind: type[np.generic]) -> Tensor:
    """Return the parts end to end; by numpy, which takes a third of PyTorch's time to read a list."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(parts), kind))
