"""A run on disk: kills at every moment, damage, full disks, second processes, and what stays."""

import errno
import gzip
import hashlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock import checkpoint as checkpoints
from aftershock import disk, toml
from aftershock.checkpoint import Checkpoint
from aftershock.cost import Work
from aftershock.cost.energy import Counter
from aftershock.errors import CheckpointError, RunError
from aftershock.recipe import Recipe, load_recipe
from aftershock.run import Run

STEPS, EVERY = 4, 2


def recipe(steps=STEPS, seed=0, **run) -> Recipe:
    tasks = [{"name": "countdown"}]
    stages = {name: {"kind": "rl", "steps": steps, "tasks": tasks} for name in ("one", "two")}
    return Recipe.model_validate({"run": {"name": "test", "seed": seed, **run}, "stage": stages})


def opened(folder, resume=False, of=None) -> Run:
    of = of or recipe()
    return Run.open(folder, of, toml.write(of.content()), resume)


def work_through(folder, pause=0.0):
    """Both stages of a run whose state is one tensor that each step moves."""
    with opened(folder, resume=True) as run:
        for name, stage in run.recipe.stage.items():
            if run.finished(name):
                continue
            part = run.stage(name, stage)
            found = part.resume()
            weights = found.tensors["weights"] if found else torch.zeros(100)
            for step in range(found.step if found else 0, stage.steps):
                weights = weights * 0.9 + step + len(name)
                if pause:
                    time.sleep(pause)
                part.rollouts(step + 1, [{"step": step + 1, "text": "3*7=21 对"}])
                part.record(step + 1, {"mean": float(weights.mean())}, {}, Work(trained_tokens=10))
                if (step + 1) % EVERY == 0:
                    part.checkpoint(step + 1, {"weights": weights}, {"mean": float(weights.mean())})
            disk.write_bytes(part.model_folder / "weights", weights.numpy().tobytes())
            part.finish({"evals": []})
            run.write_summary()


def in_child(job) -> int:
    """Run `job` in a forked process; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def kept(folder: Path) -> dict[str, str]:
    """What must be the same however often a run was killed: every file but those that hold times."""
    timed = {"timings.jsonl", "summary.json", "begin.json", ".lock"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in timed]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: thousands of flushes to a real disk would take a minute."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    work_through(folder)
    return kept(folder)


def dying_at(count):
    """Make this process kill itself at its `count`-th rename or flush."""
    left = [count]

    def wrapped(call):
        def counted(*args):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)

        return counted

    os.replace, os.fsync = wrapped(os.replace), wrapped(os.fsync)


def test_killed_at_every_rename_and_flush_a_run_ends_the_same(memory, undisturbed):
    count, killed = 0, True
    while killed:
        count += 1
        folder = memory / str(count)
        killed = in_child(lambda at=count, of=folder: (dying_at(at), work_through(of))) == signal.SIGKILL
        work_through(folder)
        assert kept(folder) == undisturbed, f"killed at call {count}"
    assert count > 50


def test_killed_at_random_moments_again_and_again_a_run_ends_the_same(memory, undisturbed):
    rng, folder, kills = random.Random(0), memory / "run", 0
    for _ in range(30):
        child = os.fork()
        if child == 0:
            work_through(folder, pause=0.005)
            os._exit(0)
        time.sleep(rng.uniform(0.005, 0.04))
        os.kill(child, signal.SIGKILL)
        kills += os.waitpid(child, 0)[1] == signal.SIGKILL
    work_through(folder)
    assert kept(folder) == undisturbed
    assert kills >= 3


def test_time_lost_to_a_kill_stays_on_the_bill_and_tokens_count_once(tmp_path, monkeypatch):
    clock = itertools.count()  # each look at the clock is a second after the one before
    monkeypatch.setattr("aftershock.run.time.monotonic", lambda: float(next(clock)))
    with opened(tmp_path / "run", of=recipe(usd_per_hour=3600.0, watts=3.6e6)) as run:
        part = run.stage("one", run.recipe.stage["one"])
        for step in (1, 2, 3):
            part.record(step, {}, {"learn_seconds": 0.01}, Work(10, 5, flops=2.0))
            if step == 2:
                part.checkpoint(step, {}, {})
    with opened(tmp_path / "run", resume=True, of=run.recipe) as run:
        part = run.stage("one", run.recipe.stage["one"])
        assert part.resume().step == 2
        ledger = run.ledger("one")
    assert ledger.seconds == 3
    assert (ledger.trained_tokens, ledger.sampled_tokens, ledger.flops, ledger.tokens) == (20, 10, 4.0, 30)
    assert ledger.usd == pytest.approx(3)
    assert ledger.kwh == pytest.approx(3)


def test_energy_is_the_counters_and_where_they_fail_the_estimate(tmp_path, monkeypatch):
    shown = itertools.chain([0.0, 3.6e6], itertools.repeat(1.0))  # then it has gone back
    counter = Counter("RAPL", lambda: next(shown))
    monkeypatch.setattr("aftershock.run.energy.counters", lambda device: ([counter], ""))
    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        assert part.account(1, {})["kwh"] == 1.0
        time.sleep(0.01)
        line = part.account(2, {})
        assert line["kwh"] == pytest.approx(line["seconds"] / 3600 * run.hardware["watts"] / 1000)
        assert line["kwh_source"] == "estimated: RAPL went back"
    with opened(tmp_path / "run", resume=True) as run:  # both were lost
        run.stage("one", run.recipe.stage["one"])
        entry = run.stage_summary("one")
    assert entry["kwh_source"] == "RAPL 100%, estimated: RAPL went back 0%"
    assert entry["kg_co2"] == pytest.approx(0.481 * entry["kwh"])
    with opened(tmp_path / "told", of=recipe(watts=7.0)) as run:
        assert run.stage("one", run.recipe.stage["one"]).account(1, {})["kwh_source"] == "estimated: run.watts"


def test_seeds_at_work_side_by_side_share_the_bill(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("aftershock.run.time.monotonic", lambda: float(next(clock)))
    of = recipe(usd_per_hour=3600.0, watts=3.6e6)
    for seed, told in ((1, f"process {os.getpid()} on {socket.gethostname()}"), (2, "process 1 on elsewhere"), (3, "")):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}/.lock").write_text(told)
    with opened(tmp_path / "seed-0", of=of) as run, opened(tmp_path / "alone", of=of) as alone:
        line = run.stage("one", of.stage["one"]).account(1, {})
        assert (line["usd"], line["kwh"], line["side_by_side"]) == (0.5, 0.5, 2)
        assert alone.stage("one", of.stage["one"]).account(1, {})["usd"] == 1.0
        with opened(tmp_path / "seed-2", of=of):
            assert run.side_by_side() == 3
        assert run.side_by_side() == 2
        (tmp_path / "seed-1/.lock").write_text(
            f"process {2**22 + 1} on {socket.gethostname()}"
        )  # nobody has this number
        assert run.side_by_side() == 1


def test_numbers_of_libraries_are_written_as_pythons_and_what_is_not_finite_as_null(tmp_path):
    row = {"a": torch.tensor(0.5), "b": [torch.tensor(3), float("inf")], "c": (1, "\u00e9"), "d": {"e": float("nan")}}
    with opened(tmp_path / "run") as run:
        path = run.stage("one", run.recipe.stage["one"]).save_rows("rows", [row, {"plain": [1.5, True, None]}])
    wanted = ['{"a": 0.5, "b": [3, null], "c": [1, "\u00e9"], "d": {"e": null}}', '{"plain": [1.5, true, null]}']
    assert gzip.decompress(path.read_bytes()).decode().splitlines() == wanted


def test_summary_has_the_agreed_shape_whole_or_not(tmp_path):
    evals = [{"suite": "countdown", "metric": "pass@1", "when": "before", "value": 0.2, "low": 0.1, "high": 0.3}]
    with opened(tmp_path / "run") as run:
        assert run.write_summary()["stages"] == []
        part = run.stage("one", run.recipe.stage["one"])
        part.save_json("eval-before", evals)
        part.record(1, {"loss": float("nan")}, {}, Work(3))
        summary = run.write_summary()
        assert summary["finished"] is False
        assert summary["stages"][0]["evals"] == evals
        entry = part.finish({"evals": evals * 2})
        assert entry["evals"] == evals * 2
        run.stage("two", run.recipe.stage["two"]).finish({"evals": []})
        summary = run.write_summary()
    assert json.loads((tmp_path / "run/summary.json").read_text()) == summary
    assert list(summary) == ["run", "finished", "seed", "versions", "hardware", "kg_co2_per_kwh", "stages"]
    assert summary["finished"] is True
    assert list(entry) == [
        "name", "kind", "seconds", "tokens", "flops", "usd", "kwh", "kwh_source", "kg_co2", "points_gained",
        "usd_per_point", "evals",
    ]  # fmt: skip
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text()) == {"stage": "one", "step": 1, "loss": None}


def test_rollouts_are_read_by_pandas_and_depend_on_the_rows_alone(tmp_path):
    rows = [{"step": 3, "text": "对 3*7", "reward": torch.tensor(0.5), "logprobs": (-0.1, float("-inf"))}]
    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        path = part.rollouts(3, rows)
        before = path.read_bytes()
        time.sleep(1.01)  # gzip keeps seconds
        assert part.rollouts(3, rows).read_bytes() == before
    assert path == tmp_path / "run/stages/one/rollouts/step-000003.jsonl.gz"
    frame = pandas.read_json(path, lines=True)
    assert frame.loc[0, "text"] == "对 3*7"
    assert json.loads(gzip.decompress(before))["logprobs"] == [-0.1, None]


def test_recipe_and_task_files_in_the_folder_are_enough_to_go_on(tmp_path):
    home = tmp_path / "home"
    (home / "tasks").mkdir(parents=True)
    (home / "tasks/mine.py").write_text("first = 1")
    text = toml.write(recipe().content()).replace('"countdown"', '"tasks/mine.py:Mine"')
    (home / "recipe.toml").write_text(text)
    opened(tmp_path / "run", of=load_recipe(home / "recipe.toml")).__exit__()
    assert (tmp_path / "run/tasks/mine.py").read_text() == "first = 1"
    with opened(tmp_path / "run", resume=True, of=load_recipe(tmp_path / "run/recipe.toml")) as run:
        assert run.notes == []
    (home / "tasks/mine.py").write_text("first = 2")
    with opened(tmp_path / "run", resume=True, of=load_recipe(home / "recipe.toml")) as run:
        assert "mine.py is not as it was when the run began" in run.notes[0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    with opened(tmp_path / "run") as run:
        program = (
            "from aftershock.disk import lock; from aftershock.errors import RunError; import sys, pathlib\n"
            "try: lock(pathlib.Path(sys.argv[1]))\nexcept RunError as error: print(error)"
        )
        told = subprocess.run([sys.executable, "-c", program, run.folder], capture_output=True, text=True).stdout
        assert f"process {os.getpid()} on {os.uname().nodename}" in told
        with pytest.raises(RunError, match="in use by process"):
            opened(tmp_path / "run", resume=True)
    opened(tmp_path / "run", resume=True).__exit__()


def test_folders_that_must_not_be_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"holds no run \(there is 'thesis.tex'\); give another folder"):
        opened(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="is a file"):
        opened(tmp_path / "thesis.tex")


def test_an_existing_run_needs_resume_and_the_same_recipe(tmp_path):
    with opened(tmp_path / "run") as run:
        run.stage("two", run.recipe.stage["two"])
    with pytest.raises(RunError, match="already holds the run 'test'; add --resume"):
        opened(tmp_path / "run")
    with pytest.raises(RunError, match=r"stage.two.steps was 4 and is 7 now") as caught:
        opened(tmp_path / "run", resume=True, of=recipe(steps=7, seed=3))
    assert "run.seed was 0 and is 3 now" in str(caught.value)
    with opened(tmp_path / "run", resume=True) as run:
        assert run.notes == []
    with opened(tmp_path / "new", resume=True) as run:
        assert "the run begins" in run.notes[0]


def test_a_key_that_came_with_a_newer_aftershock_does_not_stop_a_resume_but_one_that_went_does(tmp_path):
    with opened(tmp_path / "run") as run:
        run.stage("one", run.recipe.stage["one"])
    facts = disk.read_json(tmp_path / "run/run.json")
    del facts["recipe"]["stage"]["one"]["max_rows"]
    disk.write_json(tmp_path / "run/run.json", facts)
    opened(tmp_path / "run", resume=True).__exit__()
    facts["recipe"]["stage"]["one"]["gone"] = 1
    disk.write_json(tmp_path / "run/run.json", facts)
    with pytest.raises(RunError, match=r"stage.one.gone was 1 and is 'not set' now"):
        opened(tmp_path / "run", resume=True)


def test_other_versions_are_told_on_resume(tmp_path):
    opened(tmp_path / "run").__exit__()
    facts = disk.read_json(tmp_path / "run/run.json")
    facts["versions"]["torch"] = "1.0"
    disk.write_json(tmp_path / "run/run.json", facts)
    with opened(tmp_path / "run", resume=True) as run:
        assert "torch 1.0 ->" in run.notes[0]


# --- damage -----------------------------------------------------------------------------------------------------------


def with_checkpoints(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint = Checkpoint(step, {"weights": torch.full((50,), float(step))}, {"lr": 0.5})
        checkpoints.write(folder, checkpoint, {"metrics.jsonl": 0, "timings.jsonl": 0})
    return folder


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_flipped_bit_is_found_and_the_file_named(tmp_path_factory, data):
    folder = with_checkpoints(tmp_path_factory.mktemp("flip"), 10, 20)
    name = data.draw(st.sampled_from([checkpoints.TENSORS, checkpoints.STATE, checkpoints.SUMS]))
    path = folder / "step-000020" / name
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        checkpoints.read(folder)
    assert "step-000020" in str(caught.value)
    if name != checkpoints.SUMS:
        assert str(path) in str(caught.value)
    assert f"step-000010, is whole: to go back to it, rm -r '{path.parent}'" in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text + "\n", lambda text: text[:80], str.upper]
)
def test_a_list_of_sums_that_is_not_as_written_is_damage(tmp_path, change):
    sums = with_checkpoints(tmp_path, 10) / "step-000010" / checkpoints.SUMS
    sums.write_text(change(sums.read_text()))
    assert "is damaged" in checkpoints.damage(sums.parent)


def test_the_way_back_named_in_the_error_works(tmp_path):
    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        for step in (1, 2, 3):
            part.rollouts(step, [{"step": step}])
            part.record(step, {"value": step}, {})
            part.checkpoint(step, {"weights": torch.ones(9) * step}, {})
        part.record(4, {"value": 4}, {})
    last = tmp_path / "run/stages/one/checkpoints/step-000003"
    (last / "tensors.safetensors").write_bytes(b"\0" * 100)
    before = kept(tmp_path / "run")
    with opened(tmp_path / "run", resume=True) as run, pytest.raises(CheckpointError) as caught:
        run.stage("one", run.recipe.stage["one"])
    assert kept(tmp_path / "run") == before
    command = str(caught.value).split("go back to it, ")[1].split(" and --resume")[0]
    subprocess.run(command, shell=True, check=True)
    with opened(tmp_path / "run", resume=True) as run:
        part = run.stage("one", run.recipe.stage["one"])
        assert part.resume().step == 2
        assert part.resume().tensors["weights"].tolist() == [2.0] * 9
        assert [line["step"] for line in part.history()] == [1, 2]
    assert sorted(path.name[5:11] for path in part.folder.glob("rollouts/*")) == ["000001", "000002"]


def test_where_no_checkpoint_is_whole_the_stage_can_begin_again(tmp_path):
    folder = with_checkpoints(tmp_path / "checkpoints", 10, 20)
    for path in folder.glob("*/state.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match=f"is missing. No whole checkpoint is left.* rm -r '{folder}'"):
        checkpoints.read(folder)


def test_checkpoints_keep_the_last_two_and_shared_tensors(tmp_path):
    folder = with_checkpoints(tmp_path / "checkpoints", 1, 2, 3)
    assert [path.name for path in checkpoints.steps(folder)] == ["step-000002", "step-000003"]
    shared = torch.arange(6.0)
    tensors = {"embed": shared, "head": shared, "turned": shared.view(2, 3).T, "none": torch.zeros(0)}
    checkpoints.write(folder, Checkpoint(4, tensors, {"nested": [1, {"a": None}]}), {})
    back = checkpoints.read(folder)
    assert all(torch.equal(back.tensors[name], tensors[name]) for name in tensors)
    assert back.scalars == {"nested": [1, {"a": None}]}
    subprocess.run("sha256sum --check --strict SHA256SUMS", shell=True, check=True, cwd=folder / "step-000004")


def test_a_shortened_metrics_file_is_refused(tmp_path):
    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        part.record(1, {"value": 1}, {})
        part.checkpoint(1, {}, {})
    (tmp_path / "run/metrics.jsonl").write_text("")
    with (
        opened(tmp_path / "run", resume=True) as run,
        pytest.raises(RunError, match=r"metrics.jsonl is damaged: 0 bytes"),
    ):
        run.stage("one", run.recipe.stage["one"])


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_last_checkpoint_and_no_half_files(tmp_path, monkeypatch):
    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        part.record(1, {}, {})
        part.checkpoint(1, {"weights": torch.ones(1000)}, {})
        before = kept(tmp_path / "run")

        def full(path, data):
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(disk, "flush", full)
        with pytest.raises(RunError, match=r"the disk is full: .*step-000002 needs 4.0 kB and .* are free; free some"):
            part.checkpoint(2, {"weights": torch.ones(1000)}, {})
        with pytest.raises(RunError, match="the disk is full"):
            part.rollouts(2, [{"a": 1}])
        assert kept(tmp_path / "run") == before
        assert part.resume().step == 1


def test_a_really_full_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        with opened(place / "run") as run:
            part = run.stage("one", run.recipe.stage["one"])
            part.record(1, {}, {})
            part.checkpoint(1, {"weights": torch.ones(5000)}, {})
            before = kept(place / "run")
            with pytest.raises(RunError, match=r"the disk is full: .* needs 80.0 kB"):
                part.checkpoint(2, {"weights": torch.ones(20000)}, {})
            (place / "filler").write_bytes(b"\0" * (disk.free_bytes(place) - 4096))
            with pytest.raises(RunError, match="the disk is full"):
                part.record(2, {"long": "x" * 100_000}, {})
            assert kept(place / "run") == before
            assert part.resume().step == 1
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with opened(tmp_path / "run") as run:
        part = run.stage("one", run.recipe.stage["one"])
        monkeypatch.setattr(disk, "flush", denied)
        with pytest.raises(RunError, match=r"can't write .*state.json: Permission denied; check the folder"):
            part.save_json("state", {})
