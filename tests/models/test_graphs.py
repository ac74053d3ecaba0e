"""CUDA graphs of decoding steps, a fake one on a CPU: it knows addresses alone, as a real one does."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aftershock.errors import CapacityError
from aftershock.generate.decoder import Decoder, Layout
from aftershock.models import build, causal_lm, graphs, moe
from aftershock.models.graphs import bucket

DENSE = {
    "model_type": "qwen3",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
MIXED = {
    **DENSE,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Steps are captured on the CPU: what is captured runs again on the tensors it was captured on."""
    made = []

    def captured(step):
        result = step()
        made.append(result)
        return lambda: result.copy_(step()), result

    monkeypatch.setattr(graphs, "_captured", captured)
    monkeypatch.setattr(graphs, "_AFTER", 2)
    monkeypatch.setattr(causal_lm, "captures", lambda tokens: torch.is_inference_mode_enabled())
    monkeypatch.setattr(causal_lm, "serves", lambda model: False)  # nothing is native there
    monkeypatch.setattr(moe, "_seen", lambda x: False)
    return made


def plain(monkeypatch):
    monkeypatch.setattr(causal_lm, "captures", lambda tokens: False)
    monkeypatch.setattr(moe, "_seen", lambda x: True)


def decoded(model, steps, rows=8, room=32):
    """Return the hidden states of `steps` steps from an empty cache, which is widened halfway."""
    with torch.inference_mode():
        cache, found = model.new_cache(12, 64, room), []
        for step in range(steps):
            if step == steps // 2:
                cache.widen(64, 12)
            tokens = (torch.arange(rows)[:, None] * 7 + step) % 40
            found.append(model.hidden(tokens, cache=cache, starts=torch.full((rows,), step)))
        return torch.stack(found), cache


@pytest.mark.parametrize("config", [DENSE, MIXED], ids=["dense", "mixture"])
def test_replayed_steps_are_the_plain_ones(config, gpu, monkeypatch):
    model = build(config, seed=0).eval()
    ours, cache = decoded(model, 10)
    assert len(gpu) == 2  # one for each room
    assert sorted(cache.graphs._steps) == [(8, 32), (8, 64)]
    plain(monkeypatch)
    torch.testing.assert_close(ours, decoded(model, 10)[0])


def test_every_number_of_rows_has_its_own_step_and_every_cache(gpu):
    model = build(DENSE, seed=0).eval()
    with torch.inference_mode():
        cache = model.new_cache(8, 32)
        for _ in range(3):
            for rows in (8, 4):
                model.hidden(torch.zeros(rows, 1, dtype=torch.long), cache=cache, starts=torch.zeros(rows).long())
    assert sorted(cache.graphs._steps) == [(4, 32), (8, 32)]
    decoded(model, 1)
    assert len(gpu) == 2


def test_a_learners_weights_are_seen_and_results_are_kept_apart(monkeypatch):
    model = build(DENSE, seed=0).eval()
    tokens, starts = torch.arange(8)[:, None], torch.arange(8)
    with torch.inference_mode():
        cache = model.new_cache(8, 32)
        first = [model.hidden(tokens, cache=cache, starts=starts) for _ in range(3)][-1]
        kept = first.clone()
    with torch.no_grad():
        model.model.norm.weight.mul_(2)
    with torch.inference_mode():
        again = model.hidden(tokens, cache=cache, starts=starts)
    torch.testing.assert_close(again, 2 * kept)
    assert torch.equal(first, kept)


def test_a_full_cache_is_refused_before_any_replay():
    model = build(DENSE, seed=0).eval()
    tokens = torch.zeros(8, 1, dtype=torch.long)
    with torch.inference_mode():
        cache = model.new_cache(8, 32)
        for _ in range(3):
            model.hidden(tokens, cache=cache, starts=torch.full((8,), 31))
        with pytest.raises(CapacityError):
            model.hidden(tokens, cache=cache, starts=torch.full((8,), 32))


def test_what_cannot_be_captured_is_computed_as_before(monkeypatch):
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "_captured", refuse)
    model = build(DENSE, seed=0).eval()
    with pytest.warns(UserWarning, match=r"8 rows could not be captured .* not permitted"):
        ours, cache = decoded(model, 10)
    assert cache.graphs._steps == {}
    plain(monkeypatch)
    assert torch.equal(ours, decoded(model, 10)[0])


def test_buckets_are_powers_of_two_up_to_what_there_is():
    assert [bucket(size, 48) for size in (1, 2, 3, 8, 9, 32, 33, 48)] == [1, 2, 4, 8, 16, 32, 48, 48]


@pytest.mark.parametrize(("kind", "computed"), [("cpu", [8, 24, 40]), ("cuda", [8, 32, 40])])
def test_a_gpu_computes_few_numbers_of_rows(kind, computed):
    told = []
    for active in (3, 19, 40):
        rows = SimpleNamespace(active=active, lengths=np.full(40, 5))
        cache, layout = SimpleNamespace(room=16), Layout(40, 0, 64)
        decoder = SimpleNamespace(rows=rows, cache=cache, layout=layout, device=torch.device(kind), _waiting=[])
        told.append(Decoder._reach(decoder, 1))
    assert told == computed
