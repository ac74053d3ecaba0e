"""The model card that is written beside a pretrained model: what it is, how it was made, what was measured on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aftershock.models import LanguageModel
from aftershock.pipeline.context import Context
from aftershock.recipe import PretrainStage

CARD = """---
license: mit
library_name: aftershock
tags: [reasoning, base-model, nano]
---
# {title}

A base model of {parameters:,} parameters (`{model_type}`), trained by next-token prediction on a generated corpus of
reasoning traces, good and bad, in English and Chinese. It is what reinforcement learning starts from, not an assistant.

- Made by `aftershock run` from a recipe with seed {seed}: {steps} steps of {tokens_per_step:,} tokens.
- Tasks: {tasks}.
- The corpus is generated from the tasks' train splits; every number below is on their held-out splits.

## Measured (temperature {temperature}, 95% intervals clustered by problem, seed {seed})
| suite | metric | value | interval | problems n | samples k |
|---|---|---|---|---|---|
{rows}

`check_or_retry_rate` is the share of completions whose reasoning checks or retries, counted by rule; `switch_rate` the
share whose reasoning changes between English and Chinese.

## Limits
It knows these families of problems and nothing else; asked anything other, it writes nonsense in their form.
"""


def write_card(
    context: Context, stage: PretrainStage, model: LanguageModel, evals: Sequence[Mapping[str, Any]]
) -> Path:
    """Write README.md beside a stage's weights and return its path."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    told = ", ".join(f"{t.name} (difficulty {t.difficulty}, {'/'.join(t.languages)})" for t in stage.tasks)
    text = CARD.format(
        title=context.recipe.run.name,
        parameters=parameters,
        model_type=stage.model.model_type if stage.model else "as its source",
        seed=context.seed,
        steps=stage.steps,
        tokens_per_step=stage.tokens_per_step,
        tasks=told,
        temperature=stage.eval.temperature,
        rows="\n".join(_row(measured) for measured in evals),
    )
    path = context.folder.model_folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _row(m: Mapping[str, Any]) -> str:
    value, low, high = (_number(m[name], m["metric"]) for name in ("value", "low", "high"))
    return f"| {m['suite']} | {m['metric']} | {value} | {low} to {high} | {m['n']} | {m['k']} |"


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric == "mean_tokens" else f"{100 * value:.1f}%"
