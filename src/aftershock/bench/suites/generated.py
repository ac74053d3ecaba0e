"""Suites made of tasks: ours and reasoning-gym's, on their held-out problems."""

from collections.abc import Mapping
from typing import Any

from aftershock.address import generator
from aftershock.bench.suite import Suite, unanswered
from aftershock.bench.types import Answer, Question
from aftershock.errors import BenchError
from aftershock.tasks import Problem, task
from aftershock.text.reasoning import answer_tag
from aftershock.verify.shared import SharedPool
from aftershock.verify.verdict import Verdict

QUESTIONS = 100  # where the user doesn't say
SECONDS = 10.0  # for one check: longer than in training, since an answer that is lost here is lost from a score

# The datasets of reasoning-gym 0.1.25 whose checks don't hold at difficulty 1: docs/tasks.md says why, one by one.
# fmt: off
UNSOUND = {
    "binary_matrix", "boxnet", "codeio", "composite", "countdown", "game_of_life_halting",
    "intermediate_integration", "isomorphic_strings", "knight_swap", "n_queens", "polynomial_multiplication",
    "propositional_logic", "puzzle24", "ransom_note", "rush_hour", "simple_integration", "sokoban",
    "spiral_matrix", "string_insertion",
}
# fmt: on


def gym_names() -> list[str]:
    """Return the suite of every dataset of reasoning-gym whose check holds. BenchError where it isn't installed."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise BenchError('the group "gym" needs reasoning-gym: pip install "aftershock[gym]"') from error
    return [f"gym:{name}" for name in sorted(set(DATASETS) - UNSOUND)]


class TaskSuite(Suite):
    """The held-out problems of a task, the same in every run; `option` is difficulty and languages, as in `3/zh,en`."""

    instruction = "Give your final answer, and nothing else, in <answer> </answer> tags."

    def __init__(self, name: str, option: str = "") -> None:
        super().__init__()
        difficulty, _, languages = option.partition("/")
        if difficulty and not difficulty.isdecimal():
            raise BenchError(
                f"suite {name!r} was asked for with @{option}: wanted a difficulty, or a difficulty and languages, "
                f"such as {name}@2 or {name}@2/zh"
            )
        self._task = task(name, int(difficulty or 1), languages.split(",") if languages else ("en",))
        self.title = f"{name} at difficulty {difficulty or 1}"
        self._pool = SharedPool([self._task], seconds=SECONDS)

    def questions(self, n: int | None = None) -> list[Question]:
        """Return the first `n` held-out problems (100 where None), no two alike; a small family may have fewer."""
        self.origin = f"held-out problems of {self._task.name} at difficulty {self._task.difficulty}"
        problems = self._task.distinct("heldout", QUESTIONS if n is None else n)
        return self._ask([self.question({"problem": problem}, index) for index, problem in enumerate(problems)])

    def question(self, row: Mapping[str, Any], index: int) -> Question:
        """Put a problem: its data is kept, so that the question is enough to score an answer."""
        problem: Problem = row["problem"]
        kept = {"prompt": problem.prompt, "language": problem.language, "difficulty": problem.difficulty}
        data = {**kept, "data": dict(problem.data)}  # the prompt again: the instruction may yet be added to it
        return Question(self.name, problem.id, problem.prompt, problem.gold, data)

    def score(self, question: Question, answer: Answer) -> Verdict:
        """Check the text in the one pair of answer tags after the reasoning, in a worker process that can be killed."""
        extracted = answer_tag(answer.answer)
        if extracted is None:
            return unanswered(answer, "single answer in <answer> tags")
        return self._pool.check(0, self._problem(question), extracted)

    def oracle(self, question: Question) -> str:
        """Return the gold answer in its tags."""
        return f"<answer>{question.gold}</answer>"

    def decoy(self, question: Question) -> str:
        """Return the task's own perturbed answer in its tags."""
        perturbed = self._task.perturb(self._problem(question), generator("decoy", question.suite, question.id))
        return f"<answer>{perturbed}</answer>"

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def _problem(self, question: Question) -> Problem:
        return Problem(task=self._task.name, id=question.id, gold=question.gold, **question.data)
