"""Dr. GRPO: GRPO done right [Liu et al., arXiv 2503.20783, section 3.2 and listing 1].

    J = E[ 1/G sum_i 1/L sum_t ( min(r_it A_i, clip(r_it, 1 - eps, 1 + eps) A_i) - beta KL_it ) ],   A_i = R_i - mean(R)

L is constant (the longest completion allowed), so a long wrong answer is not pardoned for its length; and the advantage
is not divided by the standard deviation (see `learn/advantages.py`), so easy and hard problems weigh the same.
"""

import torch

from aftershock.learn.losses.grpo import weighted_surrogate
from aftershock.learn.losses.terms import LossValue, Terms, need_max_tokens
from aftershock.recipe import LossTable


def dr_grpo(terms: Terms, table: LossTable) -> LossValue:
    """Return the batch's share of Dr. GRPO's loss; raises TrainingError where `whole.max_tokens` is 0."""
    weight = 1.0 / (terms.whole.sequences * need_max_tokens(terms.whole))
    return weighted_surrogate(terms, table, torch.full_like(terms.advantages, weight))
