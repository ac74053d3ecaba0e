"""From completions to rewards: extract the answer, have it checked in a worker process, add up the parts."""

import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from aftershock.errors import VerifierError
from aftershock.recipe import RewardTable
from aftershock.text.reasoning import answer_tag, split
from aftershock.verify.format import ANSWER_CLOSE, ANSWER_OPEN, follows_format
from aftershock.verify.language import consistency
from aftershock.verify.pool import Job, Pool
from aftershock.verify.reward import compose
from aftershock.verify.verdict import Outcome, Reward, Verdict


class Question(Protocol):
    """What the judge needs to know of a problem; `tasks.Problem` has it."""

    @property
    def task(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def difficulty(self) -> int: ...
    @property
    def language(self) -> str: ...


class Response(Protocol):
    """What the judge needs to know of a completion; `generate.Completion` has it."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def finish_reason(self) -> str: ...


class Checker(Protocol):
    """What the judge needs to know of a task; `tasks.Task` has it."""

    name: str
    difficulty: int


Q = TypeVar("Q", bound=Question)


class Judge:
    """Gives rewards to completions. A context manager: its worker processes end with it.

    `tasks` are found by a problem's task name and difficulty (by name alone where no difficulty fits). `max_tokens` is
    the length completions were cut at, for overlong shaping. `prefilled` says that prompts ended in `<think>`.
    `counts` holds how many verdicts of each outcome were given so far.
    """

    def __init__(
        self,
        tasks: Sequence[Checker],
        reward: RewardTable,
        max_tokens: int,
        workers: int = 1,
        prefilled: bool = True,
    ) -> None:
        self._places = _places(tasks)
        self._tasks = tasks
        self._boxed, self._open, self._waits = (
            [getattr(task, name, False) for task in tasks] for name in ("boxed", "open", "waits")
        )
        self._reward = reward
        self._max_tokens = max_tokens
        self._prefilled = prefilled
        self._lock = threading.Lock()
        self.counts: Counter[Outcome] = Counter()
        self.pool = Pool(tasks, workers, reward.timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes and all that they started."""
        self.pool.close()

    def judge(self, rollouts: Sequence[tuple[Question, Response]]) -> list[Reward]:
        """Return one reward for each (problem, completion), in order; safe from any thread, one batch at a time.

        Right or wrong is what the task's check says of the text in the one pair of answer tags after the reasoning; a
        completion without such is wrong, but for a task whose answers are `boxed`: without tags, all that follows the
        reasoning is looked at. A check that raises, returns no Verdict, ends its process or takes longer
        than `timeout_seconds` leaves its rollout unverifiable. An answer that several rollouts gave to a problem is
        checked once, but anew for each where it can't be verified. Raises VerifierError as soon as the unverifiable
        ones' share of this batch is above `max_unverifiable`.
        """
        verdicts: dict[int, Verdict] = {}
        jobs: dict[int, Job] = {}
        alike: dict[tuple[int, str], list[int]] = {}  # rollouts by problem and answer
        for number, (problem, completion) in enumerate(rollouts):
            place = self._place(problem)
            extracted = _extract(completion, self._prefilled, self._boxed[place])
            if isinstance(extracted, Verdict):
                verdicts[number] = extracted
            else:
                jobs[number] = (place, problem, extracted)
                alike.setdefault((id(problem), extracted), []).append(number)
        failures: list[int] = []

        def settle(number: int, verdict: Verdict) -> None:
            """Take in a verdict, for all with that answer where it tells; raise where too many tell nothing."""
            if verdict.outcome == "unverifiable":
                verdicts[number] = verdict
                failures.append(number)
                self._bear(failures, rollouts, verdicts)
                return
            _, problem, extracted = jobs[number]
            for same in alike[id(problem), extracted]:
                verdicts.setdefault(same, verdict)

        def check(numbers: list[int]) -> None:
            self.pool.run([jobs[number] for number in numbers], lambda job, verdict: settle(numbers[job], verdict))

        with self._lock:
            check([same[0] for same in alike.values()])
            check([number for number in jobs if number not in verdicts])
            self.counts.update(verdict.outcome for verdict in verdicts.values())
        return [self._compose(*rollout, verdicts[number]) for number, rollout in enumerate(rollouts)]

    def begin(self, problem: Question, completion: Response) -> None:
        """Let the check of a rollout that `judge` will be handed soon begin what it waits for, where its task can."""
        place = self._place(problem)
        if self._waits[place]:
            extracted = _extract(completion, self._prefilled, self._boxed[place])
            if isinstance(extracted, str):
                with self._lock:
                    self.pool.begin((place, problem, extracted))

    def is_open(self, problem: Question) -> bool:
        """Return whether the problem's task has no rule that rewards it: its check serves measuring alone."""
        return self._open[self._place(problem)]

    def quality(self, problem: Question, completion: Response) -> float | None:
        """Return how good an open task's answer truly is, in [0, 1], which no reward may know; None for other tasks.

        What is looked at stands in the one pair of answer tags, or else is all that follows the reasoning.
        """
        if not self.is_open(problem):
            return None
        answer = split(completion.text, self._prefilled).answer
        inside = answer_tag(answer)
        task: Any = self._tasks[self._place(problem)]
        return task.quality(problem, answer if inside is None else inside)

    def _place(self, problem: Question) -> int:
        places = self._places.get(problem.task)
        if places is None:
            known = ", ".join(sorted(self._places))
            raise VerifierError(f"problem {problem.id!r} is of task {problem.task!r}, but the judge has only: {known}")
        return places.get(problem.difficulty, next(iter(places.values())))

    def _compose(self, problem: Question, completion: Response, verdict: Verdict) -> Reward:
        formatted = follows_format(completion.text, self._prefilled)
        consistent = 1.0
        if self._reward.language:
            consistent = consistency(split(completion.text, self._prefilled).reasoning, problem.language)
        length, by_rule = len(completion.tokens), not self.is_open(problem)
        return compose(verdict, formatted, length, self._max_tokens, self._reward, consistent, by_rule)

    def _bear(
        self, failures: list[int], rollouts: Sequence[tuple[Question, Response]], verdicts: dict[int, Verdict]
    ) -> None:
        """Raise once there are more failures than the recipe bears, with the commonest reasons."""
        if len(failures) <= self._reward.max_unverifiable * len(rollouts):
            return
        reasons = Counter((rollouts[number][0].task, verdicts[number].reason) for number in failures)
        causes = "; ".join(f"{count} x {task}: {reason}" for (task, reason), count in reasons.most_common(3))
        problem, completion = rollouts[failures[0]]
        raise VerifierError(
            f"{len(failures)} of {len(rollouts)} verdicts are unverifiable so far, more than max_unverifiable = "
            f"{self._reward.max_unverifiable:g} lets by. {causes}. For example problem {problem.id!r} with the "
            f"completion {completion.text[-200:]!r}. Mend the task's check, or raise timeout_seconds "
            f"({self._reward.timeout_seconds:g}) or max_unverifiable in the stage's reward table"
        )


def _extract(completion: Response, prefilled: bool, boxed: bool) -> str | Verdict:
    """Return the answer to check, or the verdict on a completion that has none."""
    parts = split(completion.text, prefilled)
    answer = answer_tag(parts.answer) if parts.closed else None
    if (
        boxed
        and answer is None
        and parts.closed
        and not any(tag in parts.answer for tag in (ANSWER_OPEN, ANSWER_CLOSE))
    ):
        answer = parts.answer
    if answer is not None:
        return answer
    if completion.finish_reason == "length":
        return Verdict("wrong", f"cut off after {len(completion.tokens)} tokens, before an answer")
    if not parts.closed:
        return Verdict("wrong", "the reasoning never ends: no </think>")
    return Verdict("wrong", "not exactly one answer in <answer> tags after the reasoning")


def _places(tasks: Sequence[Checker]) -> dict[str, dict[int, int]]:
    """Return task name -> difficulty -> place in the list; two different tasks may not share a name."""
    places: dict[str, dict[int, int]] = {}
    for place, task in enumerate(tasks):
        others = places.setdefault(task.name, {})
        if any(type(tasks[other]) is not type(task) for other in others.values()):
            raise VerifierError(f"two different tasks are named {task.name!r}; give one of them another `name`")
        others.setdefault(task.difficulty, place)
    return places
