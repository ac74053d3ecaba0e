"""AdamW whose moments take a byte each: block-wise 8-bit optimiser states (Dettmers et al., arXiv 2110.02861).

A block of 256 values shares a float32 scale, its largest magnitude; a byte points into a map of 256 values in [-1, 1]
that lie densest near zero. In float32 only a piece of one weight's moments is unpacked at a time.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 256  # values that share a scale; the paper has 2,048, its authors' library came to 256
SMALLEST = 4096  # values; weights of fewer, and vectors, keep float32 moments [2110.02861, 4]
_PIECE = BLOCK * 4096  # values unpacked at once
_SIGNED = {"exp_avg": True, "exp_avg_sq": False}  # the moments, and whether they can be negative


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (arXiv 1711.05101); large matrices keep `exp_avg` and `exp_avg_sq` as bytes [blocks, 256] with `*_scale`.

    Weights are contiguous float32. Nothing is drawn: the same gradients give the same bits.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float = 1e-8) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient; `closure` is not asked."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state |= new_state(weight)
        state["step"] += 1
        step = int(state["step"])
        if "exp_avg_scale" not in state:
            _update(weight, grad, state["exp_avg"], state["exp_avg_sq"], step, group)
            return
        flat, grad = weight.view(-1), grad.reshape(-1)
        for start in range(0, len(flat), _PIECE):
            blocks = slice(start // BLOCK, (start + _PIECE) // BLOCK)
            part = slice(start, start + _PIECE)
            moments = [_unpacked(state, key, blocks) for key in _SIGNED]
            mean, square = (moment.view(-1)[: len(flat[part])] for moment in moments)
            _update(flat[part], grad[part], mean, square, step, group)
            for key, moment in zip(_SIGNED, moments):
                _pack(state, key, blocks, moment)


def new_state(weight: Tensor) -> dict[str, Tensor]:
    """Return a weight's state before its first step, on its device; under a scale of 0, all bytes mean zero."""
    place = weight.device
    step = torch.zeros((), device=place)
    if weight.ndim < 2 or weight.numel() < SMALLEST:
        return {**{key: torch.zeros(weight.shape, device=place) for key in _SIGNED}, "step": step}
    blocks = -(-weight.numel() // BLOCK)
    bytes_ = {key: torch.zeros(blocks, BLOCK, dtype=torch.uint8, device=place) for key in _SIGNED}
    return {**bytes_, **{f"{key}_scale": torch.zeros(blocks, device=place) for key in _SIGNED}, "step": step}


def _update(weight: Tensor, grad: Tensor, mean: Tensor, square: Tensor, step: int, group: dict[str, Any]) -> None:
    """One AdamW step in place, of one shape throughout."""
    first, second = group["betas"]
    mean.lerp_(grad, 1 - first)
    square.mul_(second).addcmul_(grad, grad, value=1 - second)
    spread = (square.sqrt() / (1 - second**step) ** 0.5).add_(group["eps"])
    weight.mul_(1 - group["lr"] * group["weight_decay"]).addcdiv_(mean, spread, value=-group["lr"] / (1 - first**step))


@cache
def dynamic_map(signed: bool) -> Tensor:
    """Return the values that bytes stand for, ascending, Float[255 or 256] [2110.02861, 1.3].

    Seven powers of ten from 1 down; each halves the number of even steps in [0.1, 1] times its power. Zero is not in
    the unsigned map: a weight whose second moment were rounded to it would move by its mean over eps.
    """
    steps = [2 ** (6 - power) * (1 if signed else 2) for power in range(7)]
    edges = [torch.linspace(0.1, 1, count + 1, dtype=torch.float64) * 10.0**-p for p, count in enumerate(steps)]
    positive = torch.cat([torch.ones(1), *[(edge[1:] + edge[:-1]) / 2 for edge in edges]]).sort().values
    return (torch.cat([-positive[:-1].flip(0), torch.zeros(1), positive]) if signed else positive).float()


def _unpacked(state: dict[str, Tensor], key: str, blocks: slice) -> Tensor:
    """Return a moment's blocks in float32, [blocks, 256]."""
    values = dynamic_map(_SIGNED[key]).to(state[key].device)
    return values[state[key][blocks].int()] * state[f"{key}_scale"][blocks, None]


def _pack(state: dict[str, Tensor], key: str, blocks: slice, moment: Tensor) -> None:
    """Write a moment's blocks [blocks, 256] as the nearest values of the map."""
    values = dynamic_map(_SIGNED[key]).to(moment.device)
    scale = moment.abs().amax(1)
    shares = moment / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    state[key][blocks] = torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True).byte()
    state[f"{key}_scale"][blocks] = scale
