"""Losses of reinforcement learning, one a file, by the name a recipe gives them."""

from collections.abc import Callable

from aftershock.errors import RecipeError
from aftershock.learn.losses import cispo, dapo, dr_grpo, grpo, gspo
from aftershock.learn.losses.cross_entropy import cross_entropy
from aftershock.learn.losses.terms import LossValue, Terms
from aftershock.recipe import LossTable

__all__ = ["CLIPS", "LOSSES", "LossValue", "Terms", "cross_entropy", "resolve"]

LOSSES: dict[str, Callable[[Terms, LossTable], LossValue]] = {
    "grpo": grpo.grpo,
    "dr_grpo": dr_grpo.dr_grpo,
    "dapo": dapo.dapo,
    "gspo": gspo.gspo,
    "cispo": cispo.cispo,
}
CLIPS = {"grpo": grpo.CLIP, "dr_grpo": dr_grpo.CLIP, "dapo": dapo.CLIP, "gspo": gspo.CLIP, "cispo": cispo.CLIP}


def resolve(table: LossTable) -> LossTable:
    """Return the table with each clip bound that the recipe leaves unset at its own paper's value.

    Raises RecipeError for a dial that would do nothing (`kl_estimator` or `reference_every` where kl is 0) and for an
    importance cap between 0 and 1, which would shrink even a token on which sampler and learner agree.
    """
    idle = {"kl_estimator", "reference_every"} & table.model_fields_set if table.kl == 0 else set()
    if idle:
        raise RecipeError(
            f"loss.{min(idle)} is set but loss.kl is 0, so it would do nothing: set loss.kl or leave it out"
        )
    if 0 < table.importance_cap < 1:
        raise RecipeError(f"loss.importance_cap is {table.importance_cap}; it must be 0 (off) or at least 1")
    own = dict(zip(("clip_low", "clip_high"), CLIPS[table.kind]))
    return table.model_copy(update={dial: v for dial, v in own.items() if dial not in table.model_fields_set})
