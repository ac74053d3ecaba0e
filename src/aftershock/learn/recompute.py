"""Layers computed again in the backward, so that a long batch keeps only what each layer read.

[Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174]
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aftershock.cost import memory
from aftershock.cost.hardware import memory_bytes
from aftershock.learn.batch import Batch
from aftershock.models.base import LanguageModel
from aftershock.models.causal_lm import Block
from aftershock.models.native.build import library
from aftershock.recipe import OptimTable

ROOM = 0.7  # of the memory there is, which a step's foretold peak may take: allocators hold more than what is alive


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Within, a layer of `model` keeps its input alone; gradients come out with the same bits, for a third more work.

    A mixture counts its load in the first of the two forwards only.
    """
    layers = [module for module in model.modules() if isinstance(module, Block)]
    for layer in layers:
        layer.forward = _again(layer, layer.forward)  # type: ignore[method-assign]
    _own_pages(1 << 20)
    try:
        yield
    finally:
        _own_pages(32 << 20)  # where glibc's own adjustment ends
        for layer in layers:
            del layer.forward


def _own_pages(size: int) -> None:
    """Let glibc give every block of `size` bytes or more pages of its own, which go back when it is freed.

    What lies between the layers' kept inputs is otherwise kept with them: at the 0.5B width 18 KiB a token and layer,
    11 so (docs/log.md), where 4 are alive. What a user's environment says of it stands.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(-3, size)  # M_MMAP_THRESHOLD


def _again(layer: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*given: Any) -> Tensor:
        """Take the layer's forward, of which its input alone is kept."""
        return checkpoint(
            forward,
            *given,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _uncounted(layer)),
        )

    return run


@contextmanager
def _uncounted(layer: nn.Module) -> Iterator[None]:
    was = layer.training
    layer.eval()
    try:
        yield
    finally:
        layer.train(was)


def is_tight(model: LanguageModel, batch: Batch, optim: OptimTable, prediction: bool = False) -> bool:
    """Return whether a batch's layers are to be computed again: as the recipe says, or where it would not fit.

    `prediction`: the model's prediction modules are trained as well.
    """
    if optim.recompute != "auto":
        return optim.recompute == "always"
    config = getattr(model, "config", None)
    if config is None:
        return False
    return _foretold(model, config.to_dict(), batch, optim, prediction) > ROOM * _room(model.device)


def _foretold(
    model: nn.Module, config: memory.Config, batch: Batch, optim: OptimTable, prediction: bool = False
) -> float:
    """Return the bytes of weights, gradients and moments as they are, and of the batch's activations."""
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    state = sum(p.nbytes for p in parameters) + trained * (memory.FULL + memory.MOMENTS[optim.moments])
    native = next(iter(parameters)).is_cpu and library("train") is not None
    shape = memory.Shape.of(batch.segments.lengths().tolist(), int(batch.mask.sum()), native=native)
    shape = replace(shape, tokens=len(batch.tokens))  # what is shared is in the lengths of all its readers
    half = optim.precision != "float32"
    return state + memory.activations(config, shape, half, prediction=prediction) + 2 * memory.CHUNK


def _room(device: torch.device) -> float:
    return memory_bytes() if device.type == "cpu" else torch.cuda.get_device_properties(device).total_memory
