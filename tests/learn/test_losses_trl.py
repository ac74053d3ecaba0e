"""Our losses against TRL's own numbers, by driving GRPOTrainer._compute_loss with a stub that has what it reads."""

import warnings
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from aftershock.learn.batch import Whole
from aftershock.learn.losses import LOSSES, Terms
from aftershock.recipe import LossTable

pytest.importorskip("trl")
LENGTHS = torch.tensor([3, 7, 1, 5])


@pytest.fixture(scope="module")
def compute_loss():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl.trainer.grpo_trainer import GRPOTrainer
    return GRPOTrainer._compute_loss


def padded(values):
    return torch.nn.utils.rnn.pad_sequence(values.split(LENGTHS.tolist()), batch_first=True)


def terms():
    rng = torch.Generator().manual_seed(0)
    m = int(LENGTHS.sum())
    base = -torch.rand(m, generator=rng) * 3
    noise = torch.randn(3, m, generator=rng) * 0.4
    return Terms(
        logprobs=base.clone().requires_grad_(),
        old_logprobs=base + noise[0],
        sampler_logprobs=base + noise[0] + noise[1],
        advantages=torch.tensor([1.3, -0.7, -1.1, 0.4]).repeat_interleave(LENGTHS),
        lengths=LENGTHS,
        whole=Whole(m, len(LENGTHS), 9),
        reference_logprobs=base + noise[2],
    )


def stub(t, table):
    """Return the stand-in for a trainer; TRL's cispo takes the bound itself where ours takes its distance from 1."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (padded(t.logprobs), padded(t.logprobs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if table.kind == "gspo" else "token",
        beta=table.kl,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        epsilon_low=table.clip_low,
        epsilon_high=table.clip_high + (table.kind == "cispo"),
        loss_type="grpo" if table.kind == "gspo" else table.kind,
        use_vllm=True,
        vllm_importance_sampling_correction=table.importance_cap > 0,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=9,
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )


def inputs(t, table):
    mask = padded(torch.ones_like(t.advantages))
    weights = (t.old_logprobs - t.sampler_logprobs).exp().clamp(max=table.importance_cap)
    ids = mask.long()
    return {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor([1.3, -0.7, -1.1, 0.4]),
        "old_per_token_logps": padded(t.old_logprobs),
        "ref_per_token_logps": padded(t.reference_logprobs),
        "importance_sampling_ratio": padded(weights),
        "num_items_in_batch": mask.sum(),
    }


@pytest.mark.parametrize("kl", [0.0, 0.05])
@pytest.mark.parametrize(
    ("kind", "low", "high", "cap"),
    [
        ("grpo", 0.2, 0.2, 2.0),
        ("dr_grpo", 0.2, 0.2, 2.0),
        ("dapo", 0.2, 0.28, 2.0),
        ("gspo", 0.05, 0.05, 0.0),  # TRL weighs tokens, ours the sequence: compared without
        ("cispo", 1.0, 0.3, 2.0),
    ],
)
def test_loss_and_gradient_equal_trl(compute_loss, kind, low, high, cap, kl):
    t, table = terms(), LossTable(kind=kind, clip_low=low, clip_high=high, importance_cap=cap, kl=kl)
    trainer = stub(t, table)
    theirs, ours = compute_loss(trainer, None, inputs(t, table)), LOSSES[kind](t, table)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-5, atol=1e-6)
    grads = [torch.autograd.grad(loss, t.logprobs)[0] for loss in (ours.loss, theirs)]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-7)
    if kl:
        assert trainer._metrics["train"]["kl"][0] == pytest.approx(ours.sums["kl"].item() / t.whole.tokens, rel=1e-5)
