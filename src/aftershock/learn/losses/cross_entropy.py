"""Cross entropy: next-token prediction, for pretraining and supervised fine-tuning.

L = -1/N sum_t log pi(x_t | x_<t),   N the tokens that count in the whole step
"""

from torch import Tensor

from aftershock.learn.batch import Whole
from aftershock.learn.losses.terms import LossValue


def cross_entropy(logprobs: Tensor, whole: Whole) -> LossValue:
    """Return the batch's share of the mean negative log-likelihood, in nats a token; logprobs: Float[m]."""
    return LossValue(-logprobs.sum() / whole.tokens)
