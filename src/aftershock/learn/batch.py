"""Sequences of a training step, packed end to end into rows without padding."""

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
    before it, counts in the loss (never a sequence's first token). lengths: Long[sequences], how many tokens of each
    count, m in all; what lies in several sequences counts in each. reads: Long[m], which of the tokens where mask is
    True each of those is, sequence after sequence; None where it is each one in order. advantages, sampler_logprobs,
    old_logprobs (the learner's, before the first optimiser step on these rollouts) and reference_logprobs: Float[m],
    None where there are none. whole: the counts of the whole step.
    """

    tokens: Tensor
    segments: Segments
    mask: Tensor
    lengths: Tensor
    advantages: Tensor
    whole: Whole
    reads: Tensor | None = None
    sampler_logprobs: Tensor | None = None
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch with its tensors on `device`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, segments=self.segments.to(device), **moved)

    def counted(self, values: Tensor) -> Tensor:
        """Return [m] of the values [kept] that were computed of the tokens where mask is True, with gradient."""
        return values if self.reads is None else values.index_select(0, self.reads)


@dataclass(frozen=True)
class _Row:
    """One sequence before packing; `logprobs` has those of the tokens that count. `shared` ones come first."""

    tokens: Sequence[int]
    mask: Sequence[bool]
    advantage: float = 1.0
    logprobs: Sequence[float] = ()
    shared: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.shared) + len(self.tokens)


def pack(samples: Sequence[Sample], micro_tokens: int, *, max_tokens: int = 0, deep: bool = False) -> list[Batch]:
    """Pack the samples of one optimiser step into batches of at most `micro_tokens` tokens of prompt and completion.

    Samples of one prompt lie together, and a batch holds (and computes) their prompt once; if `deep`, also what their
    completions begin with alike, as a tree of prefixes. That is for models whose attention computes none of it anew
    for each reader (`Learner.shares_deeply`). A sequence longer than `micro_tokens`, which counts what is shared with
    each reader, gets a batch of its own. Deterministic: first fit, longest first, then the order given within and among
    batches. `max_tokens` is the stage's limit of a completion, which `dr_grpo` divides by.
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
    return _pack_units(units, micro_tokens, max_tokens, deep)


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


def _pack_units(
    units: Sequence[Sequence[_Row]], micro_tokens: int, max_tokens: int = 0, deep: bool = False
) -> list[Batch]:
    """Pack rows into batches, those of a unit, which share the same tokens or none, into one."""
    rows = [row for unit in units for row in unit]
    whole = Whole(sum(sum(row.mask) for row in rows), len(rows), max_tokens)
    members = bins([sum(map(len, unit)) for unit in units], micro_tokens)
    return [_lay([units[index] for index in indices], whole, deep) for indices in members]


@dataclass(frozen=True)
class _Piece:
    """Tokens `start` to `end` of a row, laid for all that begin with them; `parent` numbers what they go on from."""

    row: _Row
    start: int
    end: int
    parent: int

    def tokens(self) -> Sequence[int]:
        return (*self.row.shared, *self.row.tokens)[self.start : self.end]

    def mask(self) -> Sequence[bool]:
        return ((False,) * len(self.row.shared) + tuple(self.row.mask))[self.start : self.end]


def _lay(units: Sequence[Sequence[_Row]], whole: Whole, deep: bool) -> Batch:
    """Lay rows end to end into one batch; what several of a unit share is laid once."""
    pieces: list[_Piece] = []
    ends: list[int] = []  # the piece in which each row ends
    for unit in units:
        ends += _branch(unit, pieces, deep)
    rows = [row for unit in units for row in unit]
    masks, parents = [piece.mask() for piece in pieces], [piece.parent for piece in pieces]
    bounds = [0, *accumulate(piece.end - piece.start for piece in pieces)]
    lengths = np.array([sum(row.mask) for row in rows])
    logprobs = _joined((row.logprobs for row in rows), np.float32)
    return Batch(
        tokens=_joined((piece.tokens() for piece in pieces), np.int64),
        segments=Segments(
            bounds=torch.tensor(bounds, dtype=torch.int32),
            longest=max(map(len, rows)),
            parents=torch.tensor(parents) if max(parents) >= 0 else None,
        ),
        mask=_joined(masks, np.bool_),
        lengths=torch.from_numpy(lengths),
        advantages=torch.from_numpy(np.repeat(np.array([row.advantage for row in rows], np.float32), lengths)),
        whole=whole,
        reads=_reads([*map(sum, masks)], parents, ends) if deep else None,
        sampler_logprobs=logprobs if len(logprobs) else None,
    )


def _branch(rows: Sequence[_Row], pieces: list[_Piece], deep: bool) -> list[int]:
    """Add the tree of some rows to the pieces, depth first, and return the piece in which each row ends.

    Not `deep`, nothing but `shared` tokens is shared. Branches lie in the order of their first rows.
    """
    texts, size = [tuple(row.tokens) for row in rows], len(rows[0].shared)
    order = sorted(range(len(rows)), key=texts.__getitem__) if deep else [*range(len(rows))]
    alike = [0, *(size + (_common(texts[a], texts[b]) if deep else 0) for a, b in pairwise(order))]
    ends = [0] * len(rows)
    todo = [(0, len(rows), 0, -1)]  # rows low to high in `order`, laid up to `start`, which lies in `parent`
    while todo:
        low, high, start, parent = todo.pop()
        row = rows[order[low]]
        end = min(alike[low + 1 : high], default=len(row))
        if end > start:
            pieces.append(_Piece(row, start, end, parent))
            parent = len(pieces) - 1
        if high - low == 1:
            ends[order[low]] = parent
            continue
        cuts = [low, *(at for at in range(low + 1, high) if alike[at] == end), high]
        parts = sorted(pairwise(cuts), key=lambda part: min(order[slice(*part)]), reverse=True)
        todo += [(*part, end, parent) for part in parts]
    return ends


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two begin with alike."""
    alike = (at for at, (a, b) in enumerate(zip(one, other)) if a != b)
    return next(alike, min(len(one), len(other)))


def _reads(counts: Sequence[int], parents: Sequence[int], ends: Sequence[int]) -> Tensor | None:
    """Return `Batch.reads` where `counts` tokens of each piece count; None where each is read by one row, in order."""
    paths = []
    for end in ends:
        path = [end]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        paths += path[::-1]
    own = np.array(counts)
    size, start = own[paths], (own.cumsum() - own)[paths]
    reads = np.arange(size.sum()) + np.repeat(start - (size.cumsum() - size), size)
    return None if len(reads) == own.sum() else torch.from_numpy(reads)


def _joined(parts: Iterable[Sequence[float]], kind: type[np.generic]) -> Tensor:
    """Return the parts end to end; by numpy, which takes a third of PyTorch's time to read a list."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(parts), kind))
