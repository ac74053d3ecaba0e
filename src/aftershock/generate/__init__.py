"""Sampling: KV rows, scheduler, sampler, engine."""

from aftershock.generate.engine import Engine, Prompt
from aftershock.generate.speculation import need_module
from aftershock.generate.types import Completion, FinishReason, SamplingParams

__all__ = ["Completion", "Engine", "FinishReason", "Prompt", "SamplingParams", "need_module"]
