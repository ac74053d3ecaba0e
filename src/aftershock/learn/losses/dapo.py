"""DAPO: decoupled clip and dynamic sampling policy optimisation [Yu et al., arXiv 2503.14476, eq. 8].

    J = E[ 1/(sum_i |o_i|) sum_i sum_t min(r_it A_i, clip(r_it, 1 - eps_low, 1 + eps_high) A_i) ]

Clip-higher (eps_high > eps_low) leaves rare tokens room to rise, and each token weighs the same. The token sum runs
over the step's groups together, as in the authors' code. Its other two parts live elsewhere: overlong shaping in the
reward (`verify`), dynamic sampling in the RL loop (`pipeline`). The paper drops the KL term; `kl` > 0 puts it back.
"""

import torch

from aftershock.learn.losses.grpo import weighted_surrogate
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable


def dapo(terms: Terms, table: LossTable) -> LossValue:
    """Return the batch's share of DAPO's loss."""
    return weighted_surrogate(terms, table, torch.full_like(terms.advantages, 1.0 / terms.whole.tokens))
