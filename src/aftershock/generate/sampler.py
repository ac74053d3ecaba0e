"""One token a row from logits: temperature, truncation, and one uniform number turned into a token."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from aftershock.errors import SamplingError
from aftershock.generate.types import SamplingParams
from aftershock.models.exact import log_softmax
from aftershock.models.native.step import draw

_COLDEST = 1e-6  # temperature of a native draw, which divides in float32


class Drawn(NamedTuple):
    """What a step drew: `tokens` Long[rows], and their log-probabilities float32[rows] under the model itself and
    under the distribution sampled from."""

    tokens: Tensor
    logprobs: Tensor
    sampled_logprobs: Tensor


class Sampler:
    """Draws from logits by inverse CDF, every row by its own uniform number, so no row knows of its neighbours.

    In this order: bias is added, temperature divides, top-k keeps the k likeliest, top-p the smallest set of those
    that holds top-p of their mass (Holtzman et al., arXiv 1904.09751), min-p those at least min-p times as likely as
    the likeliest (Nguyen et al., arXiv 2407.01082). Ties go to the lower token. With `native`, a draw that
    doesn't truncate is done in C. With `exact`, log-probabilities have the bits of an exact model's learner.
    """

    def __init__(
        self,
        params: SamplingParams,
        vocab_size: int,
        device: torch.device,
        *,
        native: bool = False,
        exact: bool = False,
    ) -> None:
        self.params, self.exact = params, exact
        self.truncates = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        self.bias: Tensor | None = None
        if params.logit_bias:
            self.bias = torch.zeros(vocab_size, device=device)
            self.bias[list(params.logit_bias)] = torch.tensor(list(params.logit_bias.values()), device=device)
        self.native = native and not self.truncates and params.temperature >= _COLDEST

    def __call__(self, logits: Tensor, uniforms: Tensor) -> Drawn:
        """Draw one token a row from logits float32[rows, vocab] with uniforms float64[rows] in [0, 1)."""
        if self.native:
            return Drawn(*draw(logits, uniforms, self.params.temperature, self.bias))
        own = self.own(logits)
        if self.params.temperature == 0:
            tokens = (logits if self.bias is None else logits + self.bias).argmax(-1)
            return Drawn(tokens, _pick(own, tokens), torch.zeros_like(logits[:, 0]))
        shaped = self._shape(logits, own)
        tokens = inverse_cdf(shaped.exp(), uniforms)
        return Drawn(tokens, _pick(own, tokens), _pick(shaped, tokens))

    def own(self, logits: Tensor) -> Tensor:
        """Return the model's log-probabilities float32[rows, vocab]."""
        return log_softmax(logits) if self.exact else logits.log_softmax(-1)

    def distribution(self, logits: Tensor, own: Tensor) -> Tensor:
        """Return the log-probabilities float32[rows, vocab] of what is drawn from: where greedy, 0 at one token alone.

        `own` are the model's. A row of NaN has one there.
        """
        if self.params.temperature > 0:
            return self._shape(logits, own)
        likeliest = (logits if self.bias is None else logits + self.bias).argmax(-1, keepdim=True)
        return torch.full_like(own, -math.inf).scatter(-1, likeliest, own.gather(-1, likeliest) * 0)

    def _shape(self, logits: Tensor, own: Tensor) -> Tensor:
        """Return the log-probabilities [rows, vocab] of the distribution to sample from."""
        shaped = own
        if self.bias is not None:
            shaped = (logits + self.bias).log_softmax(-1)
        if self.params.temperature != 1:
            # from the maximum, so that a tiny temperature can't overflow
            shaped = ((shaped - shaped.amax(-1, keepdim=True)) / self.params.temperature).log_softmax(-1)
        if self.truncates:
            shaped = shaped.masked_fill(~self._kept(shaped), -math.inf).log_softmax(-1)
        return shaped

    def _kept(self, shaped: Tensor) -> Tensor:
        ordered, order = torch.sort(shaped, dim=-1, descending=True, stable=True)
        probs = ordered.exp().double()
        if self.params.top_k > 0:
            probs[:, self.params.top_k :] = 0
        before = probs.cumsum(-1) - probs
        kept = (before < self.params.top_p * probs.sum(-1, keepdim=True)) & (probs > 0)
        kept &= probs >= self.params.min_p * probs[:, :1]
        kept[:, 0] = True
        return torch.zeros_like(kept).scatter_(-1, order, kept)


def inverse_cdf(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Return Long[rows]: for each row of probs [rows, vocab] the first token whose cumulative mass exceeds u x total.

    A token of probability 0 is never returned. Sums are float64, so that a large vocabulary loses no tail. A row of
    NaN gives some token, whose log-probability is NaN too.
    """
    mass = probs.cumsum(-1, dtype=torch.float64)
    total = mass[:, -1]
    goal = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(mass, goal[:, None], right=True)[:, 0].clamp(max=probs.shape[-1] - 1)


def _pick(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens[:, None])[:, 0]


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raise SamplingError, naming the field, its value and what it may be, if `params` make no sense."""
    bias = params.logit_bias
    wanted = {
        "n": (params.n >= 1, "at least 1"),
        "max_tokens": (params.max_tokens >= 1, "at least 1"),
        "temperature": (0 <= params.temperature < math.inf, "0 (greedy) or above, and finite"),
        "top_p": (0 < params.top_p <= 1, "above 0 and at most 1 (1 is off)"),
        "top_k": (params.top_k >= 0, "0 (off) or above"),
        "draft": (params.draft >= 0, "0 (off) or above"),
        "min_p": (0 <= params.min_p < 1, "at least 0 (off) and below 1"),
        "stop": (not isinstance(params.stop, str) and all(params.stop), "a tuple of strings, none of them empty"),
        "logit_bias": (
            all(0 <= token < vocab_size and value < math.inf for token, value in bias.items()),
            f"token ids from 0 to {vocab_size - 1} with biases that are numbers below infinity",
        ),
    }
    for name, (fine, what) in wanted.items():
        if not fine:
            raise SamplingError(f"sampling parameter {name} is {getattr(params, name)!r}; it must be {what}")
