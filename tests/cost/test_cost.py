"""FLOPs against torch's own count, hardware, and the ledger's sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import Work, flops, hardware, parameters
from aftershock.cost.ledger import Ledger, gain, per_point, price, total
from aftershock.known import known_config

V3, QWEN_7B = known_config("deepseek-ai/DeepSeek-V3"), known_config("Qwen/Qwen2.5-7B")


def test_training_costs_six_times_the_parameters_where_context_is_short():
    cost = flops.work(QWEN_7B, length=1, trained_tokens=1).flops
    assert cost == pytest.approx(6 * parameters.multiplied(QWEN_7B), rel=1e-3)


def test_work_adds_up():
    trained, sampled = flops.work(V3, 100, trained_tokens=7), flops.work(V3, 100, sampled_tokens=5)
    both = flops.work(V3, 100, 7, 5)
    assert both == Work(7, 5, trained.flops + sampled.flops)
    latent, naive = flops.forward(V3, 1000, latent=True), flops.forward(V3, 1000)
    assert latent - naive == 1000 * 61 * 2 * 128 * ((512 + 64 + 512) - (128 + 64 + 128))


def test_gpu_rows_have_sources_and_are_found_by_the_drivers_name():
    for row in hardware.table():
        assert row["source"]
        assert all(float(row[name]) > 0 for name in ("memory_gb", "bf16_tflops", "usd_per_hour", "watts"))
        assert hardware.gpu(row["device_name"]).name == row["name"]
    assert hardware.gpu("NVIDIA L40S").name == "L40S"
    assert "assumed" in hardware.gpu("Riva 128").source


def test_this_machine():
    found = hardware.detect()
    assert found.cores >= 1
    assert found.memory_gb > 0
    assert found.usd_per_hour > 0
    assert found.watts > 0
    assert hardware.cpu("a chip", 2, 8.0).usd_per_hour == 0.085
    assert "assumed" in hardware.cpu("a chip", 2, 8.0).source


@pytest.mark.parametrize(("quota", "count"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("", 8)])
def test_cores_heed_a_containers_quota(monkeypatch, quota, count):
    monkeypatch.setattr(hardware, "_cgroup", lambda name: quota)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(8)))
    assert hardware.cores() == count


def test_memory_heeds_a_containers_limit(monkeypatch):
    monkeypatch.setattr(hardware, "_cgroup", lambda name: "1000000\n")
    assert hardware.memory_bytes() == 1000000


def measured(when, value, half, suite="all", metric="pass@1"):
    return {"suite": suite, "metric": metric, "when": when, "value": value, "low": value - half, "high": value + half}


def test_a_gain_is_that_of_all_tasks_and_its_interval_holds_both_uncertainties():
    rows = [measured(when, 0.9, 0.0, "countdown") for when in ("before", "after")]
    rows += [measured("before", 0.2, 0.03), measured("after", 0.5, 0.04), measured("after", 0.9, 0.1, metric="pass@k")]
    assert gain(rows) == pytest.approx([30.0, 25.0, 35.0])
    assert gain([measured("after", 0.5, 0.1)]) is None
    assert gain([measured("base", 0.5, 0.1), measured("zero", 0.6, 0.1)]) is None  # a bench stage's


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1e6))
def test_a_points_cost_lies_in_its_interval(before, after, half_before, half_after, usd):
    points = gain([measured("before", before, half_before), measured("after", after, half_after)])
    assert points[1] <= points[0] <= points[2]
    found = per_point(usd, points)
    if after <= before:
        assert found is None
    else:
        value, low, high = found
        assert value == pytest.approx(usd / (100 * (after - before)))
        assert low <= value
        assert (high is None) == (points[1] <= 0)
        assert high is None or high >= value
    assert per_point(usd, None) is None


@given(st.lists(st.sampled_from(["RAPL", "NVML", "estimated: it fails"]), max_size=6))
def test_what_was_measured_by_what_adds_up_over_kills_too(sources):
    lines = [{"kwh": 1.0, "kwh_source": source} for source in sources]
    half = total(lines[: len(lines) // 2])
    again = total([{"kwh": half.kwh, "kwh_by": half.kwh_by}, *lines[len(lines) // 2 :]])
    assert again == total(lines)
    assert sum(again.kwh_by.values()) == again.kwh == len(sources)
    assert all(again.kwh_by[source] == sources.count(source) for source in sources)
    assert total([{"kwh": 1.0}]).kwh_source == total([]).kwh_source == "estimated"


@given(st.lists(st.floats(0, 1e6), max_size=5), st.floats(0, 100), st.floats(1, 2000))
def test_a_ledger_is_the_sum_of_its_lines(times, usd_per_hour, watts):
    lines = []
    for seconds in times:
        usd, kwh = price(seconds, usd_per_hour, watts)
        lines.append(
            {"seconds": seconds, "trained_tokens": 2, "sampled_tokens": 1, "flops": 4.0, "usd": usd, "kwh": kwh}
        )
    ledger = total(lines)
    assert ledger.tokens == 3 * len(times)
    assert math.isclose(ledger.usd, sum(times) / 3600 * usd_per_hour, rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(ledger.kwh, sum(times) / 3.6e6 * watts, rel_tol=1e-9, abs_tol=1e-12)
    assert total([]) == Ledger()
