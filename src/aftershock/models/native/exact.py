"""An exact model's parts in C (exact.h): each row by the functions that decode it, with the plain model's gradients."""

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_long, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from aftershock.models.config import DeepseekConfig
from aftershock.models.native import build
from aftershock.models.native.deepseek import Mixture
from aftershock.models.native.packed import Packed, packed
from aftershock.models.native.train import call


class _Products(Structure):
    _fields_ = [
        ("w", POINTER(Packed)),
        *((name, POINTER(c_void_p)) for name in ("x", "y")),
        ("rows", POINTER(c_long)),
        *((name, c_long) for name in ("count", "total", "x_stride", "y_stride")),
    ]


class _Choice(Structure):
    _fields_ = [("mixture", Mixture), ("rows", c_long), ("weights", c_void_p), ("failed", c_long)]


class _Combine(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("x", "weights", "token")),
        *((name, c_long) for name in ("count", "rows", "n")),
        ("y", c_void_p),
    ]


class _Reading(Structure):
    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "dim", "vdim", "rows", "time", "length")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("q", "k", "v")),
        *((name, c_long) for name in ("k_row", "k_head", "v_row", "v_head")),
        *((name, c_void_p) for name in ("starts", "out")),
        ("failed", c_long),
    ]


def serves(weight: Tensor) -> bool:
    """Whether a model with this weight has its exact parts in C: float32 on a CPU, and a compiler."""
    fits = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return fits and build.library("train") is not None and build.library() is not None


def each_head(x: Tensor, weight: Tensor, in_place: bool) -> Tensor:
    """Multiply x [rows, heads, in] by each head's own weight [heads, out, in]: [rows, heads, out]."""
    return _HeadsFunction.apply(x, weight, in_place)


def each_expert(x: Tensor, weight: Tensor, counts: Sequence[int], in_place: bool) -> Tensor:
    """Multiply x [n, in], of which each expert has its count one after the other, by its weight [experts, out, in]."""
    return _ExpertsFunction.apply(x, weight, counts, in_place)


def choose(products: Tensor, correction: Tensor, config: DeepseekConfig) -> tuple[Tensor, Tensor]:
    """Return the experts chosen, ascending, and their weights, [rows, k] each, for the gate's products [rows, experts].

    As `moe.Gate`; `correction` Float[experts] is for the choice alone.
    """
    return _ChooseFunction.apply(products, correction, config)


def combine(x: Tensor, weights: Tensor, token: Tensor, rows: int) -> Tensor:
    """Return [rows, n], to whose row token[i] weights[i] x[i] is added, i ascending; x [count, n]."""
    return _CombineFunction.apply(x, weights, token, rows)


def read(q: Tensor, k: Tensor, v: Tensor, scale: float, starts: Tensor) -> Tensor:
    """Return what q [batch, time, heads, dim] sees of k, v [batch, length, kv heads, ..], shaped like q by value dim.

    `starts` Long[batch] positions lie before each row's first query. Without gradient.
    """
    (batch, time, heads, dim), (length, kv_heads) = q.shape, k.shape[1:3]
    q, starts, vdim = q.contiguous(), starts.contiguous(), v.shape[-1]
    k, v = _by_head(k, dim), _by_head(v, dim)
    out = q.new_empty(batch, time, heads, vdim)
    sizes = heads, kv_heads, dim, vdim, batch, time, length
    strides = (*k.stride()[:2], *v.stride()[:2])
    call("read", _Reading(*sizes, scale, *map(_at, (q, k, v)), *strides, _at(starts), _at(out)))
    return out


class _HeadsFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, in_place: bool) -> Tensor:
        """Multiply each head's x [rows, heads, in] by its own matrix [out, in]."""
        ctx.save_for_backward(x, weight)
        x, (rows, heads, wide), out = x.contiguous(), x.shape, weight.shape[1]
        y = x.new_empty(rows, heads, out)
        froms, tos = ([_at(t) + 4 * head * t.shape[2] for head in range(heads)] for t in (x, y))
        _multiply([*weight], in_place, froms, tos, [rows] * heads, (heads * wide, heads * out))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].transpose(0, 1)
        return torch.bmm(grad, weight).transpose(0, 1), torch.bmm(grad.transpose(1, 2), x.transpose(0, 1)), None


class _ExpertsFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, counts: Sequence[int], in_place: bool) -> Tensor:
        """Multiply rows, sorted by expert and `counts` of each, by their expert's [out, in]."""
        ctx.save_for_backward(x, weight)
        ctx.counts = list(counts)
        x = x.contiguous()
        y = x.new_empty(len(x), weight.shape[1])
        froms, tos = ([_at(part) for part in t.split(ctx.counts)] for t in (x, y))
        _multiply([*weight], in_place, froms, tos, ctx.counts, (x.shape[1], weight.shape[1]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of x and of all matrices, expert by expert."""
        x, weight = ctx.saved_tensors
        parts = list(zip(grads[0].split(ctx.counts), x.split(ctx.counts), weight))
        down, own = torch.empty_like(x), torch.empty_like(weight)
        for (grad, rows, matrix), to, total in zip(parts, down.split(ctx.counts), own):
            torch.mm(grad, matrix, out=to)
            torch.mm(grad.t(), rows, out=total)
        return down, own, None, None


class _ChooseFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, products: Tensor, correction: Tensor, config: DeepseekConfig) -> tuple[Tensor, Tensor]:
        """Return the chosen experts Long[tokens, k] and their weights from the gate's products [tokens, experts]."""
        weights = products.clone(memory_format=torch.contiguous_format)
        call("choose", _Choice(_choice(config, correction), len(weights), _at(weights)))
        chosen = (weights != -1).nonzero()[:, 1].view(len(weights), config.num_experts_per_tok)
        ctx.save_for_backward(products, chosen)
        ctx.config = config
        ctx.mark_non_differentiable(chosen)
        return chosen, weights.gather(1, chosen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Return the products' gradient: through the weights' norm, where there is one, and the sigmoid."""
        products, chosen = ctx.saved_tensors
        scores, grad = products.gather(1, chosen).sigmoid_(), grads[1] * ctx.config.routed_scaling_factor
        if ctx.config.norm_topk_prob:
            shares = scores / (all_ := scores.sum(-1, keepdim=True) + 1e-20)
            grad = (grad - (grad * shares).sum(-1, keepdim=True)) / all_
        grad = grad * scores * (1 - scores)
        return torch.zeros_like(products).scatter_(1, chosen, grad), None, None


class _CombineFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, token: Tensor, rows: int) -> Tensor:
        """Return [rows, n]: each row of x [m, n] times its weight, added to its token's in order."""
        x, weights, token = x.contiguous(), weights.contiguous(), token.contiguous()
        ctx.save_for_backward(x, weights, token)
        y = x.new_zeros(rows, x.shape[1])
        call("combine", _Combine(_at(x), _at(weights), _at(token), len(x), *y.shape, _at(y)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weights, token = ctx.saved_tensors
        grad = grads[0].index_select(0, token)
        return grad * weights[:, None], torch.linalg.vecdot(grad, x), None, None


def _multiply(
    weights: Sequence[Tensor],
    in_place: bool,
    x: Sequence[int],
    y: Sequence[int],
    rows: Sequence[int],
    strides: tuple[int, int],
) -> None:
    """Multiply `rows[i]` rows that begin at address x[i] by weights[i] [out, in], into rows that begin at y[i].

    `strides` are the floats from one of x's rows, and y's, to the next.
    """
    count, held = len(weights), [weight.contiguous() for weight in weights]
    made: list[Tensor] = []
    matrices = (Packed * count)(*(packed(weight, None, in_place, made) for weight in held))
    begins = ((c_void_p * count)(*x), (c_void_p * count)(*y), (c_long * count)(*rows))
    call("products", _Products(matrices, *begins, count, sum(rows), *strides))


def _choice(config: DeepseekConfig, correction: Tensor) -> Mixture:
    """Describe a mixture as far as the choice of its experts asks for it."""
    c = config
    sizes = c.n_routed_experts, c.num_experts_per_tok, c.n_group, c.topk_group, c.norm_topk_prob
    return Mixture(*sizes, c.routed_scaling_factor, _at(correction))


def _by_head(x: Tensor, dim: int) -> Tensor:
    """Return x [batch, length, heads, <= dim] as [batch, heads, length, ..], its positions `dim` floats apart."""
    x = x.movedim(1, 2)
    fits = x.stride()[2:] == (dim, 1)
    return x if fits else F.pad(x, (0, dim - x.shape[3])).contiguous()


def _at(tensor: Tensor) -> int:
    return tensor.data_ptr()
