"""Measure models side by side on the same held-out problems; no weights are made."""

from aftershock.generate import Engine
from aftershock.models import load
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.exam import examine
from aftershock.recipe import BenchStage, RewardTable
from aftershock.text import Tokenizer
from aftershock.verify.judge import Judge


def run(stage: BenchStage, context: Context) -> list[dict]:
    """Measure model by model; return the measurements, whose `when` is the model's name as the recipe has it.

    All are asked the same problems with the same random numbers, so what differs between two is the models' own.
    """
    tasks = build_tasks(stage.tasks, context)
    context.begin(len(stage.models))
    checkpoint = context.folder.resume()
    evals: list[dict] = []
    with Judge(tasks, RewardTable(), stage.max_tokens) as judge:
        for number, name in enumerate(stage.models, 1):
            source = model_folder(name, context)
            engine = Engine(load(source, device=context.device), Tokenizer.load(source), max_rows=stage.max_rows)
            evals += examine(stage, context, engine, judge, tasks, name, number)
            context.reporter.step(number, {}, {})
            if checkpoint is None or number > checkpoint.step:
                context.folder.checkpoint(number, {}, {})  # so that what it took stays in the ledger
    return evals
