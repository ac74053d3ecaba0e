"""Every suite's scorer is proved on our own items; subsets, hashes, names, and suites of the user's own."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from suite_items import DATA, ITEMS, answer, needs_data

from aftershock.bench import suites
from aftershock.bench.suite import Source, Suite
from aftershock.bench.suites import generated
from aftershock.bench.types import Question
from aftershock.errors import BenchError
from aftershock.verify.verdict import Verdict

FILED = [name for name in suites.names() if name not in suites.GROUPS["ours"]]
DOC = Path(__file__).parents[2] / "docs" / "suites.md"


@pytest.fixture
def find():
    found = []

    def one(name, data=ITEMS):
        found.append(suites.find(name, data))
        return found[-1]

    yield one
    for suite in found:
        suite.close()


@pytest.mark.parametrize("name", [*suites.names(), "countdown@3/zh,en", "gym:chain_sum@2"])
def test_every_scorer_is_proved_by_its_own_items(find, name):
    suite = find(name)
    asked = suite.questions(None if name in FILED else 3)
    assert asked
    assert all(question.suite == name for question in asked)
    for question in asked:
        oracle = suite.oracle(question)
        verdict = suite.score(question, answer(oracle))
        assert verdict.outcome == "right", (question, verdict)
        assert suite.score(question, answer(suite.decoy(question))).outcome == "wrong"
        for empty in ("", "  \n", "I don't know, sorry, I am at a loss."):
            assert suite.score(question, answer(empty)).outcome == "wrong"
        assert suite.score(question, answer("", reasoning=oracle)) == Verdict("wrong", "nothing follows the reasoning")
        cut = suite.score(question, answer("", "length", reasoning=oracle))
        assert cut == Verdict("wrong", "cut off after 7 tokens, before an answer")
        half = suite.score(question, answer(oracle[: len(oracle) // 2 - 1], "length"))
        assert half.outcome == "wrong"


@pytest.mark.parametrize("name", FILED)
def test_questions_survive_json_and_are_scored_from_it(find, name):
    """As when a bench goes on: what scoring needs is in the question, or in the suite once it is loaded again."""
    suite = find(name)
    for question in suite.questions():
        kept = Question(**json.loads(json.dumps(question.__dict__)))
        assert kept == question
        assert suite.score(kept, answer(suite.oracle(question))).outcome == "right"


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "countdown"])
def test_prompts_hashes_and_subsets_are_the_same_each_time(find, name):
    one, two = find(name), find(name)
    assert one.questions() == two.questions()
    assert one.data_hash == two.data_hash
    assert len(one.data_hash) == 64
    two.questions(1)
    assert one.data_hash != two.data_hash


class Numbers(Suite):
    name = "numbers"
    title = "Numbers"
    source = Source("nobody/numbers", ("numbers.jsonl",))

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def rows(self):
        return [{"id": identity} for identity in self.ids]

    def question(self, row, index):
        return Question("numbers", row["id"], "?", "!")

    def score(self, question, answer):
        return Verdict("right")

    def oracle(self, question):
        return "!"

    decoy = oracle


@given(st.sets(st.text(min_size=1), min_size=1, max_size=30), st.data())
def test_a_part_is_in_order_and_within_every_larger_part(ids, data):
    ids = sorted(ids)
    few = data.draw(st.integers(1, len(ids)))
    more = data.draw(st.integers(few, len(ids)))
    small, large = ([q.id for q in Numbers(ids).questions(n)] for n in (few, more))
    assert len(small) == few
    assert len(large) == more
    assert [identity for identity in ids if identity in small] == small
    assert set(small) <= set(large)
    shuffled = data.draw(st.permutations(ids))
    assert {q.id for q in Numbers(shuffled).questions(few)} == set(small)


def test_a_part_is_the_same_for_ever():
    """By hash, so that it is no matter how the source is sorted; measured once and kept."""
    assert [q.id for q in Numbers([f"q{place}" for place in range(20)]).questions(4)] == ["q0", "q2", "q4", "q16"]


def test_rows_with_one_id_are_refused():
    with pytest.raises(BenchError, match=r"rows 0 and 2 .* are both 'a'"):
        Numbers(["a", "b", "a"]).questions()
    with pytest.raises(BenchError, match="no question"):
        Numbers([]).questions()


def test_names_and_groups():
    assert suites.expand(["generated", "countdown", "gsm8k"]) == ["arithmetic", "countdown", "remainders", "gsm8k"]
    assert set(suites.expand(["math", "code", "r1", "cruxeval"])) == set(FILED)
    gym = suites.expand(["gym"])
    assert "gym:chain_sum" in gym
    assert "gym:n_queens" not in gym
    assert len(gym) > 80
    with pytest.raises(BenchError, match=r"'gsm8kk' \(nearest: gsm8k"):
        suites.find("gsm8kk")
    for name in FILED:
        assert suites.find(name).title
        assert suites.find(name).source.hub.count("/") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gsm8k@2", "no such option"),
        ("countdown@hard", "wanted a difficulty"),
        ("livecodebench@2025", "wanted two months"),
        ("livecodebench@2025-02..2025-01", "wanted two months"),
    ],
)
def test_options_that_mean_nothing_are_refused(name, words):
    with pytest.raises(BenchError, match=words):
        suites.find(name, ITEMS)


def test_a_row_without_a_field_is_named(tmp_path):
    (tmp_path / "gsm8k_test.jsonl").write_text(
        '{"question": "1?", "answer": "#### 1"}\n{"question": "2?", "gold": 2}\n'
    )
    with pytest.raises(
        BenchError, match=r"row 1 of gsm8k_test.jsonl .* 'answer'; it has question, gold\. .*openai/gsm8k"
    ):
        suites.find("gsm8k", tmp_path).questions()
    (tmp_path / "gsm8k_test.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    with pytest.raises(BenchError, match="####"):
        suites.find("gsm8k", tmp_path).questions()


def test_the_suite_in_the_docs_is_short_and_runs(tmp_path, monkeypatch):
    code = DOC.read_text().split("```python\n")[1].split("```")[0]
    rows = DOC.read_text().split("```json\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 25
    (tmp_path / "my_suite.py").write_text(code)
    (tmp_path / "capitals.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    suite = suites.find("my_suite.py:Capitals", tmp_path)
    asked = suite.questions()
    assert len(asked) == len(rows.splitlines())
    for question in asked:
        assert suite.score(question, answer(suite.oracle(question))).outcome == "right"
        assert suite.score(question, answer(suite.decoy(question))).outcome == "wrong"
        assert suite.score(question, answer("")).outcome == "wrong"
    with pytest.raises(BenchError, match="suites in it are: Capitals"):
        suites.find("my_suite.py:Capital", tmp_path)
    with pytest.raises(BenchError, match="can't read the suite file"):
        suites.find("missing.py:Capital", tmp_path)


def test_choices_are_shuffled_by_their_question_and_never_left_as_they_were(find):
    asked = find("gpqa-diamond").questions()
    assert len({question.gold for question in asked}) > 1, "the file has the right one first, always"
    carbon = next(question for question in asked if "plants" in question.prompt)
    assert f"{carbon.gold}. carbon dioxide" in carbon.prompt
    assert [q.prompt for q in asked] == [q.prompt for q in find("gpqa-diamond").questions()]
    only = find("gpqa-diamond").questions(1)[0]
    assert only in asked, "no other question moves it"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{C}", "C"),
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{A}, no: \boxed{\mathbf{c}.}", "C"),
        (r"\boxed{A or C}", None),
        (r"\boxed{AC}", None),
        (r"\boxed{E}", None),
        (r"\boxed{carbon}", None),
        ("The answer is C", None),
        (r"\boxed{}", None),
    ],
)
def test_one_letter_in_the_last_box_and_nothing_else(find, text, found):
    suite = find("gpqa-diamond")
    verdict = suite.score(suite.questions()[0], answer(text))
    assert verdict.extracted == found
    assert found or verdict.outcome == "wrong"


def test_a_check_that_hangs_is_killed_and_says_nothing_of_the_model(find, monkeypatch):
    monkeypatch.setattr(generated, "SECONDS", 1.0)
    suite = find("gym:countdown")  # its check works out what an answer says
    question = suite.questions(1)[0]
    bomb = suite.score(question, answer("<answer>9**9**9</answer>"))
    assert (bomb.outcome, bomb.reason) == ("unverifiable", "timed out after 1 s")
    assert suite.score(question, answer(suite.oracle(question))).outcome == "right"


def test_an_instruction_told_after_the_prompt_does_not_change_the_check(find):
    suite = find("gym:chain_sum")
    question = suite.questions(1)[0]
    told = Question(**{**question.__dict__, "prompt": f"{question.prompt}\n\n{suite.instruction}"})
    assert suite.score(told, answer(suite.oracle(question))).outcome == "right"


def test_two_answers_in_tags_are_none(find):
    suite = find("arithmetic")
    question = suite.questions(1)[0]
    twice = answer(f"{suite.oracle(question)} or {suite.decoy(question)}")
    assert suite.score(question, twice) == Verdict("wrong", "no single answer in <answer> tags after the reasoning")


def test_gsm8k_takes_the_number_behind_the_marks(find):
    assert [question.gold for question in find("gsm8k").questions()] == ["31", "5000", "-2", "4.5"]


def test_aime_answers_are_held_to_their_range(tmp_path):
    shutil.copy(ITEMS / "aime25.jsonl", tmp_path)
    assert [question.gold for question in suites.find("aime25", tmp_path).questions()] == ["15", "9"]
    (tmp_path / "aime25.jsonl").write_text('{"problem": "?", "answer": "1000"}\n')
    with pytest.raises(BenchError, match="wanted 0 to 999"):
        suites.find("aime25", tmp_path).questions()


def test_a_prompt_asks_for_the_box_once(find):
    for question in (*find("aime24").questions(), *find("aime25").questions()):
        assert question.prompt.count("step by step") == question.prompt.count("\\boxed{}") == 1


@needs_data
@pytest.mark.parametrize(("name", "rows", "n"), [("gsm8k", 1319, 200), ("math500", 500, 500), ("aime24", 30, 30)])
def test_the_originals_gold_answers_are_right_and_their_decoys_wrong(find, name, rows, n):
    suite = find(name, Path(DATA))
    assert len(suite.questions()) == rows
    for question in suite.questions(n):
        assert suite.score(question, answer(suite.oracle(question))).outcome == "right", question
        assert suite.score(question, answer(suite.decoy(question))).outcome == "wrong", question


@needs_data
def test_aime24_has_the_answer_that_another_copy_has_wrong(find):
    circles = [q for q in find("aime24", Path(DATA)).questions() if q.prompt.startswith("Eight circles of radius $34$")]
    assert [question.gold for question in circles] == ["197"]
