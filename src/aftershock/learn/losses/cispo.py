"""CISPO: clipped importance sampling policy optimisation [MiniMax-M1, arXiv 2506.13585, eq. 4 and 5].

    J = E[ 1/(sum_i |o_i|) sum_i sum_t sg(clip(r_it, 1 - eps_low, 1 + eps_high)) A_i log pi(o_it | q, o_i<t) ]

REINFORCE with a bounded weight: sg stops the gradient, so no token is ever silenced, as PPO's clip silences the
rare ones on which a chain of thought turns. The advantage is the group's, as in GRPO.
"""

import torch

from aftershock.learn.losses.importance import truncated_weights
from aftershock.learn.losses.kl import add_kl
from aftershock.learn.losses.ratio import ratio_sums
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable


def cispo(terms: Terms, table: LossTable) -> LossValue:
    """Return the batch's share of CISPO's loss; its clip fraction is the share of tokens whose weight was bounded."""
    ratio = (terms.logprobs - terms.old_logprobs).exp().detach()
    bounded = ratio.clamp(1 - table.clip_low, 1 + table.clip_high)
    weights = torch.full_like(terms.advantages, 1.0 / terms.whole.tokens)
    policy = weights * truncated_weights(terms, table) * bounded * terms.advantages * terms.logprobs
    value = LossValue(-policy.sum(), *ratio_sums(terms, ratio, bounded != ratio))
    return add_kl(value, terms, weights, table)
