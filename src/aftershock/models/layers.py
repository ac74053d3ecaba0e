"""The small parts every block is made of: norm, gated MLP, and what one forward pass knows of its sequences."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aftershock.errors import CapacityError
from aftershock.models.base import Segments


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, hidden: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=bias)
        self.up_proj = nn.Linear(hidden, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@dataclass(frozen=True)
class Packing:
    """Where the tokens of packed segments go so that attention sees a padded batch, and how they come back.

    `pad` Long[segments * longest] picks a token for every padded place (past a segment's end, any token: causality
    hides it and its output is dropped); `unpad` Long[total] picks each token's place; `positions` Long[total].
    """

    pad: Tensor
    unpad: Tensor
    positions: Tensor
    longest: int

    @classmethod
    def of(cls, segments: Segments, total: int) -> "Packing":
        """Lay out segments over a row of `total` tokens."""
        bounds, longest = segments.bounds.long(), segments.longest
        owner = torch.searchsorted(bounds[1:], torch.arange(total, device=bounds.device), right=True)
        positions = torch.arange(total, device=bounds.device) - bounds[owner]
        places = bounds[:-1, None] + torch.arange(longest, device=bounds.device)
        return cls(places.clamp(max=total - 1).flatten(), owner * longest + positions, positions, longest)

    def spread(self, x: Tensor) -> Tensor:
        """[1, total, heads, dim] -> [segments, longest, heads, dim]."""
        return x[0].index_select(0, self.pad).unflatten(0, (-1, self.longest))

    def gather(self, x: Tensor) -> Tensor:
        """[segments, longest, heads, dim] -> [1, total, heads, dim]."""
        return x.flatten(0, 1).index_select(0, self.unpad).unsqueeze(0)


@dataclass(frozen=True)
class Slots:
    """The part of a cache that one forward touches: batch row i continues cache row `rows[i]` at `positions[i]`.

    `rows` is None where they are the first ones in order, so that reading is a slice. `length` is how far the
    longest row reaches after this forward. `mask` Bool[batch, time, length] says what each query sees; None where
    every row starts empty, so that plain causality is enough and nothing need be read.
    """

    rows: Tensor | None
    row_index: Tensor
    positions: Tensor
    length: int
    mask: Tensor | None

    @classmethod
    def of(cls, starts: Tensor, rows: Tensor | None, batch: int, time: int, capacity: int) -> "Slots":
        """Raise CapacityError where a row would outgrow the cache (padding included)."""
        first = torch.arange(batch, device=starts.device)
        if rows is not None and torch.equal(rows, first):
            rows = None
        length = int(starts.max()) + time
        if length > capacity:
            raise CapacityError(
                f"a cache row would hold {length} tokens, its capacity is {capacity}: reserve a longer cache "
                "(new_cache) or feed fewer tokens"
            )
        positions = starts[:, None] + torch.arange(time, device=starts.device)
        mask = None
        if length > time:
            mask = torch.arange(length, device=starts.device) <= positions[:, :, None]
        return cls(rows, (first if rows is None else rows)[:, None], positions, length, mask)

    def write(self, store: Tensor, new: Tensor) -> None:
        """Put new values [batch, time, ...] into a store [rows, capacity, ...]."""
        store[self.row_index, self.positions] = new.detach().to(store.dtype)

    def read(self, store: Tensor) -> Tensor:
        """Return what the rows hold, [batch, length, ...]; a view where rows are the first ones."""
        if self.rows is None:
            return store[: self.positions.shape[0], : self.length]
        return store[self.rows, : self.length]


@dataclass(frozen=True)
class Context:
    """What every layer of one forward shares: rotary tables [batch or 1, time, 1, dim] and how sequences lie."""

    cos: Tensor
    sin: Tensor
    packing: Packing | None = None
    slots: Slots | None = None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, packing: Packing | None) -> Tensor:
    """Causal attention over q, k, v [batch, time, heads, dim], within segments where packed; [batch, time, heads, v dim]."""
    if packing is not None:
        q, k, v = packing.spread(q), packing.spread(k), packing.spread(v)
    # The fused kernel wants heads of one size; MLA's values are narrower than its keys.
    value = F.pad(v, (0, q.shape[-1] - v.shape[-1])) if v.shape[-1] < q.shape[-1] else v
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        value.transpose(1, 2),
        is_causal=True,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    ).transpose(1, 2)[..., : v.shape[-1]]
    return out if packing is None else packing.gather(out)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Attention of q [batch, time, heads, dim] over a cache k, v [batch, length, kv heads, dim], grouped heads allowed.

    Heads that share keys are laid along the query axis, so that shared keys are read once and never repeated.
    """
    _, time, heads, _ = q.shape
    shared = heads // k.shape[2]
    folded = q.unflatten(2, (-1, shared)).permute(0, 2, 1, 3, 4).flatten(2, 3)
    seen = mask[:, None] if time == 1 else mask[:, None].repeat_interleave(shared, dim=2)
    out = F.scaled_dot_product_attention(folded, k.transpose(1, 2), v.transpose(1, 2), attn_mask=seen, scale=scale)
    return out.unflatten(2, (time, shared)).permute(0, 2, 1, 3, 4).flatten(2, 3)
