"""Supervised fine-tuning on prompts with their completions [R1 2.3.1, 2.3.3]; in full, or as low-rank adapters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from aftershock.cost import Work
from aftershock.errors import DataError
from aftershock.generate import Engine
from aftershock.learn import Batch, lora
from aftershock.models import CausalLM, load, save
from aftershock.pipeline import data
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import Document, pack_traces
from aftershock.pipeline.exam import examine, validation_loss
from aftershock.pipeline.training import Metrics, learner_of, train, work_on
from aftershock.recipe import RewardTable, SFTStage
from aftershock.run import BEST
from aftershock.text import Tokenizer
from aftershock.verify.judge import Judge


@dataclass(frozen=True)
class Course:
    """What is trained on: documents, their order by step, and the batches that the validation loss is taken on."""

    documents: list[Document]
    steps: list[list[int]]
    validation: list[Batch]


def run(stage: SFTStage, context: Context) -> list[dict]:
    """Measure the model, fine-tune it, measure it again; save the model (and adapters) and return the measurements."""
    source = model_folder(stage.source, context)
    model, tokenizer = load(source, torch.float32, context.device), Tokenizer.load(source)
    taught = tokenizer.with_template(stage.template) if stage.template else tokenizer
    course = _course(stage, context, taught)
    context.begin(len(course.steps))
    before = _examine(stage, context, model, tokenizer, "before", 0)
    if stage.lora:
        lora.attach(model, stage.lora, context.seed)
    _train(stage, context, model, course)
    if stage.lora:
        lora.save_adapter(model, stage.lora, context.folder.folder / "adapter", str(source))
        lora.detach(model)
    save(model, context.folder.model_folder, tokenizer=taught if stage.template else None)
    return [*before, *_examine(stage, context, model, taught, "after", len(course.steps))]


def _examine(
    stage: SFTStage, context: Context, model: CausalLM, tokenizer: Tokenizer, when: str, step: int
) -> list[dict]:
    if not stage.tasks:
        return []
    tasks = build_tasks(stage.tasks, context)
    with Judge(tasks, RewardTable(), stage.max_tokens) as judge:
        return examine(stage, context, Engine(model, tokenizer, max_rows=stage.max_rows), judge, tasks, when, step)


def _course(stage: SFTStage, context: Context, tokenizer: Tokenizer) -> Course:
    """Read, split and encode the data; what is too long is left out, and said."""
    kept, validation = data.split(data.examples(stage.data, context), stage.validation)
    documents = _encoded(stage, context, kept, tokenizer)
    if not documents:
        raise DataError(f"stage {context.name!r}: no example of {', '.join(stage.data)} can be trained on")
    steps = data.batches(documents, stage.tokens_per_step, stage.epochs, context.seed, context.name, "order")
    held = _encoded(stage, context, validation, tokenizer)
    context.reporter.note(f"{len(documents):,} examples, {len(steps):,} steps, {len(held):,} examples for validation")
    return Course(documents, steps, pack_traces(held, stage.optim.micro_tokens) if held else [])


def _encoded(
    stage: SFTStage, context: Context, examples: Sequence[data.Example], tokenizer: Tokenizer
) -> list[Document]:
    documents = [data.encode(example, tokenizer) for example in examples]
    short = [document for document in documents if len(document.tokens) <= stage.max_length]
    if len(short) < len(documents):
        left = len(documents) - len(short)
        context.reporter.note(f"{left:,} of {len(documents):,} examples are longer than max_length and are left out")
    return short


def _train(stage: SFTStage, context: Context, model: CausalLM, course: Course) -> None:
    """Take the steps, and keep the weights of the best validation where it stops early."""
    learner, folder = learner_of(stage, model, len(course.steps)), context.folder
    config, patience = model.config.to_dict(), Patience.over(folder.history(), stage.patience)

    def take(step: int) -> tuple[Metrics, Work]:
        chosen = [course.documents[index] for index in course.steps[step]]
        metrics = learner.step(pack_traces(chosen, stage.optim.micro_tokens))
        lengths = [len(document.tokens) for document in chosen]
        return metrics, work_on(config, lengths, prediction=stage.mtp_weight > 0)

    def validate(done: int) -> Metrics:
        """Measure the validation loss, where there is data for it, and keep the best weights so far."""
        nonlocal patience
        if not course.validation:
            return {}
        loss = validation_loss(model, course.validation)
        patience = patience.seeing(loss)
        if stage.patience and not patience.waited:
            folder.checkpoint(done, *learner.state(), place=BEST)
        return {"validation_loss": loss}

    def over(done: int) -> bool:
        if patience.spent:
            context.reporter.note(f"no better validation loss in {stage.patience} looks: ending at step {done}")
        return patience.spent

    train(context, learner, len(course.steps), stage.checkpoint_every, take, validate, over)
    best = folder.resume(BEST) if stage.patience and patience.waited else None
    if best:
        learner.load_state(best.tensors, best.scalars)


@dataclass(frozen=True)
class Patience:
    """How many validations in a row brought no better loss than `best`; `limit` 0 is endless."""

    limit: int
    best: float = math.inf
    waited: int = 0

    @classmethod
    def over(cls, history: Sequence[dict], limit: int) -> "Patience":
        """Return what the steps recorded so far have left of it."""
        patience = cls(limit)
        for row in history:
            if row.get("validation_loss") is not None:
                patience = patience.seeing(row["validation_loss"])
        return patience

    def seeing(self, loss: float) -> "Patience":
        """Return what is left after one more validation."""
        return replace(self, best=loss, waited=0) if loss < self.best else replace(self, waited=self.waited + 1)

    @property
    def spent(self) -> bool:
        return 0 < self.limit <= self.waited
