"""A model made exact: what it computes of a token has the same bits in the sampler's forward and the learner's.

In float32 on a CPU with a C compiler, each row of any forward comes from the functions of the native decoding step;
elsewhere from `invariant`'s. Linear layers are then those of a plain learner (`native/linear.py`), here for any number
of rows and any size.
"""

import torch
from torch import Tensor, nn

from aftershock.models import invariant
from aftershock.models.attention import GroupedAttention, LatentAttention, Store
from aftershock.models.base import Segments
from aftershock.models.causal_lm import CausalLM
from aftershock.models.layers import Context, GatedMLP, Linear, RMSNorm
from aftershock.models.moe import Experts, Gate
from aftershock.models.native import exact as native
from aftershock.models.native import train
from aftershock.models.native.attend import Spans, attend
from aftershock.models.native.linear import linear, linear_into
from aftershock.models.native.step import in_place
from aftershock.models.recorded import Recorder


def make_exact(model: CausalLM) -> None:
    """Let a float32 model's parts compute in their exact forms from now on, with the weights they have."""
    large = in_place(model)
    for module in model.modules():
        if form := FORMS.get(type(module)):
            module.__class__ = form
            module.in_place = large  # type: ignore[assignment]
    model._recorder = Recorder()  # a step recorded before would be replayed as it was


def log_softmax(logits: Tensor) -> Tensor:
    """Return float32 log-probabilities [n, vocab] to the bits that an exact model's draws and its learner have."""
    return train.log_softmax(logits) if native.serves(logits) else logits.log_softmax(-1)


class _Linear(Linear):
    def native(self, x: Tensor) -> bool:
        return native.serves(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.native(x):
            return linear(x, self.weight, self.bias, self.in_place)
        return invariant.linear(x, self.weight, self.bias)


class _RMSNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return train.rms_norm(x, self.weight, self.eps) if native.serves(self.weight) else self.plain(x)


class _GatedMLP(GatedMLP):
    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return invariant.silu(gate) * up


class _Gate(Gate):
    in_place: bool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Choose from C's own products, as a decoding step does; without C as every gate."""
        if not native.serves(self.weight):
            return super().forward(x)
        products = linear(x, self.weight, None, self.in_place)
        chosen, weights = native.choose(products, self.e_score_correction_bias, self.config)
        self.count(chosen)
        return chosen, weights

    def scores(self, x: Tensor) -> Tensor:
        return invariant.sigmoid(invariant.linear(x.float(), self.weight.float()))


class _Experts(Experts):
    exact = True
    in_place: bool

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sum each token's experts in the order of their numbers, as a decoding step does; without C as others."""
        if not native.serves(self.down_proj):
            return super().forward(x, chosen, weights)
        order = chosen.flatten().argsort(stable=True)
        token = order // chosen.shape[1]
        counts = torch.bincount(chosen.flatten(), minlength=len(self.down_proj)).tolist()
        both = native.each_expert(x.index_select(0, token), self.gate_up_proj, counts, self.in_place)
        out = native.each_expert(train.gated_halves(both), self.down_proj, counts, self.in_place)
        return native.combine(out, weights.flatten().index_select(0, order), token, len(x))

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
        return (_see if context.exact else _attend)(q, k, v, self.scale, context)


class _LatentAttention(LatentAttention):
    in_place: bool

    def attend(
        self, q: tuple[Tensor, Tensor], latent: Tensor, k_rope: Tensor, context: Context, store: Store
    ) -> Tensor:
        """Attend among latents, as over a cache, whichever form the forward has."""
        c, heads = self.config, self.config.num_attention_heads
        w_k, w_v = self.kv_b_proj.weight.unflatten(0, (heads, -1)).split((c.qk_nope_head_dim, c.v_head_dim), 1)
        seen, slots = torch.cat((latent.unsqueeze(2), k_rope), -1), context.slots
        if slots is not None and store is not None and slots.bias is not None:
            seen = slots.read(store[0]).unsqueeze(2)
        absorbed = torch.cat((self._each_head(q[0], w_k.transpose(1, 2), False, context), q[1]), -1)
        see = _see if context.exact else _attend
        mixed = see(absorbed, seen, seen[..., : c.kv_lora_rank], self.scale, context)
        return self._each_head(mixed, w_v, self.in_place, context).flatten(2)

    def _each_head(self, x: Tensor, weight: Tensor, in_place: bool, context: Context) -> Tensor:
        """Multiply x [batch, time, heads, in] by each head's own weight [heads, out, in]."""
        rows = x.flatten(0, 1)
        if context.exact:
            return native.each_head(rows, weight, in_place).unflatten(0, x.shape[:2])
        return invariant.product(rows.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1).unflatten(0, x.shape[:2])


class _CausalLM(CausalLM):
    exact = True
    in_place: bool

    def logits(self, hidden: Tensor) -> Tensor:
        if native.serves(self.head_weight):
            return linear(hidden, self.head_weight, None, self.in_place)
        return invariant.linear(hidden, self.head_weight)

    def head_into(self, hidden: Tensor, to: Tensor) -> None:
        linear_into(hidden, self.head_weight, self.in_place, to)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
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


def _see(q: Tensor, k: Tensor, v: Tensor, scale: float, context: Context) -> Tensor:
    """Return `_attend` in C."""
    if context.slots is not None:
        return native.read(q, k, v, scale, context.slots.positions[:, 0])
    batch, time = q.shape[:2]
    spans = context.spans or Spans.of(Segments(torch.arange(batch + 1) * time, time))
    q, k, v = (x.flatten(0, 1)[None] for x in (q, k, v))
    return attend(q, k, v, scale, spans, exact=True).unflatten(1, (batch, time))[0]


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
