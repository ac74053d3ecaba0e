"""Distillation: the divergence of a student's next-token distribution from its teacher's, over the whole vocabulary.

With p the student's and q the teacher's distribution at a token that counts, both softmax(logits / temperature):
    forward_kl   KL(q || p) = sum_v q log(q / p)   covers all that the teacher may say [Hinton et al., arXiv 1503.02531]
    reverse_kl   KL(p || q) = sum_v p log(p / q)   keeps to what the teacher may say   [MiniLLM, arXiv 2306.08543]
Both are exact at each token; the loss is their mean over a step's tokens, as in TRL (GKD's own is a mean of each
completion's mean: tried, it changed nothing, see docs/log.md). On the student's own tokens this is on-policy
distillation [GKD, arXiv 2306.13649]: as there, no gradient goes through the sampling, so that reverse_kl leaves out
what a token does to those after it, which MiniLLM estimates by policy gradient. Hinton's factor of temperature^2 is
left out, as in TRL.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from aftershock.learn.batch import Whole
from aftershock.learn.losses.terms import LossValue

Divergence = Literal["forward_kl", "reverse_kl"]
TOLD = ("forward_kl", "reverse_kl", "entropy", "agreement")


class _Divergence(torch.autograd.Function):
    """One of the two divergences, keeping for the backward only its gradient in the student's logits."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, kind: Divergence) -> tuple[Tensor, Tensor]:
        """Keep the gradient in the student's logits."""
        log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
        p, q, gap = log_p.exp(), log_q.exp(), log_p - log_q
        forward_kl, reverse_kl, entropy = -(q * gap).sum(-1), (p * gap).sum(-1), -(p * log_p).sum(-1)
        agreement = (log_p.argmax(-1) == log_q.argmax(-1)).to(p.dtype)
        ctx.save_for_backward(p - q if kind == "forward_kl" else p * (gap - reverse_kl[:, None]))
        told = torch.stack([forward_kl, reverse_kl, entropy, agreement], -1)
        ctx.mark_non_differentiable(told)
        return (forward_kl if kind == "forward_kl" else reverse_kl), told

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (unit,) = ctx.saved_tensors
        return unit * grads[0][:, None], None, None


def divergence(student: Tensor, teacher: Tensor, kind: Divergence, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the divergence Float[n] in nats, and what is told of each position, Float[n, 4] in the order of `TOLD`.

    student, teacher: logits [n, vocab]; only the student's get a gradient. Where one model's vocabulary was rounded up
    further than the other's (Qwen2.5 7B has 152,064 rows, 1.5B 151,936), the tokens that both have are compared.
    `entropy` is the student's, `agreement` 1 where both think the same token likeliest.
    """
    size = min(student.shape[-1], teacher.shape[-1])
    return _Divergence.apply(student[:, :size].float() / temperature, teacher[:, :size].float() / temperature, kind)


def distillation(each: Tensor, told: Tensor, whole: Whole) -> LossValue:
    """Return the batch's share of the mean divergence over the whole step's tokens."""
    return LossValue(each.sum() / whole.tokens, dict(zip(TOLD, told.sum(0))))
