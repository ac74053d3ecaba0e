"""What the harness costs: samples a second through inspect and the store beside plain functions, and the engine's pace.

    python benchmarks/bench_speed.py [--questions 200] [--json FILE]

A scripted model on sums that are judged by a comparison, so that nothing but the harness takes time; once by plain
functions (answers, verdicts, measures), once through `bench.run` (inspect's task, log and scores, rows on the disk,
scores.json). Then the shipped nano base on countdown's held-out problems, once by a bare `Engine.generate` of the very
same prompts, addresses and lengths, once in a bench, whose tokens must be the same. Loading the weights and inspect's
import are outside both clocks.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import paired
import torch

from aftershock.bench import inspect_adapter  # noqa: F401 its import is not what is timed
from aftershock.bench.measure import measure
from aftershock.bench.run import judge_row, prepare, run
from aftershock.bench.scripted import Scripted
from aftershock.bench.suite import Suite
from aftershock.bench.suites import find as find_suite
from aftershock.bench.target import find
from aftershock.bench.types import Protocol, Question
from aftershock.generate import SamplingParams
from aftershock.verify.verdict import Verdict


class Sums(Suite):
    """Sums of two numbers, judged by comparison."""

    name, title = "sums", "Sums"

    def rows(self):
        self.origin = "made here"
        return ({"n": n} for n in range(10**6))

    def questions(self, n=None):
        self.origin = "made here"
        return self._ask([self.question({}, index) for index in range(n)])

    def question(self, row, index):
        return Question(self.name, str(index), f"{index}+1?", str(index + 1))

    def score(self, question, answer):
        return Verdict("right" if answer.answer == question.gold else "wrong", "compared", answer.answer)

    def oracle(self, question):
        return question.gold

    def decoy(self, question):
        return question.gold + "0"


class Quiet:
    """Nobody watches."""

    def begin(self, suites):
        pass

    def hear(self, row):
        pass


def plain(target, asking, protocol):
    """Ask, judge and measure with nothing between; return the rows."""
    asked = [(question, sample) for question in asking.told for sample in range(asking.k)]
    answers = {}
    target.answer(asked, protocol, answers.__setitem__)
    rows = [judge_row(asking.suite, question, s, answers[number]) for number, (question, s) in enumerate(asked)]
    measure(asking.name, rows, asking.k, protocol.seed)
    return rows


def harness(questions):
    """Return samples a second of both ways, and what a sample costs more."""
    suite, protocol = Sums(), Protocol(n=questions, k=4)
    target = Scripted("p=0.37", {"sums": suite})
    asking = prepare([suite], target, protocol)
    began = time.perf_counter()
    rows = plain(target, asking[0], protocol)
    plainly = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        made = run(target, asking, protocol, Path(folder) / "out", "", Quiet())
        through, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert made.rows == rows
    return {
        "samples": len(rows),
        "plain_samples_per_second": round(len(rows) / plainly),
        "bench_samples_per_second": round(len(rows) / through, 1),
        "bench_samples_per_processor_second": round(len(rows) / cpu, 1),
        "milliseconds_more_a_sample": round(1000 * (through - plainly) / len(rows), 2),
    }


def engine(questions):
    """Return the nano base's tokens a second, bare and in a bench, on the same prompts."""
    suite, protocol = find_suite("countdown"), Protocol(n=questions, k=4, max_tokens=128)
    target = find("base", {})
    asking = prepare([suite], target, protocol)
    prompts = [target.frame.encode(question.prompt) for question in asking[0].told for _ in range(4)]
    addresses = [("bench", question.suite, question.id, s) for question in asking[0].told for s in range(4)]
    params = SamplingParams(max_tokens=128, temperature=0.6, top_p=0.95)
    target.engine.max_rows = 256
    target.engine.generate(prompts[:8], params, addresses[:8])  # a warm-up
    began, cpu = time.perf_counter(), time.process_time()
    groups = target.engine.generate(prompts, params, addresses)
    bare, bare_cpu = time.perf_counter() - began, time.process_time() - cpu
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        made = run(target, asking, protocol, Path(folder) / "out", "", Quiet())
        benched, benched_cpu = time.perf_counter() - began, time.process_time() - cpu
    suite.close()
    tokens = sum(len(completion.tokens) for (completion,) in groups)
    assert [row.answer.text for row in made.rows] == [completion.text for (completion,) in groups]
    return {
        "completions": len(groups),
        "tokens": tokens,
        "bare_tokens_per_second": round(tokens / bare),
        "bench_tokens_per_second": round(tokens / benched),
        "bare_tokens_per_processor_second": round(tokens / bare_cpu),
        "bench_tokens_per_processor_second": round(tokens / benched_cpu),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    found = {
        "machine": paired.machine(torch.get_num_threads()),
        "harness": harness(options.questions),
        "engine": engine(options.questions),
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
