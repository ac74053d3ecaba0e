"""Countdown: reach a target by using each given number once, with + - * /.

The family on which small R1-Zero reproductions are compared (TinyZero): a right answer is hard to see at once and easy
to check, so that trying, checking and going back pay.
"""

import ast
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from aftershock.tasks.base import Problem, Style, Task
from aftershock.tasks.phrases import PHRASES, Voice, answered, guesses
from aftershock.verify.verdict import Verdict

# difficulty -> how many numbers, and the largest of them
LEVELS = {1: (3, 9), 2: (3, 12), 3: (3, 25), 4: (4, 12), 5: (4, 25), 6: (4, 50), 7: (5, 50), 8: (6, 100)}
TARGETS = (10, 99)

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Node:
    """A worked-out expression: its text, value, loosest operator ("" for a number) and the steps that lead to it."""

    text: str
    value: int
    loosest: str = ""
    steps: tuple[str, ...] = ()


def join(left: Node, sign: str, right: Node) -> Node | None:
    """Combine two expressions, or return None where the result is not a natural number."""
    a, b = left.value, right.value
    if (sign == "-" and a <= b) or (sign == "/" and (b < 2 or a % b)):
        return None
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
    text = f"{_wrap(left, sign, False)}{sign}{_wrap(right, sign, True)}"
    return Node(text, value, sign, (*left.steps, *right.steps, f"{a}{sign}{b}={value}"))


def _wrap(node: Node, sign: str, is_right: bool) -> str:
    loose = node.loosest in ("+", "-")
    needs = (sign in "*/" and loose) or (is_right and ((sign == "-" and loose) or (sign == "/" and node.loosest != "")))
    needs = needs or (is_right and sign == "*" and node.loosest == "/")
    return f"({node.text})" if needs else node.text


def pairs(left: Node, right: Node) -> list[Node]:
    """Return every way to combine two expressions (larger first for the operators that commute)."""
    if left.value < right.value:
        left, right = right, left
    return [node for sign in "+-*/" if (node := join(left, sign, right))]


@lru_cache(maxsize=4096)
def three_number_expressions(numbers: tuple[int, ...]) -> tuple[Node, ...]:
    """Return every expression over three numbers whose steps stay natural."""
    found = []
    for i in range(3):
        rest = [Node(str(n), n) for j, n in enumerate(numbers) if j != i]
        alone = Node(str(numbers[i]), numbers[i])
        found += [whole for pair in pairs(*rest) for whole in pairs(pair, alone)]
    return tuple({node.text: node for node in found}.values())


def random_expression(numbers: list[int], rng: random.Random) -> Node | None:
    """Combine all numbers in a random order with random operators; None where a step is not natural."""
    nodes = [Node(str(n), n) for n in numbers]
    while len(nodes) > 1:
        rng.shuffle(nodes)
        options = pairs(nodes.pop(), nodes.pop())
        nodes.append(rng.choice(options))
    return nodes[0]


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """Return an expression's value and the numbers in it; ValueError says what is not arithmetic."""
    if len(expression) > 200:
        raise ValueError("longer than 200 characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError("not an arithmetic expression") from error
    numbers: list[int] = []
    return _value(tree, numbers), numbers


def _value(node: ast.AST, numbers: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        if isinstance(node.op, ast.Div) and right == 0:
            raise ValueError("divides by zero")
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("only whole numbers, + - * / and brackets may be used")


class Countdown(Task):
    """Reach a target with the given numbers, each used exactly once. Difficulty 1 to 8: `LEVELS`."""

    name = "countdown"
    levels = max(LEVELS)
    speaks = tuple(PHRASES)

    def make(self, rng: random.Random) -> Problem:
        """Draw the numbers, combine them at random and take the value as target: every problem has a solution."""
        count, largest = LEVELS[self.difficulty]
        while True:
            numbers = [rng.randint(1, largest) for _ in range(count)]
            solution = random_expression(numbers, rng)
            if solution and TARGETS[0] <= solution.value <= TARGETS[1] and solution.value not in numbers:
                break
        language = rng.choice(self.languages)
        prompt = _ask(numbers, solution.value, language, rng)
        data = {"numbers": numbers, "target": solution.value}
        identity = f"countdown-{'-'.join(map(str, sorted(numbers)))}-{solution.value}"
        return Problem(self.name, identity, prompt, solution.text, language, self.difficulty, data)

    def content(self, problem: Problem) -> str:
        """The numbers in any order and the target: the same problem in either language is one problem."""
        return problem.id

    def check(self, problem: Problem, answer: str) -> Verdict:
        """Right when each number is used exactly once and the value is the target (a trailing `= target` is let by)."""
        target, wanted = problem.data["target"], sorted(problem.data["numbers"])
        expression = answer.strip().removesuffix(f"={target}").removesuffix(f"= {target}")
        try:
            value, used = evaluate(expression)
        except ValueError as error:
            return Verdict("wrong", str(error), answer)
        if sorted(used) != wanted:
            return Verdict("wrong", f"uses {sorted(used)}, not {wanted}", answer)
        if value != target:
            return Verdict("wrong", f"equals {value}, not {target}", answer)
        return Verdict("right", f"equals {target}", answer)

    def perturb(self, problem: Problem, rng: random.Random) -> str:
        """Change one number of the gold expression, drop the last, or append one."""
        digits = [i for i, c in enumerate(problem.gold) if c.isdigit()]
        where = rng.choice(digits)
        changed = str((int(problem.gold[where]) + rng.randint(1, 8)) % 9 + 1)
        changed = changed if changed != problem.gold[where] else "0"
        options = [
            problem.gold[:where] + changed + problem.gold[where + 1 :],
            f"{problem.gold}+1",
            f"{problem.gold}*1",
        ]
        return rng.choice(options)

    def trace(self, problem: Problem, rng: random.Random, style: Style = "mixed") -> str:
        """Write a try as the base corpus has it: a blind guess, tries forward, or work back from the target.

        Only problems of three numbers are worked on; with more, every trace is a guess.
        """
        voice = Voice(problem.language, rng)
        if len(problem.data["numbers"]) != 3 or guesses(style, GUESSES, rng):
            return _guess(problem, voice, rng)
        tries = max(BUDGETS) if style == "thorough" else rng.choices(list(BUDGETS), list(BUDGETS.values()))[0]
        work = _work_back if rng.random() < WORKS_BACK else _try_forward
        return work(problem, tries, voice, rng)


# The mix of the base corpus: each behaviour is present and none is dominant (docs/log.md has the trials).
GUESSES = 0.35
WORKS_BACK = 0.25  # share of the worked traces that begin at the target
# Tries before giving up, and their shares.
BUDGETS = {1: 0.45, 2: 0.2, 3: 0.1, 5: 0.08, 8: 0.07, 16: 0.1}
LARGEST_TRY = 120  # a try above this is not worth writing down
CHECKS = 0.3  # share of found solutions that are worked through again before they are given


def _ask(numbers: list[int], target: int, language: str, rng: random.Random) -> str:
    listed = ",".join(map(str, numbers))
    if language == "zh":
        return rng.choice((f"用{listed}算出{target}。", f"用{listed}得到{target}。"))
    return rng.choice((f"Use {listed} to make {target}.", f"Make {target} from {listed}."))


def _guess(problem: Problem, voice: Voice, rng: random.Random) -> str:
    guess = random_expression(list(problem.data["numbers"]), rng)
    assert guess is not None
    return answered(rng.choice(("", voice().guess)), guess.text)


def _found(node: Node, voice: Voice, rng: random.Random) -> str:
    """End the reasoning on a solution, worked through again now and then."""
    again = f"{voice().check}{','.join(node.steps)}{voice().right}" if rng.random() < CHECKS else ""
    return answered(f"{voice().yes}{again}", node.text)


def _give_up(last: Node, voice: Voice, rng: random.Random) -> str:
    return answered(rng.choice(("", voice().give_up)), last.text)


def _try_forward(problem: Problem, tries: int, voice: Voice, rng: random.Random) -> str:
    """Try expressions, those near the target first, each worked out and judged too big or too small."""
    numbers, target = tuple(sorted(problem.data["numbers"])), problem.data["target"]
    options = [node for node in three_number_expressions(numbers) if node.value <= LARGEST_TRY]
    width = rng.choice((2.0, 5.0, 12.0))
    text = ""
    last = options[0]
    for _ in range(tries):
        if not options:
            break
        weights = [2.0 ** (-abs(node.value - target) / width) + 1e-6 for node in options]
        last = rng.choices(options, weights)[0]
        options.remove(last)
        text += ",".join(last.steps)
        if last.value == target:
            return text + _found(last, voice, rng)
        text += voice().too_big if last.value > target else voice().too_small
    return text + _give_up(last, voice, rng)


def _subgoals(numbers: tuple[int, ...], target: int) -> list[tuple[int, int, str]]:
    """Return (index of the number used last, what the other two must make, how that is written)."""
    goals = []
    for i, n in enumerate(numbers):
        goals.append((i, target + n, f"{target}+{n}={target + n}"))
        if target > n:
            goals.append((i, target - n, f"{target}-{n}={target - n}"))
        if n > 1 and target % n == 0:
            goals.append((i, target // n, f"{target}/{n}={target // n}"))
    return goals


def _work_back(problem: Problem, tries: int, voice: Voice, rng: random.Random) -> str:
    """Choose the last number, work out what the other two must make, and try them."""
    numbers, target = tuple(problem.data["numbers"]), problem.data["target"]
    goals = _subgoals(numbers, target)
    rng.shuffle(goals)
    text, last = "", three_number_expressions(tuple(sorted(numbers)))[0]
    for index, wanted, written in goals[:tries]:
        rest = [Node(str(n), n) for j, n in enumerate(numbers) if j != index]
        text += f"{voice().need}{written}{voice().of}{rest[0].text},{rest[1].text}:"
        near = sorted(pairs(*rest), key=lambda node: abs(node.value - wanted))[: rng.choice((1, 1, 2))]
        for node in near:
            text += node.steps[0]
            if node.value == wanted:
                whole = _complete(node, numbers[index], target)
                return text + _found(whole, voice, rng)
            text += voice().no
        last = _complete(near[0], numbers[index], target)
    return text + _give_up(last, voice, rng)


def _complete(pair: Node, number: int, target: int) -> Node:
    """Join a pair with the last number so that it comes nearest to the target."""
    return min(pairs(pair, Node(str(number), number)), key=lambda node: abs(node.value - target))
