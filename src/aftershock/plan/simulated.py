"""A recipe's stages of RL simulated on a cluster, as they are and with sampling and learning side by side."""

from typing import Any

from aftershock import graph
from aftershock.cost.cluster import Cluster
from aftershock.cost.lengths import Lengths
from aftershock.cost.memory import MOMENTS
from aftershock.cost.parameters import Config
from aftershock.cost.simulation import Outcome, describe
from aftershock.cost.simulation.schedules import schedules
from aftershock.errors import RecipeError
from aftershock.plan import machine
from aftershock.plan.loads import SCENARIOS, lineages, load
from aftershock.plan.stages import Planner
from aftershock.recipe import Recipe, RLStage

Simulated = dict[str, dict[str, Outcome]]  # by stage, then by schedule


def simulated(recipe: Recipe, on: str | None) -> Simulated:
    """Return each stage of RL under each schedule that the cluster has room for.

    RecipeError where `on` is no cluster, or where no stage of RL has a model whose config.json is known.
    """
    place = machine.place(on)
    if place.cluster is None:
        raise RecipeError("--simulate is about who waits for whom on a cluster: name one, as --on 64xH100")
    planner = Planner(recipe, place, lineages(recipe), graph.inputs(recipe.content()["stage"]), "auto")
    configs, found = planner.configs, {}
    for name, stage in recipe.stage.items():
        if isinstance(stage, RLStage) and (config := configs[name]):
            found[name] = _stage(stage, recipe, config, place.cluster)
    if not found:
        raise RecipeError("--simulate: no stage of RL whose model's config.json is known here")
    return found


def _stage(stage: RLStage, recipe: Recipe, config: Config, cluster: Cluster) -> dict[str, Outcome]:
    done = load(stage, recipe, lineages(recipe), SCENARIOS[1])
    assert done is not None  # only data whose size is unknown has no load
    lengths = Lengths(min(done.written, 0.9 * stage.max_tokens), stage.max_tokens)
    group = stage.samples_per_problem
    batch = stage.problems_per_step * group
    job = {"batch": batch, "group": group, "prompt": round(done.prompt), "steps": stage.steps, "learnt": stage.learnt}
    return schedules(config, cluster, lengths, **job, shared=True, moments=MOMENTS[stage.optim.moments])


def as_dicts(found: Simulated) -> dict[str, Any]:
    """Return it as JSON-able values."""
    return {stage: {kind: outcome.as_dict() for kind, outcome in kinds.items()} for stage, kinds in found.items()}


def told(found: Simulated) -> str:
    """Return it in words; what it rests on at the end."""
    lines = []
    for stage, kinds in found.items():
        for kind, outcome in kinds.items():
            first, *others = describe(outcome)
            lines += [f"{stage}, {kind}: {first}", *(f"    {line}" for line in others)]
    assumed = (
        "One seed; lengths, the lognormal's width and failures are assumed: docs/simulation.md says how far off it was."
    )
    return "\n".join(["Simulated", *lines, assumed, "Only taking turns is what `aftershock run` does today."])
