"""The adapter to reasoning-gym, on a dozen datasets of different kinds."""

import random
from collections import Counter

import pytest

from aftershock.errors import TaskError
from aftershock.tasks import task
from aftershock.verify.pool import Pool

pytest.importorskip("reasoning_gym")

DOZEN = [
    "basic_arithmetic",
    "caesar_cipher",
    "complex_arithmetic",
    "count_bits",
    "family_relationships",
    "fraction_simplification",
    "graph_color",
    "knights_knaves",
    "leg_counting",
    "list_functions",
    "number_sorting",
    "word_sorting",
]


def test_validate_runs_the_datasets_check_in_a_worker():
    assert task("gym:chain_sum").validate(n=5).distinct["train"] == 5


@pytest.mark.parametrize("dataset", DOZEN)
def test_draws_are_addressed_and_splits_apart(dataset):
    made = task(f"gym:{dataset}")
    train, heldout = (list(made.problems(split, 8, seed=1)) for split in ("train", "heldout"))
    assert not {p.prompt for p in train} & {p.prompt for p in heldout}
    assert list(task(f"gym:{dataset}").problems("train", 8, seed=1)) == train
    assert list(made.problems("train", 8, seed=2)) != train


def test_workers_judge_as_the_datasets_would():
    """One worker holds all twelve: gold right, perturbed wrong, though it makes each entry again from its number."""
    tasks = [task(f"gym:{dataset}") for dataset in DOZEN]
    drawn = [(place, problem) for place, made in enumerate(tasks) for problem in made.problems("heldout", 3)]
    gold = [(place, problem, problem.gold) for place, problem in drawn]
    bent = [(place, problem, tasks[place].perturb(problem, random.Random(0))) for place, problem in drawn]
    found = {}
    pool = Pool(tasks, workers=1, seconds=20)
    try:
        pool.run(gold + bent, lambda number, verdict: found.update({number: verdict}))
    finally:
        pool.close()
    outcomes = [found[number].outcome for number in range(len(gold + bent))]
    assert outcomes == ["right"] * len(gold) + ["wrong"] * len(bent)


def test_partial_credit_is_wrong():
    made = task("gym:spell_backward")
    problem = made.draw("train", 0)
    verdict = made.check(problem, f"{problem.gold} indeed")
    assert verdict.outcome == "wrong"
    assert 0 < float(verdict.reason.split()[1]) < 1


def test_an_answer_that_the_dataset_cannot_read_is_wrong_and_its_own_errors_go_through(monkeypatch):
    made = task("gym:prime_factorization")
    problem = made.draw("train", 0)
    verdict = made.check(problem, "two and two")
    assert verdict.outcome == "wrong"
    assert "can't be read" in verdict.reason
    monkeypatch.setattr(made._dataset, "score_answer", lambda answer, entry: {}["lost"])
    with pytest.raises(KeyError):
        made.check(problem, problem.gold)


def test_difficulty_is_the_level_of_the_curriculum():
    easy, hard = task("gym:chain_sum", 1), task("gym:chain_sum", 5)
    lengths = [sum(len(p.prompt) for p in made.problems("train", 20)) for made in (easy, hard)]
    assert lengths[1] > lengths[0] + 100
    assert {p.difficulty for p in hard.problems("heldout", 3)} == {5}


def test_a_dataset_without_answers_is_refused():
    with pytest.raises(TaskError, match="gym:rush_hour gives no answer to its own problem"):
        task("gym:rush_hour").draw("train", 0)


def test_an_entry_that_comes_out_otherwise_is_not_judged():
    made = task("gym:chain_sum")
    first, second = made.problems("train", 2)
    swapped = type(first)(**(vars(first) | {"data": second.data}))
    with pytest.raises(TaskError, match="another version of reasoning-gym"):
        made.check(swapped, first.gold)


def test_a_dataset_that_draws_from_the_global_generator_is_addressed_and_leaves_it_alone():
    """list_functions draws from `random` itself."""
    made = task("gym:list_functions")
    random.seed(1)
    before = random.getstate()
    drawn = list(made.problems("train", 30))
    assert random.getstate() == before
    random.seed(2)
    assert list(task("gym:list_functions").problems("train", 30)) == drawn


def test_a_gold_answer_that_nothing_spoils_is_said(monkeypatch):
    made = task("gym:chain_sum")
    problem = made.draw("train", 0)
    monkeypatch.setattr(made._dataset, "score_answer", lambda answer, entry: 1.0)
    with pytest.raises(TaskError, match=r"every change of the gold answer .* scores right"):
        made.perturb(problem, random.Random(0))


def test_perturbations_vary():
    made = task("gym:chain_sum")
    problem = made.draw("train", 0)
    assert len(Counter(made.perturb(problem, random.Random(seed)) for seed in range(30))) > 3
