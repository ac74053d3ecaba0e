"""Pretrain a base model by next-token prediction on a corpus generated from tasks' traces."""

import torch

from aftershock.cost import Work
from aftershock.errors import RecipeError
from aftershock.generate import Engine
from aftershock.models import CausalLM, build, load, save
from aftershock.pipeline.card import write_card
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import Corpus, documents, pack_traces, texts
from aftershock.pipeline.exam import examine, validation_loss
from aftershock.pipeline.training import Metrics, learner_of, train, work_on
from aftershock.recipe import PretrainStage, RewardTable
from aftershock.text import Tokenizer, train_tokenizer, zero_prompt
from aftershock.verify.judge import Judge

TOKENIZER_DOCUMENTS = 20_000  # the vocabulary is learnt from these
HELDOUT_TOKENS = 65_536


def run(stage: PretrainStage, context: Context) -> list[dict]:
    """Train, save the model with its tokenizer and card, and return its measurements."""
    context.begin(stage.steps)
    tasks = build_tasks(stage.tasks, context)
    guesses = {task.name: table.guesses for task, table in zip(tasks, stage.tasks)}
    weights = [table.weight for table in stage.tasks]
    corpus = Corpus(tasks, weights, stage.thorough, guesses, stage.foreign, stage.readable)
    tokenizer, model = _start(stage, context, corpus)
    _train(stage, context, model, corpus, tokenizer)
    save(model, context.folder.model_folder, tokenizer=tokenizer)
    with Judge(tasks, RewardTable(), stage.max_tokens) as judge:
        evals = examine(stage, context, Engine(model, tokenizer, max_rows=256), judge, tasks, "after", stage.steps)
    write_card(context, stage, model, evals)
    return evals


def _start(stage: PretrainStage, context: Context, corpus: Corpus) -> tuple[Tokenizer, CausalLM]:
    """Return what training starts from: an earlier model with its tokenizer, or a new vocabulary and random weights."""
    if stage.source:
        folder = model_folder(stage.source, context)
        return Tokenizer.load(folder), load(folder, torch.float32, context.device)
    if stage.model is None:
        raise RecipeError(f"stage {context.name!r} has neither `from` nor a [stage.{context.name}.model] table")
    tokenizer = _tokenizer(stage, context, corpus)
    fields = {**stage.model.model_dump(), "vocab_size": tokenizer.vocab_size}
    fields |= {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    return tokenizer, build(fields, device=context.device, seed=context.seed)


def _tokenizer(stage: PretrainStage, context: Context, corpus: Corpus) -> Tokenizer:
    """Return the tokenizer that the stage names, so that a student can read its teacher's logits; or a new one."""
    if stage.tokenizer:
        return Tokenizer.load(model_folder(stage.tokenizer, context))
    context.reporter.note("learning the vocabulary from the corpus")
    pairs = texts(corpus, TOKENIZER_DOCUMENTS, context.seed, context.name, "vocabulary")
    return train_tokenizer((zero_prompt(q) + c for q, c in pairs), stage.vocab_size)


def _train(stage: PretrainStage, context: Context, model: CausalLM, corpus: Corpus, tokenizer: Tokenizer) -> None:
    learner, config = learner_of(stage, model, stage.steps), model.config.to_dict()
    address, size = (context.seed, context.name), stage.optim.micro_tokens
    heldout = pack_traces(documents(corpus, tokenizer, HELDOUT_TOKENS, *address, "heldout", split="heldout"), size)

    def take(step: int) -> tuple[Metrics, Work]:
        found = documents(corpus, tokenizer, stage.tokens_per_step, *address, "train", step)
        lengths = [len(one.tokens) for one in found]
        return learner.step(pack_traces(found, size)), work_on(config, lengths, prediction=stage.mtp_weight > 0)

    def validate(_: int) -> Metrics:
        return {"validation_loss": validation_loss(model, heldout)}

    train(context, learner, stage.steps, stage.checkpoint_every, take, validate)
