"""Remainders: find the smallest number with two given remainders.

Chosen as the third family because reasoning must pay in it: nothing short of the Chinese remainder theorem gives the
answer at once, yet each candidate is tested in a single step, so accuracy is bought with tokens of honest search.
"""

import random
from math import gcd

from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import PHRASES, Voice, answered, guesses
from aftershock.verify.verdict import Verdict

# difficulty -> the smallest and the largest divisor
LEVELS = {1: (3, 7), 2: (4, 12), 3: (5, 19), 4: (7, 31), 5: (11, 99)}

# The mix of the base corpus (docs/log.md has the trials).
GUESSES = 0.45
# Candidates before giving up, and their shares.
BUDGETS = {1: 0.5, 2: 0.2, 3: 0.12, 5: 0.06, 20: 0.12}
CHECKS = 0.25


class Remainders(Task):
    """Find the smallest n > 0 with n mod a = r and n mod b = s, a and b coprime. Difficulty 1 to 5: `LEVELS`."""

    name = "remainders"
    levels = max(LEVELS)
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw coprime divisors and two remainders, not both zero."""
        low, high = LEVELS[self.difficulty]
        while True:
            a, b = rng.randint(low, high), rng.randint(low, high)
            r, s = rng.randrange(a), rng.randrange(b)
            if gcd(a, b) == 1 and (r or s):
                break
        value = next(n for n in range(1, a * b) if n % a == r and n % b == s)
        language = rng.choice(self.languages)
        ask = f"求最小的n:n%{a}={r},n%{b}={s}。" if language == "zh" else f"Find the least n: n%{a}={r}, n%{b}={s}."
        data = {"divisors": [a, b], "remainders": [r, s], "value": value}
        pair = "-".join(f"{d}.{m}" for d, m in sorted(((a, r), (b, s))))
        return Problem(self.name, f"remainders-{pair}", ask, str(value), language, self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """The two conditions in either order, whatever the language."""
        return problem.id

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when the answer is the least number, written plainly."""
        said = answer.strip()
        if not said.isdecimal():
            return Verdict("wrong", "not a whole number", answer)
        value = problem.data["value"]
        right = len(said) < 20 and int(said) == value
        return Verdict("right" if right else "wrong", f"the least is {value}", said)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """A number with one of the remainders only, the next larger solution, or off by one."""
        (a, b), value = problem.data["divisors"], problem.data["value"]
        return str(rng.choice((value + a, value + b, value + a * b, value + 1)))

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try: a blind guess, or candidates that meet the harder condition, each tested on the other."""
        voice = Voice(problem.language, rng)
        (a, b), (r, s) = problem.data["divisors"], problem.data["remainders"]
        if guesses(style, GUESSES, rng):
            return answered(rng.choice(("", voice().guess)), str(rng.randrange(1, a * b)))
        if a > b:
            (a, r), (b, s) = (b, s), (a, r)
        budget = max(BUDGETS) if style == "thorough" else rng.choices(list(BUDGETS), list(BUDGETS.values()))[0]
        text, candidate = "", s or b
        for _ in range(budget):
            text += f"{candidate}%{a}={candidate % a}"
            if candidate % a == r:
                return text + _found(candidate, (a, b), voice, rng)
            text += voice().no
            candidate += b
        return answered(text + rng.choice(("", voice().give_up)), str(candidate))


def _found(value: int, divisors: tuple[int, int], voice: Voice, rng: random.Random) -> str:
    again = ",".join(f"{value}%{d}={value % d}" for d in divisors)
    checked = f"{voice().check}{again}{voice().right}" if rng.random() < CHECKS else ""
    return answered(f"{voice().yes}{checked}", str(value))
