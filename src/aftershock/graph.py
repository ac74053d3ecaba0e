"""A recipe's stages as a graph: what each is made from, which a change makes stale, and which part is to be run."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aftershock.errors import RecipeError
from aftershock.own import nearest
from aftershock.recipe import Recipe

Tables = Mapping[str, Any]  # a recipe's content, as `Recipe.content` gives it


def inputs(stages: Mapping[str, Tables]) -> dict[str, list[str]]:
    """Return for each stage the earlier stages that it takes weights, data, a teacher, a tokenizer or rewards from, or
    that it measures.
    """
    found: dict[str, list[str]] = {}
    for name, table in stages.items():
        scored = [preference["model"] for preference in table.get("preferences", ())]
        named = [table.get("from"), *table.get("data", ()), table.get("teacher"), table.get("tokenizer"), *scored]
        found[name] = [source for source in dict.fromkeys([*named, *table.get("models", ())]) if source in found]
    return found


def fingerprints(content: Tables) -> dict[str, str]:
    """Return for each stage the SHA-256 of all that its outcome follows from within the recipe.

    That is the seed, its name (draws are keyed by both), its table, and the fingerprints of its inputs.
    """
    needs, found = inputs(content["stage"]), dict[str, str]()
    for name, table in content["stage"].items():
        parts = [content["run"].get("seed"), name, table, [found[source] for source in needs[name]]]
        found[name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return found


def part(recipe: Recipe, only: Sequence[str] = (), start: str | None = None, until: str | None = None) -> list[str]:
    """Return the stages to run, in the recipe's order: `only` those, or from `start` until `until`, both included.

    RecipeError for a name that no stage has (with the nearest), for an empty part, and for both ways at once.
    """
    names = list(recipe.stage)
    for name in (*only, *(end for end in (start, until) if end is not None)):
        if name not in names:
            raise RecipeError(f"there is no stage {name!r}{nearest(name, names)}; the stages are {', '.join(names)}")
    if only:
        if start or until:
            raise RecipeError("--only names every stage that is run: it can't go together with --from or --until")
        return [name for name in names if name in only]
    first = names.index(start) if start else 0
    last = names.index(until) if until else len(names) - 1
    if first > last:
        raise RecipeError(
            f"stage {start!r} stands behind {until!r} in the recipe: there is nothing to run between them"
        )
    return names[first : last + 1]


def check_part(recipe: Recipe, chosen: Sequence[str], finished: Collection[str]) -> None:
    """Raise RecipeError, saying what to run first, where an input of a chosen stage is neither chosen nor finished."""
    needs, wanted = inputs(recipe.content()["stage"]), set(chosen)
    for name in reversed(recipe.stage):  # an input stands before what it goes into
        wanted |= {source for source in needs[name] if name in wanted and source not in finished}
    first = [name for name in recipe.stage if name in wanted and name not in chosen]
    if first:
        lacking = [
            f"{name!r} needs {source!r}"
            for name in recipe.stage
            if name in chosen
            for source in needs[name]
            if source in first
        ]
        raise RecipeError(
            f"stage {', '.join(lacking)}, which isn't finished: run that first (--only {','.join(first)}), "
            "or choose it too"
        )
