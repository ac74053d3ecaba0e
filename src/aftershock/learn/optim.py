"""AdamW, its learning-rate schedule and its state, as a recipe's `[optim]` table says."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aftershock.cost.hardware import halves
from aftershock.errors import CheckpointError
from aftershock.learn.adam8 import AdamW8bit, new_state
from aftershock.models.base import LanguageModel
from aftershock.recipe import OptimTable

_SMALL = 1 << 16  # weights of a tensor, on average, from which a second thread is worth its waking


def settled(optim: OptimTable, model: LanguageModel) -> OptimTable:
    """Return the table with a precision in place of "auto": what the model trains in where it is."""
    if optim.precision != "auto":
        return optim
    widest = max(math.prod(weight.shape[-2:]) for weight in model.parameters())
    half = model.device.type != "cpu" or halves(widest, model.learns_natively)
    return optim.model_copy(update={"precision": "bfloat16" if half else "float32"})


def learning_rate(optim: OptimTable, step: int, total_steps: int) -> float:
    """Return the rate of optimiser step `step`, counted from 0, of `total_steps`.

    Linear from lr / warmup to lr over the first `warmup` steps; then lr, or a cosine from lr that would reach
    `final` x lr at step `total_steps`; steps beyond stay there.
    """
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    if optim.schedule == "constant":
        return optim.lr
    done = min(1.0, (step - optim.warmup) / max(1, total_steps - optim.warmup))
    return optim.lr * (optim.final + (1 - optim.final) * 0.5 * (1 + math.cos(math.pi * done)))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that take a gradient, by name, each once even where weights are tied."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def adamw(model: nn.Module, optim: OptimTable) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the model; weight decay on matrices only.

    With `moments = "8bit"`, the moments of large matrices are bytes (see `AdamW8bit`).
    """
    parameters = list(trainable(model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if optim.moments == "8bit":
        return AdamW8bit(groups, optim.lr, optim.betas)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def take_step(optimiser: torch.optim.Optimizer) -> None:
    """Let the optimiser move its weights, on one thread where they are small.

    AdamW's kernel hands every tensor to all threads, of 25 values too, and to wake one takes longer than to do its
    share: 3.1 ms on two threads for a nano model's 51 tensors, and 0.6 on one.
    """
    threads = torch.get_num_threads()
    sizes = [weight.numel() for group in optimiser.param_groups for weight in group["params"]]
    if sum(sizes) < _SMALL * len(sizes):
        torch.set_num_threads(1)
    try:
        optimiser.step()
    finally:
        torch.set_num_threads(threads)


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the moments and step counts as `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`, sharing their memory.

    Moments of a byte have their scales beside them, `NAME.exp_avg_scale`. A parameter that has had no gradient yet has
    none of them.
    """
    state = optimiser.state
    named = [(name, p) for name, p in trainable(model).items() if p in state]
    return {f"{name}.{key}": tensor for name, p in named for key, tensor in state[p].items()}


def load_optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore exactly what `optimiser_state` gave; raises CheckpointError before anything is changed."""
    named = {name: p for name, p in trainable(model).items() if f"{name}.step" in tensors}
    like = {name: _state_like(optimiser, p) for name, p in named.items()}
    wanted = {f"{name}.{key}": tensor for name in named for key, tensor in like[name].items()}
    if wrong := set(wanted) ^ set(tensors):
        raise CheckpointError(
            f"optimiser state: {len(wrong)} tensors missing or unexpected, first {min(wrong)!r}; "
            "the checkpoint belongs to another model: resume with the recipe that wrote it"
        )
    for key, tensor in wanted.items():
        if tensors[key].shape != tensor.shape or tensors[key].dtype != tensor.dtype:
            raise CheckpointError(
                f"optimiser state {key!r} is {tensors[key].dtype} of shape {tuple(tensors[key].shape)}, the model "
                f"wants {tensor.dtype} {tuple(tensor.shape)}: resume with the recipe that wrote it"
            )
    optimiser.state.clear()
    for name, p in named.items():
        optimiser.state[p] = {key: tensors[f"{name}.{key}"].to(p.device, copy=True) for key in like[name]}


def _state_like(optimiser: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    """Return tensors of the names, shapes and types that a parameter's state has, without memory."""
    meta = torch.empty_like(p, device="meta")
    if isinstance(optimiser, AdamW8bit):
        return new_state(meta)
    return {"exp_avg": meta, "exp_avg_sq": meta, "step": torch.empty((), device="meta")}
