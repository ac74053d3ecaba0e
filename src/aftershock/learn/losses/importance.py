"""Truncated importance sampling: mends the gap between the sampler's and the learner's probabilities of one policy.

    w_t = min(pi_learner_old(o_t) / pi_sampler(o_t), C)
[Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025]. It multiplies the policy
term of a token, not its KL term, and carries no gradient. Where one optimiser step is taken on each rollout batch,
old is the current policy with its gradient stopped.
"""

import torch
from torch import Tensor

from aftershock.learn.losses.terms import Terms
from aftershock.recipe import LossTable


@torch.no_grad()
def truncated_weights(terms: Terms, table: LossTable) -> Tensor:
    """Return w Float[m]; ones where `importance_cap` is 0."""
    if table.importance_cap == 0:
        return torch.ones_like(terms.old_logprobs)
    return (terms.old_logprobs - terms.sampler_logprobs).exp().clamp(max=table.importance_cap)
