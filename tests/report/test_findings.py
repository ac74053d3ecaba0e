"""The findings page: numbers by hand, each verdict both ways, and folders that are not whole."""

import json
import re
import shutil

import pytest
from synthetic_run import write_lines
from synthetic_seeds import answers, build, hacked, steps

from aftershock.errors import RunError
from aftershock.report import write_all
from aftershock.report.claims import claims
from aftershock.report.evidence import Number, gather, reduced
from aftershock.report.findings import write
from aftershock.report.verdicts import WORDS, above, at_least

GOOD = {
    "road-base": answers(0.2, 0.9, 0.2, 10, "good "),
    "zero": answers(0.6, 0.7, 0.2, 20),
    "cold": answers(0.4, 0.9, 0.3),
    "reasoning": answers(0.7, 1.0, 0.3),
    "plain": answers(0.75, 0.8, 0.3),
    "tuned": answers(0.75, 1.0, 0.4),
    "final": answers(0.8, 1.0, 0.6),
    "student-qwen": answers(0.75),
    "student-llama": answers(0.8),
    "control": answers(0.3),
}
METRICS = [
    *steps("zero", mean_tokens=(30, 60), check_or_retry_rate=(0.3, 0.7), language_consistency=(0.9, 0.7)),
    *steps("reasoning", language_consistency=(0.9, 1.0)),
    *steps("plain", language_consistency=(0.9, 0.8)),
    *hacked(),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return build(tmp_path_factory.mktemp("good"), GOOD, METRICS, (0, 1))


@pytest.fixture(scope="module")
def told(good):
    return found(good)


def found(folder):
    return {finding.name: finding for finding in claims(gather(folder))}


def checked(finding):
    return [(check.number and round(check.number.value, 6), check.said) for check in finding.checks]


def test_each_number_is_right_by_hand(told):
    rl = checked(told["rl"])  # of 20 problems a task, 4 are right before and 12 after
    assert rl == [(0.4, "yes"), (0.4, "yes"), (0.4, "yes"), (0.4, "yes"), (10, "yes")]
    assert told["rl"].checks[2].number.n == 40
    assert told["rl"].checks[2].number.seeds == {"0": 0.4, "1": 0.4}
    assert checked(told["distill"]) == [(0.45, "yes")]  # the other student has another base
    assert [round(check.number.value, 4) for check in told["kept"].checks] == [0.9375, 1.0]
    assert checked(told["language"]) == [(0.7, "yes"), (1.0, "yes, but the interval holds 95.0"), (0.2, "yes")]
    cost = told["language"].numbers[-1]
    assert (round(cost.value, 6), cost.low < 0 < cost.high) == (-0.05, True)
    moved = told["reflection"].checks[0].number
    assert moved.value == pytest.approx(0.4 * 35 / 39)
    assert (moved.n, moved.low < moved.value < moved.high) == (20, True)


def test_what_holds_is_reproduced(told):
    assert {name: finding.verdict for name, finding in told.items()} == dict.fromkeys(WORDS, "reproduced")


def test_what_does_not_hold_is_not_reproduced(tmp_path):
    worse = {
        "zero": answers(0.0),
        "reasoning": answers(1.0, 0.9, 0.9),
        "tuned": answers(0.7),
        "final": answers(0.2, quality=0.1),
        "student-qwen": answers(0.0),
    }
    metrics = [*steps("zero", check_or_retry_rate=(0.7, 0.3)), *hacked(60)]
    told = found(build(tmp_path, GOOD | worse, metrics, (0,)))
    assert {name: finding.verdict for name, finding in told.items()} == dict.fromkeys(WORDS, "not reproduced")


@pytest.mark.parametrize(
    ("value", "low", "high", "risen", "ten_points"),
    [
        (0.2, 0.1, 0.3, "yes", "yes"),
        (0.2, -0.1, 0.5, "not clear", "not clear"),
        (0.05, 0.01, 0.09, "yes", "no"),
        (-0.2, -0.3, -0.1, "no", "no"),
        (0.1, 0.05, 0.15, "yes", "yes, but the interval holds +10.0"),
    ],
)
def test_answers_follow_from_value_and_interval(value, low, high, risen, ten_points):
    number = Number("x", "points", value, low, high, 20, "problems", {"0": value})
    assert above("?", number).said == risen
    assert at_least("?", number, 0.1).said == ten_points
    assert above("?", None).said == "not run"


def test_an_interval_that_holds_0_is_not_clear(tmp_path):
    folder = build(tmp_path, GOOD | {"student-qwen": answers(0.35)}, METRICS, (0,))
    assert checked(found(folder)["distill"]) == [(0.05, "not clear")]
    assert found(folder)["distill"].verdict == "not clear: the interval holds 0"


def test_hacking_in_one_seed_of_two_is_said(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    calm = [row for row in METRICS if row["stage"] != "hacked"] + hacked(60)
    write_lines(tmp_path / "seed-1" / "metrics.jsonl", calm)
    finding = found(tmp_path)["hacking"]
    assert finding.verdict == "not clear: it rings in 1 of 2 seeds"
    assert finding.notes[0].startswith("Seed 0, step 32: Reward hacking: the reward models' score of 'help' rises")
    assert finding.notes[1] == "Seed 1: no alarm rang."


def test_seeds_are_pooled_by_problem_and_shown_apart(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    write_lines(tmp_path / "seed-1" / "stages" / "table" / "eval-zero.jsonl.gz", answers(0.4))
    gain = found(tmp_path)["rl"].checks[0].number
    assert (round(gain.value, 6), gain.n, gain.seeds) == (0.3, 20, {"0": 0.4, "1": pytest.approx(0.2)})


def test_another_bench_stage_may_measure_what_the_table_does_not(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    for run in tmp_path.glob("seed-*"):
        recipe = (run / "recipe.toml").read_text()
        (run / "recipe.toml").write_text(recipe.replace("[findings]", '[stage.also]\nkind = "bench"\n\n[findings]'))
        (run / "stages" / "also").mkdir()
        moved = run / "stages" / "table" / "eval-plain.jsonl.gz"
        moved.rename(run / "stages" / "also" / moved.name)
        write_lines(run / "stages" / "also" / "eval-zero.jsonl.gz", answers(0.0))  # the table's own comes first
    before, after = found(good), found(tmp_path)
    assert after["language"].numbers == before["language"].numbers
    assert after["rl"].checks == before["rl"].checks


def test_a_model_that_plays_two_parts_is_shown_once(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    for run in tmp_path.glob("seed-*"):
        recipe = (run / "recipe.toml").read_text()
        (run / "recipe.toml").write_text(recipe.replace('inconsistent = "plain"', 'inconsistent = "zero"'))
    rows = found(tmp_path)["language"].figures[0]
    assert str(rows).count("zero") == str(found(good)["language"].figures[0]).count("zero")


@pytest.mark.parametrize(
    ("control", "verdict"), [(9.0, "not clear: control had 75% of student-qwen's FLOPs"), (12.0, "reproduced")]
)
def test_a_control_with_less_compute_proves_nothing(good, tmp_path, control, verdict):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    spent = {"student-qwen": 10.0, "lessons": 2.0, "control": control}
    for run in tmp_path.glob("seed-*"):
        recipe = (
            (run / "recipe.toml").read_text().replace('from = "qwen-base"', 'from = "qwen-base"\ndata = ["lessons"]', 1)
        )
        (run / "recipe.toml").write_text(
            recipe.replace("[stage.table]", '[stage.lessons]\nkind = "sample"\n\n[stage.table]')
        )
        stages = [{"name": name, "kind": "x", "flops": flops, "evals": []} for name, flops in spent.items()]
        summary = json.loads((run / "summary.json").read_text()) | {"stages": stages}
        (run / "summary.json").write_text(json.dumps(summary))
    assert found(tmp_path)["distill"].verdict == verdict


def test_a_road_half_way_shows_what_is_there(good, tmp_path):
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    for seed in ("seed-0", "seed-1"):
        stages = tmp_path / seed / "stages"
        for model in ("final", "student-qwen", "student-llama", "control"):
            (stages / "table" / f"eval-{model}.jsonl.gz").unlink()
        (stages / "zero" / "done.json").unlink()
        (stages / "hacked" / "done.json").unlink()
        write_lines(tmp_path / seed / "metrics.jsonl", METRICS[:30])
    told = found(tmp_path)
    assert len(told) == len(WORDS)
    assert {name: told[name].verdict for name in ("reflection", "distill", "kept", "hacking")} == dict.fromkeys(
        ("reflection", "distill", "kept", "hacking"), "not run"
    )
    assert [figure.title for figure in told["reflection"].figures] == ["Answers that check or retry"]
    assert told["rl"].verdict == "reproduced"
    (tmp_path / "seed-2").mkdir()
    (tmp_path / "seed-2.log").touch()
    evidence = gather(tmp_path)
    claims(evidence)
    assert {"seed 0: no answers of 'final'", "seed-2 has not begun"} <= set(evidence.missing)


def test_a_single_run_without_a_bench_stage_speaks_of_its_own_evaluations(tmp_path):
    run = build(tmp_path, {}, METRICS, (0,)) / "seed-0"
    recipe = (run / "recipe.toml").read_text()
    own = recipe[: recipe.index("[findings]")] + '[findings]\nbase = "road-base"\nzero = "zero"\n'
    (run / "recipe.toml").write_text(own)
    write_lines(run / "stages" / "zero" / "eval-before.jsonl.gz", GOOD["road-base"])
    write_lines(run / "stages" / "zero" / "eval-after.jsonl.gz", GOOD["zero"])
    assert {name: finding.verdict for name, finding in found(run).items()} == dict.fromkeys(
        ("rl", "reflection"), "reproduced"
    )
    first = write(run).read_bytes(), (run / "findings.json").read_bytes()
    assert write_all(run) == {"report": run / "report.html", "findings": run / "findings.html"}
    assert first == ((run / "findings.html").read_bytes(), (run / "findings.json").read_bytes())


def test_page_and_json_hold_every_number_with_its_n_interval_and_seeds(good):
    text = write_all(good)["findings"].read_text()
    told = json.loads((good / "findings.json").read_text())
    assert [one["name"] for one in told["findings"]] == list(WORDS)
    numbers = [n for one in told["findings"] for n in [*one["numbers"], *(c["number"] for c in one["checks"])] if n]
    assert len(numbers) > 60
    assert all(n["low"] <= n["value"] <= n["high"] and n["n"] and len(n["seeds"]) == 2 for n in numbers)
    assert "77.9%" in text  # the paper's own
    assert "+40.0 points" in text
    assert text.count("<svg") == sum(len(one["figures"]) for one in told["findings"])
    assert not re.search(r'(src|href)="(?!#)', text)


def test_a_run_without_a_findings_table_is_refused(tmp_path):
    run = build(tmp_path, {}, METRICS, (0,)) / "seed-0"
    (run / "recipe.toml").write_text('[run]\nname = "x"\n')
    assert list(write_all(run)) == ["report"]
    with pytest.raises(RunError, match=r"recipe.toml has no \[findings\] table"):
        write(run)


def test_rows_reduce_to_numbers():
    told = reduced(answers(0.5, 0.9))
    key = ("countdown", "countdown-9", "en")
    assert (told["pass@1"][key], told["majority@k"][key]) == ([1.0, 1.0], [1.0])
    assert told["majority@k"]["countdown", "countdown-10", "en"] == [0.0]
    assert told["language_consistency"][key] == [0.9, 0.9]
    assert not any(task in ("help", "harm") for task, *_ in told["pass@1"])
    assert told["quality"]["help", "help-0", "en"] == [0.5, 0.5]
