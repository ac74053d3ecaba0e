"""The model card that is written beside a pretrained model: what it is, how it was made, what was measured on it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aftershock.models import CausalLM
from aftershock.pipeline.context import Context
from aftershock.recipe import PretrainStage, TaskTable

CARD = """---
license: mit
library_name: aftershock
tags: [reasoning, base-model, nano]
---
# {title}

A base model of {parameters:,} parameters (`{model_type}`), trained by next-token prediction on a generated corpus of
reasoning traces, good and bad, in English and Chinese. Reinforcement learning starts from it; it is no assistant.

Made by `aftershock run` from a recipe with seed {seed}; weights' SHA-256 `{digest}`.

| stage | steps | tokens a step | thorough traces | foreign traces | readable traces | tasks |
|---|---|---|---|---|---|---|
{stages}

- The loss is on what follows the prompts. A thorough trace takes no short cut; the others are the tasks' own mix of
  blind guesses, work given up early, and long search (`GUESSES`, `BUDGETS` in the tasks' files). A foreign one is
  written as if the question were in another of the task's languages; a readable one has a step a line, and a sentence
  that leads to the answer.
- The corpus is generated from the tasks' train splits; every number below is on their held-out splits.

## Measured (temperature {temperature}, 95% intervals clustered by problem, seed {seed})
| suite | metric | value | interval | problems n | samples k |
|---|---|---|---|---|---|
{rows}

`check_or_retry_rate` is the share of completions whose reasoning checks or retries, counted by rule; `switch_rate` the
share whose reasoning changes between English and Chinese; `language_consistency` the share of a reasoning's words that
are in the question's language, over those that have words; `readable_rate` the share of completions in one language,
with a sentence that leads from the reasoning to the answer.

## Limits
It knows these families of problems and nothing else; asked anything other, it writes nonsense in their form.
"""


def write_card(context: Context, stage: PretrainStage, model: CausalLM, evals: Sequence[Mapping[str, Any]]) -> Path:
    """Write README.md beside a stage's weights and return its path."""
    folder = context.folder.model_folder
    text = CARD.format(
        title=context.recipe.run.name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        model_type=model.config.model_type,
        seed=context.seed,
        digest=_digest(folder),
        stages="\n".join(_stage(name, table) for name, table in _road(context)),
        temperature=stage.eval.temperature,
        rows="\n".join(_row(measured) for measured in evals),
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _road(context: Context) -> list[tuple[str, PretrainStage]]:
    """Return the pretraining stages that led to this one, itself last, as far back as the recipe knows."""
    road: list[tuple[str, PretrainStage]] = []
    name: str | None = context.name
    while name in context.recipe.stage and isinstance(table := context.recipe.stage[name], PretrainStage):
        road.insert(0, (name, table))
        name = table.source
    return road


def _stage(name: str, table: PretrainStage) -> str:
    tasks = ", ".join(_task(task) for task in table.tasks)
    shares = " | ".join(f"{100 * share:.0f}%" for share in (table.thorough, table.foreign, table.readable))
    return f"| {name} | {table.steps} | {table.tokens_per_step:,} | {shares} | {tasks} |"


def _task(table: TaskTable) -> str:
    guesses = f", {100 * table.guesses:.0f}% more guesses" if table.guesses else ""
    return f"{table.name} x {table.weight:g} (difficulty {table.difficulty}, {'/'.join(table.languages)}{guesses})"


def _digest(folder: Path) -> str:
    """Hash the weights' files in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _row(m: Mapping[str, Any]) -> str:
    value, low, high = (_number(m[name], m["metric"]) for name in ("value", "low", "high"))
    return f"| {m['suite']} | {m['metric']} | {value} | {low} to {high} | {m['n']} | {m['k']} |"


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric == "mean_tokens" else f"{100 * value:.1f}%"
