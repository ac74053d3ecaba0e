"""deepseek_v3's layers described to C: latent attention (latent.h) and a mixture of experts (experts.h)."""

from collections.abc import Callable
from ctypes import POINTER, Structure, c_float, c_long, c_void_p

from torch import Tensor

from aftershock.models.attention import LatentAttention
from aftershock.models.moe import MixtureOfExperts
from aftershock.models.native.packed import Packed

Pack = Callable[[Tensor, Tensor | None], Packed]  # describes a matrix [outs, ins] and its bias


class Latent(Structure):
    """latent.h's Latent."""

    _fields_ = [
        *((name, c_long) for name in ("heads", "rank", "rope", "plain", "value", "interleave")),
        *((name, c_float) for name in ("scale", "eps")),
        *((name, c_void_p) for name in ("q_norm", "kv_norm")),
        *((name, Packed) for name in ("q_down", "q", "kv", "out")),
        *((name, POINTER(Packed)) for name in ("keys", "values")),
    ]


class _Expert(Structure):
    _fields_ = [(name, Packed) for name in ("gate", "up", "down")]


class Mixture(Structure):
    """experts.h's Mixture."""

    _fields_ = [
        *((name, c_long) for name in ("experts", "chosen", "groups", "kept", "normed")),
        ("scaling", c_float),
        ("correction", c_void_p),
        ("gate", Packed),
        ("shared", _Expert),
        ("expert", POINTER(_Expert)),
    ]


def latent(module: LatentAttention, pack: Pack, pack_anew: Pack) -> Latent:
    """Describe latent attention; `pack_anew` is for matrices that lie nowhere as C wants them."""
    c, heads = module.config, module.config.num_attention_heads
    w_k, w_v = module.kv_b_proj.weight.unflatten(0, (heads, -1)).split((c.qk_nope_head_dim, c.v_head_dim), 1)
    low = c.q_lora_rank is not None
    q, kv, out = module.q_b_proj if low else module.q_proj, module.kv_a_proj_with_mqa, module.o_proj
    return Latent(
        *(heads, c.kv_lora_rank, c.qk_rope_head_dim, c.qk_nope_head_dim, c.v_head_dim, c.rope_interleave),
        *(module.scale, module.kv_a_layernorm.eps),
        *(module.q_a_layernorm.weight.data_ptr() if low else None, module.kv_a_layernorm.weight.data_ptr()),
        pack(module.q_a_proj.weight, module.q_a_proj.bias) if low else Packed(),
        *(pack(matrix.weight, matrix.bias) for matrix in (q, kv, out)),
        (Packed * heads)(*(pack_anew(weight.T.contiguous(), None) for weight in w_k)),
        (Packed * heads)(*(pack(weight, None) for weight in w_v)),
    )


def mixture(module: MixtureOfExperts, pack: Pack) -> Mixture:
    """Describe a gate, its experts and the shared ones."""
    gate, c, shared = module.gate, module.gate.config, module.shared_experts
    stacks = (*module.experts.gate_up_proj.chunk(2, 1), module.experts.down_proj)
    experts = [_Expert(*(pack(matrix, None) for matrix in matrices)) for matrices in zip(*stacks)]
    own = [] if shared is None else [shared.gate_proj, shared.up_proj, shared.down_proj]
    return Mixture(
        *(c.n_routed_experts, c.num_experts_per_tok, c.n_group, c.topk_group, c.norm_topk_prob),
        *(c.routed_scaling_factor, gate.e_score_correction_bias.data_ptr()),
        pack(gate.weight, None),
        _Expert(*(pack(matrix.weight, matrix.bias) for matrix in own)),
        (_Expert * len(experts))(*experts),
    )
