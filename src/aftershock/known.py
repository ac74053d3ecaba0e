"""`config.json` of the published models that recipes name, so that plans and dry runs need neither download nor torch.

Sources: each model's own config.json on the hub, from which keys that change nothing here are left out. Those of the
distilled models from 7B on and of Qwen3-8B are from memory: their sizes agree with the published counts to the last
weight (see the tests), but nothing here has checked their positions and bases. What a run loads is always the folder's
own file.
"""

from collections.abc import Mapping
from typing import Any

from aftershock.errors import CheckpointError

_QWEN = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
}
_QWEN_MATH = {"rope_theta": 1e4, "max_position_embeddings": 4096}  # Qwen2.5-Math, arXiv 2409.12122
_R1_DISTILL = {**_QWEN_MATH, "max_position_embeddings": 131072, "bos_token_id": 151646}
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "tie_word_embeddings": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
_R1 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "first_k_dense_replace": 3,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "n_group": 8,
    "topk_group": 4,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 1,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def _sized(hidden: int, inner: int, layers: int, heads: int, *tables: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return {key: value for table in (sizes, *tables) for key, value in table.items()}


_WIDE = {"vocab_size": 152064, "num_key_value_heads": 4, "tie_word_embeddings": False}  # of the 7B
_WIDER = {**_WIDE, "num_key_value_heads": 8, "max_position_embeddings": 131072, "bos_token_id": 151646}  # 14B, 32B
_DISTILL = "deepseek-ai/DeepSeek-R1-Distill-"
_KNOWN = {
    "Qwen/Qwen2.5-0.5B": _sized(896, 4864, 24, 14, _QWEN),
    "Qwen/Qwen2.5-1.5B": _sized(1536, 8960, 28, 12, _QWEN, {"max_position_embeddings": 131072}),
    "Qwen/Qwen2.5-3B": _sized(2048, 11008, 36, 16, _QWEN),
    "Qwen/Qwen2.5-7B": _sized(3584, 18944, 28, 28, _QWEN, _WIDE, {"max_position_embeddings": 131072}),
    "Qwen/Qwen2.5-Math-1.5B": _sized(1536, 8960, 28, 12, _QWEN, _QWEN_MATH),
    "Qwen/Qwen2.5-Math-7B": _sized(3584, 18944, 28, 28, _QWEN, _WIDE, _QWEN_MATH),
    f"{_DISTILL}Qwen-1.5B": _sized(1536, 8960, 28, 12, _QWEN, _R1_DISTILL, {"tie_word_embeddings": False}),
    f"{_DISTILL}Qwen-7B": _sized(3584, 18944, 28, 28, _QWEN, _WIDE, _R1_DISTILL),
    f"{_DISTILL}Qwen-14B": _sized(5120, 13824, 48, 40, _QWEN, _WIDER),
    f"{_DISTILL}Qwen-32B": _sized(5120, 27648, 64, 40, _QWEN, _WIDER),
    f"{_DISTILL}Llama-8B": _sized(4096, 14336, 32, 32, _LLAMA),
    f"{_DISTILL}Llama-70B": _sized(8192, 28672, 80, 64, _LLAMA),
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": _sized(4096, 12288, 36, 32, _QWEN3),
    "meta-llama/Llama-3.1-8B": _sized(4096, 14336, 32, 32, _LLAMA),
    "deepseek-ai/DeepSeek-V3": _sized(7168, 18432, 61, 128, _R1),
    "deepseek-ai/DeepSeek-R1": _sized(7168, 18432, 61, 128, _R1),
}


def names() -> list[str]:
    """Return the names of the models that are known here, as the hub has them."""
    return list(_KNOWN)


def known_config(name: str) -> dict[str, Any]:
    """Return the fields of a published model's config.json, for `ModelConfig.from_dict`.

    `name` is ORG/NAME; a `hub:` before it and a revision (`@...`) behind it change nothing. Raises CheckpointError for
    one that isn't known here.

    >>> known_config("hub:Qwen/Qwen2.5-0.5B@main")["hidden_size"]
    896
    """
    bare = name.removeprefix("hub:").partition("@")[0]
    if bare not in _KNOWN:
        raise CheckpointError(
            f"the shape of {bare!r} is not known here: download it and name its folder, or one of {', '.join(_KNOWN)}"
        )
    return dict(_KNOWN[bare])
