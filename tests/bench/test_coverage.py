"""A model that is right with probability 0.37: how often the interval of pass@1 holds 0.37. Seeds 0 to 99, fixed.

`benchmarks/coverage.py` measures the same over a grid with thousands of benches, free of the luck of 100 seeds.
"""

from bench_rows import scripted

from aftershock.address import generator
from aftershock.bench.measure import measure
from aftershock.bench.run import judge_row
from aftershock.bench.scripted import Scripted
from aftershock.bench.suite import Suite
from aftershock.bench.types import Protocol, Question
from aftershock.verify.verdict import Verdict

P, QUESTIONS, K, SEEDS = 0.37, 200, 4, 100


class Known(Suite):
    """Questions whose answer is their number: as quick to score as can be."""

    name = title = "known"

    def question(self, row, index):
        return Question(self.name, f"q{index}", f"What is {index}?", str(index))

    def score(self, question, answer):
        return Verdict("right" if answer.answer == question.gold else "wrong", "", answer.answer)

    def oracle(self, question):
        return question.gold

    def decoy(self, question):
        return f"{question.gold}0"


def covered(rows_of):
    """Of 100 seeds, return how many intervals of pass@1 hold P."""
    found = 0
    for seed in range(SEEDS):
        rows = rows_of(seed)
        score = measure(rows[0].suite, rows, K, seed)[0]
        assert (score.metric, score.n, len(rows)) == ("pass@1", QUESTIONS, QUESTIONS * K)
        found += score.low <= P <= score.high
    return found


def test_the_interval_of_the_scripted_model_covers_the_truth_in_93_to_97_of_100_seeds():
    suite = Known()
    asked = [(suite.question({}, i), sample) for i in range(QUESTIONS) for sample in range(K)]

    def rows_of(seed):
        rows = []
        Scripted(f"p={P}", {"known": suite}).answer(
            asked, Protocol(seed=seed), lambda number, answer: rows.append(judge_row(suite, *asked[number], answer))
        )
        return rows

    assert 93 <= covered(rows_of) <= 97


def test_so_it_does_where_questions_are_easy_and_hard():
    def rates(seed):
        draw = generator(seed, "rates")
        return [draw.betavariate(P, 1 - P) for _ in range(QUESTIONS)]

    assert 93 <= covered(lambda seed: scripted("right", rates(seed), K, seed)) <= 97
