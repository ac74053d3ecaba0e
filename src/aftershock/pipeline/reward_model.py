"""Reward models: what people prefer, or what is safe, learnt from examples and held against others [R1 2.3.4]."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from aftershock.address import generator
from aftershock.cost import Work
from aftershock.errors import DataError
from aftershock.learn.batch import Batch, pack_scored
from aftershock.learn.preference import RewardLearner, score_all
from aftershock.models import Scorer, load, save, scorer_of
from aftershock.pipeline import calibration, data
from aftershock.pipeline.calibration import Forecast
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import draw_problems
from aftershock.pipeline.preference import CENTRE, read
from aftershock.pipeline.training import Metrics, train, work_on
from aftershock.recipe import RewardModelStage
from aftershock.sources import Row
from aftershock.tasks import Problem, Split, Task
from aftershock.text import Message, Tokenizer
from aftershock.text.reasoning import THINK_CLOSE


@dataclass(frozen=True)
class Lesson:
    """One thing to learn: which of two `texts` is the better one (the first), or whether the one text is `good`."""

    prompt: tuple[Message, ...]
    texts: tuple[str, ...]
    good: bool = True
    tokens: tuple[list[int], ...] = ()  # of each text with its prompt, as the model reads it


def run(stage: RewardModelStage, context: Context) -> list[dict]:
    """Train a reward model, save it with the centre of its scores, and measure it on what was held out."""
    source = model_folder(stage.source, context)
    tokenizer = Tokenizer.load(source)
    lessons, held = ([*_fitting(part, stage, context, tokenizer)] for part in _lessons(stage, context))
    if not lessons or not held:
        raise DataError(
            f"stage {context.name!r}: {len(lessons)} examples to train on and {len(held)} held out; both are needed: "
            "give more data, a larger validation, or a larger max_length"
        )
    scorer = scorer_of(load(source, torch.float32, context.device), context.seed)
    _train(stage, context, scorer, lessons, held)
    scores = _scores(scorer, held, stage)
    centre = sum(map(sum, scores)) / sum(map(len, scores)) if stage.form == "pairwise" else 0.0
    scorer.config = replace(scorer.config, extras={**scorer.config.extras, CENTRE: centre})
    save(scorer, context.folder.model_folder)
    return _measured(stage, context, held, scores)


def _measured(
    stage: RewardModelStage, context: Context, held: Sequence[Lesson], scores: Sequence[Sequence[float]]
) -> list[dict]:
    """Keep what was held out with its scores, and the reliability diagram; return accuracy and calibration."""
    told = [
        {"prompt": list(one.prompt), "texts": one.texts, "good": one.good, "scores": given}
        for one, given in zip(held, scores)
    ]
    context.folder.save_rows("heldout", told)
    forecasts = _forecasts(held, scores)
    context.folder.save_json("calibration", calibration.reliability(forecasts))
    suite = "held-out pairs" if stage.form == "pairwise" else "held-out judgements"
    return [asdict(m) for m in calibration.measure(forecasts, suite, context.seed)]


def _train(
    stage: RewardModelStage, context: Context, scorer: Scorer, lessons: Sequence[Lesson], held: Sequence[Lesson]
) -> None:
    steps = _steps(len(lessons), stage, context)
    context.begin(len(steps))
    context.reporter.note(f"{len(lessons):,} examples, {len(steps):,} steps, {len(held):,} examples held out")
    learner = RewardLearner(scorer, stage.optim, stage.form == "pairwise", len(steps))
    config = scorer.config.to_dict() | {"vocab_size": 1}  # its head has one row

    def take(step: int) -> tuple[Metrics, Work]:
        chosen = [lessons[index] for index in steps[step]]
        lengths = [len(tokens) for lesson in chosen for tokens in lesson.tokens]
        return learner.step(_packed(chosen, stage)), work_on(config, lengths)

    train(context, learner, len(steps), stage.checkpoint_every, take, lambda _: _validation(scorer, held, stage))


def _steps(count: int, stage: RewardModelStage, context: Context) -> list[list[int]]:
    """Return the examples' indices step by step, every epoch in an order of its own."""
    steps: list[list[int]] = []
    for epoch in range(stage.epochs):
        order = list(range(count))
        generator(context.seed, context.name, "order", epoch).shuffle(order)
        steps += [order[i : i + stage.examples_per_step] for i in range(0, count, stage.examples_per_step)]
    return steps


def _packed(lessons: Sequence[Lesson], stage: RewardModelStage) -> list[Batch]:
    documents = [tokens for lesson in lessons for tokens in lesson.tokens]
    labels = [float(lesson.good) for lesson in lessons for _ in lesson.tokens]
    return pack_scored(documents, labels, stage.optim.micro_tokens, 2 if stage.form == "pairwise" else 1)


def _scores(scorer: Scorer, lessons: Sequence[Lesson], stage: RewardModelStage) -> list[list[float]]:
    flat = iter(score_all(scorer, [t for lesson in lessons for t in lesson.tokens], stage.optim.micro_tokens))
    return [[next(flat) for _ in lesson.tokens] for lesson in lessons]


def _forecasts(lessons: Sequence[Lesson], scores: Sequence[Sequence[float]]) -> list[Forecast]:
    margins = [told[0] - sum(told[1:]) for told in scores]  # of a pair the difference, of one text its score
    prompts = [json.dumps(lesson.prompt, sort_keys=True) for lesson in lessons]
    return [Forecast(prompt, margin, one.good) for prompt, margin, one in zip(prompts, margins, lessons)]


def _validation(scorer: Scorer, held: Sequence[Lesson], stage: RewardModelStage) -> dict[str, float]:
    """Return the loss, in nats, and the accuracy on what was held out."""
    forecasts = _forecasts(held, _scores(scorer, held, stage))
    signed = torch.tensor([f.margin if f.label else -f.margin for f in forecasts], dtype=torch.float64)
    return {
        "validation_loss": torch.nn.functional.softplus(-signed).mean().item(),
        "validation_accuracy": sum(f.right for f in forecasts) / len(forecasts),
    }


def _lessons(stage: RewardModelStage, context: Context) -> tuple[list[Lesson], list[Lesson]]:
    """Return what is trained on and what is held out: of data by a hash of the prompt, of tasks by their own split."""
    given = [
        _parsed(row, stage.form, f"{name}, row {number}")
        for name in stage.data
        for number, row in enumerate(data.rows(name, context), 1)
    ]
    train, held = data.split(given, stage.validation)
    if stage.tasks:
        train += _drawn(stage, context, stage.examples, "train")
        held += _drawn(stage, context, max(1, round(stage.validation * stage.examples)), "heldout")
    return train, held


def _drawn(stage: RewardModelStage, context: Context, count: int, split: Split) -> Iterator[Lesson]:
    tasks, weights = build_tasks(stage.tasks, context), [table.weight for table in stage.tasks]
    address = (context.seed, context.name, split)
    for number, (task, problem) in enumerate(draw_problems(tasks, weights, count, *address, split=split)):
        made = _asked(stage.form, task, problem, generator(*address, number, "lesson"))
        if made is None:
            raise DataError(
                f"stage {context.name!r}: task {task.name!r} has nothing {stage.form} to learn; leave it out"
            )
        yield made


def _asked(form: str, task: Task, problem: Problem, rng: random.Random) -> Lesson | None:
    """Return what a task has to teach of one problem."""
    prompt = ({"role": "user", "content": problem.prompt},)
    if form == "pairwise":
        pair = task.preference(problem, rng)
        return None if pair is None else Lesson(prompt, pair)
    judged = task.judgement(problem, rng)
    return None if judged is None else Lesson(prompt, judged[:1], judged[1])


def _parsed(row: Row, form: str, where: str) -> Lesson:
    """Read one row in TRL's forms: `prompt` (which a conversation may begin with instead), `chosen` and `rejected`; or
    `prompt`, `completion` and `label`. Texts, or lists of messages.
    """
    pairwise = form == "pairwise"
    texts = [_text(row.get(field)) for field in (("chosen", "rejected") if pairwise else ("completion",))]
    told = row.get("prompt")
    if told is None and isinstance(row.get("chosen"), list):
        told = row["chosen"][:-1]
    turns = data.as_turns(told)
    good = True if pairwise else row.get("label")
    sound = len(turns) > 0 and data.is_conversation([*turns, {"role": "assistant", "content": texts[0]}])
    if not sound or None in texts or not isinstance(good, bool):
        wanted = "`prompt`, `chosen` and `rejected`" if pairwise else "`prompt`, `completion` and `label` (true, false)"
        raise DataError(f"{where}: wanted {wanted}; its fields are {', '.join(row) or 'none'}")
    return Lesson(tuple(turns), tuple(map(str, texts)), good)


def _text(value: object) -> str | None:
    """Return a text, or the last turn of a conversation; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value[-1]["content"]) if data.is_conversation(value) else None


def _fitting(
    lessons: Sequence[Lesson], stage: RewardModelStage, context: Context, tokenizer: Tokenizer
) -> Iterator[Lesson]:
    """Yield the lessons with their tokens; those with a text that is too long are left out, and said."""
    left = 0
    for lesson in lessons:
        tokens = tuple(
            read(lesson.prompt, text, stage.judges, tokenizer, prefilled=THINK_CLOSE in text) for text in lesson.texts
        )
        if max(map(len, tokens)) <= stage.max_length:
            yield replace(lesson, tokens=tokens)
        else:
            left += 1
    if left:
        context.reporter.note(f"{left:,} of {len(lessons):,} examples are longer than max_length and are left out")
