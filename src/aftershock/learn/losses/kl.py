"""Estimators of KL(policy || reference) from the tokens sampled (http://joschu.net/blog/kl-approx.html).

With d = log reference - log policy at a token sampled from the policy:
    k1 = -d            unbiased, may be negative, high variance
    k2 = d^2 / 2       biased, never negative
    k3 = e^d - d - 1   unbiased, never negative; GRPO's [DeepSeekMath, arXiv 2402.03300, eq. 4]
As a term of a loss their *gradients* differ from that of the KL itself [arXiv 2506.09477]: k1's is zero on average, so
it holds nothing back; k2's is the gradient of KL(policy || reference); k3's that of KL(reference || policy).
"""

from collections.abc import Callable

from torch import Tensor

from aftershock.errors import TrainingError
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable

ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: -d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: d.expm1() - d,
}


def estimate(kind: str, logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return the estimator `kind` (k1, k2 or k3) of KL(policy || reference), elementwise, in nats."""
    return ESTIMATORS[kind](reference_logprobs - logprobs)


def add_kl(value: LossValue, terms: Terms, weights: Tensor, table: LossTable) -> LossValue:
    """Return the loss with kl x sum(weights x estimator) added, weights Float[m] being the policy term's own.

    Where `kl` is 0 the loss comes back as it was, and no reference is needed.
    """
    if table.kl == 0:
        return value
    if terms.reference_logprobs is None:
        raise TrainingError(f"kl = {table.kl} but the batch has no reference log-probabilities: step through a Learner")
    divergence = estimate(table.kl_estimator, terms.logprobs, terms.reference_logprobs)
    loss = value.loss + table.kl * (weights * divergence).sum()
    return LossValue(loss, {**value.sums, "kl": divergence.detach().sum()}, value.maxima)
