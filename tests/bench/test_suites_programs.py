"""Suites of programs: which block counts, what is run with it, and hidden tests that are never unpickled."""

import base64
import json
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from suite_items import DATA, ITEMS, answer, needs_data

from aftershock.bench import suites
from aftershock.bench.suites.livecodebench import _plain
from aftershock.bench.suites.programs import last_block
from aftershock.errors import BenchError


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("```py\na\n```\nthen\n```python\nb\n```", "b\n"),
        ("```python\na\n```\nrun it:\n```bash\npython a.py\n```", "a\n"),
        ("```python\na\n```\nprints\n```text\n3\n```", "a\n"),
        ("  ```python\n  a\n  ```", "  a\n"),
        ("```python\nnever closed\n\n```python\na\n```", "a\n"),
        ("```python\na = '''\n``` not a fence\n'''\n```", "a = '''\n``` not a fence\n'''\n"),
        ("```python\na", None),
        ("```cpp\na\n```", None),
        ("a", None),
        ("", None),
        ("```python\n```", ""),
    ],
)
def test_the_last_closed_block_of_python_counts(text, block):
    assert last_block(text) == block


def test_a_long_answer_of_fences_takes_no_time():
    assert last_block("```python\n" * 100_000) is None


def only(name, index=0, data=ITEMS):
    suite = suites.find(name, data)
    return suite, suite.questions()[index]


def test_humaneval_lends_the_prompts_imports_and_helpers_and_tests_with_its_own():
    suite, question = only("humaneval", 1)
    bare = "def root(xs):\n    return -xs[0] / xs[1] if poly(xs, 1) is not None else 0"
    assert suite.score(question, answer(f"```python\n{bare}\n```")).outcome == "right"
    cheat = "def poly(xs, x):\n    return 0\n\n\ndef root(xs):\n    return 5.0"
    assert suite.score(question, answer(f"```python\n{cheat}\n```")).outcome == "wrong"
    verdict = suite.score(question, answer("```python\ndef other():\n    pass\n```"))
    assert verdict.outcome == "wrong"
    assert "root" in verdict.reason


def test_mbpp_takes_the_test_split_and_reads_the_full_files_fields(tmp_path):
    assert [q.id for q in suites.find("mbpp", ITEMS).questions()] == ["mbpp/11", "mbpp/12"]
    full = {"task_id": 500, "text": "Give one.", "code": "def one():\n    return 1", "test_setup_code": "WANTED = 1"}
    (tmp_path / "mbpp.jsonl").write_text(json.dumps({**full, "test_list": ["assert one() == WANTED"]}))
    suite, question = only("mbpp", data=tmp_path)
    assert suite.score(question, answer(suite.oracle(question))).outcome == "right"
    assert "assert one()" in question.prompt


def test_cruxeval_compares_values_and_runs_nothing_a_model_wrote():
    suite, question = only("cruxeval-o", 1)  # {'ab': 6}
    for text, outcome in (
        ('{"ab":   3 * 2}', "wrong"),
        ('{"a" "b": 6}', "right"),
        ("{'ab': 6.0}", "right"),
        ("6", "wrong"),
    ):
        assert suite.score(question, answer(f"```python\n{text}\n```")).outcome == outcome
    votes = {suite.score(question, answer(f"```python\n{text}\n```")).extracted for text in ("{'ab':6}", '{"ab": 6 }')}
    assert votes == {"{'ab': 6}"}
    suite, question = only("cruxeval-i")  # sorted(set(xs)) == [1, 3]
    for call, outcome in (("f([1, 3])", "right"), ("f(xs=[3, 1, 1])", "right"), ("f([1])", "wrong")):
        assert suite.score(question, answer(f"```python\n{call}\n```")).outcome == outcome
    for cheat in (
        "f([1]) or [1, 3]",
        "(f := lambda x: [1, 3])([])",
        "f(list((1, 3)))",
        "f",
        "g([1, 3])",
        "[1, 3]",
        "f([1, 3]); f(1)",
    ):
        verdict = suite.score(question, answer(f"```python\n{cheat}\n```"))
        assert verdict.outcome == "wrong"
        assert "no call of f" in verdict.reason
    assert suite.score(question, answer(f"```python\n{'[' * 30_000}\n```")).outcome == "wrong"
    assert suite.score(question, answer(f"```python\nf({'[' * 500})\n```")).outcome == "wrong"


def test_a_window_chooses_by_month_and_names_itself():
    default = suites.find("livecodebench", ITEMS)
    assert [q.id for q in default.questions()] == ["own_1", "own_2"]
    wide = suites.find("livecodebench@2024-07..2025-02", ITEMS)
    assert [q.id for q in wide.questions()] == ["own_0", "own_1", "own_2", "own_3"]
    assert wide.questions()[0].suite == "livecodebench@2024-07..2025-02"
    assert wide.title == "LiveCodeBench 2024-07..2025-02"


def test_livecodebench_tests_are_hidden_and_all_of_them_run():
    suite, question = only("livecodebench")
    assert "10 -4" not in json.dumps(question.__dict__)
    assert len(suite.tests(question)) == 3
    public = "import sys\na, b = map(int, sys.stdin.read().split())\nprint(a + b if a < 2 else 0)"
    verdict = suite.score(question, answer(f"```python\n{public}\n```"))
    assert (verdict.outcome, verdict.reason[:6]) == ("wrong", "test 2")
    suite, question = only("livecodebench", 1)
    method = "class Solution:\n    def swap(self, a: int, b: int) -> List[int]:\n        return b, a"
    assert suite.score(question, answer(f"```python\n{method}\n```")).outcome == "right", "a tuple counts as its list"


def packed(value, protocol=None):
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


class Boom:
    def __reduce__(self):
        return print, ("loaded",)


def test_hidden_tests_are_read_from_their_pickle_without_loading_it(capsys):
    cases = json.dumps([{"input": "é" * 300, "output": "\u2028", "testtype": "stdin"}])
    assert _plain(cases) == cases
    for protocol in (2, 3, 4, 5):
        assert _plain(packed(cases, protocol)) == cases
        for other in (Boom(), [cases], {"a": 1}, 5, b"bytes", (cases, cases), None):
            with pytest.raises(BenchError, match="not loaded"):
                _plain(packed(other, protocol))
    assert capsys.readouterr().out == ""
    for texts in (b"", b"\x8c\x01a\x8c\x01b"):  # none, and two of them
        with pytest.raises(BenchError, match="not loaded"):
            _plain(base64.b64encode(zlib.compress(b"\x80\x04" + texts + b".")).decode())
    for damaged in ("?", "aGVsbG8=", packed(cases)[:-8]):
        with pytest.raises(BenchError, match=r"neither JSON nor|cut off"):
            _plain(damaged)


def test_hidden_tests_that_unpack_to_too_much_are_refused(monkeypatch):
    monkeypatch.setattr("aftershock.bench.suites.livecodebench._LARGEST", 1000)
    with pytest.raises(BenchError, match="more than 1000 bytes"):
        _plain(packed("a" * 2000))


@needs_data
def test_humanevals_references_pass_and_a_list_around_their_results_fails():
    suite = suites.find("humaneval", Path(DATA))
    asked = suite.questions()
    assert len(asked) == 164
    with ThreadPoolExecutor(2) as threads:
        right = threads.map(lambda q: suite.score(q, answer(suite.oracle(q))), asked)
        assert {verdict.outcome for verdict in right} == {"right"}
        wrong = threads.map(lambda q: suite.score(q, answer(suite.decoy(q))), asked[::8])
        assert {verdict.outcome for verdict in wrong} == {"wrong"}
