"""AdamW, its learning-rate schedule and its state, as a recipe's `[optim]` table says."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from aftershock.errors import CheckpointError
from aftershock.recipe import OptimTable

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


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


def adamw(model: nn.Module, optim: OptimTable) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the model; weight decay on matrices only."""
    parameters = list(trainable(model).values())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=optim.lr, betas=optim.betas, fused=True)


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the moments and step counts as `NAME.exp_avg`, `NAME.exp_avg_sq`, `NAME.step`, sharing their memory.

    A parameter that has had no gradient yet has none of them.
    """
    state = optimiser.state
    return {f"{name}.{key}": state[p][key] for name, p in trainable(model).items() if p in state for key in _MOMENTS}


def load_optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore exactly what `optimiser_state` gave; raises CheckpointError before anything is changed."""
    parameters = trainable(model)
    named = {name for name in parameters if f"{name}.step" in tensors}
    wanted = {f"{name}.{key}": parameters[name] for name in named for key in _MOMENTS}
    if wrong := set(wanted) ^ set(tensors):
        raise CheckpointError(
            f"optimiser state: {len(wrong)} tensors missing or unexpected, first {min(wrong)!r}; "
            "the checkpoint belongs to another model: resume with the recipe that wrote it"
        )
    for key, parameter in wanted.items():
        if not key.endswith(".step") and tensors[key].shape != parameter.shape:
            raise CheckpointError(
                f"optimiser state {key!r} has shape {tuple(tensors[key].shape)}, the model wants "
                f"{tuple(parameter.shape)}: resume with the recipe that wrote it"
            )
    optimiser.state.clear()
    for name in parameters:
        if name in named:
            p = parameters[name]
            optimiser.state[p] = {key: tensors[f"{name}.{key}"].to(p.device, copy=True) for key in _MOMENTS}
