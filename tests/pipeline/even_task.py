"""A task for roads in miniature: a guess of the shipped base is right half the time, so that every stage has data."""

from aftershock.tasks import Problem
from aftershock.tasks.arithmetic import Arithmetic
from aftershock.verify.verdict import Verdict


class Even(Arithmetic):
    """Arithmetic whose answer is right when it is even."""

    name = "even"

    def make(self, rng):
        made = super().make(rng)
        return Problem(self.name, made.id, made.prompt, "2", made.language, self.difficulty, made.data)

    def check(self, problem: Problem, answer: str) -> Verdict:
        right = answer.strip()[-1:] in tuple("02468")
        return Verdict("right" if right else "wrong", "", answer.strip())
