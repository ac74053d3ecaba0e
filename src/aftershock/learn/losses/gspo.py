"""GSPO: group sequence policy optimisation [Zheng et al., arXiv 2507.18071, eq. 5 and 7].

    J = E[ 1/G sum_i min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i) ]
    s_i = (pi(o_i | q) / pi_old(o_i | q))^(1/|o_i|) = exp( 1/|o_i| sum_t log r_it )

The ratio is the sequence's, so clipping takes or leaves whole completions; the noise of single tokens' ratios, which a
mixture of experts makes worse, averages out. Truncated importance sampling is the same
per-length ratio, of old to sampler.
"""

from torch import Tensor

from aftershock.learn.losses.kl import add_kl
from aftershock.learn.losses.ratio import clipped, clipped_surrogate, ratio_sums
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable


def gspo(terms: Terms, table: LossTable) -> LossValue:
    """Return the batch's share of GSPO's loss; its KL term is the mean over sequences of means over tokens."""
    ratio = terms.sequence_means(terms.logprobs - terms.old_logprobs).exp()
    advantages = terms.sequence_advantages
    surrogate = clipped_surrogate(ratio, advantages, table)
    loss = -(_truncated_weights(terms, table) * surrogate).sum() / terms.whole.sequences
    cut = clipped(ratio, advantages, table)
    spread = ratio.detach().repeat_interleave(terms.lengths), cut.repeat_interleave(terms.lengths)
    return add_kl(LossValue(loss, *ratio_sums(terms, *spread)), terms, terms.mean_of_means, table)


def _truncated_weights(terms: Terms, table: LossTable) -> Tensor:
    """Return Float[n]: min((pi_old / pi_sampler)^(1/|o_i|), cap), or ones where the cap is 0."""
    if table.importance_cap == 0:
        return terms.sequence_advantages.new_ones(len(terms.lengths))
    return terms.sequence_means(terms.old_logprobs - terms.sampler_logprobs).exp().clamp(max=table.importance_cap)
