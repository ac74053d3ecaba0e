"""What only the rooms can say of a recipe, asked before anything is computed: its tasks and its new models."""

from collections.abc import Iterator, Sequence

from aftershock.errors import AftershockError, RecipeError
from aftershock.models import ModelConfig
from aftershock.recipe import PretrainStage, Recipe, RLStage, SampleStage, Stage
from aftershock.recipe_rules import nearest
from aftershock.tasks import Task, task


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
    made = []
    for index, table in enumerate(stage.tasks):
        try:
            made.append(task(table.name, table.difficulty, table.languages, base=recipe.folder))
        except AftershockError as error:
            yield f"tasks.{index}: {error}"
            continue
        if isinstance(stage, SampleStage) and made[-1].open:
            yield (
                f"tasks.{index}: {table.name} is open: no rule says which completions to keep, and its check, which "
                "serves measuring alone, may not; leave it out, and name a file of good answers in the data of the "
                "sft stage instead"
            )
    if isinstance(stage, RLStage) and len(made) == len(stage.tasks):
        yield from _open_tasks(stage, made)


def _open_tasks(stage: RLStage, tasks: Sequence[Task]) -> Iterator[str]:
    """Open tasks are drawn only once a reward model has its say, and reward models have one in open tasks alone."""
    if all(task.open for task in tasks) and all(table.from_step for table in stage.preferences):
        yield "tasks: all are open, with no rule to reward them: add preferences with from_step = 0, or another task"
    if stage.preferences and not any(task.open for task in tasks):
        yield "preferences: reward models judge open tasks only, and none of the tasks is; add one, or leave them out"


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
