"""A user's own task, as the docs show one: it stands beside the recipe that names it."""

import random

from aftershock.tasks import Problem, Task
from aftershock.verify.verdict import Verdict


class Add(Task):
    """Add two numbers."""

    name = "add"

    def make(self, rng: random.Random) -> Problem:
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        return Problem(self.name, f"add-{a}-{b}", f"{a}+{b}?", str(a + b), data={"sum": a + b, "a": a})

    def check(self, problem: Problem, answer: str) -> Verdict:
        return Verdict("right" if answer.strip() == str(problem.data["sum"]) else "wrong", "", answer)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        return str(problem.data["sum"] + rng.randint(1, 9))
