"""The built-in families, over every difficulty, both languages and any seed."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.tasks import names, programs, task
from aftershock.verify.verdict import Verdict

BOTH = ("en", "zh")
# Their problems are few: drawing a hundred, some come twice.
FEW = {"self", "help", "harm", "instructions"}
LEVELS = [(name, level) for name in names() for level in range(1, task(name).levels + 1)]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_the_check_holds_at_every_difficulty(name, level):
    n = 4 if name == "programs" else 15  # each of its checks starts a sandbox
    report = task(name, level, BOTH).validate(n=n, seed=level)
    assert report.problems == {"train": n, "heldout": n}


@pytest.mark.parametrize("name", names())
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**63), index=st.integers(0, 10**9), data=st.data())
def test_whatever_the_seed_gold_is_right_and_splits_are_apart(name, seed, index, data):
    level = data.draw(st.integers(1, task(name).levels))
    made = task(name, level, BOTH)
    problem = made.make(random.Random(seed))
    assert problem == made.make(random.Random(seed))
    assert made.check(problem, problem.gold).outcome == "right"
    assert made.check(problem, made.perturb(problem, random.Random(index))).outcome == "wrong"
    for split in ("train", "heldout"):
        drawn = made.draw(split, index, seed)
        assert made.split_of(drawn) == split
        assert drawn == task(name, level, BOTH).draw(split, index, seed)


@pytest.mark.parametrize("name", names())
def test_no_problem_is_in_both_splits(name):
    """By what is asked, not by how: the content of either language and any order."""
    made = task(name, 1, BOTH)
    contents = {split: {made.content(p) for p in made.problems(split, 300, seed=3)} for split in ("train", "heldout")}
    asked = {split: {p.prompt for p in made.problems(split, 300, seed=3)} for split in ("train", "heldout")}
    assert len(contents["heldout"]) > 10
    assert not contents["train"] & contents["heldout"]
    assert not asked["train"] & asked["heldout"]


@pytest.mark.parametrize("name", names())
def test_another_language_is_the_same_problem(name):
    """The same numbers asked in either language belong to the same split."""
    english, chinese = task(name, 1, ("en",)), task(name, 1, ("zh",))
    for seed in range(50):
        one, other = english.make(random.Random(seed)), chinese.make(random.Random(seed))
        assert one.language == "en"
        assert other.language == "zh"
        assert one.prompt != other.prompt
        if one.data == other.data:
            assert english.content(one) == chinese.content(other)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("language", BOTH)
def test_every_index_and_seed_gives_a_problem_of_its_own(name, language):
    made = task(name, task(name).levels, (language,))
    drawn = {p.id for p in made.problems("train", 50)} | {p.id for p in made.problems("train", 50, seed=1)}
    assert len(drawn) > (60 if name in FEW else 94)


@pytest.mark.parametrize("name", names())
@settings(max_examples=100, deadline=None)
@given(answer=st.one_of(st.text(max_size=12), st.text("0123456789+-*/()= .", max_size=15)), seed=st.integers(0, 99))
def test_no_answer_breaks_the_check(name, answer, seed):
    made = task(name)
    assert made.check(made.draw("train", seed), answer).outcome in ("right", "wrong")


def test_programs_that_were_begun_run_together_and_have_the_same_verdicts(monkeypatch):
    """As a worker does it: all are begun, then checked in order; equal programs run once."""
    together, most, ran = 0, 0, []

    def judged(program, tests, limits):
        nonlocal together, most
        together += 1
        most = max(most, together)
        time.sleep(0.05)
        together -= 1
        ran.append(program)
        return Verdict("right" if len(program) % 2 else "wrong", program)

    monkeypatch.setattr(programs, "run_code", judged)
    made = task("programs", 2, BOTH)
    problem = made.draw("train", 0)
    answers = [f"def f(x): return {number}" for number in (1, 22, 1, 3, 1, 22)]
    for answer in answers:
        made.begin(problem, answer)
    found = [made.check(problem, answer) for answer in [*answers, "no function", answers[0]]]
    assert most > 1
    assert sorted(ran) == sorted(set(answers))
    again = task("programs", 2, BOTH)
    assert found == [again.check(problem, answer) for answer in [*answers, "no function", answers[0]]]
