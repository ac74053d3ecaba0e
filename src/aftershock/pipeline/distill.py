"""Logit distillation: a student learns the teacher's next-token distributions, on its own completions or on given ones.

On-policy is GKD [arXiv 2306.13649] with all data the student's; what the student sees in training is what it will meet
when it writes alone. R1's own distillation is another road: `sample` from the teacher, then `sft` [R1 2.4].
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from aftershock.address import generator
from aftershock.cost import Work, flops
from aftershock.errors import DataError, RecipeError
from aftershock.generate import Engine, SamplingParams
from aftershock.learn import Distiller
from aftershock.models import CausalLM, load, save
from aftershock.pipeline import data
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import Document, draw_problems, pack_traces
from aftershock.pipeline.evaluate import rows, sample
from aftershock.pipeline.exam import examine
from aftershock.pipeline.training import Metrics, train
from aftershock.recipe import DistillStage, RewardTable
from aftershock.tasks import Task
from aftershock.text import Tokenizer
from aftershock.verify.judge import Judge

Lesson = tuple[list[Document], Metrics, int]  # what a step trains on, what is told of it, tokens sampled for it


def run(stage: DistillStage, context: Context) -> list[dict]:
    """Measure the student, train it on the teacher's distributions, and measure it again; save it."""
    student, teacher, tokenizer = _pair(stage, context)
    tasks = build_tasks(stage.tasks, context)
    context.begin(stage.steps)
    learner = Distiller(student, teacher, stage.optim, stage.divergence, stage.temperature, stage.steps)
    engine = Engine(student, tokenizer, max_rows=stage.max_rows)
    with Judge(tasks, RewardTable(), stage.max_tokens) as judge:

        def exam(when: str, step: int) -> list[dict]:
            return examine(stage, context, engine, judge, tasks, when, step) if tasks else []

        lesson = _own(stage, context, engine, judge, tasks) if stage.on_policy else _given(stage, context, tokenizer)
        before = exam("before", 0)
        _train(stage, context, learner, lesson, student, teacher)
        after = exam("after", stage.steps)
    save(student, context.folder.model_folder)
    return [*before, *after]


def _pair(stage: DistillStage, context: Context) -> tuple[CausalLM, CausalLM, Tokenizer]:
    """Return student, teacher and the tokenizer they share; RecipeError where they share none."""
    folder, above = model_folder(stage.source, context), model_folder(stage.teacher, context)
    tokenizer, other = Tokenizer.load(folder), Tokenizer.load(above)
    if found := tokenizer.difference(other):
        raise RecipeError(
            f"stage {context.name!r}: the student {stage.source!r} and the teacher {stage.teacher!r} share no "
            f"tokenizer ({found}), so their logits can't be compared. Make the student with tokenizer = "
            f'{stage.teacher!r}, or distil by samples instead: a "sample" stage from the teacher, then "sft"'
        )
    if tokenizer.taught_template != other.taught_template:
        context.reporter.note(
            f"the teacher knows prompts of the form {other.taught_template!r} and gets the student's, "
            f"{tokenizer.taught_template!r}"
        )
    student, teacher = (load(one, torch.float32, context.device) for one in (folder, above))
    return student, teacher, tokenizer


def _own(
    stage: DistillStage, context: Context, engine: Engine, judge: Judge, tasks: list[Task]
) -> Callable[[int], Lesson]:
    """Return what a step learns from, on-policy: the student's completions of problems drawn for it, right or wrong."""
    weights, address = [table.weight for table in stage.tasks], (context.seed, context.name)
    params = SamplingParams(stage.samples_per_problem, stage.max_tokens, stage.temperature, seed=context.seed)

    def lesson(step: int) -> Lesson:
        """Let the student write, keep the rollouts, and return them as documents with what is told of them."""
        drawn = draw_problems(tasks, weights, stage.problems_per_step, *address, step)
        judged = sample(engine, judge, [problem for _, problem in drawn], params, (*address, step))
        context.folder.rollouts(step + 1, rows(judged, step + 1))
        written = [completion for one in judged for completion in one.completions]
        rights, sampled = [right for one in judged for right in one.right], sum(len(c.tokens) for c in written)
        told = {
            "right": sum(rights) / max(1, len(rights)),
            "mean_tokens": sampled / len(written),
            "truncated": sum(c.finish_reason == "length" for c in written) / len(written),
        }
        return [Document([*c.prompt_tokens, *c.tokens], len(c.prompt_tokens)) for c in written], told, sampled

    return lesson


def _given(stage: DistillStage, context: Context, tokenizer: Tokenizer) -> Callable[[int], Lesson]:
    """Return what a step learns from, off-policy: the next rows of `data`, every epoch in an order of its own."""
    every = [data.encode(example, tokenizer) for example in data.examples(stage.data, context)]
    documents = [document for document in every if len(document.tokens) - document.prompt <= stage.max_tokens]
    context.reporter.note(f"{len(documents):,} of {len(every):,} examples are no longer than max_tokens and are used")
    if not documents:
        raise DataError(f"stage {context.name!r}: no example of {', '.join(stage.data)} can be trained on")
    size = stage.problems_per_step * stage.samples_per_problem

    def lesson(step: int) -> Lesson:
        return [documents[index] for index in _indices(len(documents), size, step, context)], {}, 0

    return lesson


def _indices(count: int, size: int, step: int, context: Context) -> Iterator[int]:
    """Yield the `size` indices of a step, out of epochs that each take all of `count`."""
    orders: dict[int, list[int]] = {}
    for place in range(step * size, (step + 1) * size):
        epoch, index = divmod(place, count)
        if epoch not in orders:
            orders[epoch] = list(range(count))
            generator(context.seed, context.name, "order", epoch).shuffle(orders[epoch])
        yield orders[epoch][index]


def _train(
    stage: DistillStage, context: Context, learner: Distiller, lesson: Callable[[int], Lesson], *models: CausalLM
) -> None:
    """Take the steps; their work is the student's, and the teacher's forward on the same tokens."""
    student, teacher = (model.config.to_dict() for model in models)

    def take(step: int) -> tuple[Metrics, Work]:
        """Learn from one lesson; return its metrics and work."""
        documents, told, sampled = lesson(step)
        metrics = learner.step(pack_traces(documents, stage.optim.micro_tokens)) | told
        tokens = sum(len(document.tokens) for document in documents)
        length = tokens / len(documents)
        work = flops.work(student, length, tokens, sampled)
        return metrics, replace(work, flops=work.flops + tokens * flops.forward(teacher, (length + 1) / 2))

    train(context, learner, stage.steps, stage.checkpoint_every, take)
