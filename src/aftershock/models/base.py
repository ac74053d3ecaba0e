"""What every model of the family offers to training and to sampling."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aftershock.models.native.draws import Draws


@dataclass(frozen=True)
class Segments:
    """Several sequences laid end to end in one row: `bounds` Int[n + 1] are their cumulative lengths.

    Attention never crosses a bound, and positions start from 0 in each segment, but where `parents` Long[n] names
    another segment (-1 none): it goes on from that one's end and sees all that it sees, so that the samples of a group
    share one copy of their prompt, and of more. Segments lie depth first: a parent, which isn't empty, then each child
    with all that goes on from it. `longest` is the maximum of `lengths`.
    """

    bounds: Tensor
    longest: int
    parents: Tensor | None = None

    def to(self, device: torch.device) -> "Segments":
        """Return the same segments with their tensors on `device`."""
        parents = None if self.parents is None else self.parents.to(device)
        return Segments(self.bounds.to(device), self.longest, parents)

    def lengths(self) -> Tensor:
        """Return Long[n]: how far each segment reaches, those it goes on from included."""
        reach, above = self.bounds.long().diff(), self.parents
        while above is not None and (found := above >= 0).any():  # what each has summed up so far lies twice as far up
            reach, above = reach + reach[above].where(found, 0), above[above].where(found, -1)
        return reach

    def positions(self) -> Tensor:
        """Return Long[total]: how many tokens of its sequence lie before each one, in whichever segment."""
        bounds = self.bounds.long()
        own = bounds.diff()
        shift = bounds[:-1] - (self.lengths() - own)
        total = int(bounds[-1])
        return torch.arange(total, device=bounds.device) - shift.repeat_interleave(own, output_size=total)

    def before(self) -> Tensor:
        """Return Long[total]: where the token before each one lies; for the first token of all, -1."""
        places = torch.arange(int(self.bounds[-1]), device=self.bounds.device) - 1
        if self.parents is not None:
            child = self.parents >= 0
            places[self.bounds[:-1][child].long()] = self.bounds[1:][self.parents[child]].long() - 1
        return places


class KVCache(ABC):
    """Keys and values (or MLA's latents) of up to `rows` sequences of up to `capacity` tokens each.

    `room` of the capacity is laid out for use: products over keys with gaps between the rows take a CPU three times
    as long as over rows laid end to end, so room should grow with what is read.
    """

    rows: int
    capacity: int
    room: int

    @abstractmethod
    def copy_rows(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first `length` positions of rows `source` Long[n] to rows `target` Long[n], no source among them."""

    @abstractmethod
    def widen(self, room: int, rows: int) -> None:
        """Lay out the first `rows` rows, with what they hold, for `room` tokens each; the other rows are given up."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory held, in bytes."""


class LanguageModel(nn.Module, ABC):
    """A causal language model: `model(tokens)` returns logits [batch, time, vocab] for tokens Long[batch, time].

    `exact` says that its values don't depend on which form of the forward gave them, or beside what: see `make_exact`.
    """

    exact = False

    @abstractmethod
    def hidden(
        self,
        tokens: Tensor,
        *,
        segments: Segments | None = None,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden state after the final norm, [batch, time, hidden], for tokens Long[batch, time].

        Three forms. Plain: a causal forward over the batch. Packed: `segments` with tokens Long[1, total]. Cached:
        batch row i continues cache row `rows[i]` (Long[batch]; None means 0..batch-1), which already holds
        `starts[i]` tokens; the new keys are written at positions starts[i].. and each query sees the positions up
        to its own. Right padding is harmless: what it writes lies past the row's length and is overwritten later.
        """

    @property
    def head_weight(self) -> Tensor | None:
        """The [vocab, hidden] by which `logits` multiplies and does nothing else; None where it does."""
        return None

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output head: [..., hidden] -> [..., vocab]."""

    def head_into(self, hidden: Tensor, to: Tensor) -> None:
        """Write the logits of hidden [n, width] into `to` [n, vocab], where `head_weight` is all there is to it."""
        assert self.head_weight is not None
        torch.mm(hidden, self.head_weight.t(), out=to)

    @abstractmethod
    def new_cache(self, rows: int, capacity: int, room: int | None = None) -> KVCache:
        """Reserve a cache for `rows` sequences of `capacity` tokens, in the model's dtype and on its device.

        At least `room` of it is laid out, or all.
        """

    @abstractmethod
    def cache_bytes(self, rows: int, capacity: int) -> int:
        """Return what `new_cache` would reserve, in bytes, without reserving it."""

    @property
    def native(self) -> bool:
        """Whether `decode` is computed in C, where a row's bits never depend on how many rows there are."""
        return False

    @property
    def learns_natively(self) -> bool:
        """Whether a packed forward's passes are in C: in float32 on a CPU with a compiler."""
        return False

    def decode(self, tokens: Tensor, starts: Tensor, cache: KVCache) -> Tensor:
        """Return float32 logits [rows, vocab] for one token Long[rows] more in each of the cache's first rows.

        They hold `starts` Long[rows] tokens already.
        """
        return self.logits(self.hidden(tokens[:, None], cache=cache, starts=starts)[:, -1]).float()

    def run(self, draws: Draws, rows: int, count: int, cache: KVCache) -> bool:
        """Take up to `count` steps of the cache's first `rows`, and draw from each, as `draws` says, if native here.

        The cache's room must hold them. Otherwise return False, and do nothing: `decode` does it.
        """
        return False

    def prefill(self, prompts: Sequence[Sequence[int]], rows: Sequence[int], cache: KVCache) -> bool:
        """Feed each of `prompts`, none to many tokens, to the cache's empty row of `rows`, if that is native here.

        Otherwise return False, and do nothing: `hidden` does it.
        """
        return False

    def forward(self, tokens: Tensor, *, segments: Segments | None = None) -> Tensor:
        """Return logits [batch, time, vocab] for tokens Long[batch, time]; `segments` as in `hidden`."""
        return self.logits(self.hidden(tokens, segments=segments))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype
