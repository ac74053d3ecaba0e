"""The small parts every block is made of: norm, gated MLP, and what one forward pass knows of its sequences."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aftershock.errors import CapacityError
from aftershock.models import rope
from aftershock.models.base import Segments
from aftershock.models.native import linear
from aftershock.models.native import train as native
from aftershock.models.native.attend import Spans, attend

_BLOCKS = 2  # padded blocks that packed segments are sorted into, for each doubling of their length
_SHORT = 384  # up to this length, on a CPU, plain matrix products beat the fused kernel (fivefold in bfloat16)

_LARGE = 1 << 19  # weights, 2 MiB in float32: more than a core's own cache holds here
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def narrowed(x: Tensor) -> Tensor:
    """Cast to autocast's dtype where autocast is on, once for all the products that read x."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32; by one pass in C where a learner's forward can."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return native.rms_norm(x, self.weight, self.eps) if native.serves(x, self.weight) else self.plain(x)

    def after(self, x: Tensor, more: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x + more, or x, and its norm; in one pass where C computes, and so the gradient that both give x."""
        if native.serves(x, self.weight, *([] if more is None else [more])):
            return native.add_norm(x, more, self.weight, self.eps)
        x = x if more is None else x + more
        return x, self(x)

    def plain(self, x: Tensor) -> Tensor:
        """Return it by PyTorch alone."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return F.linear(x, weight, bias): a learner's small layers in C, and sampling's large ones by oneDNN, on a CPU.

    At 4 to 64 rows of a layer that lies in memory oneDNN takes two thirds of MKL's time, and from 2 rows on a row's
    bits don't depend on their number (docs/log.md). The bits are not MKL's; small layers are quicker there.
    """
    if linear.serves(x, weight):
        return linear.linear(x, weight, bias)
    plain = not torch.is_inference_mode_enabled() or weight.numel() < _LARGE
    if plain or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.float32 or not _ONEDNN:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """A linear layer by `product`."""

    in_place = False  # whether an exact model's decoding reads the matrix where it lies

    def native(self, x: Tensor) -> bool:
        """Whether C multiplies x."""
        return linear.serves(x, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., out] for x [..., in]."""
        return product(x, self.weight, self.bias)


def linears(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Return what each layer gives for x; where C multiplies, in one pass, and so x's gradient."""
    alike = [layer for layer in layers if isinstance(layer, Linear) and layer.native(x)]
    if len(alike) < len(layers):
        return tuple(layer(x) for layer in layers)
    weights, biases = [layer.weight for layer in alike], [layer.bias for layer in alike]
    return linear.linears(x, weights, biases, alike[0].in_place)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, hidden: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, inner, bias=bias)
        self.up_proj = Linear(hidden, inner, bias=bias)
        self.down_proj = Linear(inner, hidden, bias=bias)

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        """Return `more` and what it gives for x, both [..., hidden]; one step of a backward where C multiplies."""
        layers = self.gate_proj, self.up_proj, self.down_proj
        if all(isinstance(layer, Linear) and layer.native(x) for layer in layers):
            weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
            return linear.gated_mlp(x, more, weights, biases, self.gate_proj.in_place)
        return more + self.down_proj(self.gated(*linears(x, self.gate_proj, self.up_proj)))

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return silu(gate) * up."""
        return native.gated(gate, up) if native.serves(gate, up) else F.silu(gate) * up


@dataclass(frozen=True)
class Packing:
    """Where the tokens of packed segments go so that attention sees padded batches, and how they come back.

    Segments of like length share a padded block, `shapes` (segments, longest). `pad` Long[places] picks
    a token for every place of every block (past a segment's end, any token: causality hides it and its output is
    dropped); what a segment goes on from is picked before its own tokens, for each anew. Per token, Long[total]:
    `places`, where its segment begins in the blocks laid end to end; `spans`, its block's longest; `positions`, its
    own within the sequence.
    """

    shapes: list[tuple[int, int]]
    pad: list[Tensor]
    places: Tensor
    spans: Tensor
    positions: Tensor

    @classmethod
    def of(cls, segments: Segments, total: int) -> "Packing":
        """Lay out segments over a row of `total` tokens."""
        bounds = segments.bounds.long()
        own, lengths = bounds.diff(), segments.lengths()
        shared = lengths - own
        firsts, spans = torch.empty_like(lengths), torch.empty_like(lengths)
        shapes, pad, filled = [], [], 0
        for chosen in _by_length(lengths):
            longest = int(lengths[chosen[-1]])
            if longest == 0:
                continue
            steps = torch.arange(longest, device=bounds.device)
            at, gap = chosen[:, None], shared[chosen, None]
            index = bounds[at] + steps - gap
            while segments.parents is not None and (gap > 0).any():
                at, inside = segments.parents[at], steps < gap
                gap = shared[at].where(gap > 0, 0)
                index = torch.where(inside, bounds[at] + steps - gap, index)
            pad.append(index.clamp(max=total - 1))
            firsts[chosen] = filled + torch.arange(len(chosen), device=bounds.device) * longest
            spans[chosen] = longest
            shapes.append((len(chosen), longest))
            filled += len(chosen) * longest
        owner = torch.arange(len(own), device=bounds.device).repeat_interleave(own, output_size=total)
        return cls(shapes, pad, firsts[owner], spans[owner], segments.positions())

    def spread(self, x: Tensor, heads: int) -> list[Tensor]:
        """[1, total, kv heads, dim] -> one [segments, heads, longest, dim] a block; shared heads are repeated."""
        head = torch.arange(heads, device=x.device) // (heads // x.shape[2])
        rows = x.flatten(0, 2)
        indices = [(pad[:, None] * x.shape[2] + head[:, None]).flatten() for pad in self.pad]
        return [rows.index_select(0, i).view(n, heads, longest, -1) for i, (n, longest) in zip(indices, self.shapes)]

    def gather(self, blocks: list[Tensor]) -> Tensor:
        """One [segments, heads, longest, dim] a block -> [1, total, heads, dim]."""
        heads = blocks[0].shape[1]
        head = torch.arange(heads, device=self.places.device)
        places = (self.places * heads + self.positions)[:, None] + head * self.spans[:, None]
        rows = torch.cat([block.flatten(0, 2) for block in blocks])
        return rows.index_select(0, places.flatten()).view(1, -1, heads, rows.shape[-1])


def _by_length(lengths: Tensor) -> list[Tensor]:
    """Return the numbers of segments in blocks of like length: a long segment in a block of many pads them all."""
    order = lengths.argsort(stable=True)
    levels = (lengths[order].log2() * _BLOCKS).floor()
    return list(order.split(levels.unique_consecutive(return_counts=True)[1].tolist()))


READ_STEP = 16  # positions; below, the kernels of a batched product over the cache change with its length


@dataclass(frozen=True)
class Slots:
    """The part of a cache that one forward touches: batch row i continues cache row `rows[i]` at `positions[i]`.

    `rows` is None where they are the first ones in order, so that reading is a slice. `length` is how far is read: as
    far as the longest row reaches after this forward, rounded up. `bias` Float[batch, time, length] is 0 where a query
    sees a position and -inf elsewhere; None where every row starts empty, so that plain causality is enough and nothing
    need be read.
    """

    rows: Tensor | None
    row_index: Tensor
    positions: Tensor
    length: int
    bias: Tensor | None

    @classmethod
    def of(cls, starts: Tensor, rows: Tensor | None, time: int, length: int) -> "Slots":
        """Continue rows that hold `starts` Long[batch] tokens by `time` more, where `length` is read."""
        first = torch.arange(starts.shape[0], device=starts.device)
        if rows is not None and torch.equal(rows, first):
            rows = None
        positions = starts[:, None] + torch.arange(time, device=starts.device)
        bias = None
        if length > time:
            hidden = torch.arange(length, device=starts.device) > positions[:, :, None]
            bias = torch.zeros(hidden.shape, device=starts.device).masked_fill_(hidden, float("-inf"))
        return cls(rows, (first if rows is None else rows)[:, None], positions, length, bias)

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
    spans: Spans | None = None  # in place of `packing` where a learner's passes are native
    slots: Slots | None = None
    exact: bool = False  # whether the model is exact, with its parts in C

    def rotate(self, *xs: Tensor, interleave: bool) -> tuple[Tensor, ...]:
        """Rotate the pairs of each [batch, time, heads, dim] by the tables, neighbours or half a head apart."""
        if self.exact or self.spans is not None:
            return native.rotate_all(xs, self.cos, self.sin, interleave=interleave)
        return tuple(rope.rotate(x, self.cos, self.sin, interleave=interleave) for x in xs)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Return what q, k, v [batch, time, heads, dim] see of each other, as `causal_attention` does."""
        if self.spans is not None:
            return attend(q, k, v, scale, self.spans)
        return causal_attention(q, k, v, scale, self.packing)


def read_length(starts: Tensor, time: int, room: int) -> int:
    """Return how far a cache is read; CapacityError where a row would outgrow it (padding included)."""
    length = int(starts.max()) + time
    if length > room:
        raise CapacityError(
            f"a cache row would hold {length} tokens, its room is {room}: reserve a longer cache (new_cache), "
            "widen it or feed fewer tokens"
        )
    # What is read is rounded up, so that a row's bits don't depend on the longest of its batch; few positions even
    # where all rows are empty, as otherwise they would be computed in the form without a cache.
    if length > time or time < READ_STEP:
        length = min(-(-length // READ_STEP) * READ_STEP, room)
    return length


def cached_context(
    starts: Tensor, rows: Tensor | None, time: int, cos: Tensor, sin: Tensor, *, exact: bool = False
) -> Context:
    """Return the context of a cached forward; the tables [length, dim] end where reading does."""
    slots = Slots.of(starts, rows, time, cos.shape[0])
    cos, sin = (table[slots.positions].unsqueeze(2) for table in (cos, sin))
    return Context(cos, sin, slots=slots, exact=exact)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, packing: Packing | None) -> Tensor:
    """Causal attention over q, k, v [batch, time, heads, dim], within segments where packed; heads may be shared.

    Returns [batch, time, heads, value dim].
    """
    heads = q.shape[2]
    if packing is not None:
        parts = zip(packing.spread(q, heads), packing.spread(k, heads), packing.spread(v, heads))
        return packing.gather([_causal(*part, scale) for part in parts])
    shared = heads // k.shape[2]
    if shared > 1:
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
    return _causal(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale).transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention over q, k, v [batch, heads, time, dim]."""
    batch, heads, time, _ = q.shape
    if q.device.type == "cpu" and time <= _SHORT:
        bias = torch.full((time, time), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        scores = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=scale)
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
        return torch.bmm(weights, v.flatten(0, 1)).unflatten(0, (batch, heads))
    # The fused kernel wants heads of one size; MLA's values are narrower than its keys.
    value = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
    return F.scaled_dot_product_attention(q, k, value, is_causal=True, scale=scale)[..., : v.shape[-1]]


def cached_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor) -> Tensor:
    """Attention of q [batch, time, heads, dim] over a cache k, v [batch, length, kv heads, dim]; `bias` as in Slots.

    Heads that share keys are laid along the query axis, so that shared keys are read once and never repeated.
    """
    (batch, time, heads, _), kv_heads = q.shape, k.shape[2]
    shared = heads // kv_heads
    folded = q.unflatten(2, (kv_heads, shared)).permute(0, 2, 1, 3, 4).flatten(2, 3)
    seen = (bias if time == 1 else bias.repeat_interleave(shared, dim=1))[:, None].to(q.dtype)
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    if q.device.type == "cpu":  # one small product a row and head takes less than the fused kernel's walk over them
        seen = seen.expand(-1, kv_heads, -1, -1).flatten(0, 1).expand(-1, time * shared, -1)
        scores = torch.baddbmm(seen, folded.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale)
        weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        out = torch.bmm(weights, values.flatten(0, 1)).unflatten(0, (batch, kv_heads))
    else:
        out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=seen, scale=scale)
    return out.unflatten(2, (time, shared)).permute(0, 2, 1, 3, 4).flatten(2, 3)
