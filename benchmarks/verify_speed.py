"""How many verdicts a second the judge gives: `python benchmarks/verify_speed.py [--batch N] [--workers N]`.

Prints one line a setting: verdicts/s over the median of five batches, for right answers and for junk, and for
the plain check in this process, which is the ceiling of one worker.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass

from aftershock.recipe import RewardTable
from aftershock.tasks import task
from aftershock.verify.judge import Judge

COUNTDOWN = task("countdown")


@dataclass(frozen=True)
class Answer:
    """As much of a completion as the judge looks at."""

    text: str
    tokens: tuple[int, ...] = (0,) * 100
    finish_reason: str = "stop"


def median_rate(act, count: int) -> float:
    """Return how many a second, over the median of five calls that each do `count`."""
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return count / statistics.median(seconds)


def rollouts(batch: int, answer=None) -> list:
    problems = list(COUNTDOWN.problems("train", max(1, batch // 16)))
    texts = [f"1+1=2</think> <answer>{answer or problem.gold}</answer>" for problem in problems]
    return [(problem, Answer(text)) for problem, text in zip(problems, texts) for _ in range(16)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    print(f"cores {os.cpu_count()}, load {os.getloadavg()[0]:.1f}, batch {given.batch}, workers {given.workers}")
    right, junk = rollouts(given.batch), rollouts(given.batch, "(" * 50)
    plain = median_rate(lambda: [COUNTDOWN.check(problem, problem.gold) for problem, _ in right], len(right))
    print(f"{'check in this process':28}{plain:10,.0f} verdicts/s")
    began = time.perf_counter()
    with Judge([COUNTDOWN], RewardTable(), 256, given.workers) as judge:
        judge.judge(right[:1])
        print(f"{'start and first verdict':28}{time.perf_counter() - began:10.2f} s")
        for name, batch in (("right answers", right), ("junk", junk)):
            print(f"{name:28}{median_rate(lambda batch=batch: judge.judge(batch), len(batch)):10,.0f} verdicts/s")


if __name__ == "__main__":
    main()
