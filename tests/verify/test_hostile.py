"""Nothing of the hostile corpus escapes, is judged right for nothing, stays behind or outstays its limits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hostile import CORPUS

import aftershock
from aftershock.verify import Limits, run_code

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
NOBODY = 65534
SLACK = 3.0  # seconds beyond the limit on the wall: starting and ending processes, on a machine that others use too
BY_NAME = {item.name: item for item in CORPUS}


def _missing(reason: str):
    """Skip where a sandbox can't be had, unless the one who started the tests asked for one."""
    if os.environ.get("AFTERSHOCK_REQUIRE_SANDBOX") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _run_corpus(python: str, path: str, **user) -> dict:
    process = subprocess.Popen(
        [python, "-P", "-m", "hostile"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **user,
    )
    try:
        out, errors = process.communicate(timeout=240)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert process.returncode == 0, errors.decode()[-3000:]
    return json.loads(out)


def _python_for(user: int, path: str) -> str | None:
    """Return the first Python that this user can start and that can import the package from `path`."""
    for python in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-P", "-c", "from aftershock.verify import run_code, Limits"],
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/", user=user, group=user, extra_groups=[], check=True, capture_output=True, timeout=60,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return None


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def report(request):
    """What became of the corpus, as told by a process of its own."""
    if not shutil.which("bwrap"):
        _missing("bubblewrap is not installed")
    if request.param == "this user":
        return _run_corpus(sys.executable, os.pathsep.join([str(HERE), str(Path(aftershock.__file__).parents[1])]))
    if os.getuid() != 0:
        pytest.skip("not started by root: this user is an ordinary one already")
    with tempfile.TemporaryDirectory() as copy:
        os.chmod(copy, 0o755)
        ignore = shutil.ignore_patterns("assets", "__pycache__")
        shutil.copytree(Path(aftershock.__file__).parent, Path(copy) / "aftershock", ignore=ignore)
        shutil.copytree(HERE / "hostile", Path(copy) / "hostile", ignore=ignore)
        python = _python_for(NOBODY, copy)
        if python is None:
            _missing(f"user {NOBODY} can start no Python that imports the package")
        return _run_corpus(python, copy, user=NOBODY, group=NOBODY, extra_groups=[])


@pytest.fixture(scope="module")
def results(report):
    return {result["name"]: result for result in report["results"]}


@pytest.mark.parametrize("name", BY_NAME)
def test_program_is_contained(results, name):
    item, result = BY_NAME[name], results[name]
    assert result["outcome"] in item.allowed, f"{item.contained}: {result['reason']}"
    assert not result["leaks"], result["reason"]
    # Each test may begin anew, so that each has the time to itself at most.
    assert result["seconds"] < item.limits.wall_seconds * len(item.tests) + SLACK


def test_nothing_outside_was_touched_or_heard(report):
    assert report["harm"] == []


def test_nothing_is_left_behind(report):
    assert report["left"] == []


def test_judge_stays_small(report):
    assert report["megabytes"] < 512


def test_good_program_still_passes(results):
    assert results["good-after-all"]["outcome"] == "right", results["good-after-all"]["reason"]


def test_corpus_names_what_it_tries():
    assert len({item.program for item in CORPUS}) >= 75
    assert len(BY_NAME) == len(CORPUS)
    assert all(item.contained for item in CORPUS)


def test_no_tests_are_no_pass():
    assert run_code("x = 1\n", [], Limits()).outcome == "unverifiable"


def test_nothing_outlives_a_judge_that_is_killed():
    if not shutil.which("bwrap"):
        _missing("bubblewrap is not installed")
    code = (
        "from aftershock.verify import *\nrun_code('import os\\nos.fork()\\nwhile True: pass', [CallTest('f', (), 1)])"
    )
    judge = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        started = _wait_for(lambda: len(_below(judge.pid)) >= 4 and _below(judge.pid))  # bwrap, its first, the two
    finally:
        judge.kill()
        judge.wait()
    assert _wait_for(lambda: not any(_alive(*process) for process in started))


def _wait_for(condition, seconds: float = 30.0):
    """Return what `condition` returns once that is true, or at last."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert result, "waited in vain"
    return result


def _below(pid: int) -> list[tuple[int, str]]:
    """The processes below one, each with the moment of its start, which tells it from a later one of its number."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [(child, _started(child)), *_below(child)]
    return found


def _started(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _alive(pid: int, started: str) -> bool:
    return bool(started) and _started(pid) == started


def test_refused_without_a_sandbox(tmp_path):
    marker = tmp_path / "ran"
    program = f"open({str(marker)!r}, 'w')\ndef f(): return 1\n"
    code = (
        "from aftershock.verify import *\nfrom aftershock.errors import SandboxError\n"
        f"try: print(run_code({program!r}, [CallTest('f', (), 1)]))\n"
        "except SandboxError as error: print('refused:', error)"
    )
    path = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={"PATH": str(tmp_path), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith("refused:"), ran.stdout + ran.stderr
    assert "bubblewrap" in ran.stdout
    assert not marker.exists()
