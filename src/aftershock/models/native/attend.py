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
        *((name, c_long) for name in ("longest", "next", "failed")),
    ]


@dataclass(frozen=True)
class Spans:
    """Packed segments by families, those of most work first: a segment without a parent and all that go on from it.

    `spans` Long[n, 3] are first tokens, lengths and how many tokens lie before, a family's depth first; `families`
    Long[families + 1] where each family begins among them; `longest` how far the longest reaches.
    """

    spans: Tensor
    families: Tensor
    longest: int

    @classmethod
    def of(cls, segments: Segments) -> "Spans":
        """Sort families; the segments' tensors are on the CPU."""
        bounds, lengths = segments.bounds.long(), segments.lengths()
        own = bounds.diff()
        roots = torch.ones_like(own) if segments.parents is None else (segments.parents < 0).long()
        family = roots.cumsum(0) - 1
        work = torch.zeros(int(roots.sum()), dtype=torch.long).index_add_(0, family, own * (2 * lengths - own))
        order = work.argsort(descending=True, stable=True).argsort()[family].argsort(stable=True)
        spans = torch.stack((bounds[:-1], own, lengths - own), 1)[order].contiguous()
        families = torch.cat((roots[order].nonzero()[:, 0], torch.tensor([len(own)])))
        return cls(spans, families, int(lengths.max()))


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
    call(name, job, f"attention over segments of up to {spans.longest} tokens")
