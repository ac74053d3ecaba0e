"""How many verdicts a second `math_answer` gives: `python benchmarks/math_speed.py [--seconds N] [--json]`.

Simple answers are numbers, which need no algebra; symbolic ones do, and none is asked twice. Each by one caller, by
eight threads, and as one batch; then batches with one bomb in 200 among them, and the batch after those.
"""

import argparse
import json
import os
import random
import resource
import time
from concurrent.futures import ThreadPoolExecutor

from aftershock.verify.math import SECONDS, math_answer, math_answers

BOMB = (r"\boxed{9^{9^{9^9}}}", "12")


def simple(count: int) -> list[tuple[str, str]]:
    """Return completions of a few lines with an integer, decimal or fraction, half of them right."""
    rng = random.Random(0)
    makers = (
        lambda: (f"{rng.randrange(10**6):,}",) * 2,
        lambda: (f"{rng.randrange(1000)}.{rng.randrange(1, 100):02}", f"{rng.randrange(1000)}.5"),
        lambda: (rf"\frac{{{rng.randrange(1, 99)}}}{{{rng.randrange(2, 99)}}}", f"{rng.randrange(9)}/7"),
        lambda: (rf"\${rng.randrange(1, 999)}",) * 2,
    )
    drawn = [rng.choice(makers)() for _ in range(count)]
    steps = "We add the two numbers and find a third, which we then check once more.\n" * 20
    return [(f"{steps}</think>{steps[:300]}\nThe answer is $\\boxed{{{answer}}}$.", gold) for gold, answer in drawn]


def symbolic(count: int, seed: int) -> list[tuple[str, str]]:
    """Return radicals, polynomials and terms with pi, none of them twice, half of them right."""
    rng = random.Random(seed)

    def one(number: int) -> tuple[str, str]:
        a, b, c = rng.randrange(2, 10**4), rng.randrange(2, 10**4), rng.randrange(1, 9) * (number % 2)
        kind = rng.randrange(3)
        if kind == 0:
            return rf"\boxed{{{b}+{a}\sqrt{{2}}}}", rf"{a}\sqrt{{2}}+{b + c}"
        if kind == 1:
            return rf"\boxed{{x^2+{a + b}x+{a * b}}}", rf"(x+{a})(x+{b + c})"
        return rf"\boxed{{\frac{{{a}\pi}}{{{b}}}}}", rf"\frac{{{a + c}}}{{{b}}}\pi"

    return [one(number) for number in range(count)]


def rate(act, pairs: list, rounds: int = 1) -> float:
    """Return pairs a second over the median of so many rounds."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        act(pairs)
        seconds.append(time.perf_counter() - began)
    return len(pairs) / sorted(seconds)[len(seconds) // 2]


def one_by_one(pairs: list) -> None:
    for pair in pairs:
        math_answer(*pair)


def from_threads(pairs: list) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda pair: math_answer(*pair), pairs))


def measure(count: int) -> dict[str, float]:
    """Return verdicts a second by setting; each symbolic setting gets pairs that nothing has cached yet."""
    numbers, found = simple(count), {}
    math_answers(symbolic(8, 99))  # workers start
    ways = {"one caller": one_by_one, "8 threads": from_threads, "batch": math_answers}
    for name, act in ways.items():
        found[f"simple, {name}"] = rate(act, numbers, 5)
    for seed, (name, act) in enumerate(ways.items()):
        found[f"symbolic, {name}"] = rate(act, symbolic(count // 5, seed))
    bombed = [BOMB if n % 200 == 100 else pair for n, pair in enumerate(numbers[:2000])]
    found["simple, batch, 1 bomb in 200"] = rate(math_answers, bombed)
    found["simple, batch, after the bombs"] = rate(math_answers, numbers, 5)
    found["symbolic, batch, after the bombs"] = rate(math_answers, symbolic(count // 5, 7))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.count)
    machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "seconds an answer": SECONDS}
    machine["peak MB here"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if given.json:
        print(json.dumps({"machine": machine, "verdicts a second": {k: round(v) for k, v in found.items()}}, indent=1))
        return
    print(
        f"{', '.join(f'{key} {value}' for key, value in machine.items())}; n {given.count}, symbolic {given.count // 5}"
    )
    for name, speed in found.items():
        print(f"{name:36}{speed:10,.0f} verdicts/s")


if __name__ == "__main__":
    main()
