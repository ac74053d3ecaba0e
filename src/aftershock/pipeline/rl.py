"""Reinforcement learning from rule rewards, as R1-Zero [R1 2.2]; from reward models too where no rule judges, as R1."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import torch

from aftershock.alarms import Alarms
from aftershock.cost import flops
from aftershock.generate import Engine, SamplingParams, need_module
from aftershock.learn import Learner, Sample, group_advantages, pack, split, widest
from aftershock.models import load, make_exact, save
from aftershock.pipeline.context import Context, build_tasks, model_folder
from aftershock.pipeline.corpus import draw_problems
from aftershock.pipeline.evaluate import Judged, consistencies, heldout, measure, pace, rows, sample
from aftershock.pipeline.exam import examine
from aftershock.pipeline.preference import Preference
from aftershock.pipeline.training import go_on
from aftershock.recipe import PreferenceTable, RLStage
from aftershock.tasks import Task
from aftershock.text import Tokenizer
from aftershock.text.behaviour import behaviour
from aftershock.verify.judge import Judge


@dataclass(frozen=True)
class Loop:
    """What stays the same from step to step of one stage."""

    stage: RLStage
    context: Context
    tasks: list[Task]
    engine: Engine
    judge: Judge
    learner: Learner
    preferences: list[Preference]
    config: dict[str, Any]  # the model's config.json

    @property
    def address(self) -> tuple[int | str, ...]:
        return (self.context.seed, self.context.name)


def run(stage: RLStage, context: Context) -> list[dict]:
    """Measure the policy, train it, measure it again; save the model and return the measurements."""
    source = model_folder(stage.source, context)
    policy, tokenizer = load(source, torch.float32, context.device), Tokenizer.load(source)
    if stage.draft:
        need_module(policy, stage.draft)
    if stage.exact:
        make_exact(policy)
    tasks = build_tasks(stage.tasks, context)
    context.begin(stage.steps)
    learner = Learner(policy, stage.optim, stage.loss, stage.steps * stage.minibatches)
    named = dict(zip((table.name for table in stage.tasks), tasks))
    preferences = [Preference.load(table, context, stage.optim.micro_tokens, named) for table in stage.preferences]
    engine = Engine(policy, tokenizer, max_rows=stage.max_rows)
    with Judge(tasks, stage.reward, stage.max_tokens) as judge:
        loop = Loop(stage, context, tasks, engine, judge, learner, preferences, policy.config.to_dict())
        before = examine(stage, context, engine, judge, tasks, "before", 0)
        _train(loop)
        after = examine(stage, context, engine, judge, tasks, "after", stage.steps)
    save(policy, context.folder.model_folder)
    return [*before, *after]


def _train(loop: Loop) -> None:
    """Take the stage's steps from where the last checkpoint stands."""
    stage, folder = loop.stage, loop.context.folder
    alarms = Alarms()
    for row in folder.history():
        alarms.see(row)
    for step in range(go_on(loop.context, loop.learner), stage.steps):
        judged, timings = _sample(loop, step)
        metrics = _describe(judged, stage.preferences) | pace(judged, stage.draft) | _learn(loop, judged, timings)
        if stage.eval.every and (step + 1) % stage.eval.every == 0:
            metrics |= _quick_evaluation(loop)
        _record(loop, step + 1, judged, metrics, timings, alarms)
        if stage.loss.reference_every and (step + 1) % stage.loss.reference_every == 0:
            loop.learner.refresh_reference()
        if (step + 1) % stage.checkpoint_every == 0 or step + 1 == stage.steps:
            folder.checkpoint(step + 1, *loop.learner.state())


def _sample(loop: Loop, step: int) -> tuple[list[Judged], dict[str, float]]:
    """Draw problems and sample a group of each; with dynamic sampling, draw on until enough groups carry signal."""
    stage, began = loop.stage, time.perf_counter()
    active = [preference for preference in loop.preferences if step >= preference.table.from_step]
    judged_now = [not task.open or any(task.name in one.tasks for one in active) for task in loop.tasks]
    drawn = [(task, table.weight) for task, table, can in zip(loop.tasks, stage.tasks, judged_now) if can]
    tasks, weights = zip(*drawn)
    judged: list[Judged] = []
    spent, params = 0.0, replace(_params(loop, stage.samples_per_problem), draft=stage.draft)
    for draw in range(stage.dynamic_sampling):
        label = (*loop.address, step, draw)
        problems = [problem for _, problem in draw_problems(tasks, weights, stage.problems_per_step, *label)]
        sampled = sample(loop.engine, loop.judge, problems, params, label)
        sampled, flops_of_judging = _prefer(loop, active, sampled)
        judged, spent = [*judged, *sampled], spent + flops_of_judging
        if sum(map(_has_signal, judged)) >= stage.problems_per_step:
            break
    return judged, {"sample_seconds": time.perf_counter() - began, "preference_flops": spent}


def _prefer(loop: Loop, active: Sequence[Preference], judged: list[Judged]) -> tuple[list[Judged], float]:
    """Let the reward models have their say where no rule has one; return also the FLOPs that took."""
    opened = [one for one in judged if loop.judge.is_open(one.problem)]
    spent = 0.0
    for preference in active if opened else ():
        opened, more = preference.judge(opened)
        spent += more
    heard = iter(opened)
    return [next(heard) if loop.judge.is_open(one.problem) else one for one in judged], spent


def _params(loop: Loop, samples: int, temperature: float | None = None) -> SamplingParams:
    return SamplingParams(
        n=samples,
        max_tokens=loop.stage.max_tokens,
        temperature=loop.stage.temperature if temperature is None else temperature,
        seed=loop.context.seed,
    )


def _has_signal(one: Judged) -> bool:
    return len({reward.total for reward in one.rewards if reward.counted}) > 1


def _learn(loop: Loop, judged: Sequence[Judged], timings: dict[str, float]) -> dict[str, float]:
    """Take the optimiser's steps. Groups without signal move nothing and are left out, unless a KL term holds them."""
    began = time.perf_counter()
    stage, learner = loop.stage, loop.learner
    telling = [one for one in judged if _has_signal(one)]
    silent = [one for one in judged if stage.loss.kl > 0 and not _has_signal(one)]
    samples = _samples([*telling, *silent][: stage.problems_per_step], stage)
    parts = [
        pack(part, stage.optim.micro_tokens, max_tokens=stage.max_tokens, deep=learner.shares_deeply)
        for part in split(samples, stage.minibatches)
    ]
    metrics = learner.step_minibatches(parts) if parts else {}
    timings["learn_seconds"] = time.perf_counter() - began
    timings["learned_tokens"] = sum(len(batch.tokens) for part in parts for batch in part)
    return metrics


def _samples(judged: Sequence[Judged], stage: RLStage) -> list[Sample]:
    """Return what is learnt from: the counted rollouts that the stage takes of each group, advantages among those."""
    rewards = [[reward.total for reward in one.rewards] for one in judged]
    counted = [_counted(one, stage.learnt, stage.down_sample_spread) for one in judged]
    groups = zip(judged, group_advantages(stage.loss.kind, rewards, counted).values)
    return [
        Sample(completion.prompt_tokens, completion.tokens, completion.logprobs, advantage, number)
        for number, (one, advantages) in enumerate(groups)
        for completion, advantage in zip(one.completions, advantages)
        if advantage is not None
    ]


def _counted(one: Judged, count: int, spread: float) -> list[bool]:
    known = [index for index, reward in enumerate(one.rewards) if reward.counted]
    kept = {known[at] for at in widest([one.rewards[index].total for index in known], count, spread)}
    return [index in kept for index in range(len(one.rewards))]


def _describe(judged: Sequence[Judged], preferences: Sequence[PreferenceTable]) -> dict[str, float]:
    """Summarise what was sampled: reward by part, length and behaviour, and what there is to tell by task."""
    rewards = [reward for one in judged for reward in one.rewards]
    completions = [completion for one in judged for completion in one.completions]
    done = [behaviour(completion.reasoning) for completion in completions]
    counted = [reward for reward in rewards if reward.counted]
    metrics = {
        "reward": _mean(reward.total for reward in counted),
        "reward_std": pstdev([reward.total for reward in counted]) if counted else 0.0,
        "mean_tokens": _mean(len(completion.tokens) for completion in completions),
        "truncated": _mean(completion.finish_reason == "length" for completion in completions),
        "no_signal": _mean(not _has_signal(one) for one in judged),
        "unverifiable": 1 - len(counted) / len(rewards),
        "check_or_retry_rate": _mean(one.checks_or_retries for one in done),
        "checks": _mean(one.checks for one in done),
        "retries": _mean(one.retries for one in done),
        "switch_rate": _mean(one.switches > 0 for one in done),
        "language_consistency": _mean(share for one in judged for share in consistencies(one)),
    }
    for part in dict.fromkeys(part for reward in counted for part in reward.parts):
        metrics[f"reward/{part}"] = _mean(r.parts[part] for r in counted if part in r.parts)
    for name in dict.fromkeys(one.problem.task for one in judged):
        metrics |= _of_task(name, [one for one in judged if one.problem.task == name], preferences)
    return metrics


def _of_task(name: str, judged: Sequence[Judged], preferences: Sequence[PreferenceTable]) -> dict[str, float]:
    """Return its accuracy; of an open task also what reward models make of it, beside how good it truly is."""
    metrics = {f"train/{name}": _mean(right for one in judged for right in one.right)}
    if any(one.quality for one in judged):
        parts = [reward.parts for one in judged for reward in one.rewards]
        told = [sum(t.weight * part.get(f"preference/{t.model}", 0.0) for t in preferences) for part in parts]
        metrics[f"preference/{name}"] = _mean(told)
        metrics[f"quality/{name}"] = _mean(quality for one in judged for quality in one.quality)
    return metrics


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return fmean(listed) if listed else 0.0


def _record(
    loop: Loop, step: int, judged: list[Judged], metrics: dict[str, float], timings: dict[str, float], alarms: Alarms
) -> None:
    """Write the step down, with what it took, and tell who watches; alarms are heard in the same metrics."""
    sampled = sum(len(completion.tokens) for one in judged for completion in one.completions)
    length = metrics["mean_tokens"] + _mean(len(one.completions[0].prompt_tokens) for one in judged)
    work = flops.work(loop.config, length, int(timings.pop("learned_tokens")), sampled)
    work = replace(work, flops=work.flops + timings.pop("preference_flops"))
    folder, reporter = loop.context.folder, loop.context.reporter
    timings = folder.record(step, metrics, timings, work)
    folder.rollouts(step, rows(judged, step))
    reporter.step(step, metrics, timings)
    for alarm in alarms.see({"stage": loop.context.name, "step": step, **metrics}):
        reporter.alarm(str(alarm))


def _quick_evaluation(loop: Loop) -> dict[str, float]:
    """Measure on a few held-out problems with one sample each, for the curve."""
    problems = heldout(loop.tasks, loop.stage.eval.quick_problems)
    params = _params(loop, 1, loop.stage.eval.temperature)
    judged = sample(loop.engine, loop.judge, problems, params, (*loop.address, "quick"))
    found = [m for m in measure(judged, "during", loop.context.seed) if m.metric == "pass@1"]
    metrics = {f"heldout/{m.suite}": m.value for m in found}
    return metrics | {f"heldout/{m.suite}_{end}": getattr(m, end) for m in found for end in ("low", "high")}
