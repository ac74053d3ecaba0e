"""Tasks by name, and what is said of a name that will not do."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from aftershock.errors import TaskError
from aftershock.tasks import Task, from_spec, names, task

DOC = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture
def documented(tmp_path):
    """The task shown in docs/tasks.md, in a file."""
    code = DOC.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "my_task.py").write_text(code)
    return tmp_path


def test_the_task_in_the_docs_is_short_and_holds(documented):
    lines = (documented / "my_task.py").read_text().splitlines()
    assert len(lines) < 40
    for difficulty in (1, 3):
        report = task("my_task.py:MyTask", difficulty, base=documented).validate(n=20)
        assert report.problems == {"train": 20, "heldout": 20}
        assert report.distinct["heldout"] > 15


def test_a_path_is_relative_to_here_or_to_the_base(documented, monkeypatch):
    monkeypatch.chdir(documented)
    assert type(task("my_task.py:MyTask")) is type(task("my_task.py:MyTask", base=documented))
    assert task("./my_task.py:MyTask").name == "letters"


@pytest.mark.parametrize("name", [*names(), "gym:chain_sum", "my_task.py:MyTask"])
def test_a_task_can_be_made_again_from_its_pickle(documented, name):
    made = task(name, difficulty=min(2, task(name, base=documented).levels or 2), base=documented)
    again = pickle.loads(pickle.dumps(made))
    assert again.spec == made.spec
    assert again.draw("heldout", 3, seed=7) == made.draw("heldout", 3, seed=7)
    assert from_spec(made.spec).difficulty == made.difficulty


def test_another_process_draws_the_same_problems(documented):
    """With another hash seed, so that no order of sets or dictionaries leaks into a problem."""
    code = (
        "import pickle, sys; from aftershock.tasks import from_spec\n"
        "made = from_spec(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
        "print([made.draw(split, i, 5) for split in ('train', 'heldout') for i in range(3)])"
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in (*names(), "my_task.py:MyTask"):
        made = task(name, base=documented)
        here = str([made.draw(split, i, 5) for split in ("train", "heldout") for i in range(3)])
        command = [sys.executable, "-c", code, pickle.dumps(made.spec).hex()]
        there = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert there.stdout.strip() == here


def test_a_changed_file_is_loaded_anew_and_an_unchanged_one_once(documented):
    first = task("my_task.py:MyTask", base=documented)
    path = documented / "my_task.py"
    path.write_text(path.read_text().replace('name = "letters"', 'name = "glyphs"'))
    second = task("my_task.py:MyTask", base=documented)
    assert (first.name, second.name) == ("letters", "glyphs")
    assert type(task("my_task.py:MyTask", base=documented)) is type(second)


def test_a_task_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it.py").write_text("NAME = 'with help'\n")
    body = DOC.read_text().split("```python\n")[1].split("```")[0].replace('"letters"', "NAME")
    (tmp_path / "helped.py").write_text("from beside_it import NAME\n" + body)
    assert task("helped.py:MyTask", base=tmp_path).validate(n=2).task == "with help"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("countdwn", r"'countdwn' \(nearest: countdown\).*gym:DATASET.*my_task.py:MyTask"),
        ("", "Built in are arithmetic, countdown, facts, harm, help, instructions, programs, remainders"),
        ("gym:chain_sums", r"no dataset 'chain_sums' \(nearest: chain_sum"),
        ("gone.py:MyTask", r"gone\.py: No such file.*relative to the recipe"),
        ("my_task.py:MyTusk", r"no 'MyTusk' \(nearest: MyTask\)"),
        ("my_task.py:Problem", r"'Problem' in .* is no task"),
        ("my_task.py:Task", r"'Task' in .* is no task"),
        ("my_task.py:random", r"'random' in .* is no task"),
        ("broken.py:MyTask", r"broken\.py can't be imported: SyntaxError"),
        ("fails.py:MyTask", r"fails\.py can't be imported: ZeroDivisionError"),
        ("half.py:Half", "'Half' in .* lacks check, perturb"),
        ("half.py:Nameless", "'Nameless' in .* has no name"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_the_remedy(documented, name, message):
    (documented / "broken.py").write_text("class MyTask(:\n")
    (documented / "fails.py").write_text("1 / 0\n")
    (documented / "half.py").write_text(
        "from aftershock.tasks import Task\n"
        "class Half(Task):\n    name = 'half'\n    def make(self, rng): ...\n"
        "class Nameless(Half):\n    name = ''\n    def check(self, problem, answer): ...\n"
        "    def perturb(self, problem, rng): ...\n"
    )
    with pytest.raises(TaskError, match=message):
        task(name, base=documented)


@pytest.mark.parametrize(
    ("name", "dials", "message"),
    [
        ("countdown", {"difficulty": 0}, "at least 1"),
        ("countdown", {"difficulty": 99}, "difficulty=99; it goes from 1 to"),
        ("countdown", {"languages": ()}, "at least one language"),
        ("gym:chain_sum", {"difficulty": 99}, "difficulty=99; it goes from 1 to 11"),
        ("gym:acre", {"difficulty": 2}, "difficulty=2; it goes from 1 to 1"),
        ("gym:chain_sum", {"languages": ("en", "zh")}, r"speaks only \['en'\]"),
    ],
)
def test_a_dial_out_of_range_is_refused(name, dials, message):
    with pytest.raises(TaskError, match=message):
        task(name, **dials)


def test_without_reasoning_gym_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(TaskError, match=r'pip install "aftershock\[gym\]"'):
        task("gym:chain_sum")


def test_a_task_offers_no_trace_unless_it_has_one(documented):
    made = task("my_task.py:MyTask", base=documented)
    assert isinstance(made, Task)
    assert made.trace(made.draw("train", 0), None) is None
