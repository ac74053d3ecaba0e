"""Sequences of a training step, packed end to end into rows without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any

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
    the index of each token's sequence within this batch. sampler_logprobs, old_logprobs (the learner's, before the
    first optimiser step on these rollouts) and reference_logprobs: Float[total], meaningful where mask is True;
    None where there are none. whole: the counts of the whole step.
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
        return replace(self, segments=replace(self.segments, bounds=self.segments.bounds.to(device)), **moved)


@dataclass(frozen=True)
class _Row:
    """One sequence before packing; `logprobs` covers every token, with zeros where none was sampled."""

    tokens: Sequence[int]
    mask: Sequence[bool]
    advantage: float = 1.0
    logprobs: Sequence[float] | None = None


def pack(samples: Sequence[Sample], micro_tokens: int, *, max_tokens: int = 0) -> list[Batch]:
    """Pack the samples of one optimiser step into batches of at most `micro_tokens` tokens.

    A sequence longer than that gets a batch of its own. Deterministic: first fit, longest first, then the order given
    within and among batches. `max_tokens` is the stage's limit of a completion, which `dr_grpo` divides by.
    """
    rows = [
        _Row(
            tokens=sample.prompt + sample.completion,
            mask=(False,) * len(sample.prompt) + (True,) * len(sample.completion),
            advantage=sample.advantage,
            logprobs=(0.0,) * len(sample.prompt) + sample.logprobs,
        )
        for sample in samples
    ]
    return _pack_rows(rows, micro_tokens, max_tokens)


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
    return _pack_rows([_Row(tokens, mask) for tokens, mask in zip(documents, masks)], micro_tokens, 0)


def pack_scored(
    documents: Sequence[Sequence[int]], labels: Sequence[float], micro_tokens: int, together: int = 1
) -> list[Batch]:
    """Pack documents that a reward model scores: `mask` is True at a document's last token, where it is read, and
    `advantages` hold its label. Every `together` documents in a row (2 for a pair) share a batch, in their order.
    """
    masks = [[False] * (len(document) - 1) + [True] for document in documents]
    rows = [_Row(*row) for row in zip(documents, masks, labels, strict=True)]
    return _pack_rows(rows, micro_tokens, 0, together)


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


def _pack_rows(rows: Sequence[_Row], micro_tokens: int, max_tokens: int, together: int = 1) -> list[Batch]:
    whole = Whole(sum(sum(row.mask) for row in rows), len(rows), max_tokens)
    units = [rows[start : start + together] for start in range(0, len(rows), together)]
    members = bins([sum(len(row.tokens) for row in unit) for unit in units], micro_tokens)
    return [_lay([row for index in indices for row in units[index]], whole) for indices in members]


def _lay(rows: Sequence[_Row], whole: Whole) -> Batch:
    """Lay rows end to end into one batch."""
    lengths = [len(row.tokens) for row in rows]
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    repeats = torch.tensor(lengths)
    logprobs = [value for row in rows for value in row.logprobs or ()]
    return Batch(
        tokens=torch.tensor([token for row in rows for token in row.tokens], dtype=torch.long),
        segments=Segments(bounds, max(lengths)),
        mask=torch.tensor([flag for row in rows for flag in row.mask], dtype=torch.bool),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float32).repeat_interleave(repeats),
        sequence=torch.arange(len(rows)).repeat_interleave(repeats),
        whole=whole,
        sampler_logprobs=torch.tensor(logprobs, dtype=torch.float32) if logprobs else None,
    )
