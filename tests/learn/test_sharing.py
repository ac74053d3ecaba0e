"""A group's prompt, computed once, gives what each sequence alone gives."""

import random

import pytest
import torch
from learn_tiny import unpack

from aftershock import models
from aftershock.learn import Learner, Sample, pack
from aftershock.models import layers
from aftershock.recipe import LossTable, OptimTable

SIZES = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DENSE = {**SIZES, "model_type": "qwen2", "num_key_value_heads": 2, "initializer_range": 0.3}
LATENT = {
    **SIZES,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": None,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "initializer_range": 0.3,
}


def groups():
    rng, made = random.Random(0), []
    for group in range(4):
        prompt = tuple(rng.randrange(61) for _ in range(rng.randint(1, 9)))
        for _ in range(5):
            completion = tuple(rng.randrange(61) for _ in range(rng.randint(1, 12)))
            made.append(Sample(prompt, completion, (-4.0,) * len(completion), rng.uniform(-1, 1), group))
    return made


def learnt(config, batches_of):
    """Return the mean metrics and the summed gradient of a step on each part, and each part's log-probabilities."""
    learner = Learner(models.build(config, seed=0), OptimTable(clip_norm=1e9, lr=1e-12), LossTable(kind="gspo"))
    told, grads, logprobs = [], [], []
    for batches in batches_of:
        logprobs += [old.old_logprobs for old in learner.old_logprobs(batches)]
        told.append(learner.step(batches))
        grads.append({name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None})
    total = {name: sum(grad[name] for grad in grads if name in grad) for name in grads[0]}
    return told, total, torch.cat(logprobs)


@pytest.mark.parametrize("short", [384, 8], ids=["plain", "fused"])
@pytest.mark.parametrize("config", [DENSE, LATENT], ids=["dense", "latent"])
def test_a_shared_prompt_gives_what_sequences_alone_give(config, short, monkeypatch):
    monkeypatch.setattr(layers, "_SHORT", short)
    samples = groups()
    batches = pack(samples, 120)
    assert 1 < len(batches) < len({sample.prompt for sample in samples}) + 1
    assert sum(len(batch.tokens) for batch in batches) < sum(len(s.prompt + s.completion) for s in samples)
    shared = learnt(config, [batches])
    alone = learnt(config, [pack([sample], 120) for sample in unpack(batches)])
    torch.testing.assert_close(shared[2], alone[2], rtol=1e-5, atol=1e-5)
    mean = {name: grad / len(samples) for name, grad in alone[1].items()}
    torch.testing.assert_close(shared[1], mean, rtol=1e-4, atol=1e-6)
