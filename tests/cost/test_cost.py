"""FLOPs against torch's own count, hardware, and the ledger's sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import Work, flops, hardware
from aftershock.cost.ledger import Ledger, price, total

V3 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
}
QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}


def test_active_parameters_of_published_models():
    assert flops.active_parameters(V3) == pytest.approx(37e9, rel=0.02)  # "37B activated for each token" [V3]
    assert flops.active_parameters(QWEN_7B) == pytest.approx(7.6e9 - 152064 * 3584, rel=0.01)  # less the embedding


def test_training_costs_six_times_the_parameters_where_context_is_short():
    cost = flops.work(QWEN_7B, length=1, trained_tokens=1).flops
    assert cost == pytest.approx(6 * flops.active_parameters(QWEN_7B), rel=1e-3)


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
