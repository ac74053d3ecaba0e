import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_tiny import TinyModel

from aftershock.cost import hardware
from aftershock.errors import CheckpointError
from aftershock.learn import Learner, learning_rate
from aftershock.learn.optim import adamw, load_optimiser_state, optimiser_state, settled
from aftershock.models.native import linear
from aftershock.recipe import OptimTable


@pytest.mark.parametrize(
    ("wanted", "device", "has", "native", "widest", "taken"),
    [
        ("auto", "cpu", True, False, 100, "bfloat16"),
        ("auto", "cpu", True, True, hardware.SMALL, "float32"),
        ("auto", "cpu", True, True, 2 * hardware.SMALL, "bfloat16"),
        ("auto", "cpu", False, False, 2 * hardware.SMALL, "float32"),
        ("auto", "cuda", False, False, 100, "bfloat16"),
        ("bfloat16", "cpu", False, True, 100, "bfloat16"),
        ("float32", "cuda", True, False, 100, "float32"),
    ],
)
def test_auto_is_bfloat16_where_that_pays(wanted, device, has, native, widest, taken, monkeypatch):
    """Where the device has products of it, and the model isn't so small that C in float32 is quicker."""
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda: has)
    weights = [torch.empty(9), torch.empty(9, widest // 4, 4)]  # of stacked experts each one is a matrix
    model = SimpleNamespace(parameters=lambda: weights, device=torch.device(device), learns_natively=native)
    assert settled(OptimTable(precision=wanted), model).precision == taken


@pytest.mark.parametrize("has", [True, False])
def test_a_learner_trains_in_what_auto_stands_for(has, monkeypatch):
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda: has)
    learner = Learner(TinyModel(), OptimTable(precision="auto"))
    with learner._autocast():
        assert torch.is_autocast_enabled("cpu") == has


@pytest.mark.parametrize(
    ("told", "has"),
    [
        ("flags\t\t: fpu avx512_bf16 sse", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: avx2", False),
        ("", False),
    ],
)
def test_a_processor_says_whether_it_multiplies_bfloat16(told, has, monkeypatch):
    monkeypatch.setattr(hardware, "_cpuinfo", told.splitlines)
    assert hardware.multiplies_bf16() == has


def test_schedule_values():
    cosine = OptimTable(lr=1.0, warmup=4, schedule="cosine", final=0.2)
    rates = [learning_rate(cosine, step, 12) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.6)
    assert rates[12] == rates[13] == pytest.approx(0.2)
    assert rates[6] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))
    constant = OptimTable(lr=0.5, warmup=2)
    assert [learning_rate(constant, step, 5) for step in range(5)] == [0.25, 0.5, 0.5, 0.5, 0.5]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 20), st.integers(1, 60), st.sampled_from(["constant", "cosine"]), st.floats(0, 1))
def test_schedule_rises_then_never_rises_again(warmup, total, schedule, final):
    optim = OptimTable(lr=1e-3, warmup=warmup, schedule=schedule, final=final)
    rates = [learning_rate(optim, step, total) for step in range(total + 3)]
    assert all(0 < rate <= 1e-3 for rate in rates[:total]) or final == 0
    rising, falling = rates[: warmup + 1], rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_weight_decay_is_on_matrices_only():
    model = TinyModel()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    adamw(model, OptimTable(lr=0.1, weight_decay=0.5)).step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if p.ndim >= 2 else 1.0))


def test_state_that_doesn_t_fit_is_refused_and_nothing_changes():
    model = TinyModel()
    optimiser = adamw(model, OptimTable())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimiser.step()
    good = {name: tensor.clone() for name, tensor in optimiser_state(optimiser, model).items()}
    bad = [
        {k: v for k, v in good.items() if k != "mix.exp_avg"},
        {**good, "mix.exp_avg": torch.zeros(2)},
        {**good, "x": good["mix.step"]},
    ]
    for tensors in bad:
        with pytest.raises(CheckpointError, match=r"mix\.exp_avg|'x'"):
            load_optimiser_state(optimiser, model, tensors)
    assert all(torch.equal(tensor, good[name]) for name, tensor in optimiser_state(optimiser, model).items())


def test_small_is_what_the_learner_multiplies_in_c():
    assert hardware.SMALL == linear._SMALL
