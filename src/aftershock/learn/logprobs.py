"""Log-probabilities of given tokens, or whatever else is read off logits, without keeping those of a whole batch.

Only positions whose token counts reach the output head. Where their float32 logits would pass `CHUNK_BYTES`, the
head runs over chunks of positions and is run again in the backward, so that one chunk's logits is all that lives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from aftershock.learn.head import CHUNK_BYTES, read_head
from aftershock.models.base import LanguageModel, Segments
from aftershock.models.native import train as native
from aftershock.models.native.exact import serves as serves_exactly

CACHED = 1 << 18  # bytes of logits worked on at once; their products take as much again


class _Select(torch.autograd.Function):
    """log softmax(logits)[target] and its entropy, keeping for the backward the logits and their log-sum only.

    A few rows at a time, so that what is worked on stays in a core's cache.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the logits, the targets and the log-sums."""
        total, entropy = torch.empty_like(logits[:, 0]), torch.empty_like(logits[:, 0])
        for rows in _few(logits):
            part = logits[rows]
            sums = torch.logsumexp(part, -1, out=total[rows])
            torch.sub(sums, (part - sums[:, None]).exp_().mul_(part).sum(-1), out=entropy[rows])
        ctx.save_for_backward(logits, targets, total)
        ctx.mark_non_differentiable(entropy)
        return logits.gather(-1, targets[:, None])[:, 0] - total, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the logits' gradient: of the chosen one's log-probability, softmax taken away."""
        logits, targets, total = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for rows in _few(logits):
            torch.sub(logits[rows], total[rows, None], out=grad[rows]).exp_().mul_(-grads[0][rows, None])
        grad[torch.arange(len(targets), device=targets.device), targets] += grads[0]
        return grad, None


def _few(logits: Tensor) -> list[slice]:
    """Return slices of rows that hold about `CACHED` bytes each; on a GPU all rows in one."""
    size = len(logits) if logits.is_cuda else max(1, CACHED // (logits.shape[1] * logits.element_size()))
    return [slice(start, start + size) for start in range(0, len(logits), max(1, size))]


class _SelectExactly(torch.autograd.Function):
    """The same by the sampler's own log-softmax where that isn't C's, kept in place of the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Keep all log-probabilities and the targets."""
        own = logits.log_softmax(-1)
        ctx.save_for_backward(own, targets)
        entropy = -own.exp().mul_(own).sum(-1)
        ctx.mark_non_differentiable(entropy)
        return own.gather(-1, targets[:, None])[:, 0], entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        own, targets = ctx.saved_tensors
        grad = own.exp().mul_(-grads[0][:, None])
        return grad.scatter_add_(-1, targets[:, None], grads[0][:, None]), None


def select(logits: Tensor, targets: Tensor, *, exact: bool = False) -> tuple[Tensor, Tensor]:
    """Return (log-probability of each target, entropy), both Float[n], from logits [n, vocab] and targets Long[n].

    In float32. The entropy, in nats, carries no gradient. `exact` gives the sampler's bits from the sampler's logits.
    """
    logits = logits.float()
    if served(logits, exact=exact):
        return native.select(logits, targets)
    return (_SelectExactly if exact else _Select).apply(logits, targets)


def served(*tensors: Tensor, exact: bool) -> bool:
    """Whether log-probabilities are read off in C: of an exact model always, where they are in sampling."""
    return serves_exactly(tensors[0]) if exact else native.serves(*tensors)


def chunked(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    targets: Tensor,
    chunk_bytes: int = CHUNK_BYTES,
    *,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return (log-probabilities, entropies) Float[n] of targets Long[n] under head(hidden), hidden [n, width].

    Equal in value and gradient to `select(head(hidden), targets)`, holding at most `chunk_bytes` of logits.
    """
    if len(targets) == 0:
        return (empty := hidden.sum(-1).float()), empty.detach()
    size = chunk_bytes // (4 * width(head, hidden))
    return in_chunks(lambda h, t: select(head(h), t, exact=exact), (hidden, targets), size)


def width(head: Callable[[Tensor], Tensor], hidden: Tensor) -> int:
    """Return how many logits the head gives a position."""
    with torch.no_grad():
        return head(hidden[:1]).shape[-1]


def in_chunks(read: Callable[..., tuple[Tensor, Tensor]], inputs: Sequence[Tensor], size: int) -> tuple[Tensor, Tensor]:
    """Return read(*inputs), two tensors with a row for each of the inputs' rows, taken `size` rows at a time.

    Nothing inside `read` outlives its chunk: the backward runs it again.
    """
    size = max(1, size)
    if len(inputs[0]) <= size:
        return read(*inputs)
    parts = [
        checkpoint(read, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(*(rows.split(size) for rows in inputs))
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def token_logprobs(model: LanguageModel, tokens: Tensor, segments: Segments, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return (log-probabilities, entropies) Float[kept] of the tokens where mask is True, in their order.

    tokens: Long[total], packed by `segments`; mask: Bool[total], False where nothing comes before. The head runs in the
    model's own dtype even under autocast: in bfloat16 its rounding is the largest part of the gap between the
    sampler's and the learner's log-probabilities [MiniMax-M1, arXiv 2506.13585, section 3.2].
    """
    hidden, weight = kept_hidden(model, tokens, segments, mask), model.head_weight
    with torch.autocast(hidden.device.type, enabled=False):
        if weight is not None and served(hidden, weight, exact=model.exact):
            return read_head(hidden, weight, tokens[mask], model.head_into)
        return chunked(model.logits, hidden, tokens[mask], exact=model.exact)


def kept_hidden(model: LanguageModel, tokens: Tensor, segments: Segments, mask: Tensor) -> Tensor:
    """Return [kept, width], in the model's own dtype: the states from which the tokens where mask is True are foretold.

    tokens: Long[total], packed by `segments`; mask: Bool[total], False where nothing comes before.
    """
    return model.hidden(tokens[None], segments=segments)[0].index_select(0, segments.before()[mask]).to(model.dtype)
