"""8-bit moments: what a byte keeps, steps beside float32's, memory, and a resume to the same bits."""

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.cost import memory
from aftershock.errors import CheckpointError
from aftershock.learn import Learner, adam8, pack_documents
from aftershock.learn.adam8 import AdamW8bit, dynamic_map
from aftershock.models import build
from aftershock.recipe import OptimTable

CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 128,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "intermediate_size": 150,
    "moe_intermediate_size": 48,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_attention_heads": 4,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "max_position_embeddings": 64,
}
EIGHT = OptimTable(lr=1e-3, weight_decay=0.1, moments="8bit")


@pytest.mark.parametrize(("signed", "count"), [(True, 256), (False, 255)])
def test_the_map_is_dense_near_zero_and_reaches_one(signed, count):
    values = dynamic_map(signed)
    assert len(values) == count
    assert values.diff().min() > 0
    assert values[-1] == 1
    assert values[values > 0][0] == pytest.approx(0.55e-6 if signed else 0.325e-6)
    assert (values == 0).sum() == signed
    assert (values < 0).sum() == (127 if signed else 0)


@settings(deadline=None, max_examples=30)
@given(st.booleans(), st.integers(-15, 10), st.integers(0, 99))  # squares above the smallest normal number
def test_a_byte_is_the_nearest_value_and_packing_again_changes_nothing(signed, power, seed):
    given = torch.randn(3, adam8.BLOCK, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    key, given = ("exp_avg", given) if signed else ("exp_avg_sq", given.square())
    state = {key: torch.zeros(3, adam8.BLOCK, dtype=torch.uint8), f"{key}_scale": torch.zeros(3)}
    adam8._pack(state, key, slice(0, 3), given)
    kept = adam8._unpacked(state, key, slice(0, 3))
    scale = given.abs().amax(1, keepdim=True)
    nearest = (given[..., None] - dynamic_map(signed) * scale[..., None]).abs().amin(-1)
    torch.testing.assert_close((kept - given).abs(), nearest, rtol=1e-3, atol=float(scale.max()) * 1e-6)
    codes = state[key].clone()
    adam8._pack(state, key, slice(0, 3), kept)
    where = scale.squeeze(1) == kept.abs().amax(1)  # a block whose largest is negative shrinks a little
    assert torch.equal(state[key][where], codes[where])


def moved(optimiser_of, shape, steps=30):
    weight = torch.nn.Parameter(torch.ones(shape))
    optimiser = optimiser_of([{"params": [weight], "weight_decay": 0.1}])
    for step in range(steps):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        weight.grad = noise + torch.linspace(-2, 2, weight.numel()).view(shape)
        optimiser.step()
    return weight.detach() - 1


@pytest.mark.parametrize(("shape", "off"), [((70, 61), 0.02), ((60,), 1e-5), ((8, 8), 1e-5)])
def test_steps_lie_beside_those_of_float32_moments(shape, off):
    ours = moved(lambda groups: AdamW8bit(groups, 1e-2, (0.9, 0.95)), shape)
    theirs = moved(lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95)), shape)
    assert (ours - theirs).norm() < off * theirs.norm()


def test_pieces_change_no_bit(monkeypatch):
    whole = moved(lambda groups: AdamW8bit(groups, 1e-2, (0.9, 0.95)), (70, 61), 3)
    monkeypatch.setattr(adam8, "_PIECE", 2 * adam8.BLOCK)
    assert torch.equal(moved(lambda groups: AdamW8bit(groups, 1e-2, (0.9, 0.95)), (70, 61), 3), whole)


def batches(step):
    tokens = torch.randint(0, 128, (4, 30), generator=torch.Generator().manual_seed(step))
    return pack_documents([tuple(row) for row in tokens.tolist()], 1 << 12)


def test_resume_is_bitwise_from_plain_tensors(tmp_path):
    straight = Learner(build(CONFIG, seed=0), EIGHT, None, 6)
    for step in range(3):
        straight.step(batches(step))
    tensors, scalars = straight.state()
    safetensors.torch.save_file({key: t.clone() for key, t in tensors.items()}, tmp_path / "state.safetensors")
    told = [straight.step(batches(step)) for step in range(3, 6)]
    resumed = Learner(build(CONFIG, seed=5), EIGHT, None, 6)
    resumed.load_state(safetensors.torch.load_file(tmp_path / "state.safetensors"), scalars)
    assert [resumed.step(batches(step)) for step in range(3, 6)] == told
    after = straight.state()[0]
    assert all(torch.equal(tensor, after[name]) for name, tensor in resumed.state()[0].items())


def test_a_checkpoint_with_other_moments_is_refused():
    learner, other = Learner(build(CONFIG, seed=0), EIGHT), Learner(build(CONFIG, seed=0), OptimTable())
    learner.step(batches(0))
    with pytest.raises(CheckpointError, match="_scale"):
        other.load_state(*learner.state())


def test_the_memory_foretold_is_what_is_held():
    learner = Learner(build(CONFIG, seed=0), EIGHT)
    learner.step(batches(0))
    moments = [t for state in learner.optimiser.state.values() for t in state.values() if t.ndim]
    weights = list(learner.model.parameters())
    held = sum(t.nbytes for t in [*moments, *weights, *weights])  # weights, their gradients, moments
    assert memory.training_state(CONFIG, memory.MOMENTS["8bit"]) == pytest.approx(held, rel=0.03)
