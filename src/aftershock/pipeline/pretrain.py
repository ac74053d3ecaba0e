"""Pretrain a base model by next-token prediction on a corpus generated from tasks' traces."""

from dataclasses import asdict

import torch

from aftershock.cost import flops
from aftershock.errors import RecipeError
from aftershock.generate import Engine, SamplingParams
from aftershock.learn import Batch, Learner, token_logprobs
from aftershock.models import CausalLM, LanguageModel, build, load, save
from aftershock.pipeline.card import write_card
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import Corpus, documents, pack_traces, texts
from aftershock.pipeline.evaluate import Judged, heldout, measure, rows, sample
from aftershock.recipe import PretrainStage, RewardTable
from aftershock.tasks import Task
from aftershock.text import Tokenizer, train_tokenizer, zero_prompt
from aftershock.verify.judge import Judge

TOKENIZER_DOCUMENTS = 20_000  # the vocabulary is learnt from these
HELDOUT_TOKENS = 65_536


def run(stage: PretrainStage, context: Context) -> list[dict]:
    """Train, save the model with its tokenizer and card, and return its measurements."""
    tasks = build_tasks(stage.tasks, context)
    guesses = {task.name: table.guesses for task, table in zip(tasks, stage.tasks)}
    corpus = Corpus(tasks, [table.weight for table in stage.tasks], stage.thorough, guesses)
    tokenizer, model = _start(stage, context, corpus)
    _train(stage, context, model, corpus, tokenizer)
    save(model, context.folder.model_folder, tokenizer=tokenizer)
    evals = _measure(stage, context, model, tokenizer, tasks)
    write_card(context, stage, model, evals)
    return evals


def _start(stage: PretrainStage, context: Context, corpus: Corpus) -> tuple[Tokenizer, CausalLM]:
    """Return what training starts from: an earlier model with its tokenizer, or a new vocabulary and random weights."""
    if stage.source:
        folder = model_folder(stage.source, context)
        return Tokenizer.load(folder), load(folder, dtype=torch.float32)
    if stage.model is None:
        raise RecipeError(f"stage {context.name!r} has neither `from` nor a [stage.{context.name}.model] table")
    context.reporter.note("learning the vocabulary from the corpus")
    pairs = texts(corpus, TOKENIZER_DOCUMENTS, context.seed, context.name, "vocabulary")
    tokenizer = train_tokenizer((zero_prompt(q) + c for q, c in pairs), stage.vocab_size)
    fields = {**stage.model.model_dump(), "vocab_size": tokenizer.vocab_size}
    fields |= {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos}
    return tokenizer, build(fields, seed=context.seed)


def _train(stage: PretrainStage, context: Context, model: CausalLM, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Take the stage's steps from where the last checkpoint stands."""
    learner = Learner(model, stage.optim, None, stage.steps)
    config = model.config.to_dict()
    checkpoint = context.folder.resume()
    if checkpoint:
        learner.load_state(checkpoint.tensors, checkpoint.scalars)
        context.reporter.note(f"going on from step {checkpoint.step}")
    address, size = (context.seed, context.name), stage.optim.micro_tokens
    heldout_documents = documents(corpus, tokenizer, HELDOUT_TOKENS, *address, "heldout", split="heldout")
    heldout_batches = pack_traces(heldout_documents, size)
    for step in range(checkpoint.step if checkpoint else 0, stage.steps):
        found = documents(corpus, tokenizer, stage.tokens_per_step, *address, "train", step)
        metrics = learner.step(pack_traces(found, size))
        due = step + 1 == stage.steps or (step + 1) % stage.checkpoint_every == 0
        if due:
            metrics["validation_loss"] = _heldout_loss(learner, heldout_batches)
        tokens = sum(len(document.tokens) for document in found)
        work = flops.work(config, tokens / len(found), tokens)
        context.reporter.step(step + 1, metrics, context.folder.record(step + 1, metrics, {}, work))
        if due:
            context.folder.checkpoint(step + 1, *learner.state())


@torch.no_grad()
def _heldout_loss(learner: Learner, batches: list[Batch]) -> float:
    """Return the cross entropy, in nats a token, on traces of held-out problems."""
    model = learner.model.eval()  # so that a mixture doesn't count these tokens in the load it balances
    total = sum(token_logprobs(model, b.tokens, b.segments, b.mask)[0].sum().item() for b in batches)
    return -total / batches[0].whole.tokens


def _measure(
    stage: PretrainStage, context: Context, model: LanguageModel, tokenizer: Tokenizer, tasks: list[Task]
) -> list[dict]:
    engine = Engine(model, tokenizer, max_rows=256)
    params = SamplingParams(
        n=stage.eval.samples,
        max_tokens=stage.max_tokens,
        temperature=stage.eval.temperature,
        seed=context.seed,
    )
    with Judge(tasks, RewardTable(), stage.max_tokens) as judge:
        problems = heldout(tasks, stage.eval.problems)
        told, total = "measuring the model", len(problems) * params.n
        judged: list[Judged] = sample(
            engine,
            judge,
            problems,
            params,
            (context.name, "after"),
            on_progress=lambda done: context.reporter.progress(told, done, total),
        )
    context.folder.save_rows("eval-after", rows(judged, stage.steps))
    return [asdict(m) for m in measure(judged, "after", context.seed)]
