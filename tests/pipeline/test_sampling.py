"""Data made by a model: right, clean, none twice, the same bytes after a kill, and fit to fine-tune on."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from walk import walk

from aftershock.errors import DataError, RecipeError
from aftershock.pipeline.clean import clean, cleaners, summarised
from aftershock.recipe import load_recipe
from aftershock.text.reasoning import answer_tag, split
from aftershock.verify.language import consistency

RECIPE = """
[run]
name = "data"
usd_per_hour = 1.0
watts = 100.0

[stage.made]
kind = "sample"
problems = 150
samples_per_problem = 4
keep = 2
max_tokens = 48
clean = ["one_language", "own.py:shout"]

[[stage.made.tasks]]
name = "countdown"
languages = ["en", "zh"]

[stage.tuned]
kind = "sft"
data = ["made"]
epochs = 1
tokens_per_step = 512
"""
SHOUT = """
def shout(row):
    return None if "-" in row["answer"] else row["text"].replace("</think>", "!</think>")
"""


@pytest.mark.slow
def test_what_is_kept_is_right_and_clean(tmp_path: Path):
    (tmp_path / "own.py").write_text(SHOUT)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    whole = walk(tmp_path / "recipe.toml", tmp_path / "whole")
    made = (whole / "stages/made/data.jsonl").read_text()
    rows = [json.loads(line) for line in made.splitlines()]
    assert len(rows) > 5
    texts = [(row["prompt"], row["completion"]) for row in rows]
    assert len(set(texts)) == len(texts)
    assert max(sum(row["prompt"] == other["prompt"] for other in rows) for row in rows) <= 2
    for row in rows:
        assert "!</think>" in row["completion"]
        assert _is_right(row)
    counts = json.loads((whole / "stages/made/data.json").read_text())
    assert counts.pop("kept") == len(rows)
    assert counts["not right"] > 0


def _is_right(row: dict) -> bool:
    """Reckon again, from the words alone: the numbers used and the one they make are those of the problem."""
    answer = row["completion"].split("<answer>")[1].split("<")[0].replace("×", "*").replace("÷", "/")
    numbers = [int(number) for number in re.findall(r"\d+", answer)]
    return sorted([*numbers, int(eval(answer))]) == sorted(map(int, re.findall(r"\d+", row["prompt"])))


def row(text: str, language: str = "en") -> dict:
    reasoning, _, answer = text.partition("</think>")
    return {"text": text, "reasoning": reasoning, "answer": answer, "language": language}


@pytest.mark.parametrize(
    ("text", "language", "dropped"),
    [
        ("all is well</think> 3", "en", ""),
        ("all is 好</think> 3", "en", "one_language"),
        ("all is well</think> 3", "zh", "one_language"),
        ("so\n```python\nx\n```</think> 3", "en", "no_code_block"),
        ("a " * 3000 + "</think> 3", "en", "short_paragraphs"),
        ("a " * 900 + "\n\n" + "a " * 900 + "</think> 3", "en", ""),
    ],
)
def test_cleaners_drop_by_name(text: str, language: str, dropped: str):
    chosen = cleaners(["one_language", "no_code_block", "short_paragraphs"], Path())
    kept, by = clean(row(text, language), chosen)
    assert by == dropped
    assert (kept is None) == bool(dropped)


@given(
    reasoning=st.text("12+=; 大", max_size=20),
    answer=st.text("7 x", min_size=1).filter(str.strip),
    task=st.sampled_from(["countdown", "self", "x"]),
    language=st.sampled_from(["en", "zh"]),
)
def test_a_summary_keeps_the_answer_and_summing_up_twice_changes_nothing(reasoning, answer, task, language):
    made = {"task": task, "language": language}
    text = summarised({**made, "reasoning": reasoning, "answer": f"<answer>{answer}</answer>"})
    parts = split(text, prefilled=True)
    assert answer_tag(parts.answer) == answer.strip()
    assert "".join(parts.reasoning.split()) == "".join(reasoning.split())
    assert summarised({**made, "reasoning": parts.reasoning, "answer": parts.answer}) == text
    if parts.reasoning:
        assert consistency(parts.answer.split("<answer>")[0], language) == 1.0


def test_right_by_luck_is_not_summed_up():
    for guess in ("guess", "猜"):
        assert (
            summarised({"task": "x", "language": "en", "reasoning": f" {guess} ", "answer": "<answer>1</answer>"})
            is None
        )
    assert summarised({"task": "x", "language": "en", "reasoning": "1", "answer": "1"}) is None


def test_unknown_cleaners_and_wrong_answers_of_theirs_are_told(tmp_path: Path):
    with pytest.raises(DataError, match="one_language"):
        cleaners(["one_langauge"], tmp_path)
    (tmp_path / "own.py").write_text("def f(row):\n    return 3\n")
    with pytest.raises(DataError, match="no function 'g'"):
        cleaners(["own.py:g"], tmp_path)
    with pytest.raises(DataError, match="returned a int"):
        clean(row("x</think>y"), cleaners(["own.py:f"], tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('data = ["made"]', 'data = ["made"]\nfrom = "made"'), "no stage that makes weights"),
        (('data = ["made"]', 'data = ["tuned"]'), "no earlier stage that makes data"),
        (('data = ["made"]', "data = []"), "is empty"),
    ],
)
def test_stages_that_lack_what_is_asked_of_them_are_refused(tmp_path: Path, change: tuple[str, str], words: str):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(*change))
    with pytest.raises(RecipeError, match=words.replace("no earlier", "not an earlier")):
        load_recipe(tmp_path / "recipe.toml")
