"""The loop in which trainers take their steps: from the last checkpoint on, every step recorded, the state kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aftershock.cost import Work, flops
from aftershock.learn import Learner, Predictor
from aftershock.models import CausalLM
from aftershock.pipeline.context import Context
from aftershock.recipe import PretrainStage, SFTStage

Metrics = dict[str, float]


def train(
    context: Context,
    learner: Learner,
    total: int,
    every: int,
    take: Callable[[int], tuple[Metrics, Work]],
    validate: Callable[[int], Metrics] = lambda done: {},
    over: Callable[[int], bool] = lambda done: False,
) -> None:
    """Take a stage's `total` steps; `take` is told how many are done, and returns the step's metrics and its work.

    `every` so many steps, and after the last, `validate` adds to the metrics and the state is kept. Before each step
    `over` may end the stage early.
    """
    folder, reporter = context.folder, context.reporter
    for done in range(go_on(context, learner), total):
        if over(done):
            break
        metrics, work = take(done)
        due = done + 1 == total or (done + 1) % every == 0
        metrics |= validate(done + 1) if due else {}
        reporter.step(done + 1, metrics, folder.record(done + 1, metrics, {}, work))
        if due:
            folder.checkpoint(done + 1, *learner.state())


def go_on(context: Context, learner: Learner) -> int:
    """Put the learner where the stage's last checkpoint stands, and return how many steps are done."""
    checkpoint = context.folder.resume()
    if checkpoint is None:
        return 0
    learner.load_state(checkpoint.tensors, checkpoint.scalars)
    context.reporter.note(f"going on from step {checkpoint.step}")
    return checkpoint.step


def learner_of(stage: PretrainStage | SFTStage, model: CausalLM, steps: int) -> Learner:
    """Return what trains a model on documents: with its multi-token-prediction modules where the stage weighs them."""
    if stage.mtp_weight:
        return Predictor(model, stage.optim, stage.mtp_weight, steps)
    return Learner(model, stage.optim, None, steps)


def work_on(config: Mapping[str, Any], lengths: Sequence[int], *, prediction: bool = False) -> Work:
    """Return the work of training a model, or its prediction modules too, on sequences of these lengths in tokens."""
    return flops.work(config, flops.even(lengths), sum(lengths), prediction=prediction)
