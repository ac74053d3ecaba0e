"""From completions to rewards: extract the answer, have it checked in a worker process, add up the parts."""

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


_GATHER_SECONDS = 0.02  # between two parts of a hearing: each costs a round trip to the workers

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
        self._boxed = [getattr(task, "boxed", False) for task in tasks]
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
        than `timeout_seconds` leaves its rollout unverifiable. Raises VerifierError as soon as their share of this
        batch is above `max_unverifiable`.
        """
        return self._judge(rollouts, _Failures(self._reward, len(rollouts)))

    @contextlib.contextmanager
    def hearing(self, size: int) -> "Iterator[Hearing]":
        """Judge a batch of `size` while it is still being sampled, in a thread that ends with the `with` block."""
        with ThreadPoolExecutor(1, "judge") as thread:
            hearing = Hearing(self._judge, _Failures(self._reward, size), thread)
            try:
                yield hearing
            finally:
                hearing.stop()

    def _judge(
        self,
        rollouts: Sequence[tuple[Question, Response]],
        failures: "_Failures",
        stopped: Callable[[], bool] = lambda: False,
    ) -> list[Reward]:
        """Judge a part of a batch, whose `failures` so far are counted on."""
        verdicts: dict[int, Verdict] = {}
        numbers: list[int] = []
        jobs: list[Job] = []
        for number, (problem, completion) in enumerate(rollouts):
            place = self._place(problem)
            extracted = _extract(completion, self._prefilled, self._boxed[place])
            if isinstance(extracted, Verdict):
                verdicts[number] = extracted
            else:
                numbers.append(number)
                jobs.append((place, problem, extracted))

        def settle(job: int, verdict: Verdict) -> None:
            verdicts[numbers[job]] = verdict
            if verdict.outcome == "unverifiable":
                failures.add(*rollouts[numbers[job]], verdict)

        with self._lock:
            self.pool.run(jobs, settle, stopped)
            self.counts.update(verdict.outcome for verdict in verdicts.values())
        if stopped():
            return []
        return [self._compose(*rollout, verdicts[number]) for number, rollout in enumerate(rollouts)]

    def is_open(self, problem: Question) -> bool:
        """Return whether the problem's task has no rule that rewards it: its check serves measuring alone."""
        return getattr(self._tasks[self._place(problem)], "open", False)

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


class Hearing:
    """A batch that is judged as its rollouts come in, those that wait together; its verdicts are `Judge.judge`'s."""

    def __init__(self, judge: Callable[..., list[Reward]], failures: "_Failures", thread: ThreadPoolExecutor) -> None:
        self._judge, self._failures = judge, failures
        self._waiting: queue.SimpleQueue[tuple[int, Question, Response]] = queue.SimpleQueue()
        self._rewards: dict[int, Reward] = {}
        self._ended, self._stopped = threading.Event(), False
        self._work = thread.submit(self._serve)

    def add(self, number: int, problem: Question, completion: Response) -> None:
        """Hand in rollout `number`. Raises what judging an earlier one raised."""
        if self._work.done():
            self._work.result()
        self._waiting.put((number, problem, completion))

    def rewards(self) -> list[Reward]:
        """Return the rewards of all that were handed in, by their numbers; waits for them."""
        self._ended.set()
        self._work.result()
        return [self._rewards[number] for number in sorted(self._rewards)]

    def stop(self) -> None:
        """Judge no more: no one waits for it."""
        self._stopped = True
        self._ended.set()

    def _serve(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(_GATHER_SECONDS)
            part = [self._waiting.get() for _ in range(self._waiting.qsize())]
            if part and not self._stopped:
                rewards = self._judge([one[1:] for one in part], self._failures, lambda: self._stopped)
                self._rewards.update(zip((number for number, *_ in part), rewards))


class _Failures:
    """The unverifiable rollouts of a batch of `size`; VerifierError once there are more than the recipe bears."""

    def __init__(self, table: RewardTable, size: int) -> None:
        self._table, self._size = table, size
        self._found: list[tuple[Question, Response, Verdict]] = []

    def add(self, problem: Question, completion: Response, verdict: Verdict) -> None:
        """Count one more; the error names the commonest reasons."""
        self._found.append((problem, completion, verdict))
        if len(self._found) <= self._table.max_unverifiable * self._size:
            return
        reasons = Counter((problem.task, verdict.reason) for problem, _, verdict in self._found)
        causes = "; ".join(f"{count} x {task}: {reason}" for (task, reason), count in reasons.most_common(3))
        problem, completion, _ = self._found[0]
        raise VerifierError(
            f"{len(self._found)} of {self._size} verdicts are unverifiable so far, more than max_unverifiable = "
            f"{self._table.max_unverifiable:g} lets by. {causes}. For example problem {problem.id!r} with the "
            f"completion {completion.text[-200:]!r}. Mend the task's check, or raise timeout_seconds "
            f"({self._table.timeout_seconds:g}) or max_unverifiable in the stage's reward table"
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
