"""The output head and the log-probabilities read off it as one step of the backward, where passes are native.

Logits are kept where all of them take no more than the head's own weight (or `CHUNK_BYTES`), and become their gradient
in place; else they are computed in chunks, and again in the backward. The weight's gradient is summed in one tensor.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aftershock.models.native import linear
from aftershock.models.native import train as native

CHUNK_BYTES = 1 << 26  # 64 MiB: 16k positions of a vocabulary of 1,024, or 130 of DeepSeek's 129,280


Multiply = Callable[[Tensor, Tensor], None]


def read_head(
    hidden: Tensor, weight: Tensor, targets: Tensor, multiply: Multiply, chunk_bytes: int = CHUNK_BYTES
) -> tuple[Tensor, Tensor]:
    """Return (log-probability of each target, entropy without gradient), both Float[n].

    hidden [n, width], weight [vocab, width], targets Long[n]; float32 on a CPU, as `native.serves` says. `multiply`
    writes the product of rows of the one and the other, as `LanguageModel.head_into`.
    """
    return _Head.apply(hidden, weight, targets, multiply, chunk_bytes)


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, multiply: Multiply, chunk_bytes: int
    ) -> tuple[Tensor, Tensor]:
        """Read chunk by chunk into one buffer; keep it where it holds all."""
        bytes_a_row = weight.shape[0] * weight.element_size()
        whole = len(targets) * bytes_a_row <= max(chunk_bytes, weight.nbytes)
        ctx.spent = False  # whether kept logits have become their gradient
        ctx.multiply = multiply
        ctx.rows = max(1, len(targets) if whole else chunk_bytes // bytes_a_row)
        chosen, entropy, log_sum = (hidden.new_empty(len(targets)) for _ in range(3))
        logits = hidden.new_empty(min(ctx.rows, len(targets)), len(weight))  # one for all chunks
        for rows in _chunks(ctx.rows, len(targets)):
            multiply(hidden[rows], part := logits[: rows.stop - rows.start])
            native.selected(part, targets[rows], chosen[rows], entropy[rows], log_sum[rows])
        ctx.save_for_backward(hidden, weight, targets, log_sum, *([logits] if whole else []))
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of hidden and weight; kept logits are used up, and computed again if asked twice."""
        hidden, weight, targets, log_sum, *kept = ctx.saved_tensors
        up, down = grads[0].contiguous(), torch.empty_like(hidden)
        logits = kept[0] if kept else hidden.new_empty(min(ctx.rows, len(targets)), len(weight))
        total = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for rows in _chunks(ctx.rows, len(targets)):
            part = logits[: rows.stop - rows.start]
            if not kept or ctx.spent:
                ctx.multiply(hidden[rows], part)
            ctx.spent = True
            native.select_gradient(part, targets[rows], log_sum[rows], up[rows], part)
            linear.slopes(hidden[rows], [weight], [part], down[rows], [total], [None], adds=rows.start > 0)
        return down, total, None, None, None


def _chunks(size: int, count: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
