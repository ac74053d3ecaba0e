"""Adapters change nothing at first, train alone, keep sampler and learner equal, and travel in peft's format."""

import json

import pytest
import torch

from aftershock.errors import CheckpointError, TrainingError
from aftershock.learn import Learner, lora, pack_documents
from aftershock.models import build, load, save
from aftershock.recipe import LoraTable, OptimTable

DENSE = {
    "model_type": "qwen2",
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "eos_token_id": 1,
}
LATENT = {
    "model_type": "deepseek_v3",
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "first_k_dense_replace": 1,
    "intermediate_size": 32,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": None,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "max_position_embeddings": 64,
    "num_nextn_predict_layers": 0,
    "eos_token_id": 1,
}
TABLE = LoraTable(rank=3, alpha=6.0)
TOKENS = torch.tensor([[5, 9, 2, 33, 7, 8, 4, 1]])


def logits(model):
    with torch.no_grad():
        return model.logits(model.hidden(TOKENS))


def train(model, steps=4, lr=2e-2):
    learner = Learner(model, OptimTable(lr=lr), None, steps)
    batches = pack_documents([TOKENS[0].tolist(), [3, 4, 5, 6, 1]], 64)
    return learner, [learner.step(batches)["loss"] for _ in range(steps)]


@pytest.mark.parametrize("fields", [DENSE, LATENT], ids=["dense", "latent"])
def test_new_adapters_compute_what_the_model_did_and_training_moves_them_alone(fields):
    model = build(fields, seed=1)
    before, start = logits(model), {n: t.clone() for n, t in model.state_dict().items()}
    lora.attach(model, TABLE, seed=0)
    assert torch.equal(logits(model), before)
    _, losses = train(model)
    assert losses[-1] < losses[0]
    for name, layer in lora.adapted(model):
        assert torch.equal(layer.base, start[f"{name}.weight"])
        assert not torch.equal(layer.weight, layer.base), name
    untouched = [n for n in start if not any(n == f"{name}.weight" for name, _ in lora.adapted(model))]
    assert untouched
    for name in untouched:
        assert torch.equal(model.state_dict()[name], start[name]), name


def test_the_gradient_is_that_of_the_sum_written_out():
    torch.manual_seed(0)
    model = build(DENSE, seed=1)
    lora.attach(model, TABLE, seed=0)
    for _, layer in lora.adapted(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    lora.refresh(model)
    model.logits(model.hidden(TOKENS)).square().mean().backward()
    given = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    plain = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in model.named_parameters()}
    weights = dict(plain)
    for name, layer in lora.adapted(model):
        weights[f"{name}.weight"] = layer.base + layer.scale * plain[f"{name}.lora_B"] @ plain[f"{name}.lora_A"]
    lora_free = build(DENSE, seed=1)
    own = {n: w for n, w in weights.items() if ".lora_" not in n}
    wanted = _gradients(lora_free, own, plain)
    assert given.keys() == wanted.keys()
    for name in given:
        torch.testing.assert_close(given[name], wanted[name], rtol=1e-4, atol=1e-6)


def _gradients(model, weights, plain):
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, tokens):
            return self.inner.logits(self.inner.hidden(tokens))

    named = {f"inner.{n}": w for n, w in weights.items()}
    torch.func.functional_call(Whole(), named, (TOKENS,)).square().mean().backward()
    return {n: p.grad for n, p in plain.items() if p.grad is not None}


def test_a_learner_with_adapters_goes_on_from_its_state_to_the_same_bits():
    whole = build(DENSE, seed=1)
    lora.attach(whole, TABLE, seed=0)
    train(whole, steps=4)
    first = build(DENSE, seed=1)
    lora.attach(first, TABLE, seed=0)
    learner, _ = train(first, steps=2)
    tensors, scalars = learner.state()
    second = build(DENSE, seed=1)
    lora.attach(second, TABLE, seed=0)
    again = Learner(second, OptimTable(lr=2e-2), None, 4)
    again.load_state({n: t.clone() for n, t in tensors.items()}, scalars)
    batches = pack_documents([TOKENS[0].tolist(), [3, 4, 5, 6, 1]], 64)
    for _ in range(2):
        again.step(batches)
    assert torch.equal(logits(second), logits(whole))


def test_detached_the_sum_is_saved_as_a_plain_model(tmp_path):
    model = build(DENSE, seed=1)
    lora.attach(model, TABLE, seed=0)
    train(model)
    wanted = logits(model)
    lora.detach(model)
    save(model, tmp_path / "model")
    assert torch.equal(logits(load(tmp_path / "model")), wanted)


def test_adapters_are_read_back_and_bad_ones_are_refused(tmp_path):
    model = build(DENSE, seed=1)
    lora.attach(model, TABLE, seed=0)
    train(model)
    lora.save_adapter(model, TABLE, tmp_path, "some/base")
    again = build(DENSE, seed=1)
    assert lora.load_adapter(again, tmp_path).rank == 3
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(CheckpointError, match="don't fit"):
        lora.load_adapter(build({**DENSE, "hidden_size": 32}, seed=1), tmp_path)
    config = json.loads((tmp_path / lora.CONFIG).read_text())
    (tmp_path / lora.CONFIG).write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(CheckpointError, match="IA3"):
        lora.load_adapter(build(DENSE, seed=1), tmp_path)
    with pytest.raises(TrainingError, match="q_proj"):
        lora.attach(build(DENSE, seed=1), LoraTable(targets=("nothing",)), seed=0)


def test_peft_loads_our_adapters_and_computes_the_same(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = build(DENSE, seed=1)
    save(model, tmp_path / "base")
    lora.attach(model, TABLE, seed=0)
    train(model)
    lora.save_adapter(model, TABLE, tmp_path / "adapter", str(tmp_path / "base"))
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    with torch.no_grad():
        plain = reference(TOKENS).logits
        theirs = peft.PeftModel.from_pretrained(reference, tmp_path / "adapter").eval()(TOKENS).logits
    assert not torch.allclose(theirs, plain)
    torch.testing.assert_close(logits(model), theirs, rtol=1e-4, atol=1e-5)
