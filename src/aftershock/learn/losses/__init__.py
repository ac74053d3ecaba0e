"""Losses of reinforcement learning, one a file, by the name a recipe gives them."""

from collections.abc import Callable

from aftershock.learn.losses import cispo, dapo, dr_grpo, grpo, gspo
from aftershock.learn.losses.cross_entropy import cross_entropy
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable

__all__ = ["LOSSES", "LossValue", "Terms", "cross_entropy"]

LOSSES: dict[str, Callable[[Terms, LossTable], LossValue]] = {
    "grpo": grpo.grpo,
    "dr_grpo": dr_grpo.dr_grpo,
    "dapo": dapo.dapo,
    "gspo": gspo.gspo,
    "cispo": cispo.cispo,
}
