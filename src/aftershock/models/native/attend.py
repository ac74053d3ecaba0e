"""Attention of a learner's packed forward in C, with its gradients."""

from ctypes import Structure, c_float, c_long, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aftershock.models.base import Segments
from aftershock.models.native.train import call


class _Attend(Structure):
    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "dim", "vdim")),
        ("scale", c_float),
        *((name, c_void_p) for name in ("q", "k", "v", "out", "sums", "d_out", "d_q", "d_k", "d_v")),
        *((name, c_void_p) for name in ("spans", "families")),
        ("count", c_long),
        ("longest", c_long * 2),
        *((name, c_long) for name in ("next", "failed")),
    ]


@dataclass(frozen=True)
class Spans:
    """Packed segments by families, the largest first: a parent and then its children, or one segment alone.

    `spans` Long[n, 2] are first tokens and lengths, `families` Long[families + 1] where each family begins among them,
    `longest` the longest first segment of a family and the longest of the others.
    """

    spans: Tensor
    families: Tensor
    longest: tuple[int, int]

    @classmethod
    def of(cls, segments: Segments) -> "Spans":
        """Sort segments; their tensors are on the CPU."""
        bounds = segments.bounds.long()
        own, index = bounds.diff(), torch.arange(len(bounds) - 1)
        parents = torch.full_like(own, -1) if segments.parents is None else segments.parents
        child = parents >= 0
        head = parents.where(child, index)
        work = torch.zeros_like(own).index_add_(0, head, own * (2 * segments.lengths() - own))
        order = (2 * work.argsort(descending=True, stable=True).argsort()[head] + child).argsort(stable=True)
        spans = torch.stack((bounds[:-1], own), 1)[order].contiguous()
        families = torch.cat(((~child[order]).nonzero()[:, 0], torch.tensor([len(own)])))
        first, others = (int(own[kind].max()) if kind.any() else 0 for kind in (~child, child))
        return cls(spans, families, (first, others))


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, spans: Spans, *, exact: bool = False) -> Tensor:
    """Causal attention within segments: [1, total, heads, value dim] of q, k, v [1, total, (kv) heads, (value) dim].

    All are float32 on the CPU. Runs of heads / kv heads queries share a key. A backward keeps q, k, v, what is
    returned and Float[total, heads] more. Bits don't depend on the number of threads, and if `exact` they are those of
    a decoding step. MemoryError where there is none to work in.
    """
    return _AttendFunction.apply(q, k, v, scale, spans, exact)


class _AttendFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, spans: Spans, exact: bool) -> Tensor:
        """Keep q, k, v, what is returned and a log-sum for each query."""
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, sums = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[1:3])
        _run("see" if exact else "attend", (q, k, v, out, sums), scale, spans)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.scale, ctx.spans = scale, spans
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, sums = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        _run("attend", (q, k, v, out, sums, d_out.contiguous(), *grads), ctx.scale, ctx.spans)
        return *grads, None, None, None


def _run(name: str, tensors: tuple[Tensor, ...], scale: float, spans: Spans) -> None:
    (heads, dim), (kv_heads, vdim) = tensors[0].shape[2:], tensors[2].shape[2:]
    pointers = [tensor.data_ptr() for tensor in tensors] + [None] * (9 - len(tensors))
    job = _Attend(heads, kv_heads, dim, vdim, scale, *pointers, spans.spans.data_ptr(), spans.families.data_ptr())
    job.count, job.longest = len(spans.families) - 1, spans.longest
    call(name, job, f"attention over segments of up to {max(spans.longest)} tokens")
