"""An open task for the tests: no rule rewards it; truly good is the right sum."""

import random

from aftershock.tasks import Problem
from aftershock.tasks.arithmetic import Arithmetic


class Sum(Arithmetic):
    """Arithmetic that nothing but a reward model rewards."""

    name = "open"
    open = True

    def make(self, rng: random.Random) -> Problem:
        made = super().make(rng)
        return Problem(self.name, f"open-{made.id}", made.prompt, made.gold, made.language, self.difficulty, made.data)

    def quality(self, problem: Problem, answer: str) -> float:
        return float(self.check(problem, answer).outcome == "right")
