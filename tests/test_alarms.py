"""Every alarm rings on the history it is for, once an episode, never on a healthy one; a resumed run hears the same."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.alarms import QUIET, RULES, Alarms, alarms_in

STEPS = 60


def healthy(step: int) -> dict:
    """A row of a run as it should go: accuracy from 20% to 85%, length doubling, entropy falling to a third."""
    far = 1 - math.exp(-step / 25)
    return {
        "stage": "zero", "step": step, "reward": 0.3 + 0.65 * far, "reward_std": 0.4,
        "reward/accuracy": 0.2 + 0.65 * far,
        "mean_tokens": 34 + 40 * far, "truncated": 0.01, "entropy": 0.1 + 0.2 * (1 - far), "kl": 0.05 * far,
        "no_signal": 0.2 + 0.3 * far, "mismatch": 3e-4, "unverifiable": 0.0, "grad_norm": 0.4, "loss": 0.01,
        "heldout/all": 0.2 + 0.6 * far, "heldout/all_low": 0.15 + 0.6 * far, "heldout/all_high": 0.25 + 0.6 * far,
    }  # fmt: skip


def history(**changes) -> list[dict]:
    """A healthy history in which each named metric is replaced by a function of the step ("/" written as "__")."""
    named = {name.replace("__", "/"): change for name, change in changes.items()}
    return [healthy(s) | {name: change(s) for name, change in named.items()} for s in range(1, STEPS + 1)]


def falls(start: float, end: float, at: int = 30):
    return lambda step: start if step < at else end


SICK = {
    "entropy_collapse": {"entropy": falls(0.3, 0.01), "reward__accuracy": lambda s: 0.3},
    "length_collapse": {"mean_tokens": falls(18, 9)},
    "length_runaway": {"mean_tokens": falls(40, 110), "reward__accuracy": lambda s: 0.3},
    "truncation": {"truncated": falls(0.02, 0.35)},
    "no_signal": {"no_signal": falls(0.3, 1.0)},
    "kl_large": {"kl": falls(0.1, 1.7)},
    "mismatch": {"mismatch": falls(1e-3, 0.2)},
    "unverifiable": {"unverifiable": falls(0.0, 0.03)},
    "accuracy_collapse": {"reward__accuracy": falls(0.6, 0.16)},
    "heldout_falls": {
        "heldout__all": falls(0.6, 0.4), "heldout__all_low": falls(0.55, 0.35), "heldout__all_high": falls(0.65, 0.45),
    },
    "not_a_number": {"grad_norm": falls(0.4, math.nan)},
}  # fmt: skip


def test_a_healthy_run_rings_nothing():
    assert alarms_in(history()) == []


@pytest.mark.parametrize("name", SICK)
def test_each_alarm_rings_once_soon_after_the_trouble_begins(name):
    rung = [alarm for alarm in alarms_in(history(**SICK[name])) if alarm.name == name]
    assert len(rung) == 1
    (alarm,) = rung
    assert 30 <= alarm.step <= 36
    assert alarm.stage == "zero"
    assert len(alarm.text) > 30
    assert len(alarm.remedy) > 15
    assert str(alarm) == f"{alarm.text} {alarm.remedy}"


def test_every_rule_has_a_history_that_rings_it():
    assert {rule.name for rule in RULES} == {*SICK, "loss_diverges", "reward_hacking"}


def pleasing(truth, score, seed: int = 0, steps: int = 110) -> list[dict]:
    """Noisy steps of an open task; every third had none of its problems."""
    rng = random.Random(seed)
    rows = []
    for step in range(1, steps + 1):
        told = {"preference/help": score(step) + rng.gauss(0, 0.03), "quality/help": truth(step) + rng.gauss(0, 0.05)}
        rows.append({"stage": "all", "step": step} | (told if step % 3 else {}))
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_hacking_rings_where_the_score_rises_while_the_truth_falls(seed: int):
    def rises(step: int) -> float:
        return 0.5 + 0.003 * step

    def falls_later(step: int) -> float:
        return 0.7 if step < 50 else 0.7 - 0.008 * (step - 50)

    rung = alarms_in(pleasing(falls_later, rises, seed))
    assert [alarm.name for alarm in rung] == ["reward_hacking"]
    assert 55 < rung[0].step < 110
    assert "'help'" in rung[0].text
    for truth, score in (
        (lambda s: 0.7, rises),
        (rises, rises),
        (falls_later, falls_later),
        (falls_later, lambda s: 0.5),
    ):
        assert alarms_in(pleasing(truth, score, seed)) == []


def test_diverging_loss_rings_in_pretraining_only():
    rows = [{"stage": "base", "step": s, "loss": 1.0 if s < 30 else 1.6} for s in range(1, 60)]
    assert [alarm.name for alarm in alarms_in(rows)] == ["loss_diverges"]
    assert alarms_in([row | {"reward": 0.5} for row in rows]) == []
    falling = [{"stage": "base", "step": s, "loss": 3 / s, "entropy": 3 / s, "tokens": 16384.0} for s in range(1, 60)]
    assert alarms_in(falling) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"entropy": falls(0.3, 0.01), "reward__accuracy": lambda s: 0.95},  # certain because it is right
        {"entropy": lambda s: 0.3 * math.exp(-s / 40)},  # falls, does not collapse
        {"mean_tokens": lambda s: 34 + 6 * s, "reward__accuracy": lambda s: 0.1 + 0.012 * s},  # longer and better
        {"truncated": lambda s: 0.3},  # as it was at the start
        {"mean_tokens": lambda s: 9 if s == 30 else 34},  # one odd step
        {"no_signal": lambda s: 1.0 if s % 3 else 0.3},
        {"heldout__all": falls(0.6, 0.57), "heldout__all_low": falls(0.5, 0.47), "heldout__all_high": falls(0.7, 0.67)},
        {"entropy": lambda s: 0.001},  # was never there, so can't collapse
    ],
)
def test_what_is_no_trouble_rings_nothing(changes):
    assert alarms_in(history(**changes)) == []


def test_heldout_of_a_single_task_is_heard_too():
    rows = history(**SICK["heldout_falls"])
    rows = [{name.replace("heldout/all", "heldout/countdown"): value for name, value in row.items()} for row in rows]
    assert [alarm.name for alarm in alarms_in(rows)] == ["heldout_falls"]


def test_null_in_the_metrics_file_is_not_a_number():
    assert [a.name for a in alarms_in(history(grad_norm=falls(0.4, None)))] == ["not_a_number"]


@pytest.mark.parametrize(
    ("accuracy", "words"), [(0.05, "nearly all wrong"), (0.95, "nearly all right"), (0.5, "group: 100%")]
)
def test_no_signal_says_which_way(accuracy, words):
    rows = history(no_signal=falls(0.3, 1.0), reward__accuracy=lambda s: accuracy)
    assert words in next(alarm.text for alarm in alarms_in(rows) if alarm.name == "no_signal")


def test_an_alarm_rings_again_only_after_a_quiet_spell():
    def ringing(gap: int) -> int:
        kl = lambda s: 0.1 if 20 <= s < 20 + gap else 3.0  # noqa: E731
        return len([alarm for alarm in alarms_in(history(kl=kl)) if alarm.name == "kl_large"])

    assert ringing(QUIET // 2) == 1
    assert ringing(QUIET + 12) == 2


def test_a_new_stage_starts_afresh():
    rows = [row | {"stage": "a"} for row in history()] + [
        row | {"stage": "b"} for row in history(mean_tokens=lambda s: 9.0, entropy=lambda s: 0.001)
    ]
    assert alarms_in(rows) == []


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(sorted(SICK)), st.integers(0, STEPS))
def test_a_resumed_run_hears_the_same_alarms(name, cut):
    rows = history(**SICK[name])
    whole = alarms_in(rows)
    kept = [json.loads(json.dumps(row)) for row in rows[:cut]]
    resumed = Alarms()
    for row in kept:
        resumed.see(row)
    later = [alarm for row in rows[cut:] for alarm in resumed.see(row)]
    assert later == [alarm for alarm in whole if alarm.step > cut]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*healthy(1)]),
            st.one_of(st.none(), st.floats(), st.integers(-5, 5), st.text(max_size=2)),
        ),
        max_size=30,
    )
)
def test_no_history_breaks_it(rows):
    alarms_in(row | {"stage": "zero", "step": step} for step, row in enumerate(rows))
