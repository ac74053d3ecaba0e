"""A recipe over several seeds: the same bytes as single runs, and no process left, whoever fails or is killed."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from aftershock import cli, seeds
from aftershock.errors import RunError
from aftershock.recipe import load_recipe
from aftershock.table import over_seeds

PYTHON = sys.executable
RECIPE = """
[run]
name = "few"
seeds = [3, 1]
usd_per_hour = 1.0
watts = 1.0
[stage.start]
kind = "pretrain"
steps = 4
tokens_per_step = 256
tokenizer = "base"
max_tokens = 8
checkpoint_every = 2
eval = {problems = 2, samples = 2}
optim = {micro_tokens = 256}
[stage.start.model]
model_type = "llama"
hidden_size = 16
num_hidden_layers = 1
intermediate_size = 24
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 256
[[stage.start.tasks]]
name = "remainders"
"""
# Stands in for `python -m aftershock run`: it notes how it was called, then does what orders.json says of its seed.
FAKE = """#!{python} -IS
import json, os, pathlib, signal, sys, time
words = sys.argv[3:]
out = pathlib.Path([word for before, word in zip(words, words[1:]) if before == "--out"][-1])
out.mkdir(parents=True)
order = json.loads(pathlib.Path(__file__).with_name("orders.json").read_text()).get(out.name, "")
if "stubborn" in order:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
called = {{"pid": os.getpid(), "words": words, "threads": os.environ.get("OMP_NUM_THREADS")}}
(out / "part").write_text(json.dumps(called))
os.replace(out / "part", out / "called.json")
print("all sorts of things")
if "wait" in order:
    time.sleep(100)
if "die" in order:
    os.kill(os.getpid(), signal.SIGKILL)
if "fail" in order:
    print("error: no luck", file=sys.stderr)
    sys.exit(1)
summary = {{"finished": True, "seed": int(out.name[5:]), "stages": []}}
(out / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "few.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put the stand-in in place; call it with what each seed is to do."""
    path = tmp_path / "fake"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setattr(seeds.sys, "executable", str(path))

    def orders(**by_seed):
        (tmp_path / "orders.json").write_text(json.dumps({f"seed-{name[1:]}": what for name, what in by_seed.items()}))

    orders()
    return orders


def called(out: Path, seed: int) -> dict | None:
    path = out / f"seed-{seed}/called.json"
    return json.loads(path.read_text()) if path.exists() else None


def start(recipe, out, jobs=1, going_on=False):
    return seeds.run(load_recipe(recipe), out, ["run", str(recipe), "--out", str(out)], jobs, going_on, lambda _: None)


def await_calls(out: Path, *which: int) -> list[int]:
    deadline = time.monotonic() + 60
    while not all(called(out, seed) for seed in which):
        assert time.monotonic() < deadline, f"seeds {which} never began in {out}"
        time.sleep(0.02)
    return [called(out, seed)["pid"] for seed in which]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(("jobs", "threads"), [(1, "4"), (2, "2"), (9, "2")])
def test_each_seed_gets_the_command_a_folder_a_seed_and_its_share_of_threads(
    recipe, tmp_path, fake, monkeypatch, jobs, threads
):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    out = tmp_path / "out"
    assert [summary["seed"] for summary in start(recipe, out, jobs)] == [3, 1]
    for seed in (3, 1):
        found = called(out, seed)
        own = ["--out", str(out / f"seed-{seed}"), "--set", f"run.seed={seed}", "--set", "run.seeds=[]"]
        assert found["words"] == ["run", str(recipe), "--out", str(out), *own]
        assert found["threads"] == threads
        assert (out / f"seed-{seed}.log").exists() == (jobs > 1)


@pytest.mark.parametrize(("order", "ended"), [("fail", "failed with exit code 1"), ("die", "was killed by signal 9")])
def test_after_a_failure_no_other_seed_begins(recipe, tmp_path, fake, order, ended):
    fake(s3=order)
    with pytest.raises(RunError, match=rf"^seed 3 {ended}\. What is done stays; .* --resume$"):
        start(recipe, tmp_path / "out")
    assert called(tmp_path / "out", 1) is None


def test_after_a_failure_those_at_work_go_on_to_their_end(recipe, tmp_path, fake):
    fake(s1="fail")
    with pytest.raises(RunError, match=r"seed 1 failed with exit code 1; .*seed-1\.log ends with: no luck"):
        start(recipe, tmp_path / "out", jobs=2)
    assert (tmp_path / "out/seed-3/summary.json").exists()


@pytest.mark.parametrize("order", ["wait", "wait, stubborn"])
def test_ctrl_c_ends_every_process(recipe, tmp_path, fake, monkeypatch, order):
    fake(s3=order, s1=order)
    monkeypatch.setattr(seeds, "GRACE", 0.3)
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    found = []

    def interrupt():
        found.extend(await_calls(tmp_path / "out", 3, 1))
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            start(recipe, tmp_path / "out", jobs=2)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, kept)
    assert len(found) == 2
    assert gone(found)


def test_a_killed_parent_takes_its_children_with_it(recipe, tmp_path, fake):
    fake(s3="wait, stubborn", s1="wait, stubborn")
    out = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; from aftershock import seeds; "
        "from aftershock.recipe import load_recipe; "
        "_, sys.executable, recipe, out = sys.argv; "
        "seeds.run(load_recipe(recipe), Path(out), ['run', recipe], 2, False, print)"
    )
    with subprocess.Popen([PYTHON, "-c", program, sys.executable, str(recipe), str(out)]) as parent:
        pids = await_calls(out, 3, 1)
        parent.kill()
    assert gone(pids)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("notes.txt", "is not empty and holds no seeds (there is 'notes.txt')"),
        ("run.json", "holds a run of one seed; give another folder with --out, or add --set 'run.seeds=[]'"),
        ("seed-1/run.json", "already holds seed 1 of 'few'; add --resume to go on"),
    ],
)
def test_a_folder_of_something_else_is_refused(recipe, tmp_path, fake, there, words):
    path = tmp_path / "out" / there
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(RunError) as caught:
        start(recipe, tmp_path / "out")
    assert words in str(caught.value)
    assert called(tmp_path / "out", 3) is None


def test_the_command_line_prints_one_object_or_a_table(recipe, tmp_path, fake, monkeypatch, capfd):
    for more in (["--json"], []):
        out = str(tmp_path / f"out{len(more)}")
        monkeypatch.setattr(sys, "argv", ["aftershock", "run", str(recipe), "--out", out, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        out, err = capfd.readouterr()
        assert "all sorts of things" in err
        if more:
            assert [summary["seed"] for summary in json.loads(out)["seeds"]] == [3, 1]
        else:
            assert out.startswith("stage  kind  seeds  pass@1 after: mean (range)")
            assert out.splitlines()[-1] == f"next: open {tmp_path}/out0/seed-3/report.html"


def test_a_recipe_with_findings_ends_with_their_page(recipe, tmp_path, fake, monkeypatch, capfd):
    page = ModuleType("aftershock.report.findings")
    page.write = lambda folder: folder / "findings.html"
    monkeypatch.setitem(sys.modules, "aftershock.report.findings", page)
    recipe.write_text(f'{RECIPE}[findings]\nbase = "start"\n')
    monkeypatch.setattr(sys, "argv", ["aftershock", "run", str(recipe), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert capfd.readouterr().out.splitlines()[-1] == f"next: open {tmp_path}/out/findings.html"


def test_the_table_has_the_mean_the_range_and_what_all_seeds_took():
    def summary(value):
        evals = [{"metric": "pass@1", "when": "after", "value": value, "n": 400, "k": 16}]
        zero = {"name": "zero", "kind": "rl", "evals": evals, "seconds": 600.0, "usd": 0.25}
        return {"stages": [{"name": "data", "kind": "sample", "evals": [], "seconds": 1.0, "usd": 0.0}, zero]}

    rows = over_seeds([summary(0.5), summary(0.75), summary(0.55)]).splitlines()
    assert rows[1].split() == ["data", "sample", "3", "-", "3", "0.0000"]
    assert rows[2].split() == ["zero", "rl", "3", "60.0%", "(50.0", "to", "75.0)", "400", "16", "1,800", "0.7500"]


def kept(folder: Path) -> dict[str, str]:
    """Hash what two runs of one seed must share."""
    files = [*folder.glob("stages/*/model/*"), *folder.glob("stages/*/eval-*"), folder / "metrics.jsonl"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def owners(out: Path) -> list[int]:
    """Return the processes that have written their numbers into their seeds' locks."""
    told = [lock.read_text().split() for lock in out.glob("seed-*/.lock")]
    return [int(words[1]) for words in told if len(words) > 1]


def command(recipe: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "aftershock", "run", str(recipe), "--out", str(out), "--no-report", *more]


def finish(recipe: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    done = subprocess.run(command(recipe, out, "--json", *more), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_seeds_leave_the_bytes_of_single_runs_one_by_one_or_side_by_side_killed_or_not(recipe, tmp_path):
    from aftershock.pipeline import execute
    from aftershock.run import Run
    from aftershock.track import Reporters

    single = {}
    for seed in (3, 1):
        alone = load_recipe(recipe, ["run.seeds=[]", f"run.seed={seed}"])
        with Run.open(tmp_path / f"alone-{seed}", alone, "") as opened:
            execute(alone, opened, Reporters([]))
        single[seed] = kept(tmp_path / f"alone-{seed}")
    assert single[3] != single[1]

    apart = tmp_path / "apart"
    told = json.loads(finish(recipe, apart).stdout)["seeds"]
    assert [(summary["seed"], summary["finished"]) for summary in told] == [(3, True), (1, True)]
    assert {seed: kept(apart / f"seed-{seed}") for seed in single} == single

    together = tmp_path / "together"
    with subprocess.Popen(command(recipe, together, "--jobs", "2")) as parent:
        deadline = time.monotonic() + 120
        while not (together / "seed-3/metrics.jsonl").exists() or len(owners(together)) < 2:
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        parent.kill()
    assert gone(owners(together))
    finish(recipe, together, "--jobs", "2", "--resume")
    assert {seed: kept(together / f"seed-{seed}") for seed in single} == single
    assert finish(recipe, together, "--resume").stderr == "seed 3 is finished already\nseed 1 is finished already\n"
