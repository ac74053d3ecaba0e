"""The bill of a run beside its plan, in the report and by `aftershock cost`."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import synthetic_run as synthetic

from aftershock import cli, report
from aftershock.report.costs import assumptions, compare, costs, energy, mass, money
from aftershock.report.files import read

PLAN = {
    "fingerprint": "f",
    "stages": [
        {"name": "zero", "tokens": [1e6, 2.5e6, 5e6], "seconds": [100.0, 206.0, 300.0], "usd": [0.001, 0.002, 0.003]},
        {"name": "cold", "tokens": [], "seconds": [], "usd": []},
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return synthetic.build(tmp_path_factory.mktemp("runs") / "zero", steps=10, problems=4)


@pytest.fixture
def run(whole, tmp_path) -> Path:
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / "plan.json").write_text(json.dumps(PLAN))
    return folder


def words(folder: Path) -> str:
    return report.write(folder).read_text(encoding="utf-8")


def test_a_stages_bill_has_its_plan_and_the_price_of_a_point(run):
    (found,) = costs(read(run))
    assert found.planned["seconds"] == [100.0, 206.0, 300.0]
    assert found.ratio == 412 / 206
    assert found.kg_co2 == pytest.approx(0.0074 * 0.481)
    assert found.points == pytest.approx([70.6, 70.6 - 100 * 0.02 * 2**0.5, 70.6 + 100 * 0.02 * 2**0.5])
    _, low, high = found.points
    assert found.usd_per_point == pytest.approx([0.0046 / 70.6, 0.0046 / high, 0.0046 / low])
    assert found.basis == "n = 800 problems × 16, seed 0"
    told = words(run)
    for part in ("What was planned, and what happened", "(1 min 40 s to 5 min 00 s)", "+70.6", "$0.000065"):
        assert part in told, part


def test_a_run_from_before_plans_and_one_whose_plan_is_damaged_still_report(run):
    for text in ("{", "[]", "{}"):
        (run / "plan.json").write_text(text)
        assert costs(read(run))[0].planned == {}
    (run / "plan.json").unlink()
    assert "What was planned" not in words(run)


def test_of_an_unfinished_stage_the_plan_is_shown_and_not_judged(tmp_path):
    folder = synthetic.build(tmp_path / "half", steps=10, finished=False, problems=4)
    (folder / "plan.json").write_text(json.dumps(PLAN))
    (found,) = costs(read(folder))
    assert found.seconds == pytest.approx(5 * 3.1)
    assert found.ratio is None
    assert found.points is None


def test_what_measured_the_energy_is_said(run):
    def said():
        files = read(run)
        return assumptions(files, costs(files))[0]

    lines = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert "Energy: estimated, hours × 65 W." in said()
    synthetic.write_lines(run / "timings.jsonl", [line | {"kwh_source": "NVML + RAPL"} for line in lines])
    assert "Energy: NVML + RAPL." in said()


def test_runs_are_compared_with_the_first(run, whole, tmp_path):
    seeds = tmp_path / "seeds"
    shutil.copytree(run, seeds / "seed-0")
    told = json.loads((seeds / "seed-0/summary.json").read_text())
    told["stages"][0] |= {"seconds": 824.0, "usd": 0.0023}
    (seeds / "seed-0/summary.json").write_text(json.dumps(told))
    found, text = compare([whole, seeds], kg_per_kwh=0.1)
    assert list(found["runs"]) == [str(whole), str(seeds / "seed-0")]
    assert found["runs"][str(whole)][0]["kg_co2"] == pytest.approx(0.00074)
    assert "2.00x time, 1.00x tokens, 1.00x FLOPs, 1.00x kWh, 0.50x usd" in text
    assert "n = 800 problems × 16, seed 0" in text


def test_two_stages_have_a_sum_and_a_plan_only_where_both_have_one(run, tmp_path):
    base = synthetic.build_pretrain(tmp_path / "base")
    told = json.loads((run / "summary.json").read_text())
    told["stages"] += json.loads((base / "summary.json").read_text())["stages"]
    (run / "summary.json").write_text(json.dumps(told))
    *_, both = costs(read(run))
    assert (both.name, both.seconds, both.planned) == ("all stages", 1912.0, {})
    plan = {"stages": [*PLAN["stages"], PLAN["stages"][0] | {"name": "base"}]}
    (run / "plan.json").write_text(json.dumps(plan))
    assert costs(read(run))[-1].planned["seconds"] == [200.0, 412.0, 600.0]


def test_the_command_prints_a_table_or_one_json_object(run, monkeypatch, capsys):
    def said(*words):
        monkeypatch.setattr(sys, "argv", ["aftershock", "cost", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().out

    code, text = said(run, "--co2", "1.0")
    assert code == 0
    assert text.splitlines()[1].split()[:9] == ["zero", "6", "min", "52", "s", "3", "min", "26", "s"]
    assert "7.4 g" in text
    code, text = said(run, "--json")
    assert json.loads(text)["runs"][str(run)][0]["ratio"] == 2.0
    assert said(run / "none")[0] == 1


def test_small_amounts_are_told_without_powers_of_ten():
    assert [money(value) for value in (0.0, 2.5, 0.0046, 0.0000463, None)] == [
        "$0.00", "$2.50", "$0.0046", "$0.000046", "–",
    ]  # fmt: skip
    assert (energy(2.5), energy(0.0000772), mass(None)) == ("2.5 kWh", "0.0772 Wh", "–")
