"""The judge: what is extracted, what is unverifiable, and that no check harms its neighbours or outlives the pool."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftershock.errors import VerifierError
from aftershock.generate.types import Completion
from aftershock.recipe import RewardTable
from aftershock.tasks import Problem, task
from aftershock.verify.judge import Judge

NASTY = task(f"{Path(__file__).parent / 'nasty.py'}:Nasty")
PROBLEM = NASTY.draw("train", 0)
BEARING = RewardTable(max_unverifiable=1.0, timeout_seconds=1.0)


def completion(text, finish="stop", tokens=3):
    return Completion((), tuple(range(tokens)), (0.0,) * tokens, (0.0,) * tokens, text, "", "", finish)


def says(answer, **more):
    return PROBLEM, completion(f"thought</think> <answer>{answer}</answer>", **more)


def outcomes(rewards):
    return [reward.verdict.outcome for reward in rewards]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()


def eventually_dead(pid):
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture(scope="module")
def judge():
    with Judge([NASTY], BEARING, max_tokens=100) as judge:
        yield judge
        pids = judge.pool.pids
    assert all(not alive(pid) for pid in pids), "the pool left a process behind"


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("raise", "KeyError: 'lost' (nasty.py:"),
        ("loop", "timed out after 1 s"),
        ("hold", "timed out after 1 s"),
        ("exit", "the check's process ended itself with status 3"),
        ("crash", "the check's process was ended by SIGSEGV"),
        ("quit", "SystemExit: goodbye"),
        ("garbage", "the check returned 'right', not a Verdict"),
        ("badoutcome", "not a Verdict"),
        ("badreason", "whose reason or extracted is no text"),
        ("allocate", "MemoryError"),
        ("read", "EOFError"),
    ],
)
def test_a_bad_check_costs_only_its_own_verdict(judge, deed, reason):
    before = judge.pool.pids
    rewards = judge.judge([says("right"), says("wrong"), says(deed), says("right"), says("wrong")])
    assert outcomes(rewards) == ["right", "wrong", "unverifiable", "right", "wrong"]
    assert reason in rewards[2].verdict.reason
    assert not rewards[2].counted
    assert "accuracy" not in rewards[2].parts
    assert outcomes(judge.judge([says("right"), says("wrong")])) == ["right", "wrong"]
    assert all(eventually_dead(pid) for pid in set(before) - set(judge.pool.pids))


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["right", "wrong", "raise", "exit", "crash", "garbage", "quit"]), max_size=8))
def test_every_rollout_gets_its_own_verdict_in_order(judge, deeds):
    expected = [deed if deed in ("right", "wrong") else "unverifiable" for deed in deeds]
    before = Counter(judge.counts)
    assert outcomes(judge.judge([says(deed) for deed in deeds])) == expected
    assert judge.counts - before == Counter(expected)


def test_several_workers_keep_the_order():
    rewards = []
    with Judge([NASTY], BEARING, max_tokens=100, workers=3) as judge:
        answers = ["right", "wrong", "nap:0.01", "wrong"] * 40 + ["exit", "right"] * 6
        rewards = judge.judge([says(answer) for answer in answers])
    wanted = {"nap:0.01": "right", "exit": "unverifiable"}
    assert outcomes(rewards) == [wanted.get(answer, answer) for answer in answers]


def test_a_check_that_prints_or_speaks_strange_text_is_heard(judge, capfd):
    rewards = judge.judge([says("print"), says("surrogate"), says("right")])
    assert outcomes(rewards) == ["right"] * 3
    assert len(rewards[1].verdict.reason) == 2000
    assert capfd.readouterr() == ("", "")


def test_what_a_late_check_started_dies_with_it(judge, tmp_path):
    note = tmp_path / "pid"
    assert outcomes(judge.judge([says(f"breed:{note}")])) == ["unverifiable"]
    assert eventually_dead(int(note.read_text()))


def test_slow_checks_in_a_row_each_have_their_own_time(judge):
    """Seven naps of 0.2 s are past the limit of one check together, and none is late."""
    assert outcomes(judge.judge([says("nap:0.2")] * 7)) == ["right"] * 7


def test_past_the_bearable_share_the_cause_is_raised_at_once(judge):
    reward = RewardTable(max_unverifiable=0.05, timeout_seconds=0.5)
    with Judge([NASTY], reward, max_tokens=100) as strict:
        assert "unverifiable" in outcomes(strict.judge([says("raise")] + [says("right")] * 19))
        with pytest.raises(VerifierError) as caught:
            strict.judge([says("loop"), says("raise")] * 50)
        for part in (
            "6 of 100 verdicts",
            "x nasty: timed out after 0.5 s",
            PROBLEM.id,
            "<answer>loop",
            "max_unverifiable",
        ):
            assert part in str(caught.value)
        assert outcomes(strict.judge([says("right"), says("wrong")])) == ["right", "wrong"]


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("still thinking", "length", "cut off after 3 tokens"),
        ("done</think> <answer>rig", "length", "cut off after 3 tokens"),
        ("never closes <answer>right</answer>", "stop", "no </think>"),
        ("done</think> right", "stop", "not exactly one answer"),
        ("done</think> <answer>right</answer><answer>right</answer>", "stop", "not exactly one answer"),
        ("<answer>right</answer></think> done", "stop", "not exactly one answer"),
    ],
)
def test_without_one_answer_after_the_reasoning_it_is_wrong(judge, text, finish, reason):
    (reward,) = judge.judge([(PROBLEM, completion(text, finish))])
    assert reward.verdict.outcome == "wrong"
    assert reason in reward.verdict.reason
    assert reward.parts["format"] == 0


def test_accuracy_and_format_are_apart(judge):
    spoken = completion("done</think> So: <answer> right </answer> indeed")
    exact, loose = judge.judge([says("right"), (PROBLEM, spoken)])
    assert exact.parts == {"accuracy": 1.0, "format": 1.0}
    assert loose.parts == {"accuracy": 1.0, "format": 0.0}
    assert exact.verdict.extracted == loose.verdict.extracted == "right"


def test_an_answer_given_before_the_cut_still_counts(judge):
    (reward,) = judge.judge([says("right", finish="length")])
    assert reward.verdict.outcome == "right"


def test_a_prompt_without_think_wants_it_in_the_completion():
    with Judge([NASTY], BEARING, 100, prefilled=False) as judge:
        whole = completion("<think>done</think> <answer>right</answer>")
        bare = completion("<answer>right</answer>")
        rewards = judge.judge([(PROBLEM, whole), says("right"), (PROBLEM, bare)])
    assert [reward.parts["format"] for reward in rewards] == [1.0, 0.0, 0.0]
    assert outcomes(rewards) == ["right", "right", "wrong"]
    assert "no </think>" in rewards[2].verdict.reason


def test_threads_share_one_judge(judge):
    found = {}

    def work(number):
        answers = ["right" if (number + i) % 2 else "wrong" for i in range(50)]
        found[number] = (answers, outcomes(judge.judge([says(answer) for answer in answers])))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert all(answers == given for answers, given in found.values())


def test_all_answers_are_begun_before_the_first_is_checked(judge):
    rewards = judge.judge([says(answer) for answer in ("begun", "right", "raise", "wrong")])
    assert rewards[0].verdict.reason == "after ['begun', 'right', 'raise', 'wrong']"
    assert outcomes(rewards) == ["right", "right", "unverifiable", "wrong"]
    assert "'lost' (nasty.py" in rewards[2].verdict.reason


def test_what_is_begun_early_changes_no_verdict_and_starts_no_clock(judge):
    judge.judge([says("right")])
    for answer in ("doze", "early", "raise"):  # so that the worker finds the others and the batch in one read
        judge.begin(*says(answer))
    assert outcomes(judge.judge([says("right")])) == ["right"], "a batch that comes with what was begun is heard"
    for answer in ("early", "raise"):
        judge.begin(*says(answer))
    judge.begin(PROBLEM, completion("never ends", finish="length"))
    time.sleep(1.5)  # longer than a check may take
    rewards = judge.judge([says(answer) for answer in ("begun", "wrong")])
    assert rewards[0].verdict.reason == "after ['early', 'raise', 'begun', 'wrong']"
    assert outcomes(rewards) == ["right", "wrong"]
    pids = judge.pool.pids
    os.kill(pids[0], 9)
    assert eventually_dead(pids[0])
    judge.begin(*says("early"))
    assert judge.judge([says("right")] * 3)[2].verdict.outcome == "right"


def test_one_answer_to_one_problem_is_checked_once_where_that_tells(judge):
    other = Problem("nasty", "n-2", "?", "!")
    once, late, elsewhere = says("count:once"), says("count:late"), (other, says("count:once")[1])
    rewards = judge.judge([once, late, elsewhere, once, late, late, says("right")])
    assert [r.verdict.reason[:8] for r in rewards] == [
        *("check 1", "KeyError", "check 2", "check 1", "check 2", "check 2", "was righ")
    ]


def test_an_empty_batch_and_an_unknown_task(judge):
    assert judge.judge([]) == []
    with pytest.raises(VerifierError, match=r"of task 'other', but the judge has only: nasty"):
        judge.judge([(Problem("other", "o-1", "?", "!"), completion("x"))])


def test_two_tasks_of_one_name_are_refused(tmp_path):
    twin = tmp_path / "twin.py"
    twin.write_text((Path(__file__).parent / "nasty.py").read_text())
    with pytest.raises(VerifierError, match="two different tasks are named 'nasty'"):
        Judge([NASTY, task(f"{twin}:Nasty")], BEARING, 100)


def test_the_check_of_the_problems_difficulty_is_asked(tmp_path):
    source = (Path(__file__).parent / "nasty.py").read_text()
    source = source.replace('answer == "right"', 'answer == f"level{self.difficulty}"')
    (tmp_path / "levels.py").write_text(source)
    levels = [task(f"{tmp_path}/levels.py:Nasty", difficulty) for difficulty in (1, 2)]
    problems = [Problem("nasty", "n", "?", "level2", difficulty=difficulty) for difficulty in (1, 2, 9)]
    with Judge(levels, BEARING, 100) as judge:
        rewards = judge.judge([(problem, says("level2")[1]) for problem in problems])
    assert outcomes(rewards) == ["wrong", "right", "wrong"]


def test_a_task_that_no_worker_can_load_is_refused_with_the_cause(tmp_path):
    path = tmp_path / "gone.py"
    path.write_text((Path(__file__).parent / "nasty.py").read_text())
    lost = task(f"{path}:Nasty")
    path.write_text("raise RuntimeError('only once')")
    with Judge([lost], BEARING, 100) as judge, pytest.raises(VerifierError, match="only once"):
        judge.judge([says("right")])


def test_an_orphaned_worker_ends_itself_though_its_check_hangs(tmp_path):
    """The judge's process is killed with no chance to clean up; the worker's own alarm is the backstop."""
    script = tmp_path / "orphan.py"
    script.write_text(
        "import sys, threading, time\n"
        "from aftershock.tasks import task\n"
        "from aftershock.verify.pool import Pool\n"
        "nasty = task(sys.argv[1])\n"
        "pool = Pool([nasty], 1, 0.5)\n"
        "pool.run([(0, nasty.draw('train', 0), 'right')], lambda *_: None)\n"
        "threading.Thread(target=pool.run, args=([(0, nasty.draw('train', 0), 'hold')], print), daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "print(*pool.pids, flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, script, NASTY.spec.name], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    assert eventually_dead(pid)


def test_importing_tasks_and_the_worker_is_light():
    code = "import sys, aftershock.tasks, aftershock.verify.worker; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"torch", "transformers", "tokenizers", "pydantic", "reasoning_gym"}
