"""FLOPs a token of a model of the R1 family, worked out from its config.json alone.

A multiply-add counts as two. Matrix products and attention are counted; norms, activations, rotary embedding and
softmax are not, as is the field's habit (Kaplan et al., arXiv 2001.08361, 2.1; PaLM, arXiv 2204.02311, appendix B).
"""

from collections.abc import Mapping
from typing import Any

from aftershock.cost.ledger import Work

TRAINING = 3  # forward, and twice as much backward: one product for the inputs' gradients, one for the weights'

Config = Mapping[str, Any]


def forward(config: Config, context: float, latent: bool = False) -> float:
    """Return the FLOPs of one token's forward that attends to `context` positions, itself among them.

    `latent` is for MLA decoding on its compressed cache [V3 2.1.1]; it changes nothing in other models.
    """
    layers = config["num_hidden_layers"]
    return 2 * active_parameters(config) + layers * _attention(config, latent) * context


def work(config: Config, length: float, trained_tokens: int = 0, sampled_tokens: int = 0) -> Work:
    """Return the work of training on and sampling so many tokens in sequences of `length` tokens on average.

    A token of a causal sequence sees half of it on average. Sampling counts each sampled token once; the prompt that
    a group shares is left out.
    """
    context = (length + 1) / 2
    trained = TRAINING * forward(config, context) * trained_tokens
    return Work(trained_tokens, sampled_tokens, trained + forward(config, context, latent=True) * sampled_tokens)


def active_parameters(config: Config) -> int:
    """Return how many weights one token is multiplied with: the head is among them, the embedding's look-up is not.

    The multi-token-prediction layers are left out: they work in neither sampling nor reinforcement learning.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    dense = layers if "n_routed_experts" not in config else min(layers, config.get("first_k_dense_replace", 0))
    total = hidden * config["vocab_size"] + layers * _projections(config)
    total += dense * 3 * hidden * config["intermediate_size"]
    return total + (layers - dense) * _mixture(config) if layers > dense else total


def _mixture(config: Config) -> int:
    hidden, routed = config["hidden_size"], config["n_routed_experts"]
    experts = config["num_experts_per_tok"] + (config.get("n_shared_experts") or 0)
    return hidden * routed + experts * 3 * hidden * config["moe_intermediate_size"]


def _projections(config: Config) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if "kv_lora_rank" not in config:
        key_heads = config.get("num_key_value_heads") or heads
        return 2 * hidden * _head_dim(config) * (heads + key_heads)
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    rank, query_rank = config["kv_lora_rank"], config.get("q_lora_rank")
    query = heads * (nope + rope)
    total = hidden * query_rank + query_rank * query if query_rank else hidden * query
    # W_kvb costs the same applied to keys and values as absorbed into queries and outputs.
    return total + hidden * (rank + rope) + rank * heads * (nope + value) + heads * value * hidden


def _attention(config: Config, latent: bool) -> int:
    """Return the FLOPs of one layer's scores and weighted values for one query and one position."""
    heads = config["num_attention_heads"]
    if "kv_lora_rank" not in config:
        return 2 * heads * 2 * _head_dim(config)
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    if latent:
        return 2 * heads * (rank + rope + rank)
    return 2 * heads * (config["qk_nope_head_dim"] + rope + config["v_head_dim"])


def _head_dim(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
