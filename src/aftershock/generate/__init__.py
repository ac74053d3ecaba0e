"""Sampling: KV rows, scheduler, sampler, engine."""

from aftershock.generate.engine import Engine, Prompt
from aftershock.generate.types import Completion, FinishReason, SamplingParams

__all__ = ["Completion", "Engine", "FinishReason", "Prompt", "SamplingParams"]
