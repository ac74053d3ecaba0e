"""What the comparing benchmarks share: alternation, ratios with intervals, and what counts as a regression."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from aftershock.sources import shipped_base

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
try:
    import llama_side
    import memory
    import paired
    import ratios
    import startup
    import time_to_accuracy
    from decode import alike
finally:
    sys.path.pop(0)

SECONDS = st.lists(st.floats(0.01, 100), min_size=1, max_size=9)


def row(ratio, low, high, name="step"):
    return {"name": name, "ratio": ratio, "low": low, "high": high, "n": 7}


def test_sides_take_turns_and_neither_always_comes_first():
    order = []
    told = paired.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert "".join(order) == "abbaab"
    assert {name: len(values) for name, values in told.items()} == {"a": 3, "b": 3}


def test_a_ratio_above_one_says_that_ours_is_better_whatever_the_unit():
    assert paired.compare("x", [1.0] * 3, [4.0] * 3, "s").ratio == 4.0
    assert paired.compare("x", [1.0] * 3, [4.0] * 3, "tokens/s").ratio == 0.25


def test_what_slows_a_whole_round_leaves_the_ratio_and_its_interval():
    found = paired.compare("x", [1.0, 5.0, 2.0, 9.0, 1.0, 3.0], [2.0, 10.0, 4.0, 18.0, 2.0, 6.0], "s")
    assert (found.ratio, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 6)
    assert (found.ours, found.theirs) == (2.5, 5.0)


@settings(max_examples=30, deadline=None)
@given(SECONDS, st.lists(st.floats(0.5, 3), min_size=9, max_size=9))
def test_the_interval_holds_the_ratio_and_stays_within_the_rounds(ours, factors):
    theirs = [value * factor for value, factor in zip(ours, factors)]
    found = paired.compare("x", ours, theirs, "s", digits=12)
    seen = [b / a for a, b in zip(ours, theirs)]
    slack = 1e-9 * max(seen)
    assert min(seen) - slack <= found.low <= found.ratio + slack
    assert found.ratio - slack <= found.high <= max(seen) + slack


@pytest.mark.parametrize(
    ("now", "fell"),
    [
        (row(10, 9, 11), False),
        (row(9.1, 9.0, 9.2), False),  # clear, and less than 10%
        (row(8.5, 8, 10.5), False),  # its own interval holds the kept ratio
        (row(8.5, 8, 8.9), True),
        (row(14, 13, 15), False),
    ],
)
def test_a_ratio_falls_when_it_is_ten_percent_worse_beyond_doubt(now, fell):
    assert bool(ratios.fallen([row(10, 9.5, 10.5)], [now])) == fell


def test_a_kept_ratio_of_wide_interval_takes_more_to_fall():
    assert not ratios.fallen([row(10, 8, 12)], [row(8.5, 8.4, 8.9)])


def test_a_row_that_is_measured_no_more_has_fallen_and_a_new_one_has_not():
    (said,) = ratios.fallen([row(2, 1, 3, "gone")], [row(1, 1, 1, "new")])
    assert said.startswith("gone:")


def test_the_kept_ratios_are_rows_and_say_on_which_processor():
    fields = asdict(paired.compare("x", [1.0], [1.0], "s")).keys()
    for kind, kept in ratios.read().items():
        assert kept["rows"]
        assert not ratios.fallen(kept["rows"], kept["rows"])
        assert all(one.keys() == fields for one in kept["rows"])
        assert kept["machine"]["processor"] in kind
        assert kept["machine"]["instructions"]


def measured(monkeypatch, kept, ratio, instructions, threads=1):
    """Let `ratios` run with everything measured at one ratio on some processor, and its ratios kept in a file."""
    machine = {"processor": "EPYC", "instructions": instructions, "threads": threads}
    rows = [row(ratio, ratio - 0.1, ratio + 0.1), row(1, 1, 1, "step: sample")]
    monkeypatch.setattr(ratios, "KEPT", kept)
    monkeypatch.setattr(ratios, "run", lambda script, threads: {"rows": rows, "machine": machine})
    monkeypatch.setattr(sys, "argv", ["ratios.py"])


def test_ratios_of_another_kind_of_processor_warn_and_those_of_ones_own_fail(tmp_path, monkeypatch, capsys):
    kept, (narrow, wide) = tmp_path / "ratios.json", (["avx2"], ["avx2", "avx512f"])
    measured(monkeypatch, kept, 10, wide)
    ratios.keep([ratios.run("", 1)], "")
    measured(monkeypatch, kept, 5, narrow)
    ratios.main()
    said = capsys.readouterr().out
    assert "WARN" in said
    assert "--keep" in said
    assert "EPYC (avx2+avx512f), threads 1" in said
    ratios.keep([ratios.run("", 1)], "")
    ratios.main()
    assert "none over 10% below" in capsys.readouterr().out
    assert [len(one["rows"]) for one in ratios.read().values()] == [1, 1]
    measured(monkeypatch, kept, 5, wide)
    with pytest.raises(SystemExit, match="over 10% below"):
        ratios.main()
    measured(monkeypatch, kept, 5, wide, threads=2)
    ratios.main()
    assert "WARN" in capsys.readouterr().out


def test_this_processors_instructions_are_told_by_name():
    found = paired.machine(1)["instructions"]
    assert set(found) <= set(paired.WIDE)
    assert found or not Path("/proc/cpuinfo").is_file()


def test_a_seed_that_one_side_alone_has_run_does_not_count_as_yet():
    steps = [{"seconds": 2.0, "processor": 1.0, "accuracy": 0.95}] * 2
    runs = [
        {
            "side": side,
            "rate": 1e-3,
            "down_sample": 0,
            "spread": 0.0,
            "steps": [{**one, "seconds": times} for one in steps],
        }
        for side, times in (("ours", 2.0), ("theirs", 8.0), ("ours", 2.0))
    ]
    told = time_to_accuracy.rows(runs)
    assert [(row.ratio, row.n) for row in told] == [(4.0, 1), (1.0, 1)]


def test_an_accuracy_is_reached_where_the_next_measurement_holds_it():
    told = [{"seconds": 1.0} | ({"accuracy": one} if one else {}) for one in (0, 0.95, 0, 0.8, 0.9, 0, 0.91, 0.2)]
    assert time_to_accuracy.reached(told) == 5
    assert time_to_accuracy.reached(told[:5]) is None


def searched(side, rate, some, seconds, spread=0.0):
    """A run that got there after so many seconds of processor time, or never."""
    found = {"accuracy": 0.95 if seconds else 0.1}
    steps = [{"seconds": 1.0, "processor": seconds or 1.0, **found}, {"seconds": 1.0, "processor": 1.0, **found}]
    return {"side": side, "rate": rate, "down_sample": some, "spread": spread, "steps": steps}


def test_the_best_setting_is_the_one_that_always_gets_there():
    kept = [(3e-4, 0, 9.0), (1e-3, 8, 4.0), (1e-3, 8, 6.0), (1e-3, 0, 8.0), (5e-4, 8, 1.0), (5e-4, 8, None)]
    runs = [searched("ours", *one) for one in kept]
    assert time_to_accuracy.best(runs, "ours") == (1e-3, 8, 0)
    assert time_to_accuracy.best([*runs, searched("ours", 1e-3, 8, 4.5, 0.88)], "ours") == (1e-3, 8, 0.88)
    assert time_to_accuracy.best(runs, "theirs") is None
    assert time_to_accuracy.rows(runs) == []


def test_a_comparison_takes_the_settings_of_the_kept_search_and_none_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(time_to_accuracy, "GRID", tmp_path / "grid.json")
    with pytest.raises(SystemExit, match="ours and theirs got there; run this with --search"):
        time_to_accuracy.chosen(["ours", "theirs"])
    kept = ("ours", 1e-3, 8, 4.0), ("ours", 3e-4, 0, 9.0), ("theirs", 5e-4, 0, 50.0), ("theirs", 1e-3, 0, None)
    time_to_accuracy.GRID.write_text(json.dumps({"runs": [searched(*one) for one in kept]}))
    assert time_to_accuracy.chosen(["ours", "theirs"]) == {"ours": (1e-3, 8, 0), "theirs": (5e-4, 0, 0)}


def test_every_tensor_of_a_qwen2_folder_has_a_name_of_its_own_in_gguf():
    with safe_open(shipped_base("small-qwen") / "model.safetensors", "np") as weights:
        names = list(weights.keys())
    found = {llama_side.gguf_name(name) for name in names}
    assert len(found) == len(names)
    layers = {name.split(".", 2)[2] for name in found if name.startswith("blk.")}
    assert layers == set(llama_side.TENSORS.values())
    assert {name for name in found if not name.startswith("blk.")} == {"token_embd.weight", "output_norm.weight"}


def test_greedy_rows_that_part_are_told_with_the_place():
    assert alike([(1, 2, 3), (4, 5, 6)], [[1, 2, 3], [4, 5, 6]]) == "2 of 2 rows alike over 3 tokens"
    assert alike([(1, 2, 3), (4, 5, 6)], [[1, 2, 3], [4, 9, 6]]).endswith(
        "1 of 2 rows alike over 3 tokens; the first parts after 1"
    )


def test_a_line_carried_on_is_called_extrapolated_and_what_was_measured_is_not():
    flat, steep = {1024: 5.0, 4096: 5.1, 8192: 5.2}, {1024: 5.0, 4096: 11.0, 8192: 19.0}
    rows = {row.name: row for row in memory.rows({"ours": flat, "theirs": steep}, 4)}
    assert rows["memory 4 layers 8192"].ratio == round(19 / 5.2, 3)
    assert rows["memory 4 layers 32768 extrapolated"].theirs > 60
    assert rows["memory 4 layers 8192 foretold"].ours == 5.2
    rows = {row.name: row for row in memory.rows({"ours": flat | {32_768: 6.0}, "theirs": steep}, 4)}
    assert rows["memory 4 layers 32768 theirs extrapolated"].ours == 6.0
    few = memory.rows({"ours": flat, "theirs": {1024: 5.0}}, 4)
    assert not any("extrapolated" in row.name for row in few)


SPOKEN = "import sys, time; print(sys.stdin.readline(), end='', flush=True); time.sleep(60)"


def test_a_chat_is_timed_to_its_first_output_and_ended_there():
    clock, processor = startup.until([sys.executable, "-c", SPOKEN], True, {})
    assert 0 < processor < 30
    assert clock < 50
    with pytest.raises(RuntimeError, match="gave no answer; exit code 3"):
        startup.until([sys.executable, "-c", "raise SystemExit(3)"], True, {})


def test_a_start_is_compared_with_anothers_with_what_was_wanted_and_without_the_native_step():
    told = {"help": 0.2, "help/trl": 0.4, "chat small-qwen": 2.0, "chat small-qwen without": 3.0, "other": 1.0}
    rows = {row.name: row.ratio for row in startup.rows({name: [(s, s)] for name, s in told.items()})}
    assert {name: ratio for name, ratio in rows.items() if ":" not in name} == {
        "startup help wanted": 1.5,
        "startup help trl": 2.0,
        "startup chat small-qwen wanted": 1.5,
        "startup chat small-qwen without native step": 1.5,
    }
