"""The command line: what goes to stdout, what to stderr, and with which exit code."""

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from aftershock import cli
from aftershock.errors import RunError

RECIPE = '[run]\nname = "x"\n[stage.zero]\nkind = "rl"\nsteps = 4\n[[stage.zero.tasks]]\nname = "countdown"\n'


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "a recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the command line in this process; return exit code, stdout and stderr as the system saw them."""

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["aftershock", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        sys.stdout.flush()
        return left.value.code, *capfd.readouterr()

    return called


@pytest.fixture
def pipeline(monkeypatch):
    """Put a noisy pipeline and report in place of the real ones; `pipeline.does` is what runs in the middle."""
    pipeline, report = ModuleType("aftershock.pipeline"), ModuleType("aftershock.report")

    def execute(recipe, run, reporter, part):
        print("noise from Python")
        os.write(1, b"noise from C\n")
        subprocess.run(["echo", "noise from a child"], check=True)
        pipeline.does()
        for name, stage in recipe.stage.items():
            run.stage(name, stage).finish({"evals": []})
        return run.write_summary()

    pipeline.execute, pipeline.does = execute, lambda: None
    report.write = lambda folder: folder / "report.html"
    report.write_all = lambda folder: {"report": report.write(folder)}
    monkeypatch.setitem(sys.modules, "aftershock.pipeline", pipeline)
    monkeypatch.setitem(sys.modules, "aftershock.report", report)
    return pipeline


def test_help_needs_no_heavy_library():
    heavy = {"torch", "transformers", "tokenizers", "pydantic", "numpy", "matplotlib", "jinja2", "aftershock.recipe"}
    asked = "import sys; from aftershock.cli import app; app(['--help'], standalone_mode=False)"
    program = f"{asked}; print({heavy} & set(sys.modules), file=sys.stderr)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Commands" in told.stdout
    assert told.stderr == "set()\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_the_verbs_and_where_to_begin(call, words):
    code, out, _ = call(*words)
    assert code == 0
    assert all(verb in out for verb in ("run", "report", "chat", "check"))


def test_version(call):
    assert call("--version")[:2] == (0, "aftershock 0.1.0\n")


def test_json_is_all_of_stdout_whatever_prints_inside(call, pipeline, recipe, tmp_path):
    code, out, err = call("run", recipe, "--out", tmp_path / "run", "--json", "--set", "run.seed=5")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "run/summary.json").read_text())
    assert json.loads(out)["seed"] == 5
    assert all(noise in err for noise in ("noise from Python", "noise from C", "noise from a child"))


def test_without_json_the_last_line_says_what_to_do_next(call, pipeline, recipe, tmp_path):
    code, out, _ = call("run", recipe, "--out", tmp_path / "run")
    assert code == 0
    model = tmp_path / "run/stages/zero/model"
    assert out.splitlines()[-1] == f"next: open {tmp_path}/run/report.html, then: aftershock chat {model}"
    assert call("run", recipe, "--out", tmp_path / "run", "--resume", "--no-report")[0] == 0


def test_a_report_that_fails_does_not_fail_the_run(call, pipeline, recipe, tmp_path):
    def fails(folder):
        raise ImportError("No module named 'jinja2'")

    sys.modules["aftershock.report"].write = fails
    code, out, err = call("run", recipe, "--out", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["finished"] is True
    assert "the report was not written: No module named 'jinja2'" in err


@pytest.mark.parametrize("as_json", [False, True])
def test_errors_are_one_line_without_a_traceback(call, pipeline, recipe, tmp_path, as_json):
    def fails():
        raise RunError("the disk is full: do this")

    pipeline.does = fails
    code, out, err = call("run", recipe, "--out", tmp_path / "run", *(["--json"] if as_json else []))
    assert code == 1
    assert err.splitlines()[-1] == "error: the disk is full: do this"
    assert "Traceback" not in err
    assert not as_json or json.loads(out) == {"error": "the disk is full: do this"}


@pytest.mark.parametrize("debug", [False, True])
def test_faults_of_the_program_show_a_traceback_with_debug_alone(call, monkeypatch, pipeline, recipe, tmp_path, debug):
    def fails():
        raise ZeroDivisionError("division by zero")

    pipeline.does = fails
    words = ["run", recipe, "--out", tmp_path / "run"]
    if debug:
        monkeypatch.setattr(sys, "argv", ["aftershock", *map(str, words), "--debug"])
        with pytest.raises(ZeroDivisionError):
            cli.main()
    else:
        code, _, err = call(*words)
        assert code == 1
        assert "error: unexpected ZeroDivisionError: division by zero" in err
        assert "--debug" in err


def test_ctrl_c_says_how_to_go_on(call, pipeline, recipe, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    pipeline.does = interrupted
    code, _, err = call("run", recipe, "--out", tmp_path / "run", "--set", "run.seed=5")
    assert code == 130
    last = err.splitlines()[-1]
    assert last.endswith(f"go on with: aftershock run '{recipe}' --out {tmp_path}/run --set run.seed=5 --resume")
    pipeline.does = lambda: None
    assert call("run", recipe, "--out", tmp_path / "run", "--set", "run.seed=5", "--resume")[0] == 0


@pytest.mark.parametrize("words", [["run"], ["runn", "x"], ["run", "x", "--outt", "y"], ["check", "--json", "extra"]])
def test_misuse_exits_2_in_one_line(call, words):
    code, out, err = call(*words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert "--help" in err
    assert ("error" in json.loads(out)) if "--json" in words else out == ""


def test_a_wrong_recipe_is_refused_before_anything_is_made(call, recipe, tmp_path):
    code, out, err = call("run", recipe, "--out", tmp_path / "run", "--set", "stage.zero.stepz=4")
    assert (code, out) == (1, "")
    assert 'did you mean "steps"?' in err
    assert not (tmp_path / "run").exists()


def test_report_prints_where_it_is(call, pipeline, tmp_path):
    assert json.loads(call("report", tmp_path, "--json")[1]) == {"report": f"{tmp_path}/report.html"}
    assert call("report", tmp_path)[1] == f"next: open {tmp_path}/report.html in a browser\n"


def test_check_as_json_and_as_lines(call, monkeypatch):
    from aftershock import check

    found = [check.Finding("disk", "OK", "much"), check.Finding("torch", "FAIL", "none", "install it")]
    monkeypatch.setattr(check, "findings", lambda full: iter(found))
    code, out, _ = call("check", "--json")
    assert code == 1
    told = json.loads(out)
    assert told["ok"] is False
    assert told["findings"][1] == {"name": "torch", "level": "FAIL", "found": "none", "next": "install it"}
    code, out, _ = call("check")
    assert out.splitlines() == ["OK   disk: much", "FAIL torch: none -> install it", "next: mend what says FAIL"]
    found.pop()
    assert call("check")[0] == 0


# --- parts, changes, plans, dry runs ----------------------------------------------------------------------------------

TWO = RECIPE + '[stage.more]\nkind = "rl"\nfrom = "zero"\nsteps = 4\n[[stage.more.tasks]]\nname = "countdown"\n'


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(TWO)
    return path


def test_a_part_is_handed_on_and_unknown_names_are_refused_before_anything_is_made(call, pipeline, two, tmp_path):
    parts = []
    execute = pipeline.execute
    pipeline.execute = lambda recipe, run, reporter, part: parts.append(part) or execute(recipe, run, reporter, part)
    words = ["run", two, "--out", tmp_path / "run", "--resume", "--no-report"]
    for part in (["--only", "more,zero"], ["--from", "more"], ["--until", "zero"], []):
        assert call(*words, *part)[0] == 0
    assert parts == [["zero", "more"], ["more"], ["zero"], ["zero", "more"]]
    code, _, err = call("run", two, "--out", tmp_path / "other", "--only", "zeri")
    assert code == 1
    assert "there is no stage 'zeri' (nearest: zero)" in err
    assert not (tmp_path / "other").exists()


def test_the_way_back_from_ctrl_c_names_the_part(call, pipeline, two, tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    pipeline.does = interrupted
    _, _, err = call("run", two, "--out", tmp_path / "run", "--from", "zero", "--until", "more")
    assert err.splitlines()[-1].endswith(f"--out {tmp_path}/run --from zero --until more --resume")


def test_a_changed_stage_is_refused_without_redo_and_done_again_with_it(call, pipeline, two, tmp_path):
    words = ["run", two, "--out", tmp_path / "run", "--no-report"]
    assert call(*words)[0] == 0
    code, _, err = call(*words, "--resume", "--set", "stage.more.steps=5")
    assert code == 1
    assert "stage.more.steps was 4 and is 5 now" in err
    assert "add --redo (stages more, zero would stay)" in err
    assert call(*words, "--redo", "--set", "stage.more.steps=5")[0] == 0


def test_at_the_end_a_table_says_what_each_stage_added_and_cost(call, pipeline, recipe, tmp_path):
    evals = [
        {
            "suite": "all",
            "metric": "pass@1",
            "when": when,
            "value": v,
            "low": v - 0.01,
            "high": v + 0.01,
            "n": 9,
            "k": 4,
        }
        for when, v in (("before", 0.25), ("after", 0.5))
    ]

    def execute(recipe, run, reporter, part):
        run.stage("zero", recipe.stage["zero"]).finish({"evals": evals})
        return run.write_summary()

    pipeline.execute = execute
    lines = call("run", recipe, "--out", tmp_path / "run", "--no-report")[1].splitlines()
    assert lines[0].split() == ["stage", "kind", "pass@1", "before", "after", "n", "k", "seconds", "tokens", "usd"]
    assert lines[1].startswith("zero   rl    25.0% [24.0, 26.0]  50.0% [49.0, 51.0]  9  4  ")


def test_a_run_needs_a_folder_but_plans_and_dry_runs_do_not(call, recipe):
    code, _, err = call("run", recipe)
    assert code == 2
    assert "only --plan and --dry need none" in err


def test_a_plan_is_a_table_or_json_and_makes_no_folder(call, two, tmp_path):
    code, out, _ = call("run", two, "--plan", "--on", "H100-SXM")
    assert code == 0
    heads, zero, more, total, *_ = out.splitlines()
    assert heads.split()[:2] == ["stage", "kind"]
    assert (zero.split()[:3], more.split()[:3], total.split()[0]) == (
        ["zero", "rl", "-"],
        ["more", "rl", "zero"],
        "all",
    )
    code, out, _ = call("run", two, "--plan", "--json")
    assert [stage["inputs"] for stage in json.loads(out)["stages"]] == [[], ["zero"]]
    assert [path.name for path in tmp_path.iterdir()] == ["two.toml"]


def test_a_dry_run_says_what_it_did_and_leaves_nothing(call, two, tmp_path):
    code, out, err = call("run", two, "--dry", "--json")
    assert code == 0
    assert [line.split(" in ")[0] for line in json.loads(out)["dry"]] == ["zero: rl, 2 steps", "more: rl, 2 steps"]
    assert "zero: rl, 2 steps in" in err
    assert [path.name for path in tmp_path.iterdir()] == ["two.toml"]
