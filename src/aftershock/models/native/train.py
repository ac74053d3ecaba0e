"""The learner's passes over rows in C, with their gradients: norm, gated unit, rotation, a target's log-probability.

They take float32 on a CPU, and read and write each value once where PyTorch's parts pass over it again and again. Bits
don't depend on the number of threads.
"""

import ctypes
from collections.abc import Sequence
from ctypes import Structure, c_float, c_int, c_long, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aftershock.models.native import build


class _Norm(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("x", "more", "weight", "up")),
        *((name, c_long) for name in ("rows", "n")),
        ("eps", c_float),
        *((name, c_void_p) for name in ("sum", "y", "scale", "down", "parts", "total")),
    ]


class _Gated(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("gate", "up", "out_grad")),
        *((name, c_long) for name in ("rows", "n", "stride")),
        *((name, c_void_p) for name in ("out", "gate_grad", "up_grad")),
    ]


class _Turn(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("x", "cos", "sin")),
        *((name, c_long) for name in ("rows", "heads", "dim", "neighbours")),
        ("turn", c_float),
        ("y", c_void_p),
    ]


class _Select(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("logits", "targets", "up")),
        *((name, c_long) for name in ("rows", "n")),
        *((name, c_void_p) for name in ("chosen", "entropy", "log_sum", "grad", "spread")),
        ("failed", c_long),
    ]


def serves(*tensors: Tensor) -> bool:
    """Whether passes over these tensors can be native: float32 on a CPU, a compiler, and not in sampling."""
    plain = all(t.is_cpu and t.dtype == torch.float32 and type(t) in _PLAIN for t in tensors)
    return plain and not torch.is_inference_mode_enabled() and build.library("train") is not None


_PLAIN = {Tensor, torch.nn.Parameter}  # others, such as fake ones, have no memory that C could read


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean x^2 + eps) * weight for x [..., n] and weight [n]."""
    return _NormFunction.apply(x, None, weight, eps)[1]


def add_norm(x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x + more, or x itself, and its `rms_norm`; in one pass, and so the gradient that both give x."""
    return _NormFunction.apply(x, more, weight, eps)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up, both [..., n]."""
    return _GatedFunction.apply(gate, up)


def gated_halves(both: Tensor) -> Tensor:
    """Return silu(first half) * second half, [rows, n] of [rows, 2 n]."""
    return _HalvesFunction.apply(both)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleave: bool) -> Tensor:
    """Rotate the pairs of x [batch, time, heads, dim] by tables [1 or batch, time, 1, dim], as `rope.rotate` does."""
    return rotate_all((x,), cos, sin, interleave=interleave)[0]


def rotate_all(xs: Sequence[Tensor], cos: Tensor, sin: Tensor, *, interleave: bool) -> tuple[Tensor, ...]:
    """Rotate several tensors as `rotate` does, as one step of a backward."""
    cos, sin = (table.expand(*xs[0].shape[:2], 1, -1) for table in (cos, sin))
    turned: tuple[Tensor, ...] = _TurnFunction.apply(cos, sin, interleave, *xs)
    return turned


def select(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (log-probability of each target, entropy without gradient), both Float[n], from logits [n, vocab]."""
    return _SelectFunction.apply(logits, targets)


def log_softmax(logits: Tensor) -> Tensor:
    """Return the logarithms of softmax over [n, vocab], by the sums that a native draw takes; no gradient."""
    logits, rows = logits.contiguous(), len(logits)
    *unused, spread = (logits.new_empty(rows) for _ in range(4))
    targets = torch.zeros(rows, dtype=torch.long)
    given = (_at(logits), _at(targets), None, *logits.shape, *map(_at, unused), None, _at(spread))
    call("select_forward", _Select(*given))
    return logits - logits.amax(-1, keepdim=True) - spread[:, None]


def selected(logits: Tensor, targets: Tensor, chosen: Tensor, entropy: Tensor, log_sum: Tensor) -> None:
    """Write log-probabilities of targets Long[n], entropies, and the logits' log-sums, Float[n] each; no gradient."""
    given = (_at(logits), _at(targets), None, *logits.shape)
    call("select_forward", _Select(*given, _at(chosen), _at(entropy), _at(log_sum)))


def gated_rows(gate: Tensor, up: Tensor) -> Tensor:
    """Return `gated` of contiguous tensors, without gradient."""
    out = torch.empty_like(gate)
    call("gated_forward", _Gated(_at(gate), _at(up), None, *_rows(out), out.shape[-1], _at(out)))
    return out


def gated_slopes(gate: Tensor, up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of `gate` and `up` under `grad`, that of `gated`, all contiguous."""
    down = torch.empty_like(gate), torch.empty_like(up)
    size = (*_rows(gate), gate.shape[-1])
    call("gated_backward", _Gated(_at(gate), _at(up), _at(grad), *size, None, *map(_at, down)))
    return down


def select_gradient(logits: Tensor, targets: Tensor, log_sum: Tensor, up: Tensor, to: Tensor) -> None:
    """Write into `to` [n, vocab], which may be the logits, their gradient under `up` Float[n], the chosen ones'."""
    given = (_at(logits), _at(targets), _at(up), *logits.shape)
    call("select_backward", _Select(*given, None, None, _at(log_sum), _at(to)))


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, more: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Keep x + more, or x, the weight and what each row was multiplied by."""
        at, more = x.contiguous(), None if more is None else more.contiguous()
        y, scale, both = torch.empty_like(at), x.new_empty(_rows(x)[0]), x if more is None else torch.empty_like(at)
        given = (_at(at), None if more is None else _at(more), _at(weight), None)
        call("norm_forward", _Norm(*given, *_rows(x), eps, _at(both), _at(y), _at(scale)))
        ctx.save_for_backward(at if more is None else both, weight, scale)
        ctx.set_materialize_grads(False)
        ctx.added = more is not None
        return both, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return one gradient for x and more, that of their sum included where it was read, and the weight's."""
        x, weight, scale = ctx.saved_tensors
        above, grad = (None if grad is None else grad.contiguous() for grad in grads)
        if grad is None:
            return above, above if ctx.added else None, None, None
        down, total = torch.empty_like(x), torch.empty_like(weight)
        parts = x.new_zeros(_library().aftershock_parts(len(scale)), len(weight))
        given = (_at(x), None if above is None else _at(above), _at(weight), _at(grad), len(scale), len(weight), 0.0)
        call("norm_backward", _Norm(*given, None, None, _at(scale), _at(down), _at(parts), _at(total)))
        return down, down if ctx.added else None, total, None


class _GatedFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return gated_rows(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return gated_slopes(gate, up, grads[0].contiguous())


class _HalvesFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        """Return [rows, n] of [rows, 2 n], and keep that."""
        both = both.contiguous()
        ctx.save_for_backward(both)
        out = both.new_empty(len(both), both.shape[1] // 2)
        call("gated_forward", _Gated(*_halves(both), None, *out.shape, both.shape[1], _at(out)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        grad, down = grads[0].contiguous(), torch.empty_like(both)
        call("gated_backward", _Gated(*_halves(both), _at(grad), *grad.shape, both.shape[1], None, *_halves(down)))
        return down


class _TurnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cos: Tensor, sin: Tensor, neighbours: bool, *xs: Tensor) -> tuple[Tensor, ...]:
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(cos, sin)
        ctx.neighbours = neighbours
        return tuple(_turned(x, cos, sin, neighbours, 1.0) for x in xs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return None, None, None, *(_turned(grad, cos, sin, ctx.neighbours, -1.0) for grad in grads)


class _SelectFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Keep logits, targets and log-sums."""
        logits, targets = logits.contiguous(), targets.contiguous()
        chosen, entropy, log_sum = (logits.new_empty(len(logits)) for _ in range(3))
        selected(logits, targets, chosen, entropy, log_sum)
        ctx.save_for_backward(logits, targets, log_sum)
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, targets, log_sum = ctx.saved_tensors
        grad = torch.empty_like(logits)
        select_gradient(logits, targets, log_sum, grads[0].contiguous(), grad)
        return grad, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, neighbours: bool, turn: float) -> Tensor:
    x = x.contiguous()
    y, (batch, time, heads, dim) = torch.empty_like(x), x.shape
    call("turn", _Turn(_at(x), _at(cos), _at(sin), batch * time, heads, dim, neighbours, turn, _at(y)))
    return y


def _halves(both: Tensor) -> tuple[int, int]:
    return _at(both), _at(both) + both.shape[1] // 2 * both.element_size()


def _rows(x: Tensor) -> tuple[int, int]:
    return x.numel() // max(1, x.shape[-1]), x.shape[-1]


def _at(tensor: Tensor) -> int:
    return tensor.data_ptr()


def call(name: str, job: Structure, what: str = "a few rows of the learner's forward") -> None:
    """Do a job of train.c's; MemoryError where there is no memory to work in."""
    if getattr(_library(), f"aftershock_{name}")(ctypes.byref(job), torch.get_num_threads()):
        raise MemoryError(f"no memory for {what}: pack fewer tokens (micro_tokens)")


_CALLS: dict[str, Any] = dict.fromkeys(
    ("norm_forward", "norm_backward", "gated_forward", "gated_backward", "turn", "select_backward")
)  # what train.c offers, and what each returns
_CALLS |= dict.fromkeys(("products", "combine", "linear_forward", "mlp_forward"))
_CALLS |= dict.fromkeys(("select_forward", "choose", "read", "attend", "see", "linear_backward"), c_int)


@cache
def _library() -> ctypes.CDLL:
    library = build.library("train")
    assert library is not None
    for name, kind in _CALLS.items():
        called = getattr(library, f"aftershock_{name}")
        called.argtypes, called.restype = [c_void_p, c_long], kind
    library.aftershock_parts.argtypes, library.aftershock_parts.restype = [c_long], c_long
    return library
