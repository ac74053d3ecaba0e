"""The kinds of stage, and the loop that takes a recipe's stages in order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aftershock import disk, graph
from aftershock.pipeline import bench, distill, pretrain, reward_model, rl, sampling, sft
from aftershock.pipeline.context import Context
from aftershock.recipe import Recipe, fingerprint

if TYPE_CHECKING:
    from aftershock.run import Run
    from aftershock.track import Reporter

__all__ = ["KINDS", "PLAN", "Context", "execute"]

PLAN = "plan.json"  # in a run's folder: what was foretold of it

KINDS: dict[str, Any] = {
    "pretrain": pretrain.run,
    "sft": sft.run,
    "sample": sampling.run,
    "distill": distill.run,
    "reward_model": reward_model.run,
    "rl": rl.run,
    "bench": bench.run,
}


def execute(recipe: Recipe, run: "Run", reporter: "Reporter", part: Sequence[str] | None = None) -> dict[str, Any]:
    """Run every stage of a recipe (or of `part`) that isn't finished yet; return the run's summary (summary.json).

    Raises AftershockError where a stage can't go on, or `part` lacks what one is made from; what was finished before
    stays, and `--resume` goes on from it.
    """
    chosen = {name: recipe.stage[name] for name in recipe.stage if part is None or name in part}
    graph.check_part(recipe, list(chosen), [name for name in recipe.stage if run.finished(name)])
    _keep_plan(recipe, run, reporter)
    for name, stage in chosen.items():
        if run.finished(name):
            reporter.note(f"stage {name} is finished already")
            continue
        folder = run.stage(name, stage)
        context = Context(recipe, run, name, folder, reporter)
        evals = KINDS[stage.kind](stage, context)
        reporter.finish(name, folder.finish({"evals": evals}))
        run.write_summary()
    return run.write_summary()


def _keep_plan(recipe: Recipe, run: "Run", reporter: "Reporter") -> None:
    """Keep what is foretold of the recipe, to stand beside what happens; a plan that fails is told of, and no more."""
    now = fingerprint(recipe)
    if (disk.read_json(run.folder / PLAN) or {}).get("fingerprint") == now:
        return
    try:
        disk.write_json(run.folder / PLAN, {"fingerprint": now, **_foretold(recipe)})
    except Exception as error:  # of a planner, which a run doesn't need
        reporter.note(f"no plan to compare with: {error}")


def _foretold(recipe: Recipe) -> dict[str, Any]:
    from aftershock.plan import plan

    return plan(recipe).as_dict()
