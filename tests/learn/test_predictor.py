"""Multi-token prediction is trained as V3's equations say, within documents, on the tokens that count."""

import pytest
import torch
import torch.nn.functional as F

from aftershock.errors import TrainingError
from aftershock.learn import Learner, Predictor, pack_documents
from aftershock.models import build
from aftershock.recipe import OptimTable

torch.set_num_threads(1)
CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "first_k_dense_replace": 9,
    "moe_intermediate_size": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "num_nextn_predict_layers": 2,
}
DOCUMENTS = [[3, 1, 4, 1, 5, 9, 2], [2, 7], [6], [1, 8, 2, 8, 1, 8], [5, 0, 10]]
MASKS = [[0, 0, 1, 1, 1, 0, 1], [0, 1], [0], [0, 1, 1, 1, 1, 1], [0, 0, 1]]
STILL = OptimTable(lr=1e-12, clip_norm=1e9)


def plain_losses(model):
    """Return (main, [L_1, L_2], acceptance) document by document, position by position, as eq. 21 to 25 are written."""
    total = sum(map(sum, MASKS))
    main, parts, accepted = torch.zeros(()), [torch.zeros(()) for _ in range(2)], 0.0
    for document, mask in zip(DOCUMENTS, MASKS):
        tokens = torch.tensor([document])
        state = model.hidden(tokens)
        own = F.log_softmax(model.logits(state)[0], -1)
        main = main - sum(own[t - 1, document[t]] for t in range(1, len(document)) if mask[t])
        for k in (1, 2):
            state = model.mtp_hidden(state, tokens, depth=k)
            theirs = F.log_softmax(model.mtp_logits(state, k)[0], -1)
            for t in range(k + 1, len(document)):
                parts[k - 1] = parts[k - 1] - mask[t] * theirs[t - 1 - k, document[t]]
                if k == 1 and mask[t]:
                    accepted += min(1.0, (theirs[t - 2, document[t]] - own[t - 1, document[t]]).exp().item())
    return main / total, [part / total for part in parts], accepted / total


@pytest.mark.parametrize("micro_tokens", [64, 7])
def test_loss_and_gradient_equal_the_plain_sum_over_documents(micro_tokens):
    model = build(CONFIG, seed=0)
    main, parts, accepted = plain_losses(model)
    wanted = main + 0.3 * (parts[0] + parts[1]) / 2
    wanted.backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert any("mtp.1" in name for name in gradient)
    learner = Predictor(model, STILL, 0.3)
    told = learner.step(pack_documents(DOCUMENTS, micro_tokens, [[bool(flag) for flag in mask] for mask in MASKS]))
    assert told["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert told["mtp_loss"] == pytest.approx((parts[0] + parts[1]).item() / 2, rel=1e-5)
    assert told["mtp_acceptance"] == pytest.approx(accepted, rel=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, gradient[name], rtol=1e-3, atol=1e-6), name


def test_the_modules_learn_and_a_plain_learner_leaves_them_alone():
    documents = [[(start + 3 * i) % 11 for i in range(9)] for start in range(11)]
    model = build(CONFIG, seed=0)
    before = model.model.mtp[0].eh_proj.weight.clone()
    optim = OptimTable(lr=2e-2, clip_norm=1e9)
    Learner(model, optim).step(pack_documents(documents, 64))
    assert torch.equal(model.model.mtp[0].eh_proj.weight, before)
    learner = Predictor(model, optim, 0.3)
    told = [learner.step(pack_documents(documents, 64)) for _ in range(30)]
    assert told[-1]["mtp_loss"] < 0.5 * told[0]["mtp_loss"]
    assert told[0]["mtp_acceptance"] < 0.6 < told[-1]["mtp_acceptance"] <= 1


def test_a_model_without_modules_is_refused():
    with pytest.raises(TrainingError, match=r"mtp_weight is 0\.3.*num_nextn_predict_layers"):
        Predictor(build({**CONFIG, "num_nextn_predict_layers": 0}, seed=0), STILL, 0.3)
