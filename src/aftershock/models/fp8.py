"""Products in FP8 as V3 trained: E4M3 values, a scale for a tile of 1 x 128 or a block of 128 x 128 [V3 3.3].

Of a linear layer, the forward, the gradient of its input and that of its weight are FP8 products with sums in float32;
master weights, their gradients and the moments stay float32, and what goes between layers bfloat16. Embedding, output
head, the gate, norms and attention itself are left as they were [3.3.1]. Not taken over: E5M6 for what attention's
output layer reads, scales that are powers of two, moments in bfloat16 [3.3.3].

On Hopper a product is one call of cuBLAS by `torch.nn.functional.scaled_mm`, which was NOT MEASURED on a GPU; elsewhere
the values are rounded to FP8 and multiplied in float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aftershock.models.layers import Linear, narrowed
from aftershock.models.moe import Experts

TILE = 128
LARGEST = 448.0  # of E4M3


@dataclass(frozen=True)
class Quantised:
    """A matrix as E4M3 `values` [m, n] times `scales` Float[m / rows, n / 128], one a tile of `rows` x 128.

    `rows` is 1 or 128; tiles at the edges are smaller.
    """

    values: Tensor
    scales: Tensor
    rows: int

    @classmethod
    def of(cls, x: Tensor, rows: int) -> "Quantised":
        """Round x [m, n] so that the largest magnitude of every tile is E4M3's."""
        tall, wide = x.shape
        padded = F.pad(x.float(), (0, -wide % TILE, 0, -tall % rows))
        tiles = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // TILE, TILE)
        scales = (tiles.abs().amax((1, 3)) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        values = (tiles / scales[:, None, :, None]).to(torch.float8_e4m3fn)
        return cls(values.view(padded.shape)[:tall, :wide], scales, rows)

    def plain(self) -> Tensor:
        """Return what the values stand for, in float32, [m, n]."""
        tall, wide = self.values.shape
        spread = self.scales.repeat_interleave(self.rows, 0)[:tall].repeat_interleave(TILE, 1)[:, :wide]
        return self.values.float() * spread

    def turned(self) -> "Quantised":
        """Return the transpose, as blocks of 128 x 128 are blocks either way."""
        return Quantised(self.values.t(), self.scales.t(), self.rows)


def product(a: Quantised, b: Quantised, dtype: torch.dtype) -> Tensor:
    """Return a b^T [m, n] in `dtype`, summed in float32, for a [m, k] in tiles of 1 x 128 and b [n, k] in either."""
    if _is_native(a.values) and not any(size % TILE for size in (*a.values.shape, *b.values.shape)):
        return _scaled(a, b, dtype)
    with torch.autocast(a.values.device.type, enabled=False):
        return (a.plain() @ b.plain().t()).to(dtype)


def _is_native(x: Tensor) -> bool:
    """Whether the device multiplies such tiles itself: Hopper alone does."""
    return x.is_cuda and torch.cuda.get_device_capability(x.device) == (9, 0)


def _scaled(a: Quantised, b: Quantised, dtype: torch.dtype) -> Tensor:
    kinds = {1: F.ScalingType.BlockWise1x128, TILE: F.ScalingType.BlockWise128x128}
    return F.scaled_mm(
        a.values.contiguous(),
        b.values.contiguous().t(),
        scale_a=_laid(a),
        scale_recipe_a=kinds[a.rows],
        scale_b=_laid(b),
        scale_recipe_b=kinds[b.rows],
        output_dtype=dtype,
    )


def _laid(x: Quantised) -> Tensor:
    """Return the scales as cuBLAS reads them: tiles' [m, k] by columns; blocks' turned, k padded to a multiple of 4."""
    if x.rows == 1:
        return x.scales.t().contiguous().t()
    return F.pad(x.scales, (0, -x.scales.shape[1] % 4)).contiguous().t()


class _Product(torch.autograd.Function):
    """x [n, in] times weight [out, in] transposed; what is kept for the backward is in FP8."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        given, held = Quantised.of(x, 1), Quantised.of(weight, TILE)
        ctx.save_for_backward(given.values, given.scales, held.values, held.scales)
        ctx.dtypes = x.dtype, weight.dtype
        return product(given, held, x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and weight by FP8 products, each read in tiles along what is summed."""
        x, x_scales, weight, scales = ctx.saved_tensors
        (grad,), (dtype, held) = grads, ctx.dtypes
        to_x = product(Quantised.of(grad, 1), Quantised(weight, scales, TILE).turned(), dtype)
        # summed over tokens, so tiles lie along them: x's of 1 x 128 become 128 x 1 [3.5.2]
        read = Quantised.of(Quantised(x, x_scales, 1).plain().t(), 1)
        return to_x, product(Quantised.of(grad.t(), 1), read, held)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [.., in] times weight [out, in] transposed, in x's dtype, by FP8 products; so its gradients."""
    rows = x.flatten(0, -2)
    short = -len(rows) % TILE if _is_native(x) else 0
    out = _Product.apply(F.pad(rows, (0, 0, 0, short)) if short else rows, weight)
    return out[: len(rows)].unflatten(0, x.shape[:-1])


def make_fp8(model: nn.Module) -> None:
    """Let the layers of a model's blocks multiply in FP8 wherever autocast is on; elsewhere they stay as they are."""
    for module in model.modules():
        module.__class__ = _FORMS.get(type(module), type(module))


class _Linear(Linear):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        out = linear(narrowed(x), self.weight)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class _Experts(Experts):
    """One product an expert: torch has no grouped one for such tiles on Hopper, so the host waits for the counts."""

    def multiply(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return super().multiply(x, weight, ends)
        parts = x.split(ends.diff(prepend=ends.new_zeros(1)).tolist())
        return torch.cat([linear(part, one) for part, one in zip(parts, weight.unbind())])


_FORMS: dict[type[nn.Module], type[nn.Module]] = {Linear: _Linear, Experts: _Experts}
