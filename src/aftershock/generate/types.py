"""What goes into the engine and what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. `temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off; `n` completions a prompt.

    `stop` are strings that end a completion (kept out of its text); the model's end token always ends one. `draft` is
    how many tokens the model's multi-token-prediction module foretells a step (0: none): it changes the pace and the
    random numbers' use, but not the distribution drawn from.
    """

    n: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    draft: int = 0


@dataclass(frozen=True)
class Completion:
    """One completion. `tokens` includes the end token where one was sampled (`finish_reason == "stop"`).

    `logprobs[t]` is log p(tokens[t]) under the model itself, before temperature, bias and truncation;
    `sampled_logprobs[t]` is the same under the distribution that was sampled from. `reasoning` and `answer` are
    `text` split at the end of thinking. `forwards` of the model drew them: as many as tokens, or fewer with drafts.
    """

    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampled_logprobs: tuple[float, ...]
    text: str
    reasoning: str
    answer: str
    finish_reason: FinishReason
    forwards: int = 0
