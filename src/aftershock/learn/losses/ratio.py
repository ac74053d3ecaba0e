"""The probability ratio between the policy and its old self, and PPO's clipped surrogate over it."""

import torch
from torch import Tensor

from aftershock.learn.losses.terms import Terms
from aftershock.recipe import LossTable


def clipped_surrogate(ratio: Tensor, advantages: Tensor, table: LossTable) -> Tensor:
    """Return min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) elementwise [PPO, arXiv 1707.06347, eq. 7]."""
    clipped = ratio.clamp(1 - table.clip_low, 1 + table.clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def clipped(ratio: Tensor, advantages: Tensor, table: LossTable) -> Tensor:
    """Return Bool: where the surrogate's gradient is cut, that is above the range for A > 0, below it for A < 0."""
    high = (ratio > 1 + table.clip_high) & (advantages > 0)
    return high | ((ratio < 1 - table.clip_low) & (advantages < 0))


@torch.no_grad()
def ratio_sums(terms: Terms, ratio: Tensor, cut: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return (sums, maxima) over tokens of the ratio Float[m], the clip Bool[m], and KL(old || new) as k3.

    http://joschu.net/blog/kl-approx.html: with r = new / old and tokens from old, E[r - 1 - log r] = KL(old || new).
    """
    log_ratio = terms.logprobs - terms.old_logprobs
    drift = (log_ratio.expm1() - log_ratio).sum()
    sums = {"clip_fraction": cut.float().sum(), "ratio_mean": ratio.sum(), "approx_kl": drift}
    return sums, {"ratio_max": ratio.max()}
