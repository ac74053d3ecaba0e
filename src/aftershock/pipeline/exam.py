"""The examination of a stage's model on held-out problems: sampled, judged, measured and kept in the stage's folder."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import torch

from aftershock.cost import flops
from aftershock.generate import Engine, SamplingParams
from aftershock.learn import Batch, token_logprobs
from aftershock.models import CausalLM, LanguageModel
from aftershock.pipeline.context import Context
from aftershock.pipeline.evaluate import heldout, measure, rows, sample
from aftershock.recipe import BenchStage, TrainingStage
from aftershock.tasks import Task
from aftershock.verify.judge import Judge


def examine(
    stage: TrainingStage | BenchStage,
    context: Context,
    engine: Engine,
    judge: Judge,
    tasks: Sequence[Task],
    when: str,
    step: int,
) -> list[dict]:
    """Measure on the held-out problems and keep the answers; what was measured before a kill is read back.

    The stage's own `eval` table says how; `when` is "before" or "after", or the model's name in a bench stage; `step`
    the steps taken so far. Draws don't depend on `when`. Kept as eval-WHEN.json and eval-WHEN.jsonl.gz, where what
    can't stand in a file's name is percent-encoded.
    """
    folder, table, name = context.folder, stage.eval, f"eval-{quote(when, safe='')}"
    kept = folder.read_json(name)
    if kept is not None:
        return kept
    problems = heldout(tasks, table.problems)
    if not problems:  # all its tasks are open prompts
        return []
    params = SamplingParams(table.samples, stage.max_tokens, table.temperature, seed=context.seed)
    total = len(problems) * params.n
    told = f"measuring {when}" + (" the stage" if when in ("before", "after") else "")
    judged = sample(
        engine,
        judge,
        problems,
        params,
        (context.seed, context.name, "eval"),
        on_progress=lambda done: context.reporter.progress(told, done, total),
    )
    folder.save_rows(name, rows(judged, step))
    sampled = sum(len(completion.tokens) for one in judged for completion in one.completions)
    folder.account(step, {"eval": 1.0}, flops.work(config_of(engine.model), sampled / total, 0, sampled))
    evals = [asdict(m) for m in measure(judged, when, context.seed)]
    folder.save_json(name, evals)
    context.run.write_summary()
    return evals


def config_of(model: LanguageModel) -> dict[str, Any]:
    """Return the config.json of a model that an engine reads."""
    assert isinstance(model, CausalLM)
    return model.config.to_dict()


@torch.no_grad()
def validation_loss(model: LanguageModel, batches: Sequence[Batch]) -> float:
    """Return the cross entropy, in nats a token, over the batches of one pack."""
    model.eval()  # so that a mixture doesn't count these tokens in the load it balances
    total = sum(token_logprobs(model, b.tokens, b.segments, b.mask)[0].sum().item() for b in batches)
    return -total / batches[0].whole.tokens
