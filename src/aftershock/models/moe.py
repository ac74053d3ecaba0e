"""DeepSeekMoE: sigmoid gate with node-limited top-k, shared experts, auxiliary-loss-free balance [V3 2.1.2]."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aftershock.models.config import DeepseekConfig
from aftershock.models.layers import GatedMLP, narrowed
from aftershock.models.native import train as native

ROW_STEP = 4  # rows; a matrix product of fewer takes another kernel, whose last bits differ


class Gate(nn.Module):
    """Chooses experts by sigmoid score plus a bias, weighs them by the score alone [V3 eq. 12 to 16], in float32.

    `counts` Long[experts] are the tokens each expert was given by forwards in training mode since `balance`.
    """

    counts: Tensor
    e_score_correction_bias: Tensor

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))
        self.register_buffer("counts", torch.zeros(config.n_routed_experts, dtype=torch.long), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Keep the bias in float32 when the model's dtype changes: bfloat16 would swallow steps of 0.001."""
        before = self.e_score_correction_bias
        super()._apply(fn, recurse)
        after = self.e_score_correction_bias
        if after.dtype != torch.float32:
            self.e_score_correction_bias = before.to(after.device)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the chosen experts Long[tokens, k] and their weights Float[tokens, k] for x [tokens, hidden]."""
        with torch.autocast(x.device.type, enabled=False):
            scores = self.scores(x)
            chosen = self._choose(scores.detach() + self.e_score_correction_bias)
        weights = scores.gather(1, chosen)
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        self.count(chosen)
        return chosen, weights * self.config.routed_scaling_factor

    def count(self, chosen: Tensor) -> None:
        """Add the experts chosen, Long[tokens, k], to the load, in training mode."""
        if self.training:
            self.counts += torch.bincount(chosen.flatten(), minlength=self.counts.numel())

    def scores(self, x: Tensor) -> Tensor:
        """Return every expert's affinity, Float[tokens, experts]."""
        return F.linear(x.float(), self.weight.float()).sigmoid()

    def _choose(self, scores: Tensor) -> Tensor:
        c = self.config
        if c.topk_group < c.n_group:
            groups = scores.unflatten(1, (c.n_group, -1))
            best = groups.topk(2, sorted=False).values.sum(-1).topk(c.topk_group, sorted=False).indices
            kept = torch.zeros_like(groups[..., 0], dtype=torch.bool).scatter_(1, best, True)
            scores = groups.masked_fill(~kept.unsqueeze(-1), float("-inf")).flatten(1)
        return scores.topk(c.num_experts_per_tok, sorted=False).indices


class Experts(nn.Module):
    """The routed experts, stacked: gate and up in one [experts, 2 x inner, hidden], down [experts, hidden, inner]."""

    exact = False

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        experts, inner, hidden = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, inner))

    def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts, [tokens, hidden], for x [tokens, hidden].

        Tokens are sorted by expert so that each expert is one matrix product.
        """
        order = chosen.flatten().argsort(stable=True)
        token = order // chosen.shape[1]
        ends = _counts(chosen.flatten(), self.down_proj.shape[0]).cumsum(0)
        x = narrowed(x)
        dtype = x.dtype
        sorted_x = x.index_select(0, token)
        place = None
        if self.exact or not torch.is_grad_enabled():
            sorted_x, place, ends = _padded(sorted_x, chosen.flatten().index_select(0, order), ends)
        both = self.multiply(sorted_x, self.gate_up_proj, ends)
        out = self.multiply(self.gated(both), self.down_proj, ends)
        out = out if place is None else out.index_select(0, place)
        out = out * weights.flatten().index_select(0, order).unsqueeze(-1).to(dtype)
        return torch.zeros_like(x).index_add(0, token, out)

    def gated(self, both: Tensor) -> Tensor:
        """Return silu(gate) * up, [n, inner], for gate and up side by side."""
        if native.serves(both):
            return native.gated_halves(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate) * up

    def multiply(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        """Multiply x [n, in], sorted by expert and ending at `ends` Long[experts], by each expert's [out, in]."""
        return _grouped_linear(x, weight.to(x.dtype), ends)


def _seen(x: Tensor) -> bool:
    """Whether the host sees values for nothing. It would wait for a GPU's, and a graph can't be captured of that."""
    return x.device.type == "cpu"


def _counts(chosen: Tensor, experts: int) -> Tensor:
    """Return how often each expert was chosen, Long[experts]."""
    if _seen(chosen):
        return torch.bincount(chosen, minlength=experts)
    return chosen.new_zeros(experts).scatter_add_(0, chosen, torch.ones_like(chosen))


def _padded(x: Tensor, expert: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Spread rows x [n, in], sorted by `expert` Long[n], so that each expert has a multiple of `ROW_STEP` of them.

    Returns the longer x, the place of each row in it, and the new ends: in sampling, a token's bits then don't depend
    on how many of its batch went to the same expert. Rows past the last end, on a GPU, belong to none.
    """
    counts = ends.diff(prepend=ends.new_zeros(1))
    padded = (counts + ROW_STEP - 1) // ROW_STEP * ROW_STEP
    new_ends = padded.cumsum(0)
    shift = (new_ends - padded) - (ends - counts)
    place = torch.arange(len(expert), device=x.device) + shift.index_select(0, expert)
    size = int(new_ends[-1]) if _seen(x) else len(x) + len(ends) * (ROW_STEP - 1)
    return x.new_zeros(size, x.shape[1]).index_copy_(0, place, x), place, new_ends


def _grouped_linear(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Multiply rows of x [n, in], sorted by expert and ending at `ends` Long[experts], by their expert's [out, in]."""
    aligned = 16 // x.element_size()  # the fused kernel wants rows of a multiple of 16 bytes
    if x.shape[1] % aligned == 0 and weight.shape[1] % aligned == 0:
        return F.grouped_mm(x, weight.transpose(1, 2), offs=ends.int())
    parts = x.split(ends.diff(prepend=ends.new_zeros(1)).tolist())
    return torch.cat([F.linear(part, w) for part, w in zip(parts, weight.unbind())])


class MixtureOfExperts(nn.Module):
    """Routed experts beside shared ones that see every token [V3 eq. 12]."""

    def __init__(self, config: DeepseekConfig) -> None:
        super().__init__()
        self.gate = Gate(config)
        self.experts = Experts(config)
        self.shared_experts: GatedMLP | None = None
        if config.n_shared_experts:
            self.shared_experts = GatedMLP(config.hidden_size, config.n_shared_experts * config.moe_intermediate_size)

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        """Return `more` and what all experts give for x, both [..., hidden]."""
        flat = x.flatten(0, -2)
        routed = self.experts(flat, *self.gate(flat)).view_as(x)
        return more + (routed if self.shared_experts is None else self.shared_experts(x, routed))


@torch.no_grad()
def balance(model: nn.Module, rate: float) -> dict[str, Tensor]:
    """Return each mixture's load since the last call and move its bias towards balance [V3 2.1.2].

    The load is Float[experts], shares that sum to 1 (all 0 where no token passed in training mode), by module name.
    The bias of every underloaded expert rises by `rate`, that of every overloaded one falls by it; no gradient.
    """
    loads = {}
    for name, module in model.named_modules():
        if isinstance(module, Gate):
            counts = module.counts.float()
            module.e_score_correction_bias += rate * (counts.mean() - counts).sign()
            loads[name.removesuffix(".gate")] = counts / counts.sum().clamp(min=1)
            module.counts.zero_()
    return loads
