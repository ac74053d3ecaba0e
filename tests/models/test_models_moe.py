"""The mixture: a loop over tokens as reference, the balance, and float32 where it matters."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_forms import VARIED

from aftershock.models import ModelConfig, balance, build
from aftershock.models.moe import Experts, Gate


def plain_gate(gate: Gate, x: torch.Tensor) -> dict[int, float]:
    """Equations 12 to 16 of V3 for one token, in Python: expert -> weight."""
    c = gate.config
    scores = (gate.weight @ x).sigmoid().tolist()
    biased = [s + b for s, b in zip(scores, gate.e_score_correction_bias.tolist())]
    size = c.n_routed_experts // c.n_group
    groups = [list(range(g * size, (g + 1) * size)) for g in range(c.n_group)]
    groups.sort(key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:2]))
    allowed = [e for group in groups[: c.topk_group] for e in group]
    chosen = sorted(allowed, key=lambda e: -biased[e])[: c.num_experts_per_tok]
    total = sum(scores[e] for e in chosen) if c.norm_topk_prob else 1.0
    return {e: scores[e] / total * c.routed_scaling_factor for e in chosen}


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([(1, 1, 2), (4, 2, 3), (2, 1, 4), (4, 3, 6)]), st.booleans(), st.integers(0, 99))
def test_gate_equals_the_equations(groups, norm, seed):
    n_group, topk_group, k = groups
    changes = {"n_group": n_group, "topk_group": topk_group, "num_experts_per_tok": k, "norm_topk_prob": norm}
    gate = build({**VARIED, **changes, "routed_scaling_factor": 2.5}, seed=seed).model.layers[0].mlp.gate
    draw = torch.Generator().manual_seed(seed)
    gate.e_score_correction_bias.normal_(0, 0.3, generator=draw)
    x = torch.randn(6, 16, generator=draw)
    chosen, weights = gate(x)
    for token, experts, values in zip(x, chosen.tolist(), weights.tolist()):
        assert dict(zip(experts, values)) == pytest.approx(plain_gate(gate, token), rel=1e-5)


@pytest.mark.parametrize("inner", [8, 6], ids=["fused kernel", "unaligned rows"])
@pytest.mark.parametrize("count", [1, 5, 200])
def test_experts_equal_a_loop_with_its_gradient(inner, count):
    config = ModelConfig.from_dict({**VARIED, "moe_intermediate_size": inner})
    experts = Experts(config)
    draw = torch.Generator().manual_seed(0)
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, 0, 0.3, generator=draw)
    x = torch.randn(count, 16, generator=draw).requires_grad_()
    chosen = torch.rand(count, 7, generator=draw).topk(2).indices  # the last expert gets no token
    weights = torch.rand(count, 2, generator=draw).requires_grad_()
    leaves = [x, weights, *experts.parameters()]
    rows = []
    for t in range(count):
        parts = []
        for e, w in zip(chosen[t].tolist(), weights[t]):
            gate, up = (experts.gate_up_proj[e] @ x[t]).chunk(2)
            parts.append(w * (experts.down_proj[e] @ (F.silu(gate) * up)))
        rows.append(sum(parts))
    wanted, found = torch.stack(rows), experts(x, chosen, weights)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    pull = torch.randn(wanted.shape, generator=draw)
    for a, b in zip(torch.autograd.grad(found, leaves, pull), torch.autograd.grad(wanted, leaves, pull)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_balance_moves_the_bias_against_the_load_and_says_the_load():
    model = build({**VARIED, "num_nextn_predict_layers": 0}, seed=0)
    tokens = torch.randint(0, 10, (3, 50), generator=torch.Generator().manual_seed(0))
    model.eval()(tokens)
    assert all(load.sum() == 0 for load in balance(model, 0.01).values())
    gate = model.model.layers[1].mlp.gate
    assert gate.e_score_correction_bias.abs().max() == 0  # nothing was seen in training mode, so nothing moves
    model.train()
    for part in tokens:
        model(part[None]).sum().backward()
    assert gate.e_score_correction_bias.grad is None
    assert not gate.e_score_correction_bias.requires_grad
    assert "counts" not in "".join(model.state_dict())
    loads = balance(model, 0.01)
    assert list(loads) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    load = loads["model.layers.1.mlp"]
    assert load.sum() == pytest.approx(1.0)
    assert (load * 300).round().tolist() == pytest.approx((load * 300).tolist(), abs=1e-3)  # 150 tokens, 2 experts each
    wanted = 0.01 * (1 / 8 - load).sign()
    assert torch.allclose(gate.e_score_correction_bias, wanted)
    assert all(load.sum() == 0 for load in balance(model, 0.0).values())


def test_balance_evens_the_load():
    model = build({**VARIED, "num_nextn_predict_layers": 0}, seed=1).train()
    tokens = torch.randint(0, 10, (4, 50), generator=torch.Generator().manual_seed(0))
    spread = []
    for _ in range(60):
        with torch.no_grad():
            model(tokens)
        spread.append(max(load.max().item() for load in balance(model, 0.01).values()))
    assert spread[-1] < 0.6 * spread[0]


def test_bias_gate_and_norms_stay_float32_in_mixed_precision():
    model = build(VARIED, seed=0).to(torch.bfloat16)
    assert model.model.layers[0].mlp.gate.e_score_correction_bias.dtype == torch.float32
    assert model.model.layers[0].mlp.gate.weight.dtype == torch.bfloat16
    model = build(VARIED, seed=0).train()
    tokens = torch.randint(0, 10, (1, 60), generator=torch.Generator().manual_seed(0))
    seen = []
    model.model.layers[0].mlp.gate.register_forward_hook(lambda _, __, out: seen.append(out[1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    assert seen == [torch.float32]
    logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad.dtype == torch.float32 for n, p in model.named_parameters() if "mtp" not in n)
    with torch.no_grad():
        assert 0 < (logits - model(tokens)).abs().max() < 0.2 * logits.abs().max()
