"""What only the rooms can say of a recipe, asked before anything is computed: its tasks and its new models."""

from collections.abc import Iterator

from aftershock.errors import AftershockError, RecipeError
from aftershock.models import ModelConfig
from aftershock.recipe import PretrainStage, Recipe, Stage
from aftershock.recipe_rules import nearest
from aftershock.tasks import task


def check(recipe: Recipe) -> None:
    """Make every task and read every new model's config; RecipeError tells all that won't do, by key."""
    faults = [
        f"stage.{name}.{fault}"
        for name, stage in recipe.stage.items()
        for fault in (*_tasks(stage, recipe), *_model(stage))
    ]
    if faults:
        raise RecipeError("\n".join(faults))


def _tasks(stage: Stage, recipe: Recipe) -> Iterator[str]:
    for index, table in enumerate(stage.tasks):
        try:
            task(table.name, table.difficulty, table.languages, base=recipe.folder)
        except AftershockError as error:
            yield f"tasks.{index}: {error}"


def _model(stage: Stage) -> Iterator[str]:
    if not isinstance(stage, PretrainStage) or stage.model is None:
        return
    try:
        config = ModelConfig.from_dict({"vocab_size": stage.vocab_size, **stage.model.model_dump()})
    except AftershockError as error:
        yield f"model: {error}"
        return
    known = config.to_dict().keys() - config.extras.keys()
    # Hugging Face knows many keys that change nothing here; a slip is one that is nearly a key that does.
    for key in sorted(config.extras):
        near = nearest(key, known, cutoff=0.85)
        if near != ".":
            yield f"model.{key} = {config.extras[key]!r}: {config.model_type} has no such key{near}"
