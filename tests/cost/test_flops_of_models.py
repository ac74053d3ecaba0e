"""FLOPs from config.json against torch's count of what the models really multiply."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from aftershock.cost import flops
from aftershock.models import build

DENSE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 150,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
# An odd inner width keeps the mixture off the fused grouped product, which torch's counter does not know.
MIXTURE = {
    **DENSE,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 33,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
}
CONFIGS = {
    "llama": {"model_type": "llama", **DENSE},
    "qwen2": {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **DENSE, "head_dim": 24},
    "deepseek_v3": {"model_type": "deepseek_v3", **MIXTURE, "q_lora_rank": None},
    "deepseek_v3 with q_lora_rank": {"model_type": "deepseek_v3", **MIXTURE, "q_lora_rank": 24},
}


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small lose more by waiting for threads than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def counted(job) -> int:
    # Of attention's kernels torch counts the plain one alone on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_and_training(name):
    config, time = CONFIGS[name], 40
    model, tokens = build(config, seed=0), torch.randint(300, (2, time))
    forward = counted(lambda: model(tokens))
    # Short sequences attend over the whole square on a CPU, masked: `time` positions a token.
    assert flops.forward(config, context=time) * tokens.numel() == pytest.approx(forward, rel=0.01)
    training = counted(lambda: model(tokens).sum().backward())
    assert training == pytest.approx(flops.TRAINING * forward, rel=0.02)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_from_the_cache(name):
    # Many rows: each expert's share of them is rounded up to a multiple of four.
    config, context, many = CONFIGS[name], 50, 256
    model = build(config, seed=0)
    cache, rows = model.new_cache(many, context), torch.arange(many)
    with torch.no_grad():
        model.hidden(torch.randint(300, (many, context - 1)), cache=cache, rows=rows, starts=torch.zeros(many).long())
        starts = torch.full((many,), context - 1)
        last = torch.randint(300, (many, 1))
        found = counted(lambda: model.logits(model.hidden(last, cache=cache, rows=rows, starts=starts)))
    assert flops.forward(config, context, latent=True) * many == pytest.approx(found, rel=0.03)
