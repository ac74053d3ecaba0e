"""config.json: what is kept, and that impossible values are refused with their key."""

import pytest

from aftershock.errors import CheckpointError
from aftershock.models import ModelConfig

DENSE = {
    "model_type": "llama",
    "vocab_size": 10,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SPARSE = {
    **DENSE,
    "model_type": "deepseek_v3",
    "kv_lora_rank": 4,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "moe_intermediate_size": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model_type": "gpt2"}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"hidden_size": "16"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 18}, "hidden_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 5}, "head dimension"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_type"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 0.5}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, "sliding"),
        ({"model_type": "qwen3", "layer_types": ["full_attention", "sliding_attention"]}, "sliding"),
        ({"quantization_config": {"quant_method": "awq"}}, "quant_method is 'awq'"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, r"is \[64, 64\]"),
        ({"quantization_config": {"quant_method": "fp8"}}, "weight_block_size is None"),
    ],
)
def test_impossible_values_are_refused_by_name(change, key):
    with pytest.raises(CheckpointError, match=key):
        ModelConfig.from_dict({**DENSE, **change})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"n_group": 3}, "n_group"),
        ({"n_group": 8}, "n_group"),
        ({"n_group": 4, "topk_group": 5}, "topk_group"),
        ({"n_group": 4, "topk_group": 1, "num_experts_per_tok": 3}, "num_experts_per_tok"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"topk_method": "greedy"}, "topk_method"),
        ({"kv_lora_rank": None}, "kv_lora_rank"),
        ({"qk_rope_head_dim": 3}, "head dimension"),
    ],
)
def test_impossible_mixtures_are_refused_by_name(change, key):
    with pytest.raises(CheckpointError, match=key):
        ModelConfig.from_dict({**SPARSE, **change})


@pytest.mark.parametrize("data", [DENSE, SPARSE, {**DENSE, "rope_scaling": {"type": "yarn", "factor": 4.0}}])
def test_written_and_read_again_is_the_same(data):
    config = ModelConfig.from_dict({**data, "pad_token_id": 7, "transformers_version": "4.9"})
    again = ModelConfig.from_dict(config.to_dict())
    assert again == config
    assert again.to_dict()["pad_token_id"] == 7
    assert again.to_dict()["rope_theta"] == again.to_dict()["rope_parameters"]["rope_theta"] == 10000.0
