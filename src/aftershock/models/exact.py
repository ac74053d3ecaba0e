"""A model made exact: what it computes of a token has the same bits in the sampler's forward and the learner's."""

import torch
from torch import Tensor, nn

from aftershock.models import invariant
from aftershock.models.attention import GroupedAttention, LatentAttention, Store
from aftershock.models.causal_lm import CausalLM
from aftershock.models.layers import Context, GatedMLP, Linear, RMSNorm
from aftershock.models.moe import Experts, Gate
from aftershock.models.recorded import Recorder


def make_exact(model: CausalLM) -> None:
    """Let a float32 model's parts compute in their exact forms from now on, with the weights they have."""
    for module in model.modules():
        module.__class__ = _FORMS.get(type(module), type(module))
    model._recorder = Recorder()  # a step recorded before would be replayed as it was


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return invariant.linear(x, self.weight, self.bias)


class _RMSNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x)


class _GatedMLP(GatedMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(invariant.silu(self.gate_proj(x)) * self.up_proj(x))


class _Gate(Gate):
    def scores(self, x: Tensor) -> Tensor:
        return invariant.sigmoid(invariant.linear(x.float(), self.weight.float()))


class _Experts(Experts):
    exact = True

    def gated(self, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, -1)
        return invariant.silu(gate) * up

    def multiply(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        if not invariant.tiled(x):
            return super().multiply(x, weight, ends)
        parts = x.split(ends.diff(prepend=ends.new_zeros(1)).tolist())
        return torch.cat([invariant.linear(part, w) for part, w in zip(parts, weight.unbind())])


class _GroupedAttention(GroupedAttention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context, store: Store) -> Tensor:
        slots = context.slots
        if slots is not None and store is not None and slots.bias is not None:
            k, v = slots.read(store[0]), slots.read(store[1])
        return _attend(q, k, v, self.scale, context)


class _LatentAttention(LatentAttention):
    def attend(
        self, q: tuple[Tensor, Tensor], latent: Tensor, k_rope: Tensor, context: Context, store: Store
    ) -> Tensor:
        """Attend among latents, as over a cache, whichever form the forward has."""
        c, heads = self.config, self.config.num_attention_heads
        w_k, w_v = self.kv_b_proj.weight.unflatten(0, (heads, -1)).split((c.qk_nope_head_dim, c.v_head_dim), 1)
        seen, slots = torch.cat((latent.unsqueeze(2), k_rope), -1), context.slots
        if slots is not None and store is not None and slots.bias is not None:
            seen = slots.read(store[0]).unsqueeze(2)
        absorbed = torch.cat((_each_head(q[0], w_k), q[1]), -1)
        mixed = _attend(absorbed, seen, seen[..., : c.kv_lora_rank], self.scale, context)
        return _each_head(mixed, w_v.transpose(1, 2)).flatten(2)


class _CausalLM(CausalLM):
    exact = True

    def logits(self, hidden: Tensor) -> Tensor:
        return invariant.linear(hidden, self.head_weight)


_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    Linear: _Linear,
    nn.Linear: _Linear,
    RMSNorm: _RMSNorm,
    GatedMLP: _GatedMLP,
    Gate: _Gate,
    Experts: _Experts,
    GroupedAttention: _GroupedAttention,
    LatentAttention: _LatentAttention,
    CausalLM: _CausalLM,
}


def _each_head(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x [batch, time, heads, in] by each head's own weight [heads, in, out]."""
    rows = x.flatten(0, 1).transpose(0, 1)
    return invariant.product(rows, weight).transpose(0, 1).unflatten(0, x.shape[:2])


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float, context: Context) -> Tensor:
    """Return what q [batch, time, heads, dim] sees of k, v [batch, length, kv heads, ..], in any form of the forward.

    [batch, time, heads, value dim]. Heads that share keys are laid side by side.
    """
    together = q.unflatten(2, (k.shape[2], -1)).flatten(3)  # [batch, time, kv heads, shared x dim]
    packing, slots = context.packing, context.slots
    if packing is not None:
        spread = [packing.spread(x, k.shape[2]) for x in (together, k, v)]
        parts = [
            invariant.causal(x.unflatten(-1, (-1, q.shape[-1])), keys, values, scale).flatten(3)
            for x, keys, values in zip(*spread)
        ]
        return packing.gather(parts).unflatten(-1, (-1, v.shape[-1])).flatten(2, 3)
    turned = together.unflatten(-1, (-1, q.shape[-1])).transpose(1, 2)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    if slots is None or slots.bias is None:
        out = invariant.causal(turned, k, v, scale)
    else:
        out = invariant.attention(turned, k, v, scale, slots.bias)
    return out.transpose(1, 2).flatten(2, 3)
