"""References pass and mutants fail: HumanEval's where AFTERSHOCK_DATA has them, and items of ours like it."""

import importlib.util
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aftershock.verify import AssertTests, run_code

_PATH = Path(__file__).parents[2] / "benchmarks" / "humaneval_mutants.py"
_SPEC = importlib.util.spec_from_file_location("humaneval_mutants", _PATH)
bench = importlib.util.module_from_spec(_SPEC)
sys.modules["humaneval_mutants"] = bench
_SPEC.loader.exec_module(bench)

SAMPLE = 24  # one mutant of so many is judged here, all of them by the benchmark
_DATA = Path(os.environ.get("AFTERSHOCK_DATA", "/nowhere")) / "HumanEval.jsonl.gz"

needs_sandbox = pytest.mark.skipif(
    not shutil.which("bwrap") and os.environ.get("AFTERSHOCK_REQUIRE_SANDBOX") != "1", reason="needs bubblewrap"
)
needs_data = pytest.mark.skipif(not _DATA.exists(), reason="needs HumanEval.jsonl.gz in the folder AFTERSHOCK_DATA")

# Items of our own: (prompt, rest of the program, HumanEval's kind of test). All their mutants of one operator fail.
OURS = {
    "digit_total": (
        'def digit_total(number: int) -> int:\n    """ Sum of the digits of a whole number, 100 more below 0. """\n',
        "    total = 100 if number < 0 else 0\n    for digit in str(abs(number)):\n        total += int(digit)\n"
        "    return total\n",
        "    assert candidate(0) == 0\n    assert candidate(1905) == 15\n    assert candidate(-37) == 110\n",
    ),
    "rise": (
        'def rise(levels: list) -> int:\n    """ Longest run of levels that strictly rise; 0 for no levels. """\n',
        "    if not levels:\n        return 0\n    best = run = 1\n    for before, after in zip(levels, levels[1:]):\n"
        "        run = run + 1 if after > before else 1\n        best = max(best, run)\n    return best\n",
        "    assert candidate([]) == 0\n    assert candidate([5]) == 1\n    assert candidate([1, 2, 2, 3, 4, 1]) == 3\n"
        "    assert candidate([3, 2, 1]) == 1\n    assert candidate([1, 2, 1, 2]) == 2\n",
    ),
    "unmix": (  # the helper in its prompt is the tests', as `poly` is in HumanEval/32
        "def mix(word):\n    return ''.join(sorted(word[::2])) + word[1::2]\n\n\n"
        'def unmix(word: str) -> bool:\n    """ Whether mixing leaves the word as it is. """\n',
        "    return mix(word) == word and len(word) % 2 == 0\n",
        "    for word in ('ab', 'aabb', 'ba', 'abc', '', 'dcba', 'a'):\n"
        "        assert candidate(word) == (mix(word) == word and len(word) in (0, 2, 4))\n",
    ),
    "halves": (
        'def halves(pairs: dict, least: float) -> list:\n    """ Names of at least this much, halved, in order. """\n',
        "    return [(name, much / 2) for name, much in sorted(pairs.items()) if much >= least and name != 'x']\n",
        "    assert candidate({'b': 4, 'a': 3, 'x': 9, 'c': 1}, 3) == [('a', 1.5), ('b', 2.0)]\n"
        "    assert candidate({}, 0) == []\n",
    ),
}  # fmt: skip
# MBPP's kind: a whole program, and assertions that name what they like.
MBPP = {
    "def overlap(a, b):\n    return tuple(sorted(set(a) & set(b)))\n": (
        "assert overlap((3, 4, 5), (5, 4, 9)) == (4, 5)\nassert overlap((1,), (2,)) == ()\n"
        "assert set(overlap([1, 2], [2, 3])) == {2}\n"
    ),
    "class Box:\n    def __init__(self, side):\n        self.side = side\n\nLIMIT = 10\n"
    "def volume(side):\n    box = Box(side)\n    if box.side < 0:\n        raise ValueError(side)\n"
    "    return min(LIMIT, box.side ** 3)\n": (
        "import math\nassert volume(2) == 8\nassert math.isclose(volume(1.1), 1.331)\nassert volume(9) == LIMIT\n"
        "try:\n    volume(-1)\nexcept ValueError:\n    pass\nelse:\n    assert False, 'no error'\n"
    ),
}  # fmt: skip


def _item(name: str):
    prompt, rest, test = OURS[name]
    row = {"task_id": name, "prompt": prompt, "canonical_solution": rest, "entry_point": name}
    return bench.item(row | {"test": f"def check(candidate):\n{test}"})


def _judge(pairs) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda pair: bench.passed(*pair).outcome, pairs))


def _reference(item):
    return run_code(item.program, [item.tests], bench.LIMITS)


@needs_sandbox
@pytest.mark.parametrize("name", OURS)
def test_our_reference_passes_and_its_operator_mutants_fail(name):
    item = _item(name)
    assert _reference(item).outcome == "right", _reference(item).reason
    mutants = [mutant for mutant in bench.mutants(item) if mutant.kind != "constant"]
    outcomes = _judge((mutant.program, item) for mutant in mutants)
    assert len(mutants) >= 2
    assert [mutant.id for mutant, outcome in zip(mutants, outcomes) if outcome != "wrong"] == []


@needs_sandbox
@pytest.mark.parametrize("program", MBPP)
def test_mbpp_style_program_passes_and_broken_ones_fail(program):
    tests = [AssertTests(MBPP[program])]
    assert run_code(program, tests).outcome == "right", run_code(program, tests).reason
    for broken in (program.replace("&", "|").replace("**", "*"), program.replace("return", "return None and"), "pass"):
        assert run_code(broken, tests).outcome == "wrong"


def test_each_kind_of_operator_is_changed_once():
    row = {"task_id": "T", "entry_point": "f", "test": "", "prompt": "def f(a, b=1 + 1):\n"}
    row["canonical_solution"] = "    a += 1\n    return not a < b and -a * b or a is b\n"
    found = {(mutant.kind, mutant.id.split(" ", 1)[1]) for mutant in bench.mutants(bench.item(row))}
    assert found == {
        ("augmented assignment", "a += 1 -> a -= 1"),
        ("constant", "1 -> 2"),
        ("constant", "1 -> 0"),
        ("unary", "not a < b -> not not a < b"),
        ("comparison", "a < b -> a <= b"),
        ("comparison", "a < b -> a >= b"),
        ("boolean", "not a < b and -a * b -> not a < b or -a * b"),
        ("boolean", "not a < b and -a * b or a is b -> (not a < b and -a * b) and a is b"),
        ("arithmetic", "-a * b -> -a / b"),
        ("unary", "-a -> +a"),
        ("comparison", "a is b -> a is not b"),
    }


@needs_sandbox
@needs_data
def test_all_references_of_humaneval_pass():
    items = bench.load(_DATA)
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(_reference, items))
    assert len(items) == 164
    assert {item.id: got.reason for item, got in zip(items, verdicts) if got.outcome != "right"} == {}


@needs_sandbox
@needs_data
def test_sample_of_humaneval_mutants_fails_but_for_those_explained():
    pairs = [(mutant, item) for item in bench.load(_DATA) for mutant in bench.mutants(item)][::SAMPLE]
    outcomes = _judge((mutant.program, item) for mutant, item in pairs)
    alive = {mutant.id for (mutant, _), outcome in zip(pairs, outcomes) if outcome == "right"}
    assert len(pairs) > 50
    assert alive - bench.explained() == set()


@needs_data
def test_explained_mutants_exist():
    known = {mutant.id for item in bench.load(_DATA) for mutant in bench.mutants(item)}
    assert bench.explained() - known == set()
