import dataclasses
import random

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_tiny import VOCAB, TinyModel, random_samples

from aftershock import models
from aftershock.errors import CheckpointError, TrainingError
from aftershock.learn import Learner, Sample, pack, pack_documents, split
from aftershock.learn.losses import LOSSES
from aftershock.recipe import LossTable, OptimTable

OPTIM = OptimTable(lr=1e-2, clip_norm=1e9, weight_decay=0.1)
KINDS = [*sorted(LOSSES), None]


def loss_table(kind, **dials):
    return None if kind is None else LossTable(kind=kind, **dials)


def batches_of(kind, seed=0, micro_tokens=10_000):
    samples = random_samples(seed)
    if kind is None:
        return pack_documents([s.prompt + s.completion for s in samples], micro_tokens)
    return pack(samples, micro_tokens, max_tokens=6)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# ---- accumulation ----


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 999), micro_tokens=st.integers(1, 40))
def test_any_split_into_batches_gives_the_same_gradient(kind, seed, micro_tokens):
    found = []
    for size in (10_000, micro_tokens):
        learner = Learner(TinyModel(), OPTIM, loss_table(kind, kl=0.05, importance_cap=1.5), 10)
        if learner.reference is not None:
            torch.nn.init.constant_(learner.reference.norm, 0.5)  # so that the KL term pulls
        metrics = learner.step(batches_of(kind, seed, size))
        found.append((gradients(learner.model), metrics))
    (whole, told_whole), (parts, told_parts) = found
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert told_parts == pytest.approx(told_whole, rel=1e-4, abs=1e-6)


def test_gradient_of_cross_entropy_is_the_plain_one():
    documents = [s.prompt + s.completion for s in random_samples(1)]
    learner = Learner(TinyModel(), OPTIM)
    metrics = learner.step(pack_documents(documents, 20))
    plain = TinyModel()
    pieces = [
        torch.nn.functional.cross_entropy(plain(torch.tensor([d]))[0, :-1], torch.tensor(d[1:]), reduction="sum")
        for d in documents
    ]
    loss = sum(pieces) / sum(len(d) - 1 for d in documents)
    loss.backward()
    torch.testing.assert_close(gradients(learner.model), gradients(plain), rtol=1e-4, atol=1e-6)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_batches_that_arent_one_pack_are_refused():
    learner = Learner(TinyModel(), OPTIM, LossTable())
    batches = batches_of("dapo", micro_tokens=12)
    assert len(batches) > 1
    for wrong in (batches[:-1], batches + batches[:1]):
        with pytest.raises(TrainingError, match=r"pass step\(\) all that one pack"):
            learner.step(wrong)
    with pytest.raises(TrainingError, match="nothing to learn"):
        learner.step([])
    assert same(weights(learner.model), weights(TinyModel()))


# ---- learning ----


def test_it_overfits_a_tiny_batch():
    documents = [[1, 5, 9, 2], [3, 4, 8, 7, 6], [10, 11, 12]]
    learner = Learner(TinyModel(), OptimTable(lr=3e-2), None, 150)
    losses = [learner.step(pack_documents(documents, 8))["loss"] for _ in range(150)]
    assert losses[0] > 2
    assert losses[-1] < 0.1


@pytest.mark.parametrize("kind", sorted(LOSSES))
def test_it_raises_what_was_good_and_lowers_what_was_bad(kind):
    learner = Learner(TinyModel(), OptimTable(lr=1e-2), LossTable(kind=kind, importance_cap=0), 30)
    samples = [Sample((1,), (5,), (-3.0,), 1.0), Sample((1,), (6,), (-3.0,), -1.0)]
    before = learner.model(torch.tensor([[1]]))[0, 0].log_softmax(-1)
    for _ in range(10):
        learner.step(pack(samples, 8, max_tokens=6))
    after = learner.model(torch.tensor([[1]]))[0, 0].log_softmax(-1)
    assert after[5] > before[5] + 0.1
    assert after[6] < before[6] - 0.1


def test_bfloat16_moves_float32_weights_the_same_way():
    moved = []
    for precision in ("float32", "bfloat16"):
        learner = Learner(TinyModel(), OPTIM.model_copy(update={"precision": precision}), LossTable(), 10)
        metrics = learner.step(batches_of("dapo"))
        assert all(p.dtype == torch.float32 for p in learner.model.parameters())
        moved.append((torch.cat([g.flatten() for g in gradients(learner.model).values()]), metrics["loss"]))
    assert torch.nn.functional.cosine_similarity(moved[0][0], moved[1][0], dim=0) > 0.999
    assert moved[0][1] != moved[1][1], "bfloat16 made no difference: autocast is not on"


def test_weights_in_half_precision_are_refused():
    with pytest.raises(TrainingError, match=r"bfloat16; training wants float32"):
        Learner(TinyModel().to(torch.bfloat16), OPTIM)


# ---- the old policy, the clip and the reference ----


def test_clip_acts_across_minibatches():
    """AReno's fault: an old policy taken anew before each step makes the ratio 1, and the clip never acts."""
    samples = random_samples(0, groups=4)
    learner = Learner(TinyModel(), OptimTable(lr=5e-2), LossTable(kind="dapo"), 10)
    metrics = learner.step_minibatches([pack(part, 30) for part in split(samples, 4)])
    assert metrics["clip_fraction"] > 0.05
    assert metrics["ratio_max"] > 1.28
    assert metrics["approx_kl"] > 0
    assert metrics["tokens"] == sum(len(sample.completion) for sample in samples)
    assert learner.steps_done == 4


def test_one_step_a_rollout_batch_is_on_policy():
    metrics = Learner(TinyModel(), OPTIM, LossTable()).step_minibatches([batches_of("dapo")])
    assert metrics["ratio_mean"] == metrics["ratio_max"] == 1
    assert metrics["clip_fraction"] == metrics["approx_kl"] == 0


def test_old_logprobs_are_those_before_the_first_step():
    learner = Learner(TinyModel(), OPTIM, LossTable(), 5)
    batches = batches_of("dapo", micro_tokens=20)
    old = learner.old_logprobs(batches)
    learner.step(old)
    again = learner.old_logprobs(batches)
    fresh = Learner(TinyModel(), OPTIM, LossTable()).old_logprobs(batches)
    for first, moved, want in zip(old, again, fresh, strict=True):
        assert torch.equal(first.old_logprobs, want.old_logprobs)
        assert not torch.equal(first.old_logprobs, moved.old_logprobs)
        assert first.old_logprobs.shape == first.sampler_logprobs.shape
        assert not first.old_logprobs.requires_grad


def test_mismatch_is_the_gap_between_sampler_and_learner():
    exact = Learner(TinyModel(), OPTIM, LossTable()).step(pack(random_samples(0, noise=0.0), 30))
    assert exact["mismatch_max"] < 1e-5
    shifted = [
        dataclasses.replace(s, logprobs=tuple(v - 0.25 for v in s.logprobs)) for s in random_samples(0, noise=0.0)
    ]
    told = Learner(TinyModel(), OPTIM, LossTable()).step(pack(shifted, 30))
    assert told["mismatch"] == pytest.approx(0.25, abs=1e-4)
    assert told["mismatch_max"] == pytest.approx(0.25, abs=1e-4)


def test_reference_stays_until_refreshed():
    learner = Learner(TinyModel(), OPTIM, LossTable(kl=0.01, reference_every=2), 9)
    kls = [learner.step(batches_of("dapo", seed))["kl"] for seed in range(3)]
    assert kls[0] == 0
    assert kls[1] > 0
    assert kls[2] > 0
    assert same(weights(learner.reference), weights(TinyModel()))
    learner.refresh_reference()
    assert learner.step(batches_of("dapo"))["kl"] == 0


def test_no_reference_is_kept_without_kl():
    learner = Learner(TinyModel(), OPTIM, LossTable())
    learner.refresh_reference()
    assert learner.reference is None
    assert "kl" not in learner.step(batches_of("dapo"))


def test_kl_holds_the_policy_near_its_reference():
    free, held = (Learner(TinyModel(), OPTIM, LossTable(kl=kl), 30) for kl in (0.0, 10.0))
    for _ in range(15):
        free.step(batches_of("dapo"))
        held.step(batches_of("dapo"))
    start = Learner(TinyModel(), OPTIM).old_logprobs(batches_of("dapo"))[0].old_logprobs
    moved = [
        learner.old_logprobs(batches_of("dapo"))[0].old_logprobs.sub(start).abs().mean() for learner in (free, held)
    ]
    assert moved[1] < 0.3 * moved[0]


# ---- resume, determinism, failure ----


def roll(learner, steps, kind):
    return [learner.step(batches_of(kind, seed, 20)) for seed in steps]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["dapo", "gspo", None])
def test_resume_is_bitwise(kind, tied, tmp_path):
    optim = OPTIM.model_copy(update={"schedule": "cosine", "warmup": 2})
    straight = Learner(TinyModel(tied=tied), optim, loss_table(kind, kl=0.1), 6)
    roll(straight, range(2), kind)
    straight.refresh_reference()
    straight.model.bias += 1  # a persistent buffer, as the gate's bias is
    roll(straight, range(2, 3), kind)
    tensors, scalars = straight.state()
    safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "state.safetensors")
    after = roll(straight, range(3, 6), kind)
    torch.manual_seed(12345)
    resumed = Learner(TinyModel(seed=9, tied=tied), optim, loss_table(kind, kl=0.1), 6)
    seen = resumed.model.embed.weight
    resumed.load_state(safetensors.torch.load_file(tmp_path / "state.safetensors"), scalars)
    assert roll(resumed, range(3, 6), kind) == after
    assert same(resumed.state()[0], straight.state()[0])
    assert resumed.state()[1] == straight.state()[1]
    assert resumed.model.embed.weight is seen, "an engine reading the model would be left behind"


def test_a_parameter_without_gradient_yet_resumes_too():
    learner = Learner(TinyModel(), OPTIM)
    state = learner.state()
    assert not any(name.startswith("optim.") for name in state[0])
    other = Learner(TinyModel(seed=5), OPTIM)
    other.step(batches_of(None))
    other.load_state(*state)
    assert roll(other, range(2), None) == roll(learner, range(2), None)


def test_a_checkpoint_of_another_model_or_loss_is_refused_whole():
    tensors, scalars = Learner(TinyModel(seed=4), OPTIM, LossTable(kl=0.1)).state()
    for wrong in (
        {name: t for name, t in tensors.items() if name != "model.mix"},
        {**tensors, "model.mix": torch.zeros(3)},
        {**tensors, "optim.mix.step": torch.tensor(1.0)},
    ):
        learner = Learner(TinyModel(), OPTIM, LossTable(kl=0.1))
        with pytest.raises(CheckpointError, match="mix"):
            learner.load_state(wrong, scalars)
        assert same(weights(learner.model), weights(TinyModel()))
    with pytest.raises(CheckpointError, match="reference"):
        Learner(TinyModel(), OPTIM, LossTable()).load_state(tensors, scalars)


def test_global_random_state_has_no_say():
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        learner = Learner(TinyModel(), OPTIM, LossTable(kl=0.1), 3)
        runs.append((roll(learner, range(3), "dapo"), weights(learner.model)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


@pytest.mark.parametrize("spoil", ["weight", "advantage"])
def test_what_isnt_finite_is_refused_before_weights_move(spoil):
    learner = Learner(TinyModel(), OPTIM, LossTable(), 5)
    learner.step(batches_of("dapo"))
    samples = random_samples(0)
    if spoil == "weight":
        learner.model.head.weight.data[0, 0] = float("nan")
    else:
        samples[0] = dataclasses.replace(samples[0], advantage=float("inf"))
    before = {name: t.clone() for name, t in learner.state()[0].items()}
    with pytest.raises(TrainingError, match=r"step 1: loss .*(nan|inf).*lower optim\.lr"):
        learner.step(pack(samples, 30))
    now = learner.state()[0]
    assert all(torch.equal(t.nan_to_num(7), now[name].nan_to_num(7)) for name, t in before.items())
    assert learner.steps_done == 1


def test_gradient_is_clipped_to_its_norm():
    learner = Learner(TinyModel(), OPTIM.model_copy(update={"clip_norm": 0.01}), LossTable())
    told = learner.step(batches_of("dapo"))
    norm = torch.cat([g.flatten() for g in gradients(learner.model).values()]).norm().item()
    assert told["grad_norm"] > 0.1
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_rate_follows_the_schedule():
    learner = Learner(TinyModel(), OptimTable(lr=0.1, warmup=2, schedule="cosine", final=0.0), None, 4)
    assert [told["lr"] for told in roll(learner, range(4), None)] == pytest.approx([0.05, 0.1, 0.1, 0.05])


def test_entropy_is_that_of_the_policy():
    class Even(TinyModel):
        def logits(self, hidden):
            return super().logits(hidden) * 0

    told = Learner(Even(), OPTIM, LossTable()).step(batches_of("dapo"))
    assert told["entropy"] == pytest.approx(torch.tensor(float(VOCAB)).log().item(), rel=1e-5)


def test_expert_balance_is_called_once_a_step(monkeypatch):
    calls = []

    def balance(model, rate):
        calls.append(rate)
        return {"layers.1": torch.tensor([1.0, 3.0]), "mtp": torch.zeros(2)}

    monkeypatch.setattr(models, "balance", balance)
    told = Learner(TinyModel(), OPTIM.model_copy(update={"balance_rate": 0.02}), LossTable()).step(
        batches_of("dapo", 0, 20)
    )
    assert calls == [0.02]
    loads = {"load/layers.1/0": 0.5, "load/layers.1/1": 1.5, "load_max_over_mean/layers.1": 1.5}
    assert {name: value for name, value in told.items() if "load" in name} == loads
