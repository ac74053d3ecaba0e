"""Datasets as tasks: each original's fields, the split, the check with and without tags, and what is refused."""

import json
from pathlib import Path

import pytest

from aftershock.errors import TaskError
from aftershock.recipe import RewardTable
from aftershock.tasks import task
from aftershock.tasks.dataset import ASK, items
from aftershock.verify.judge import Judge

GSM8K = [{"question": f"Tom has {n}.", "answer": f"He adds {n}.\n{n}+1,000\n#### {n + 1000:,}"} for n in range(60)]
MATH = [
    {"problem": f"Halve {n}.", "solution": f"It is $\\boxed{{\\frac{{{n}}}{{2}}}}$.", "level": f"Level {n % 5 + 1}"}
    for n in range(1, 61)
]
OWN = [{"prompt": f"What is {n} + {n}?", "answer": 2 * n} for n in range(60)]


def write(folder: Path, rows: list, name: str = "own.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Said:
    """A completion."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.finish_reason = text, [0] * 9, "stop"


@pytest.mark.parametrize(
    ("rows", "gold"),
    [(GSM8K, lambda n: str(n + 999)), (MATH, lambda n: f"\\frac{{{n}}}{{2}}"), (OWN, lambda n: str(2 * n - 2))],
)
def test_the_originals_fields_are_read_and_the_check_holds(tmp_path, rows, gold):
    write(tmp_path, rows)
    made = task("dataset:own.jsonl", base=tmp_path)
    problem = made.draw("train", 0)
    number = int(problem.id.rpartition("-")[2])
    assert problem.gold == f"\\boxed{{{gold(number)}}}"
    assert problem.prompt.endswith(f"\n\n{ASK}")
    assert made.name == "dataset:own.jsonl"
    report = made.validate(n=4)
    assert report.distinct["train"] > 1


def test_problems_are_apart_and_difficulty_leaves_out_lower_levels(tmp_path):
    write(tmp_path, MATH)
    made = task("dataset:own.jsonl", 3, base=tmp_path)
    drawn = {split: {p.prompt for p in made.problems(split, 40)} for split in ("train", "heldout")}
    assert not drawn["train"] & drawn["heldout"]
    halved = {int(prompt.split()[1].rstrip(".")) for prompts in drawn.values() for prompt in prompts}
    assert {n % 5 + 1 for n in halved} == {3, 4, 5}


def test_two_files_with_the_same_question_agree_on_its_split(tmp_path):
    one, two = (task(f"dataset:{write(tmp_path, OWN, name).name}", base=tmp_path) for name in ("a.jsonl", "b.jsonl"))
    for problem in one.problems("heldout", 5):
        assert two.split_of(problem) == "heldout"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("so</think> <answer> \\boxed{4} </answer>", "right"),
        ("so</think> The answer is \\boxed{4}.", "right"),
        ("so</think> \\boxed{5}", "wrong"),
        ("so</think> <answer>4</answer>", "wrong"),
        ("so</think> \\boxed{4} <answer>", "wrong"),
        ("so</think> <answer>\\boxed{4}</answer> <answer>\\boxed{5}</answer>", "wrong"),
        ("so \\boxed{4}", "wrong"),
    ],
)
def test_a_box_counts_with_and_without_its_one_pair_of_tags(tmp_path, text, outcome):
    write(tmp_path, [{"prompt": f"{n}: 2+2?", "answer": "4"} for n in range(9)])
    made = task("dataset:own.jsonl", base=tmp_path)
    with Judge([made], RewardTable(), max_tokens=99) as judge:
        reward = judge.judge([(made.draw("train", 0), Said(text))])[0]
    assert reward.verdict.outcome == outcome


def test_answers_of_equal_value_are_right_in_the_worker(tmp_path):
    write(tmp_path, [{"prompt": f"{n}: expand", "answer": "x^2+2x+1"} for n in range(9)])
    made = task("dataset:own.jsonl", base=tmp_path)
    with Judge([made], RewardTable(timeout_seconds=20), max_tokens=99) as judge:
        said = Said("so</think> \\boxed{(x+1)^2}")
        assert judge.judge([(made.draw("train", 0), said)])[0].verdict.outcome == "right"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a"}], r"own\.jsonl, row 1: wanted a question .* its fields are text"),
        ([{"prompt": "a", "solution": "no box"}], "1 rows, and 1 have no answer .* row 1, .*solution = 'no box'"),
        ([{"prompt": "b", "answer": "3"}, {"prompt": "a", "answer": "}"}], "2 rows, and 1 have no answer .* row 2"),
        ([], "has 0 rows"),
    ],
)
def test_rows_that_won_t_do_are_named(tmp_path, rows, words):
    made = task(f"dataset:{write(tmp_path, rows)}")
    with pytest.raises(TaskError, match=words):
        made.draw("train", 0)


def test_one_row_in_a_hundred_may_lack_an_answer(tmp_path):
    rows = [{"prompt": f"{n}?", "answer": str(n) if n else None} for n in range(100)]
    made = task(f"dataset:{write(tmp_path, rows)}")
    assert made.draw("train", 0).gold
    assert len(items(str(tmp_path / "own.jsonl"))) == 99


def test_what_is_not_there_is_told_before_a_problem_is_drawn(tmp_path, monkeypatch):
    with pytest.raises(TaskError, match=r"there is no file .*none\.jsonl; its path is relative to the recipe"):
        task("dataset:none.jsonl", base=tmp_path)
    with pytest.raises(TaskError, match=r"no dataset is known as 'gsm9k' \(nearest: gsm8k\)"):
        task("dataset:gsm9k")
    with pytest.raises(TaskError, match="name the one that it is written in"):
        task("dataset:gsm8k", languages=("en", "zh"))
    with pytest.raises(TaskError, match="no problem of level 2 or harder"):
        task(f"dataset:{write(tmp_path, OWN)}", 2).draw("train", 0)


def test_the_hub_is_asked_for_the_training_split_when_the_first_problem_is_drawn(monkeypatch):
    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return GSM8K

    items.cache_clear()
    monkeypatch.setattr("datasets.load_dataset", load)
    made = task("dataset:gsm8k")
    assert not calls
    assert made.draw("train", 0).gold.startswith("\\boxed{1")
    assert calls == [(("openai/gsm8k", "main"), {"split": "train"})]
    items.cache_clear()
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(TaskError, match=r"openai/gsm8k can't be read from the hub: .* dataset:path/to/file\.jsonl"):
        made = task("dataset:gsm8k").draw("train", 0)
    items.cache_clear()


def test_prompts_are_open_and_need_no_answer(tmp_path):
    write(tmp_path, [{"prompt": f"Write {n} lines."} for n in range(30)])
    made = task("prompts:own.jsonl", base=tmp_path)
    problem = made.draw("train", 0)
    assert made.open
    assert problem.prompt.startswith("Write ")
    assert made.check(problem, "a verse").outcome == "wrong"
    assert made.distinct("heldout", 5) == []
    assert len(made.distinct("train", 5)) == 5
    with pytest.raises(TaskError, match="row 1: wanted a question"):
        task(f"prompts:{write(tmp_path, [{'text': 'a'}], 'b.jsonl')}").draw("train", 0)
