"""Operations whose rows come out the same to the bit, whatever else is computed with them.

Matrix libraries pick a kernel by shape, and kernels sum in different orders; vectorised functions treat the last few
values apart. Here every product sees shapes whose kernels agree (docs/exactness.md has the causes, each measured): on a
CPU rows and keys are padded; elsewhere products run in tiles of one fixed shape.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS = 8  # a product's rows are a multiple of it; below 4 a thread, MKL takes another kernel
FEW = (4, 8, 16)  # rows, terms of the sum, columns: with fewer, products of many take other kernels
KEYS = 16  # keys are padded to a multiple of it: softmax sums 16 lanes, and products of fewer than 12 columns differ
SPAN = 192  # keys summed in one product: MKL cuts longer sums in parts, whose size depends on the length
PLACES = 256  # query positions whose scores are held at once; the backward computes them again
_TILE = (32, 16, 128)  # batch, rows and columns of one product of many, where tiled
_TILE_ROWS = 256  # rows of one linear product, where tiled: fewer cost a GPU as much, their weights' reading


def tiled(x: Tensor) -> bool:
    """Whether products run in tiles of one shape: everywhere but on a CPU, whose kernels agree from a few rows on."""
    return x.device.type != "cpu"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return F.linear(x, weight, bias) for x [..., in]."""
    rows = x.flatten(0, -2)
    if tiled(x):
        parts = _padded(rows, 0, _TILE_ROWS).split(_TILE_ROWS)
        out = torch.cat([F.linear(part, weight, bias) for part in parts])
    else:
        out = F.linear(_padded(rows, 0, ROWS), weight, bias)
    return _cut(out, 0, len(rows)).unflatten(0, x.shape[:-1])


def product(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """Return a b + plus for a [n, rows, k], b [n, k, columns] and plus [n or 1, rows or 1, columns].

    k is always the same, or at most SPAN.
    """
    n, rows, columns = len(a), a.shape[1], b.shape[2]
    if not tiled(a):
        a, b = _at_least(_at_least(a, 1, FEW[0]), 2, FEW[1]), _at_least(_at_least(b, 1, FEW[1]), 2, FEW[2])
        out = torch.bmm(a, b) if plus is None else torch.baddbmm(plus, a, b)
        return _cut(_cut(out, 1, rows), 2, columns)
    a, b = _padded(_padded(a, 0, _TILE[0]), 1, _TILE[1]), _padded(_padded(b, 0, _TILE[0]), 2, _TILE[2])
    pairs = zip(a.split(_TILE[0]), b.split(_TILE[0]))
    out = torch.cat([_tiles(left, right) for left, right in pairs])[:n, :rows, :columns]
    return out if plus is None else out + plus


def _tiles(a: Tensor, b: Tensor) -> Tensor:
    """Multiply tile by tile."""
    right = b.split(_TILE[2], 2)
    return torch.cat([torch.cat([torch.bmm(x, y) for y in right], 2) for x in a.split(_TILE[1], 1)], 1)


def _at_least(x: Tensor, axis: int, least: int) -> Tensor:
    return x if x.shape[axis] >= least else _padded(x, axis, least)


def _padded(x: Tensor, axis: int, multiple: int) -> Tensor:
    """Return x with zeros added along `axis`, up to a multiple."""
    short = -x.shape[axis] % multiple
    return F.pad(x, (0, 0) * (x.ndim - 1 - axis) + (0, short)) if short else x


def _cut(x: Tensor, axis: int, size: int) -> Tensor:
    """Return the first `size` of x; x itself where that is all, as a recorded step wants it."""
    return x if x.shape[axis] == size else x.narrow(axis, 0, size)


class _Sigmoid(torch.autograd.Function):
    """1 / (1 + exp(-x)) from functions that vectors and single values share to the bit, as torch.sigmoid isn't."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.neg().exp_().add_(1).reciprocal_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.ops.aten.sigmoid_backward(grads[0], *ctx.saved_tensors)


def _silu(x: Tensor) -> Tensor:
    return x.neg().exp_().add_(1).reciprocal_().mul_(x)


class _Silu(torch.autograd.Function):
    """x sigmoid(x), keeping x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _silu(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(grads[0], *ctx.saved_tensors)


sigmoid: Callable[[Tensor], Tensor] = _Sigmoid.apply


def silu(x: Tensor) -> Tensor:
    """Return x sigmoid(x)."""
    return _Silu.apply(x) if torch.is_grad_enabled() else _silu(x)


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor) -> Tensor:
    """Return softmax(scale q k + bias) v, [n, kv heads, time, shared, value dim].

    q [n, kv heads, time, heads that share keys, dim]; k, v [n, kv heads, length, ..]; bias [n or 1, time, length].
    """
    shared = q.shape[3]
    if q.shape[2] * shared < FEW[0]:
        q = F.pad(q, (0, 0, 0, FEW[0] - shared))  # once here, and not in each product
    n, heads, time = q.shape[:3]
    keys, values = (_padded(x.flatten(0, 1), 1, KEYS) for x in (k, v))
    if short := keys.shape[1] - bias.shape[-1]:
        bias = F.pad(bias, (0, short), value=float("-inf"))
    bias = bias if time == 1 else bias.repeat_interleave(q.shape[3], 1)
    bias = bias if len(bias) == 1 else bias.repeat_interleave(heads, 0)
    weights = product((q * scale).flatten(2, 3).flatten(0, 1), keys.transpose(1, 2), bias).softmax(-1)
    parts = zip(weights.split(SPAN, 2), values.split(SPAN, 1))
    out = product(*next(parts))
    for part in parts:
        out = out + product(*part)
    return out.view(n, heads, time, -1, v.shape[-1])[..., :shared, :]


def causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Return `attention` where every position sees those up to its own, a few of them at a time."""
    time = q.shape[2]
    parts = []
    for start in range(0, time, PLACES):
        end = min(start + PLACES, time)
        seen = torch.arange(end, device=q.device) > torch.arange(start, end, device=q.device)[:, None]
        bias = torch.zeros(seen.shape, device=q.device).masked_fill_(seen, float("-inf"))[None]
        given = (q[:, :, start:end], k[:, :, :end], v[:, :, :end], scale, bias)
        parts.append(attention(*given) if time <= PLACES else checkpoint(attention, *given, use_reentrant=False))
    return torch.cat(parts, 2) if len(parts) > 1 else parts[0]
