"""The learner on a small model of R1's own architecture: mixture, balance, resume."""

import random

import pytest
import torch

from aftershock import models
from aftershock.learn import Learner, Sample, pack, token_logprobs
from aftershock.recipe import LossTable, OptimTable

CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "max_position_embeddings": 128,
    "num_nextn_predict_layers": 0,
}
OPTIM = OptimTable(lr=1e-3, balance_rate=0.01)
LOSS = LossTable(kl=0.1)


def samples(seed, count=6):
    rng = random.Random(seed)
    made = []
    for group in range(count):
        prompt, completion = (tuple(rng.randrange(64) for _ in range(rng.randint(2, 20))) for _ in range(2))
        made.append(Sample(prompt, completion, (-4.0,) * len(completion), rng.uniform(-1, 1), group))
    return made


def learner(seed=0):
    return Learner(models.build(CONFIG, seed=seed), OPTIM, LOSS, 8)


def roll(learner, steps):
    return [learner.step(pack(samples(seed), 64)) for seed in steps]


def test_balance_moves_the_bias_and_tells_the_load():
    taught = learner()
    (told,) = roll(taught, [0])
    loads = [value for name, value in told.items() if name.startswith("load/")]
    assert len(loads) == 4
    assert sum(loads) == pytest.approx(4)
    assert max(loads) == told["load_max_over_mean/model.layers.1.mlp"]
    bias = next(t for name, t in taught.model.state_dict().items() if name.endswith("e_score_correction_bias"))
    assert bias.abs().max() == pytest.approx(0.01)


def test_only_the_step_s_own_forwards_are_counted_as_load():
    counted, plain = learner(), learner()
    counted.old_logprobs(pack(samples(0), 64))
    counted.model(torch.tensor([[1, 2, 3]]))  # what an engine does between steps
    assert roll(counted, [0]) == roll(plain, [0])
    counted.model(torch.tensor([[1, 2, 3]]))
    assert roll(counted, [1]) == roll(plain, [1])


def test_resume_is_bitwise():
    straight = learner()
    roll(straight, range(3))
    tensors, scalars = straight.state()
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    after = roll(straight, range(3, 6))
    torch.manual_seed(7)
    resumed = learner(seed=1)
    resumed.load_state(saved, scalars)
    assert roll(resumed, range(3, 6)) == after
    ours, theirs = resumed.state()[0], straight.state()[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_packed_equals_each_sequence_alone():
    model, made = models.build(CONFIG, seed=0), samples(3)
    (batch,) = pack(made, 10_000)
    logprobs, _ = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
    want = []
    for sample in made:
        logits = model(torch.tensor([sample.prompt + sample.completion]))[0, len(sample.prompt) - 1 : -1]
        want.append(logits.log_softmax(-1).gather(-1, torch.tensor(sample.completion)[:, None])[:, 0])
    torch.testing.assert_close(logprobs, torch.cat(want), rtol=1e-4, atol=1e-5)
