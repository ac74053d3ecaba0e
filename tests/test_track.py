"""Reporters: what the terminal shows, what trackers are sent, and that nothing is left open."""

import io
import json
import math
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from aftershock import track
from aftershock.errors import AftershockError
from aftershock.track import LiveReporter, PlainReporter, Reporters, TrackReporter, clock, make_reporter, sparkline

ROW = {
    "reward": 0.532, "reward/accuracy": 0.48, "reward/format": 0.97, "mean_tokens": 64.2, "truncated": 0.01,
    "entropy": 0.31, "kl": 0.012, "clip_fraction": 0.004, "no_signal": 0.22, "mismatch": 3e-4, "grad_norm": 0.3,
    "lr": 1e-4, "check_or_retry_rate": 0.54, "load_max_over_mean/1": 1.2, "load_max_over_mean/2": 1.9,
}  # fmt: skip
HELDOUT = {"heldout/all": 0.61, "heldout/all_low": 0.56, "heldout/all_high": 0.66}
TIMINGS = {"seconds": 3.0, "tokens_per_second": 15200.0, "usd": 0.0001, "kwh": 0.0002}


def score(metric, when, value, low, high):
    named = {"suite": "all", "metric": metric, "when": when, "value": value, "low": low, "high": high}
    return named | {"n": 400, "k": 16, "seed": 0}


SUMMARY = {
    "seconds": 400.0,
    "evals": [
        score("pass@1", "before", 0.2, 0.17, 0.23),
        score("pass@1", "after", 0.9, 0.87, 0.93),
        score("mean_tokens", "after", 70.0, None, None),
    ],
}


def screen(reporter: LiveReporter, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(reporter.panel())
    return console.file.getvalue()


def live(width: int = 80) -> LiveReporter:
    return LiveReporter(Console(width=width, file=io.StringIO(), force_terminal=True))


def test_live_panel_shows_everything_at_80_columns():
    reporter = live()
    reporter.start("zero", "rl", 120, {"model": "nano", "seed": 0})
    for step in range(1, 42):
        reporter.step(step, ROW | ({} if step % 10 else HELDOUT), TIMINGS)
    shown = screen(reporter)
    reporter.close()
    for part in ("zero (rl)", "step 41/120", "left 3:57", "$0.0041", "0.532", "48%", "97%", "61% [56, 66]", "64", "54%",
                 "0.310", "0.012", "0.4%", "22%", "3.0e-04", "15,200", "1.900", "seed 0", "model nano"):  # fmt: skip
        assert part in shown, part
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_live_panel_of_pretraining_shows_its_losses():
    reporter = live()
    reporter.start("base", "pretrain", 10, {})
    reporter.step(1, {"loss": 2.5, "validation_loss": 2.75, "lr": 1e-3}, TIMINGS)
    shown = screen(reporter)
    reporter.close()
    assert "2.500" in shown
    assert "2.750" in shown
    assert "reward" not in shown


def test_live_panel_before_the_first_step_and_with_work_inside_it():
    reporter = live()
    reporter.start("zero", "rl", 120, {})
    assert "step 0/120" in screen(reporter)
    reporter.progress("measuring before the stage", 120, 6400)
    assert "measuring before the stage: 120 of 6,400" in screen(reporter)
    reporter.step(1, ROW, TIMINGS)
    assert "measuring" not in screen(reporter)
    reporter.close()


def test_live_alarms_stay_in_sight_and_in_the_scrollback():
    reporter = live()
    reporter.start("zero", "rl", 120, {})
    reporter.alarm("Entropy [bold]collapsed[/bold]")
    assert "Entropy [bold]collapsed[/bold]" in screen(reporter)
    reporter.close()
    assert "ALARM: Entropy [bold]collapsed[/bold]" in reporter._console.file.getvalue()


def test_live_gives_the_terminal_back_and_starts_again():
    reporter = live()
    for stage in ("one", "two"):
        reporter.start(stage, "rl", 2, {})
        assert reporter._live is not None
        reporter.finish(stage, SUMMARY)
        assert reporter._live is None
    reporter.close()
    reporter.close()
    assert reporter._console.file.getvalue().count("pass@1 20.0% [17.0, 23.0] -> 90.0% [87.0, 93.0]") == 2


def test_plain_prints_one_line_a_step():
    stream = io.StringIO()
    reporter = PlainReporter(stream)
    reporter.start("zero", "rl", 120, {"seed": 0})
    reporter.step(1, ROW | HELDOUT, TIMINGS)
    reporter.step(2, ROW, TIMINGS)
    first, one, two = stream.getvalue().splitlines()
    assert first == "zero: rl, 120 steps · seed 0"
    assert one.startswith("zero 1/120  reward 0.532  acc 48%  fmt 97%  held-out 61% [56, 66]  len 64")
    assert one.endswith("15,200 tok/s  $0.0001  left 5:57")
    assert "held-out" not in two
    assert "$0.0002" in two


def test_plain_progress_is_a_line_a_tenth():
    stream = io.StringIO()
    reporter = PlainReporter(stream)
    for done in range(1001):
        reporter.progress("measuring", done, 1000)
    reporter.progress("again", 0, 0)
    assert len(stream.getvalue().splitlines()) == 11


def test_ending_tells_scores_with_interval_n_and_seed_only():
    stream = io.StringIO()
    PlainReporter(stream).finish("zero", SUMMARY)
    text = stream.getvalue()
    assert text == "stage zero done in 6:40 · pass@1 20.0% [17.0, 23.0] -> 90.0% [87.0, 93.0] (n=400, seed 0)\n"


def test_ending_of_a_stage_with_one_task():
    stream = io.StringIO()
    alone = [dict(row, suite="countdown") for row in SUMMARY["evals"]]
    PlainReporter(stream).finish("zero", {"evals": alone})
    assert "pass@1 20.0%" in stream.getvalue()


def test_a_single_tasks_heldout_score_is_shown():
    shown = track.with_summaries({name.replace("all", "countdown"): value for name, value in HELDOUT.items()})
    assert shown | HELDOUT == shown
    assert track.with_summaries({"heldout/a": 1.0, "heldout/b": 0.0}) == {"heldout/a": 1.0, "heldout/b": 0.0}


def test_cost_goes_on_after_a_resume(tmp_path, monkeypatch):
    lines = [json.dumps({"usd": 0.5}), json.dumps({"usd": 0.25}), '{"usd": 0.1']
    (tmp_path / "timings.jsonl").write_text("\n".join(lines))
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    reporter = make_reporter(None, tmp_path, terminal=False)
    reporter.start("zero", "rl", 2, {})
    reporter.step(1, ROW, TIMINGS | {"usd": 1.0})
    assert "$1.7500" in stream.getvalue()


class Fake(types.SimpleNamespace):
    """wandb or trackio as far as they are called."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def init(self, **options):
        self.calls.append(("init", options))

    def log(self, values):
        self.calls.append(("log", values))

    def define_metric(self, name, step_metric):
        self.calls.append(("axis", name, step_metric))

    def finish(self):
        self.calls.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_hosted_trackers_get_every_number_on_the_stages_own_axis(name, tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, name, fake)
    reporter = TrackReporter(name, tmp_path / "demo")
    for stage in ("a", "b"):
        reporter.start(stage, "rl", 2, {})
        reporter.step(1, {"reward": 0.5, "stage": stage, "step": 1, "text": "no number"}, TIMINGS)
    reporter.close()
    (_, options), *_ = fake.calls
    assert (options["project"], options["name"]) == ("aftershock", "demo")
    logged = [call[1] for call in fake.calls if call[0] == "log"]
    times = {f"time/{key}": value for key, value in TIMINGS.items()}
    assert logged == [
        {f"{stage}/{key}": value for key, value in {"reward": 0.5, **times, "step": 1}.items()} for stage in ("a", "b")
    ]
    assert [call[1:] for call in fake.calls if call[0] == "axis"] == [("a/*", "a/step"), ("b/*", "b/step")]
    assert fake.calls[-1] == ("finish",)


def test_tensorboard_for_real(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reporter = TrackReporter("tensorboard", tmp_path)
    for stage in ("a", "b"):
        reporter.start(stage, "rl", 3, {})
        for step in (1, 2, 3):
            reporter.step(step, {"reward": step / 4}, TIMINGS)
    reporter.close()
    again = TrackReporter("tensorboard", tmp_path)  # killed after step 3, resumed from 2
    again.start("b", "rl", 3, {})
    again.step(3, {"reward": 1.0}, TIMINGS)
    again.close()
    for stage, wanted in (("a", [0.25, 0.5, 0.75]), ("b", [0.25, 0.5, 1.0])):
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / stage)).Reload()
        assert [event.value for event in events.Scalars("reward")] == wanted
        assert "time/seconds" in events.Tags()["scalars"]


@pytest.mark.parametrize(("name", "extra"), [("wandb", "wandb"), ("trackio", "trackio"), ("tensorboard", "track")])
def test_missing_tracker_names_its_extra(name, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, track.TRACKERS[name][0], None)
    with pytest.raises(AftershockError, match=rf'--track {name}.*pip install "aftershock\[{extra}\]"'):
        TrackReporter(name, tmp_path)


def test_unknown_tracker_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(AftershockError, match=r"'tensorbord' is unknown: wanted one of tensorboard, trackio, wandb"):
        make_reporter("tensorbord", tmp_path, terminal=False)


def test_make_reporter_chooses_by_terminal_and_encoding(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert isinstance(make_reporter(None, tmp_path, True).reporters[0], LiveReporter)
    assert isinstance(make_reporter(None, tmp_path, False).reporters[0], PlainReporter)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert isinstance(make_reporter(None, tmp_path, True).reporters[0], PlainReporter)


def test_reporters_pass_everything_on_and_close_all_even_when_one_fails():
    calls = []

    class Spy:
        def __getattr__(self, name):
            return lambda *args: calls.append((name, args))

    class Broken(Spy):
        def close(self):
            raise OSError("disk full")

    both = Reporters([Spy(), Broken()])
    both.start("zero", "rl", 1, {})
    both.step(1, {}, {})
    both.note("n")
    both.progress("p", 1, 2)
    both.alarm("a")
    both.finish("zero", {})
    with pytest.raises(OSError, match="disk full"):
        both.close()
    names = [name for name, _ in calls]
    assert names == [name for name in ("start", "step", "note", "progress", "alarm", "finish") for _ in range(2)] + [
        "close"
    ]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60), st.integers(1, 20))
def test_sparkline_fits_and_keeps_order(values, width):
    line = sparkline(values, width)
    finite = [value for value in values if math.isfinite(value)]
    assert len(line) == min(width, len(finite))
    assert set(line) <= set(track.SPARKS)
    if len(finite) <= width and len(set(finite)) > 1:
        assert line[finite.index(max(finite))] == "█"
        assert line[finite.index(min(finite))] == "▁"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59.4, "59s"), (59.6, "1:00"), (3599.7, "1:00:00"), (7507, "2:05:07")]
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown
