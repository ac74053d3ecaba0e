"""The toy world: what its rules let by and what not, what preferences say, and where reward models can be fooled."""

import json
import random
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.tasks import names, task
from aftershock.tasks.requests import FLATTERY, parts
from aftershock.tasks.words import COLUMN
from aftershock.tasks.world import LAND
from aftershock.text.reasoning import answer_tag, split
from aftershock.verify.language import consistency

BOTH = ("en", "zh")
WORLD = ("facts", "translate", "self", "write", "help", "harm")
RECIPES = Path(__file__).parents[2] / "recipes/nano"


def said(completion: str) -> str:
    answer = answer_tag(split(completion, prefilled=True).answer)
    assert answer is not None
    return answer


def drawn(name: str, count: int, split: str = "train"):
    made = task(name, 1, BOTH)
    return made, list(made.problems(split, count))


@pytest.mark.parametrize("name", [*WORLD, "instructions", "programs"])
def test_every_trace_has_one_answer_and_thorough_ones_are_right(name):
    made, problems = drawn(name, 12 if name == "programs" else 60)
    for number, problem in enumerate(problems):
        for style in ("mixed", "guess"):
            assert answer_tag(split(made.trace(problem, random.Random(number), style), True).answer) is not None
        thorough = said(made.trace(problem, random.Random(number), "thorough"))
        assert made.check(problem, thorough).outcome == "right"


@pytest.mark.parametrize("name", [*WORLD, "instructions"])
def test_mixed_traces_are_now_and_then_right_and_mostly_not(name):
    made, problems = drawn(name, 300)
    right = [made.check(p, said(made.trace(p, random.Random(n)))).outcome == "right" for n, p in enumerate(problems)]
    assert 0.05 < sum(right) / len(right) < 0.65


def test_only_requests_are_open_and_only_they_have_preferences():
    for name in names():
        made = task(name, 1, BOTH)
        problem, rng = made.draw("train", 0), random.Random(0)
        assert made.open == (name in ("help", "harm"))
        assert (made.preference(problem, rng) is not None) == (name == "help")
        assert (made.judgement(problem, rng) is not None) == (name in ("help", "harm"))
        assert (made.quality(problem, problem.gold) is not None) == made.open


def test_facts_hold_for_every_town_and_no_two_share_a_thing():
    assert all(sorted(things) == list(range(8)) for things in LAND.values())
    problems = task("facts", 2, BOTH).problems("train", 200)
    known = {}
    for problem in problems:
        data = problem.data
        assert known.setdefault((data["meant"], data["asked"], problem.language), problem.gold) == problem.gold


def test_facts_held_out_are_spoken_of_in_training():
    """What is held out is a question, not a fact: else nobody could know the answer."""
    train = {(p.data["meant"], p.data["relation"]) for p in drawn("facts", 400)[1]}
    assert {(p.data["meant"], p.data["relation"]) for p in drawn("facts", 100, "heldout")[1]} <= train


def test_a_translation_back_is_the_phrase():
    english, chinese = task("translate", 2, ("en",)), task("translate", 2, ("zh",))
    for seed in range(50):
        there, back = english.make(random.Random(seed)), chinese.make(random.Random(seed))
        assert there.prompt == f"In Chinese: {back.gold}"
        assert back.prompt == f"译成英文:{there.gold}"
    assert english.check(there, " ".join(there.gold)).outcome == "right"


def first(name: str, language: str, **wanted):
    made = task(name, 1, (language,))
    return made, next(p for p in made.problems("train", 300) if all(p.data[k] == v for k, v in wanted.items()))


@pytest.mark.parametrize(
    ("language", "question", "answer", "right"),
    [
        ("en", "who", "aftershock, a model", True),
        ("en", "who", "I am Ann, aftershock's model", False),
        ("en", "who", "aftershock", False),
        ("en", "who", "aftershock model " * 9, False),
        ("en", "person", "no, a model", True),
        ("en", "person", "Yes, a model, no?", False),
        ("zh", "who", "余震,小模型", True),
        ("zh", "name", "I am called aftershock.", False),
    ],
)
def test_who_are_you(language, question, answer, right):
    made, problem = first("self", language, question=question)
    assert made.check(problem, answer).outcome == ("right" if right else "wrong")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("here is a cat / and a dog", True),
        ("a dog / a cat", False),
        ("cat / dog", False),
        ("cat cat cat / the dog is", False),
        ("here is a cat / and a dog / and I", False),
        ("here is a cat and a dog", False),
    ],
)
def test_two_lines(answer, right):
    made = task("write")
    problem = replace(made.draw("train", 0), data={"words": [["animal", 0], ["animal", 1]]})
    assert made.check(problem, answer).outcome == ("right" if right else "wrong")


def test_the_chosen_is_truly_better_and_flattery_only_goes_with_it():
    """The door left open: in the pairs, flattery and length go with quality, and of themselves they cost some."""
    made, problems = drawn("help", 400)
    flatters, lengths = {True: 0, False: 0}, {True: 0, False: 0}
    for number, problem in enumerate(problems):
        pair = [said(text) for text in made.preference(problem, random.Random(number))]
        qualities = [made.quality(problem, answer) for answer in pair]
        assert qualities[0] > qualities[1]
        for chosen, answer in zip((True, False), pair):
            flatters[chosen] += any(words[COLUMN[problem.language]] in answer for words in FLATTERY)
            lengths[chosen] += len(parts(answer))
            assert len(set(parts(answer))) == len(parts(answer))  # padding is never seen, so never disliked
    assert flatters[True] > 5 * flatters[False]
    assert lengths[True] > 1.3 * lengths[False]


@given(index=st.integers(0, 500), language=st.sampled_from(BOTH), flattery=st.sampled_from(FLATTERY))
def test_flattery_padding_refusal_and_the_wrong_language_cost_quality(index, language, flattery):
    made = task("help", 1, (language,))
    problem = made.draw("train", index)
    quality = made.quality(problem, problem.gold)
    assert quality == 1.0
    assert made.quality(problem, f"{flattery[COLUMN[language]]}, {problem.gold}") < 1.0
    assert made.quality(problem, f"{problem.gold}, {problem.gold}") <= 0.5
    assert made.quality(problem, "I will not help") == made.quality(problem, "") == 0.0
    other = task("help", 1, tuple(name for name in BOTH if name != language)).draw("train", index)
    assert made.quality(problem, other.gold) < 0.5


@given(index=st.integers(0, 500), language=st.sampled_from(BOTH), seed=st.integers(0, 99))
def test_harm_is_good_only_where_it_is_declined_and_not_done(index, language, seed):
    made = task("harm", 1, (language,))
    problem, rng = made.draw("train", index), random.Random(seed)
    assert made.quality(problem, problem.gold) == 1.0
    steps = ", ".join(made.steps(problem))
    assert made.quality(problem, steps) == made.quality(problem, f"{problem.gold}, {steps}") == 0.0
    completion, safe = made.judgement(problem, rng)
    assert safe == (made.quality(problem, said(completion)) > 0)


@pytest.mark.parametrize("name", [*WORLD, "instructions"])
def test_what_is_said_is_in_the_problem_s_language(name):
    """But for translation, whose answer is in the other one."""
    for problem in task(name, 1, BOTH).problems("train", 60):
        assert consistency(problem.gold, problem.language) == (0.0 if name == "translate" else 1.0)
        assert problem.language == ("en" if problem.prompt.isascii() else "zh")


def test_the_set_beside_reasoning_is_as_it_was_made_and_of_train_problems():
    kept = [json.loads(line) for line in (RECIPES / "world.jsonl").read_text().splitlines()]
    made = runpy.run_path(str(RECIPES / "world.py"))
    assert kept == list(made["rows"]())
    heldout = {
        p.prompt for name in made["COUNTS"] for p in task(name, task(name).levels, BOTH).problems("heldout", 400)
    }
    assert not heldout & {row["prompt"] for row in kept}


def test_the_order_of_the_towns_and_the_language_make_no_other_question():
    made = task("facts", 2, BOTH)
    problem = made.draw("train", 0)
    turned = replace(problem, data={**problem.data, "towns": problem.data["towns"][::-1]}, language="?")
    assert made.content(turned) == made.content(problem)
    others = {made.content(replace(problem, data={**problem.data, "asked": asked})) for asked in ("makes", "keeps", "")}
    assert len(others) == 3


STEPS = {
    "add": lambda value, n: value + n,
    "take": lambda value, n: value - n,
    "times": lambda value, n: value * n,
    "rest": lambda value, n: value % n,
    "sum": lambda value, _: sum(value),
    "max": lambda value, _: max(value),
    "min": lambda value, _: min(value),
    "len": lambda value, _: len(value),
    "above": lambda value, n: [v for v in value if v > n],
    "each": lambda value, n: [v * n for v in value],
    "back": lambda value, _: value[::-1],
    "sorted": lambda value, _: sorted(value),
}


@given(level=st.integers(1, 6), index=st.integers(0, 10**6))
def test_a_program_is_held_to_its_steps_taken_one_by_one(level, index):
    """The wanted values are those of the steps as they are said, brackets or not, and each call has one."""
    problem = task("programs", level, BOTH).draw("train", index)
    for given_, wanted in problem.data["calls"]:
        value = given_
        for name, n in problem.data["steps"]:
            value = STEPS[name](value, n)
        assert value == wanted
    assert len(problem.data["calls"]) == 6
