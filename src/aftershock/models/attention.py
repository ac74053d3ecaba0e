"""Two attentions: grouped-query (qwen2, qwen3, llama) and multi-head latent (deepseek_v3)."""

import torch
from torch import Tensor, nn

from aftershock.models.config import DeepseekConfig, DenseConfig
from aftershock.models.layers import Context, Linear, RMSNorm, cached_attention, linears
from aftershock.models.rope import mscale

Store = tuple[Tensor, ...] | None  # a layer's part of a cache
_LATENT_EPS = 1e-6  # DeepSeek's inference code and transformers both fix it, whatever rms_norm_eps says


class GroupedAttention(nn.Module):
    """Grouped-query attention (Ainslie et al., arXiv 2305.13245) with optional biases and per-head norms."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        dim, heads, kv_heads = config.rope_dim, config.num_attention_heads, config.kv_heads
        self.dim, self.scale = dim, dim**-0.5
        self.q_proj = Linear(config.hidden_size, heads * dim, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, kv_heads * dim, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, kv_heads * dim, bias=config.qkv_bias)
        self.o_proj = Linear(heads * dim, config.hidden_size, bias=config.out_bias)
        self.q_norm = RMSNorm(dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()

    @staticmethod
    def cache_shapes(config: DenseConfig) -> list[tuple[int, ...]]:
        """Return what one token takes in one layer: keys and values."""
        return [(config.kv_heads, config.rope_dim)] * 2

    def forward(self, x: Tensor, context: Context, store: Store) -> Tensor:
        """x [batch, time, hidden]; `store` is the layer's (keys, values), each [rows, capacity, kv heads, dim]."""
        parts = linears(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (part.unflatten(-1, (-1, self.dim)) for part in parts)
        q, k = self.q_norm(q), self.k_norm(k)
        q, k = context.rotate(q, k, interleave=False)
        if context.slots is not None and store is not None:
            context.slots.write(store[0], k)
            context.slots.write(store[1], v)
        return self.o_proj(self.attend(q, k, v, context, store).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context, store: Store) -> Tensor:
        """Return what each query sees, [batch, time, heads, dim], among what `store` holds or what is given."""
        slots = context.slots
        if slots is not None and store is not None and slots.bias is not None:
            keys, values = slots.read(store[0]).to(q.dtype), slots.read(store[1]).to(q.dtype)
            return cached_attention(q, keys, values, self.scale, slots.bias)
        return context.attend(q, k, v, self.scale)


class LatentAttention(nn.Module):
    """Multi-head latent attention [V3 2.1.1, eq. 1 to 11].

    A token leaves one latent (kv_lora_rank values) and one rotated key shared by all heads. Without a cache, keys and
    values are unfolded from it (naive form); over a cache, the unfolding is absorbed into queries and outputs.
    """

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        hidden, heads, bias = config.hidden_size, config.num_attention_heads, config.attention_bias
        self.config = config
        self.scale = config.qk_head_dim**-0.5 * _yarn_temperature(config)
        if config.q_lora_rank is None:
            self.q_proj = Linear(hidden, heads * config.qk_head_dim, bias=False)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, _LATENT_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, heads * config.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden, config.kv_lora_rank + config.qk_rope_head_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, _LATENT_EPS)
        self.kv_b_proj = Linear(config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim), bias=False)
        self.o_proj = Linear(heads * config.v_head_dim, hidden, bias=bias)

    @staticmethod
    def cache_shapes(config: DeepseekConfig) -> list[tuple[int, ...]]:
        """Return what one token takes in one layer: its latent and its rotated key, in one tensor."""
        return [(config.kv_lora_rank + config.qk_rope_head_dim,)]

    def forward(self, x: Tensor, context: Context, store: Store) -> Tensor:
        """x [batch, time, hidden]; `store` is the layer's one tensor [rows, capacity, kv_lora_rank + rope]."""
        q_plain, q_rope, latent, k_rope = self._project(x, context)
        if context.slots is not None and store is not None:
            context.slots.write(store[0], torch.cat((latent, k_rope.squeeze(2)), -1))
        return self.o_proj(self.attend((q_plain, q_rope), latent, k_rope, context, store))

    def attend(
        self, q: tuple[Tensor, Tensor], latent: Tensor, k_rope: Tensor, context: Context, store: Store
    ) -> Tensor:
        """Return what each query sees, [batch, time, heads x value dim], among what `store` holds or what is given."""
        if context.slots is not None and store is not None and context.slots.bias is not None:
            return self._absorbed(*q, context.slots.read(store[0]), context.slots.bias)
        return self._naive(*q, latent, k_rope, context)

    def _project(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the queries' two parts [batch, time, heads, ..], the latent and the shared key [.., 1, rope]."""
        c = self.config
        q = self.q_proj(x) if c.q_lora_rank is None else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.unflatten(-1, (c.num_attention_heads, c.qk_head_dim))
        q_plain, q_rope = q.split((c.qk_nope_head_dim, c.qk_rope_head_dim), -1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split((c.kv_lora_rank, c.qk_rope_head_dim), -1)
        (both,) = context.rotate(torch.cat((q_rope, k_rope.unsqueeze(2)), 2), interleave=c.rope_interleave)
        q_rope, k_rope = both.split((c.num_attention_heads, 1), 2)
        return q_plain, q_rope, self.kv_a_layernorm(latent), k_rope

    def _naive(self, q_plain: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, context: Context) -> Tensor:
        c = self.config
        unfolded = self.kv_b_proj(latent).unflatten(-1, (c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim))
        k_plain, v = unfolded.split((c.qk_nope_head_dim, c.v_head_dim), -1)
        q = torch.cat((q_plain, q_rope), -1)
        k = torch.cat((k_plain, k_rope.expand(-1, -1, c.num_attention_heads, -1).to(k_plain.dtype)), -1)
        return context.attend(q, k, v, self.scale).flatten(2)

    def _absorbed(self, q_plain: Tensor, q_rope: Tensor, seen: Tensor, bias: Tensor) -> Tensor:
        """Attend among latents: q W_k against `seen` [batch, length, rank + rope], then W_v on the mixed latent."""
        c, (batch, time, heads, _) = self.config, q_plain.shape
        weight = self.kv_b_proj.weight.to(q_plain.dtype).unflatten(0, (heads, -1))
        w_k, w_v = weight.split((c.qk_nope_head_dim, c.v_head_dim), 1)
        q_latent = torch.bmm(q_plain.flatten(0, 1).transpose(0, 1), w_k).transpose(0, 1)
        q = torch.cat((q_latent, q_rope.flatten(0, 1)), -1).view(batch, time * heads, -1)
        seen = seen.to(q.dtype)
        bias = (bias if time == 1 else bias.repeat_interleave(heads, dim=1)).to(q.dtype)
        scores = torch.baddbmm(bias, q, seen.transpose(1, 2), alpha=self.scale)
        weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
        mixed = torch.bmm(weights, seen[..., : c.kv_lora_rank]).view(batch * time, heads, -1)
        out = torch.bmm(mixed.transpose(0, 1), w_v.transpose(1, 2))
        return out.transpose(0, 1).reshape(batch, time, -1)


def _yarn_temperature(config: DeepseekConfig) -> float:
    """mscale^2 on the softmax scale where YaRN is on and mscale_all_dim is given (DeepSeek's inference code)."""
    rope = config.rope
    weight = rope.params.get("mscale_all_dim")
    if rope.kind != "yarn" or not weight:
        return 1.0
    stretch = config.max_position_embeddings / rope.params["original_max_position_embeddings"]
    return mscale(rope.params.get("factor") or stretch, weight) ** 2
