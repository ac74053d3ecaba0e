"""GRPO: group relative policy optimisation [DeepSeekMath, arXiv 2402.03300, eq. 3; R1, arXiv 2501.12948, eq. 1].

    J = E[ 1/G sum_i 1/|o_i| sum_t ( min(r_it A_i, clip(r_it, 1 - eps, 1 + eps) A_i) - beta KL_it ) ]
    r_it = pi(o_it | q, o_i<t) / pi_old(o_it | q, o_i<t)

The loss is -J: a mean over sequences of means over tokens, each sequence weighing the same whatever its length.
"""

from torch import Tensor

from aftershock.learn.losses.importance import truncated_weights
from aftershock.learn.losses.kl import add_kl
from aftershock.learn.losses.ratio import clipped, clipped_surrogate, ratio_sums
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable


def grpo(terms: Terms, table: LossTable) -> LossValue:
    """Return the batch's share of GRPO's loss."""
    return weighted_surrogate(terms, table, terms.mean_of_means)


def weighted_surrogate(terms: Terms, table: LossTable, weights: Tensor) -> LossValue:
    """Return -sum(weights x w x surrogate) + kl x sum(weights x KL), weights Float[m] saying what a token counts.

    GRPO, Dr. GRPO and DAPO are this sum and differ in the weights alone.
    """
    ratio = (terms.logprobs - terms.old_logprobs).exp()
    surrogate = clipped_surrogate(ratio, terms.advantages, table)
    loss = -(weights * truncated_weights(terms, table) * surrogate).sum()
    cut = clipped(ratio, terms.advantages, table)
    return add_kl(LossValue(loss, *ratio_sums(terms, ratio, cut)), terms, weights, table)
