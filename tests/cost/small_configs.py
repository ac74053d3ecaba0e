"""The four architectures in sizes that a test can build, multiply and count."""

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
