"""Multi-step arithmetic: work out an expression. The steps are easy one by one and hard all at once."""

import random

from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.countdown import Node, evaluate, join
from aftershock.tasks.phrases import PHRASES, Voice, answered
from aftershock.verify.verdict import Verdict

# difficulty -> how many operations, and the largest number written in the problem
LEVELS = {1: (2, 9), 2: (3, 9), 3: (4, 9), 4: (5, 9), 5: (6, 20), 6: (8, 20), 7: (10, 50), 8: (14, 50)}
LARGEST_VALUE = 99

# The mix of the base corpus (docs/log.md has the trials).
GUESSES = 0.5
HURRIES = 0.28  # share that leave the last steps to a guess
CHECKS = 0.25
SLIPS = 0.15  # share of worked traces with one wrong step that is seen and mended


class Arithmetic(Task):
    """Work out an expression of natural numbers whose every step stays below 100. Difficulty 1 to 8: `LEVELS`."""

    name = "arithmetic"
    levels = max(LEVELS)
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Grow an expression one operation at a time, keeping every value between 1 and `LARGEST_VALUE`."""
        operations, largest = LEVELS[self.difficulty]
        node = Node(str(first := rng.randint(2, largest)), first)
        while len(node.steps) < operations:
            number = rng.randint(2, largest)
            other = Node(str(number), number)
            left, right = (node, other) if rng.random() < 0.7 else (other, node)
            grown = join(left, rng.choice("+-*/" if rng.random() < 0.5 else "+-*"), right)
            if grown and grown.value <= LARGEST_VALUE:
                node = grown
        language = rng.choice(self.languages)
        prompt = f"计算{node.text}。" if language == "zh" else f"Work out {node.text}."
        data = {"expression": node.text, "steps": list(node.steps), "value": node.value}
        return Problem(self.name, f"arithmetic-{node.text}", prompt, str(node.value), language, self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """The expression, whatever the language."""
        return problem.id

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when the answer is the value, written as one whole number."""
        said = answer.strip()
        if not said.removeprefix("-").isdecimal():
            return Verdict("wrong", "not a whole number", answer)
        value = problem.data["value"]
        right = len(said) < 20 and int(said) == value
        return Verdict("right" if right else "wrong", f"the value is {value}", said)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Off by a little, or the sign changed."""
        value = problem.data["value"]
        return str(rng.choice((value + 1, value - 1, value + 10, -value)))

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: a blind guess, hurried work that guesses the end, or every step, with slips that are mended."""
        voice, steps = Voice(problem.language, rng), list(problem.data["steps"])
        draw = {"thorough": 1.0, "guess": 0.0}.get(style)
        draw = rng.random() if draw is None else draw
        if draw < GUESSES:
            return answered(rng.choice(("", voice().guess)), str(rng.randint(1, LARGEST_VALUE)))
        if draw < GUESSES + HURRIES:
            done = steps[: rng.randrange(len(steps))]
            return answered(";".join(done) + (";" if done else "") + voice().guess, str(rng.randint(1, LARGEST_VALUE)))
        text = ";".join(_slip(steps, voice, rng) if rng.random() < SLIPS else steps)
        if rng.random() < CHECKS:
            text += f"{voice().check}{steps[-1]}{voice().right}"
        return answered(text, problem.gold)


def _slip(steps: list[str], voice: Voice, rng: random.Random) -> list[str]:
    """Put a wrong value into one step, followed by the same step done right."""
    index = rng.randrange(len(steps))
    left, value = steps[index].split("=")
    wrong = max(1, int(value) + rng.choice((-10, -2, -1, 1, 2, 10)))
    if wrong == int(evaluate(left)[0]):
        return steps
    mended = f"{left}={wrong}{voice().wait}{steps[index]}"
    return [*steps[:index], mended, *steps[index + 1 :]]
