"""Tiny random checkpoints made with transformers, and ours beside them."""

import torch
from transformers import PreTrainedModel
from transformers.models.deepseek_v3 import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.llama import LlamaConfig, LlamaForCausalLM
from transformers.models.qwen2 import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen3 import Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

torch.set_num_threads(1)
logging.set_verbosity_error()
logging.disable_progress_bar()

VOCAB = 89
_FAMILY = {
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "max_position_embeddings": 128,
    "bos_token_id": 3,
    "eos_token_id": 4,
}
_DEEPSEEK = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 12,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "kv_lora_rank": 10,
    "q_lora_rank": 14,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "first_k_dense_replace": 1,
}
_DENSE = {"num_key_value_heads": 2, "head_dim": 8}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32,
    "beta_slow": 1,
}


def theirs(model_type: str, seed: int = 0, **options: object) -> PreTrainedModel:
    """A random float32 model of transformers; every bias, norm and correction bias is random too (zeros hide bugs)."""
    config_class, model_class = _FAMILY[model_type]
    own = _DEEPSEEK if model_type == "deepseek_v3" else _DENSE
    torch.manual_seed(seed)
    model = model_class._from_config(config_class(**{**_SIZES, **own, **options}), **eager(model_type)).float().eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("bias"):
                tensor.normal_(0, 0.3)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.normal_(1, 0.2)
    return model


def eager(model_type: str) -> dict[str, str]:
    """transformers' default experts refuse rows that aren't a multiple of 16 bytes; its plain loop doesn't."""
    return {"experts_implementation": "eager"} if model_type == "deepseek_v3" else {}


def their_class(model_type: str) -> type[PreTrainedModel]:
    return _FAMILY[model_type][1]


def tokens(batch: int, time: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, VOCAB, (batch, time), generator=torch.Generator().manual_seed(seed))
