"""Rotary position embedding and its scalings: Su et al., arXiv 2104.09864; YaRN, arXiv 2309.00071; Llama 3.1's own."""

import math

import torch
from torch import Tensor

from aftershock.errors import CapacityError
from aftershock.models.config import Rope

_FIRST_TABLE = 1024  # positions; tables double from here as longer sequences come


def mscale(factor: float, weight: float) -> float:
    """Return YaRN's magnitude, 0.1 * weight * ln(factor) + 1 (arXiv 2309.00071, eq. 22); 1 if nothing is stretched."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def frequencies(rope: Rope, dim: int, max_position: int) -> Tensor:
    """Return the angle a position adds to each pair of values, Float[dim / 2]."""
    plain = rope.theta ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if rope.kind == "linear":
        return plain / rope.params["factor"]
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        return _yarn(plain, rope, dim, max_position)
    return plain


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Slow waves are stretched by `factor`, quick ones kept, those between blended by wavelength."""
    p = rope.params
    turns = p["original_max_position_embeddings"] * plain / (2 * math.pi)
    keep = (turns - p["low_freq_factor"]) / (p["high_freq_factor"] - p["low_freq_factor"])
    keep = keep.clamp(0, 1)
    return plain * keep + plain / p["factor"] * (1 - keep)


def _yarn_factor(rope: Rope, max_position: int) -> float:
    return float(rope.params.get("factor") or max_position / rope.params["original_max_position_embeddings"])


def _yarn(plain: Tensor, rope: Rope, dim: int, max_position: int) -> Tensor:
    """NTK-by-parts (arXiv 2309.00071, eq. 17 to 19): quick pairs are kept, slow ones stretched."""
    original = rope.params["original_max_position_embeddings"]

    def pair_that_turns(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.params.get("beta_fast") or 32), pair_that_turns(rope.params.get("beta_slow") or 1)
    if rope.params.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    stretch = ((torch.arange(dim // 2) - low) / ((high - low) or 0.001)).clamp(0, 1)
    return plain / _yarn_factor(rope, max_position) * stretch + plain * (1 - stretch)


def magnitude(rope: Rope, max_position: int) -> float:
    """Return what cos and sin are multiplied by: YaRN's ratio of mscales, or 0.1 ln(factor) + 1 without them."""
    if rope.kind != "yarn":
        return 1.0
    if rope.params.get("attention_factor") is not None:
        return float(rope.params["attention_factor"])
    factor = _yarn_factor(rope, max_position)
    over, under = rope.params.get("mscale"), rope.params.get("mscale_all_dim")
    return mscale(factor, over) / mscale(factor, under) if over and under else mscale(factor, 1.0)


class RotaryTable:
    """cos and signed sin of every position, kept in float32 whatever the model's dtype and grown when needed.

    Not a module: `model.to(bfloat16)` must not round angles.
    """

    def __init__(self, rope: Rope, dim: int, max_position: int, *, interleave: bool) -> None:
        self.rope, self.dim, self.max_position, self.interleave = rope, dim, max_position, interleave
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def upto(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cos and signed sin, Float[at least length, dim] each, on a device."""
        table = self._tables.get(device)
        if table is None or table[0].shape[0] < length:
            if self.rope.kind == "dynamic" and length > self.max_position:
                raise CapacityError(
                    f"a sequence of {length} tokens needs dynamic rope scaling past max_position_embeddings "
                    f"{self.max_position}, which isn't implemented: shorten it, or use a yarn or linear rope"
                )
            size = max(_FIRST_TABLE, 2 ** math.ceil(math.log2(length)))
            table = tuple(part.to(device) for part in self._compute(size))  # type: ignore[assignment]
            self._tables[device] = table  # type: ignore[assignment]
        return table  # type: ignore[return-value]

    def _compute(self, size: int) -> tuple[Tensor, Tensor]:
        angles = torch.outer(
            torch.arange(size, dtype=torch.float32), frequencies(self.rope, self.dim, self.max_position)
        )
        scale = magnitude(self.rope, self.max_position)
        cos, sin = angles.cos() * scale, angles.sin() * scale
        axis = -1 if self.interleave else -2
        return torch.stack((cos, cos), axis).flatten(1), torch.stack((-sin, sin), axis).flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleave: bool) -> Tensor:
    """Rotate the pairs of x [batch, time, heads, dim] by tables [batch or 1, time, 1, dim].

    Pairs are neighbours (DeepSeek's `rope_interleave`) or lie half a head apart (Llama). The tables carry the sign, so
    one product with the swapped pairs is enough. Computed in the tables' float32.
    """
    if interleave:
        swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    else:
        swapped = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return torch.addcmul(x * cos, swapped, sin).to(x.dtype)
