"""What goes into a loss and what comes out."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from aftershock.errors import TrainingError
from aftershock.learn.batch import Whole


@dataclass(frozen=True)
class Terms:
    """The tokens of one batch that count, in order, sequence after sequence; m tokens in n sequences.

    logprobs: Float[m], the policy's, with gradient. old_logprobs: Float[m], the policy's before the first optimiser
    step on these rollouts. sampler_logprobs: Float[m], as the engine saw them. advantages: Float[m]. lengths: Long[n].
    reference_logprobs: Float[m], needed where kl > 0. whole: the counts of the whole step.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    sampler_logprobs: Tensor
    advantages: Tensor
    lengths: Tensor
    whole: Whole
    reference_logprobs: Tensor | None = None

    @property
    def sequence_advantages(self) -> Tensor:
        """Return Float[n]: the advantage of each sequence, which all its tokens share."""
        return self.advantages[self.lengths.cumsum(0) - self.lengths]

    @property
    def mean_of_means(self) -> Tensor:
        """Return Float[m]: the weights whose sum over tokens is a mean over sequences of means over tokens."""
        each = 1.0 / (self.lengths.to(self.advantages.dtype) * self.whole.sequences)
        return each.repeat_interleave(self.lengths)

    def sequence_means(self, values: Tensor) -> Tensor:
        """Return Float[n]: the mean over each sequence of values Float[m]; summed in order, so bitwise repeatable."""
        return torch.segment_reduce(values, "sum", lengths=self.lengths) / self.lengths


@dataclass(frozen=True)
class LossValue:
    """A batch's share of the step's loss, with what is to be told of it.

    `sums`: totals over the batch's tokens, which the learner divides by the step's tokens. `maxima`: largest values.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    maxima: dict[str, Tensor] = field(default_factory=dict)


def need_max_tokens(whole: Whole) -> int:
    """Return the stage's completion limit, or raise TrainingError where the batch was packed without it."""
    if whole.max_tokens < 1:
        raise TrainingError(
            "dr_grpo divides by max_tokens, which is 0: pack(samples, ..., max_tokens=the stage's limit)"
        )
    return whole.max_tokens
