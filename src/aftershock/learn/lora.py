"""Low-rank adaptation (Hu et al., arXiv 2106.09685): frozen weights plus B A x alpha / rank, adapters in peft's format.

A module's `weight` always holds the sum, refreshed after every optimiser step: so whoever reads the model, the engine
above all, needs to know nothing of adapters, and the sampler's and the learner's forward stay the same to the bit.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aftershock.address import key
from aftershock.errors import CheckpointError, TrainingError
from aftershock.recipe import LoraTable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # peft's, before the names of transformers' own modules
_FROZEN = ("lm_head", "gate")  # never adapted unless named: the output head, and the choice of experts


class LoraLinear(nn.Linear):
    """A linear layer with an adapter: `base` is the frozen weight, `weight` = base + scale x lora_B lora_A."""

    base: Tensor
    lora_A: nn.Parameter  # [rank, in]
    lora_B: nn.Parameter  # [out, rank]
    scale: float

    def forward(self, x: Tensor) -> Tensor:
        """Linear in `weight`, to the bit; the gradient goes to the adapter instead of the weight."""
        y = F.linear(x, self.weight, self.bias)
        if not torch.is_grad_enabled():
            return y
        # Of no value, but with the gradient of scale x B A x: x's own gradient is the first product's already.
        low = F.linear(F.linear(x.detach(), self.lora_A), self.lora_B) * self.scale
        return y + (low - low.detach())


def attach(model: nn.Module, table: LoraTable, seed: int) -> None:
    """Freeze the model and give adapters to its linear layers: those whose last name is in `table.targets`, or all.

    Changes nothing that the model computes: B begins at zero. Raises TrainingError where no layer is named so. A
    mixture's routed experts are stacked tensors, not linear layers, and stay frozen.
    """
    chosen = {name: module for name, module in model.named_modules() if _is_target(name, module, table.targets)}
    if not chosen:
        names = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise TrainingError(f"lora.targets = {list(table.targets)} names no layer; the layers are {', '.join(names)}")
    model.requires_grad_(False)
    for name, module in chosen.items():
        _adapt(name, module, table, seed)


def _is_target(name: str, module: nn.Module, targets: tuple[str, ...]) -> bool:
    last = name.rsplit(".", 1)[-1]
    return isinstance(module, nn.Linear) and (last in targets if targets else last not in _FROZEN)


def _adapt(name: str, module: nn.Module, table: LoraTable, seed: int) -> None:
    """Turn a linear layer into an adapted one in place; A is drawn as peft draws it, from the layer's own address."""
    assert isinstance(module, nn.Linear)
    weight = module.weight
    module.__class__ = LoraLinear
    assert isinstance(module, LoraLinear)
    draw = torch.Generator().manual_seed(key(seed, "lora", name) >> 1)
    low = torch.empty(table.rank, module.in_features).uniform_(-1, 1, generator=draw) / math.sqrt(module.in_features)
    module.register_buffer("base", weight.detach().clone())
    module.lora_A = nn.Parameter(low.to(weight.device))
    module.lora_B = nn.Parameter(torch.zeros(module.out_features, table.rank, device=weight.device))
    module.scale = table.alpha / table.rank


def adapted(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Yield the adapted layers by name; none where nothing was attached."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


@torch.no_grad()
def refresh(model: nn.Module) -> None:
    """Set every adapted layer's weight to base + scale x B A, as an optimiser step asks for."""
    for _, layer in adapted(model):
        total = torch.addmm(layer.base.float(), layer.lora_B, layer.lora_A, alpha=layer.scale)
        layer.weight.copy_(total)


def detach(model: nn.Module) -> None:
    """Take the adapters off, leaving plain layers that hold the sum: what `models.save` can write."""
    for _, layer in adapted(model):
        del layer.base, layer.lora_A, layer.lora_B
        layer.__class__ = nn.Linear  # type: ignore[assignment]


def save_adapter(model: nn.Module, table: LoraTable, folder: str | Path, base: str) -> None:
    """Write the adapters as peft reads them; `base` names the model they belong to."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{_PREFIX}{name}.{part}.weight": t for name, layer in adapted(model) for part, t in _parts(layer)}
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": table.rank,
        "lora_alpha": table.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.rsplit(".", 1)[-1] for name, _ in adapted(model)}),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(model: nn.Module, folder: str | Path) -> LoraTable:
    """Attach the adapters in a folder of peft's format and return their dials.

    Raises CheckpointError where they are of another kind, or of another model.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} can't be read as an adapter ({error}): it needs {CONFIG} and {WEIGHTS}"
        ) from error
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("use_rslora"):
        raise CheckpointError(f"{folder} holds {config.get('peft_type')} adapters; only plain LORA can be read")
    table = LoraTable(rank=config["r"], alpha=config["lora_alpha"], targets=tuple(config["target_modules"]))
    attach(model, table, seed=0)
    wanted = {f"{_PREFIX}{name}.{part}.weight": t for name, layer in adapted(model) for part, t in _parts(layer)}
    wrong = sorted(wanted.keys() ^ tensors.keys()) or [n for n in wanted if wanted[n].shape != tensors[n].shape]
    if wrong:
        raise CheckpointError(f"{folder}: {len(wrong)} adapter tensors don't fit the model, first {wrong[0]!r}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])
    refresh(model)
    return table


def _parts(layer: LoraLinear) -> list[tuple[str, nn.Parameter]]:
    return [("lora_A", layer.lora_A), ("lora_B", layer.lora_B)]
