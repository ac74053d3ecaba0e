"""Linear layers in C (linear.h), forward and backward; several that read the same rows in one call.

A row has the bits that a native decoding step gives it.
"""

from collections.abc import Sequence
from ctypes import POINTER, Structure, c_long, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aftershock.models.native import train
from aftershock.models.native.packed import Packed, packed

_SMALL = 1 << 18  # weights: so many are laid out anew in each pass, and stay in a core's cache
_FEW = 256  # rows: below them that doesn't pay


class _Layer(Structure):
    _fields_ = [("matrix", Packed), ("y", c_void_p), ("more", c_void_p)]


class _Layers(Structure):
    _fields_ = [
        ("layer", POINTER(_Layer)),
        ("x", c_void_p),
        *((name, c_long) for name in ("count", "rows", "outs", "next")),
    ]


class _Mlp(Structure):
    _fields_ = [("first", _Layers), ("last", _Layers), ("inner", c_void_p)]


class _Slope(Structure):
    _fields_ = [*((name, c_void_p) for name in ("w", "up", "down", "bias")), ("outs", c_long)]


class _Slopes(Structure):
    _fields_ = [
        ("slope", POINTER(_Slope)),
        *((name, c_void_p) for name in ("x", "down")),
        *((name, c_long) for name in ("count", "rows", "ins", "outs", "adds")),
        *((name, c_void_p) for name in ("desks", "sums")),
        *((name, c_long) for name in ("desk", "part", "weights", "next")),
    ]


def serves(x: Tensor, *weights: Tensor) -> bool:
    """Whether small layers over many rows are to be native: in a learner's float32 on a CPU, with a compiler."""
    small = all(weight.numel() <= _SMALL for weight in weights) and x.numel() >= _FEW * x.shape[-1]
    return small and train.serves(x, *weights) and not torch.is_autocast_enabled("cpu")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, in_place: bool = False) -> Tensor:
    """Return F.linear(x, weight, bias) for x [..., in]; `in_place` where a decoding step reads the matrix so."""
    return linears(x, [weight], [bias], in_place)[0]


def linears(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], in_place: bool = False
) -> tuple[Tensor, ...]:
    """Return what each of several layers gives for x [..., in]; x's gradient is made of all theirs at once."""
    made: tuple[Tensor, ...] = _LinearFunction.apply(x, in_place, *weights, *biases)
    return made


def linear_into(x: Tensor, weight: Tensor, in_place: bool, to: Tensor) -> None:
    """Write `linear` of x [rows, in] into `to` [rows, out], without gradient."""
    _forward(x.contiguous(), [weight], [None], in_place, [to])


def slopes(
    x: Tensor,
    weights: Sequence[Tensor],
    ups: Sequence[Tensor],
    down: Tensor | None,
    own: Sequence[Tensor | None],
    biases: Sequence[Tensor | None],
    *,
    adds: bool = False,
) -> None:
    """Write the gradients of x [rows, in] into `down`, of each weight into `own` and of each bias into `biases`.

    Where they're asked for. `ups` [rows, out] are those of what the layers gave, all contiguous; with `adds` the
    weights' and biases' are added to.
    """
    if any(weight.numel() > _SMALL for weight in weights):
        _slopes_by_torch(x, weights, ups, down, own, biases, adds)
        return
    each = zip(weights, ups, own, biases)
    sizes = [_Slope(_at(w), _at(up), _at(to), _at(bias), w.shape[0]) for w, up, to, bias in each]
    outs = sum(weight.shape[0] for weight in weights)
    job = _Slopes((_Slope * len(sizes))(*sizes), _at(x), _at(down), len(sizes), *x.shape, outs, adds)
    train.call("linear_backward", job)


def gated_mlp(
    x: Tensor, more: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], in_place: bool = False
) -> Tensor:
    """Return more + down(silu(gate(x)) * up(x)) for x, `more` [..., in] and the layers gate, up and down.

    One step of a backward.
    """
    return _MLPFunction.apply(x, more, in_place, *weights, *biases)


class _MLPFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, more: Tensor, in_place: bool, *given: Any) -> Tensor:
        """Keep x, gate, up and their gated product beside the weights."""
        weights, biases = tuple(weight.contiguous() for weight in given[:3]), given[3:]
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        gate, up, inner = (rows.new_empty(rows.shape[0], weights[0].shape[0]) for _ in range(3))
        held: list[Tensor] = []
        made = torch.empty_like(more := more.contiguous())
        first = _layers(rows, weights[:2], biases[:2], in_place, (gate, up), held)
        last = _layers(inner, weights[2:], biases[2:], in_place, (made,), held, more)
        train.call("mlp_forward", _Mlp(first, last, _at(inner)))
        ctx.save_for_backward(x, gate, up, inner, *weights)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, what was added, weights and biases; gate's and up's are made in one call."""
        x, gate, up, inner, *weights = ctx.saved_tensors
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        own, biases = _parameters(weights, ctx.needs_input_grad[3:])
        last = grads[0].reshape(-1, weights[2].shape[0]).contiguous()
        between, down = torch.empty_like(inner), torch.empty_like(rows)
        slopes(inner, weights[2:], (last,), between, own[2:], biases[2:])
        slopes(rows, weights[:2], train.gated_slopes(gate, up, between), down, own[:2], biases[:2])
        return down.view_as(x), grads[0], None, *own, *biases


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool, *given: Any) -> tuple[Tensor, ...]:
        """Give x to all layers in one call; keep it and their weights."""
        weights, biases = given[: len(given) // 2], given[len(given) // 2 :]
        weights = tuple(weight.contiguous() for weight in weights if weight is not None)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.save_for_backward(x, *weights)
        made = tuple(rows.new_empty(*x.shape[:-1], weight.shape[0]) for weight in weights)
        _forward(rows, weights, biases, in_place, made)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, the sum of all layers', and of each one's weight and bias."""
        x, *weights = ctx.saved_tensors
        rows, need = x.reshape(-1, x.shape[-1]).contiguous(), ctx.needs_input_grad
        ups = [grad.reshape(-1, weight.shape[0]).contiguous() for grad, weight in zip(grads, weights)]
        down = torch.empty_like(rows) if need[0] else None
        own, biases = _parameters(weights, need[2:])
        slopes(rows, weights, ups, down, own, biases)
        return None if down is None else down.view_as(x), None, *own, *biases


def _parameters(weights: Sequence[Tensor], asked: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Return tensors for the gradients of weights and of their biases, as they are asked for, weights' first."""
    own = [torch.empty_like(weight) if need else None for weight, need in zip(weights, asked)]
    return own, [w.new_empty(w.shape[0]) if need else None for w, need in zip(weights, asked[len(weights) :])]


def _slopes_by_torch(
    x: Tensor,
    weights: Sequence[Tensor],
    ups: Sequence[Tensor],
    down: Tensor | None,
    own: Sequence[Tensor | None],
    biases: Sequence[Tensor | None],
    adds: bool,
) -> None:
    for index, (weight, up, to, bias) in enumerate(zip(weights, ups, own, biases)):
        if down is not None:
            torch.addmm(down, up, weight, beta=float(index > 0), out=down)
        if to is not None:
            torch.addmm(to, up.t(), x, beta=float(adds), out=to)
        if bias is not None:
            bias.copy_(up.sum(0).add_(bias) if adds else up.sum(0))


def _forward(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    in_place: bool,
    made: Sequence[Tensor],
) -> None:
    held: list[Tensor] = []
    train.call("linear_forward", _layers(x, weights, biases, in_place, made, held))


def _layers(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    in_place: bool,
    made: Sequence[Tensor],
    held: list[Tensor],
    more: Tensor | None = None,
) -> _Layers:
    """Describe layers that read x and write into `made`, to which `more` is added; `held` keeps their copies alive."""
    parts = [_Layer(packed(w, bias, in_place, held), _at(y), _at(more)) for w, bias, y in zip(weights, biases, made)]
    outs = sum(weight.shape[0] for weight in weights)
    return _Layers((_Layer * len(parts))(*parts), _at(x), len(parts), x.shape[0], outs)


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
