"""What every stage is handed, and what all stages build from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aftershock.cost.hardware import device
from aftershock.errors import RecipeError
from aftershock.recipe import Recipe, Stage, TaskTable
from aftershock.sources import HUB, SHIPPED, hub_folder, shipped_base
from aftershock.tasks import Task, task

if TYPE_CHECKING:
    from aftershock.run import Run, StageFolder
    from aftershock.track import Reporter


@dataclass(frozen=True)
class Context:
    """One stage at work: the recipe it stands in, the run, its own folder in the run, and who is told of progress."""

    recipe: Recipe
    run: "Run"
    name: str
    folder: "StageFolder"
    reporter: "Reporter"

    @property
    def seed(self) -> int:
        return self.recipe.run.seed

    @property
    def device(self) -> str:
        """Where the stage's models lie, "cpu" or "cuda"."""
        return device(self.recipe.run.device)

    @property
    def stage(self) -> Stage:
        """This stage's own table."""
        return self.recipe.stage[self.name]

    def begin(self, steps: int) -> None:
        """Tell who watches that the stage begins, and how many steps it has."""
        tasks = ", ".join(table.name for table in self.stage.tasks)
        self.reporter.start(self.name, self.stage.kind, steps, {"tasks": tasks or "none", "seed": self.seed})


def model_folder(source: str, context: Context) -> Path:
    """Return where a stage's weights come from: "base", an earlier stage of the run, a folder of one's own, or a model
    of the hub (`hub:ORG/NAME[@REVISION]`), which is downloaded once.
    """
    if source in SHIPPED:
        return shipped_base(source)
    if source in context.recipe.stage:
        return context.run.stage(source, context.recipe.stage[source]).model_folder
    if source.startswith(HUB):
        return hub_folder(source)
    folder = context.recipe.locate(source)
    if not (folder / "config.json").is_file():
        raise RecipeError(
            f'stage {context.name!r}: from = {source!r} is neither "base", nor an earlier stage, nor a model of '
            "the hub (hub:ORG/NAME), nor a folder with a config.json; name one of these"
        )
    return folder


def build_tasks(tables: tuple[TaskTable, ...], context: Context) -> list[Task]:
    """Build a stage's tasks in the recipe's order; a task file is looked for beside the recipe."""
    base = context.recipe.folder
    return [task(table.name, table.difficulty, table.languages, base=base) for table in tables]
