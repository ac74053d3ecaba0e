"""Measure a model on held-out problems: accuracy, length and behaviour, each with its interval."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aftershock.generate import Completion, Engine, SamplingParams
from aftershock.stats import Interval, Measurement, majority_at_k, mean_interval, pass_at_k
from aftershock.tasks import Problem, Task
from aftershock.text import Tokenizer, prompt_for
from aftershock.text.behaviour import behaviour
from aftershock.text.template import BOS
from aftershock.verify.judge import Judge
from aftershock.verify.language import consistency, readable, worded
from aftershock.verify.verdict import Reward


@dataclass(frozen=True)
class Judged:
    """One problem with its completions and what each earned; of an open task, also how good each truly is."""

    problem: Problem
    completions: list[Completion]
    rewards: list[Reward]
    quality: tuple[float, ...] = ()

    @property
    def right(self) -> list[float]:
        """1 for a right answer and 0 for a wrong one, unverifiable ones left out."""
        return [float(r.verdict.outcome == "right") for r in self.rewards if r.counted]


def pace(judged: Sequence[Judged], draft: int) -> dict[str, float]:
    """Return the tokens that a forward gave, and the share of its `draft` drafts that were kept; {} without drafts.

    What was drafted past a completion's end counts as not kept.
    """
    if not draft:
        return {}
    drawn = [completion for one in judged for completion in one.completions]
    tokens = sum(len(one.tokens) for one in drawn) / sum(one.forwards for one in drawn)
    return {"tokens_per_forward": tokens, "draft_acceptance": (tokens - 1) / draft}


def heldout(tasks: Sequence[Task], count: int) -> list[Problem]:
    """Return the first `count` held-out problems of every task, no two alike; the same for every run and seed."""
    return [problem for task in tasks for problem in task.distinct("heldout", count)]


def prompt_tokens(tokenizer: Tokenizer, question: str) -> list[int]:
    """Return a question's prompt in the form that the model was trained with: R1-Zero's, short for ours and in the
    paper's wording for foreign bases, or R1's chat.

    It begins with the tokenizer's own begin token, if it has one.
    """
    text = prompt_for(tokenizer.taught_template, question).removeprefix(BOS)
    return [*([] if tokenizer.bos is None else [tokenizer.bos]), *tokenizer.encode(text)]


def sample(
    engine: Engine,
    judge: Judge,
    problems: Sequence[Problem],
    params: SamplingParams,
    label: tuple[int | str, ...],
    on_progress: Callable[[int], None] | None = None,
) -> list[Judged]:
    """Sample `params.n` completions of every problem and judge them; addresses are `label` and the problem's number.
    Checks that wait for something begin it while others are still being sampled.

    `on_progress` hears how many completions are done.
    """
    prompts = [prompt_tokens(engine.tokenizer, problem.prompt) for problem in problems]
    addresses = [(*label, index) for index in range(len(problems))]
    done = itertools.count(1)

    def finished(prompt: int, number: int, completion: Completion) -> None:
        judge.begin(problems[prompt], completion)
        if on_progress is not None:
            on_progress(next(done))

    groups = engine.generate(prompts, params, addresses=addresses, on_finish=finished)
    pairs = [(problem, completion) for problem, group in zip(problems, groups) for completion in group]
    rewards = iter(judge.judge(pairs))
    return [
        Judged(problem, group, [next(rewards) for _ in group], _quality(judge, problem, group))
        for problem, group in zip(problems, groups)
    ]


def _quality(judge: Judge, problem: Problem, completions: Sequence[Completion]) -> tuple[float, ...]:
    if not judge.is_open(problem):
        return ()
    told = [judge.quality(problem, completion) for completion in completions]
    return tuple(value for value in told if value is not None)


def measure(judged: Sequence[Judged], when: str, seed: int) -> list[Measurement]:
    """Measure every task apart, then all together; votes and pass@k are of as many samples as there are."""
    names = list(dict.fromkeys(one.problem.task for one in judged))
    suites = {name: [one for one in judged if one.problem.task == name] for name in names}
    if len(names) > 1:
        suites["all"] = list(judged)
    return [m for suite, part in suites.items() for m in _measure_suite(suite, part, when, seed)]


def _measure_suite(suite: str, judged: Sequence[Judged], when: str, seed: int) -> list[Measurement]:
    scored = [one for one in judged if one.right]
    k = max((len(one.completions) for one in judged), default=1)
    values: dict[str, list[list[float]]] = {
        "pass@1": [one.right for one in scored],
        "mean_tokens": [[float(len(c.tokens)) for c in one.completions] for one in judged],
        "check_or_retry_rate": [_flags(one, "checks_or_retries") for one in judged],
        "switch_rate": [_flags(one, "switches") for one in judged],
        "language_consistency": [shares for one in judged if (shares := consistencies(one))],
        "readable_rate": [[float(readable(c.text, one.problem.language)) for c in one.completions] for one in judged],
        "quality": [list(one.quality) for one in judged if one.quality],
    }
    if k > 1:
        passed = [[pass_at_k(len(one.right), int(sum(one.right)), min(k, len(one.right)))] for one in scored]
        values["pass@k"] = passed
        values["majority@k"] = [[_majority(one, k)] for one in scored]
    return [
        _measurement(suite, metric, when, mean_interval(groups), len(groups), k, seed)
        for metric, groups in values.items()
        if groups
    ]


def _measurement(suite: str, metric: str, when: str, interval: Interval, n: int, k: int, seed: int) -> Measurement:
    return Measurement(suite, metric, when, interval.value, interval.low, interval.high, n, k, seed)


def _flags(one: Judged, name: str) -> list[float]:
    return [float(bool(getattr(behaviour(c.reasoning), name))) for c in one.completions]


def consistencies(one: Judged) -> list[float]:
    """Return the language consistency of every reasoning that has words at all."""
    return [consistency(c.reasoning, one.problem.language) for c in one.completions if worded(c.reasoning)]


def _majority(one: Judged, k: int) -> float:
    """Vote among the answers; one that couldn't be judged has no vote."""
    answers = [reward.verdict.extracted if reward.counted else None for reward in one.rewards]
    return majority_at_k(answers, [reward.verdict.outcome == "right" for reward in one.rewards], k)


def rows(judged: Sequence[Judged], step: int) -> list[dict]:
    """Return what is kept of every completion, one JSON-able row each."""
    return [
        {
            "step": step,
            "problem": one.problem.id,
            "task": one.problem.task,
            "language": one.problem.language,
            "sample": number,
            "prompt": one.problem.prompt,
            "gold": one.problem.gold,
            "text": completion.text,
            "reasoning": completion.reasoning,
            "answer": completion.answer,
            "reward": {"total": reward.total, **reward.parts},
            "verdict": vars(reward.verdict),
            "tokens": len(completion.tokens),
            "finish_reason": completion.finish_reason,
            **({"quality": one.quality[number]} if one.quality else {}),
        }
        for one in judged
        for number, (completion, reward) in enumerate(zip(one.completions, one.rewards))
    ]
