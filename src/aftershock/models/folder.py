"""Hugging Face folders: safetensors, config, tokenizer files; read with suspicion, written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aftershock.errors import CheckpointError
from aftershock.models.causal_lm import CausalLM, empty
from aftershock.models.config import DeepseekConfig, ModelConfig, is_block_fp8
from aftershock.models.fp8 import TILE, Quantised

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
GENERATION = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SCALE = "_scale_inv"  # after a weight's name: its blocks' scales, which its values are multiplied by
_SHOWN = 8  # names listed in one message before it is shortened


class SavesTokenizer(Protocol):
    """Any tokenizer of `transformers`."""

    def save_pretrained(self, folder: str) -> Any: ...


def load(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    kind: type[CausalLM] = CausalLM,
) -> CausalLM:
    """Return the model in a Hugging Face folder, in eval mode, its weights cast to `dtype`; a reward model's where
    `kind` is Scorer.

    Raises CheckpointError, naming everything that is wrong, where the folder holds pickles instead of safetensors,
    misses a file, or its tensors are missing, unexpected, misshapen or cut short. Weights in block FP8, as DeepSeek
    publishes V3 and R1, are multiplied out. Tokenizer and generation files are kept on the model (`companions`) for
    `save`.
    """
    root = Path(folder)
    said = _read_json(root / "config.json")
    config = ModelConfig.from_dict(said)
    with _opened(_shards(root)) as files:
        shapes = {name: tuple(f.get_slice(name).get_shape()) for f in files for name in f.keys()}  # noqa: SIM118
        model = empty(_without_absent_mtp(config, shapes), dtype, device, _differing_copies(config, files), kind)
        wanted = checkpoint_tensors(model, fused=_fused_names(shapes))
        scales = [name + _SCALE for name in wanted] if is_block_fp8(said) else []
        _check_tensors(root, wanted, shapes, (*_copies(config), *scales))
        _fill(wanted, {name: f for f in files for name in f.keys()})  # noqa: SIM118
    model.companions = {
        name: (root / name).read_bytes() for name in (*TOKENIZER_FILES, GENERATION) if (root / name).is_file()
    }
    return model.eval()


def checkpoint_tensors(model: CausalLM, fused: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return the model's tensors under their checkpoint names, as views: writing to them writes to the model.

    Stacked experts appear one by one (`...experts.3.up_proj.weight`), unless named in `fused`; MTP modules appear as
    layers past the last.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        name = _checkpoint_name(name, model.config.num_hidden_layers)
        if ".experts." in name and name not in fused:
            tensors.update(_each_expert(name, tensor))
        else:
            tensors[name] = tensor
    return tensors


def _checkpoint_name(name: str, layers: int) -> str:
    if not name.startswith("model.mtp."):
        return name
    index, rest = name.removeprefix("model.mtp.").split(".", 1)
    return f"model.layers.{layers + int(index)}.{rest}"


def _each_expert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    stem, kind = name.rsplit(".", 1)
    for index, one in enumerate(tensor):
        if kind == "down_proj":
            yield f"{stem}.{index}.down_proj.weight", one
        else:
            gate, up = one.chunk(2)
            yield f"{stem}.{index}.gate_proj.weight", gate
            yield f"{stem}.{index}.up_proj.weight", up


def _fused_names(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.endswith((".experts.gate_up_proj", ".experts.down_proj"))}


def _copies(config: ModelConfig) -> dict[str, str]:
    """Return the checkpoint names that usually repeat another tensor, with that tensor's name."""
    output = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    copies = {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_word_embeddings else {}
    depth = config.num_nextn_predict_layers if isinstance(config, DeepseekConfig) else 0
    for index in range(config.num_hidden_layers, config.num_hidden_layers + depth):
        copies[f"model.layers.{index}.embed_tokens.weight"] = "model.embed_tokens.weight"
        copies[f"model.layers.{index}.shared_head.head.weight"] = output
    return copies


def _without_absent_mtp(config: ModelConfig, names: Iterable[str]) -> ModelConfig:
    """transformers writes num_nextn_predict_layers without the weights: believe the weights."""
    first_extra = f"model.layers.{config.num_hidden_layers}."
    if isinstance(config, DeepseekConfig) and not any(name.startswith(first_extra) for name in names):
        return replace(config, num_nextn_predict_layers=0)
    return config


def _differing_copies(config: ModelConfig, files: list[Any]) -> frozenset[str]:
    """Return which of `_copies` are present and differ from what they should repeat; a tied head may not."""
    where = {name: f for f in files for name in f.keys()}  # noqa: SIM118
    differing = set()
    for copy, original in _copies(config).items():
        if copy not in where or original not in where:
            continue
        if not torch.equal(where[copy].get_tensor(copy), where[original].get_tensor(original)):
            differing.add(copy)
    if "lm_head.weight" in differing:
        raise CheckpointError(
            "config.json says tie_word_embeddings but lm_head.weight differs from model.embed_tokens.weight: "
            "set tie_word_embeddings to false or remove lm_head.weight"
        )
    return frozenset(differing)


def _check_tensors(
    root: Path, wanted: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]], copies: Iterable[str]
) -> None:
    known = {*wanted, *copies}
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in known and not name.endswith("rotary_emb.inv_freq")]
    misshapen = [
        f"{name} is {list(found[name])}, wanted {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name] != tuple(tensor.shape)
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
    faults = [f"{len(names)} {kind}: {_shorten(names)}" for kind, names in parts if names]
    if faults:
        raise CheckpointError(
            f"{root}: the weights don't fit its config.json; "
            + "; ".join(faults)
            + "; get the folder again, or correct config.json"
        )


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more


@torch.no_grad()
def _fill(wanted: Mapping[str, Tensor], where: Mapping[str, Any]) -> None:
    for name, tensor in wanted.items():
        stored = where[name].get_tensor(name)
        one_byte = stored.is_floating_point() and stored.itemsize == 1
        tensor.copy_(_multiplied_out(name, stored, where) if one_byte else stored)


def _multiplied_out(name: str, stored: Tensor, where: Mapping[str, Any]) -> Tensor:
    """Return an FP8 weight in float32; CheckpointError where it hasn't a scale for every block."""
    wanted = [-(-size // TILE) for size in stored.shape]
    scales = where[name + _SCALE].get_tensor(name + _SCALE) if name + _SCALE in where else None
    if stored.dtype != torch.float8_e4m3fn or scales is None or list(scales.shape) != wanted:
        had = None if scales is None else list(scales.shape)
        raise CheckpointError(
            f"{name} is {stored.dtype} and {name + _SCALE} has shape {had}; wanted float8_e4m3fn with scales {wanted}, "
            f"one for a block of {TILE} x {TILE}: get the folder again, or convert it to bfloat16"
        )
    return Quantised(stored, scales.float(), TILE).plain()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: name a Hugging Face model folder, complete") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({error}): get the file again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}, wanted a JSON object: get the file again")
    return data


def _shards(root: Path) -> list[Path]:
    """Return the safetensors files of a folder; CheckpointError where there are none, or one is missing."""
    if (root / INDEX).is_file():
        names = sorted(set(_read_json(root / INDEX).get("weight_map", {}).values()))
        lost = [name for name in names if Path(name).name != name or not (root / name).is_file()]
        if lost or not names:
            raise CheckpointError(f"{root}: {INDEX} names shards that aren't there: {_shorten(lost)}; get them again")
        return [root / name for name in names]
    if (root / SINGLE).is_file():
        return [root / SINGLE]
    pickles = sorted(path.name for path in root.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise CheckpointError(
            f"{root} holds its weights as pickles ({_shorten(pickles)}), which can run code when loaded and are "
            "refused: convert them to safetensors"
        )
    raise CheckpointError(f"{root} holds neither {SINGLE} nor {INDEX}: name a complete Hugging Face model folder")


@contextmanager
def _opened(paths: list[Path]) -> Iterator[list[Any]]:
    """Open safetensors files; any fault in one, here or while it is read, becomes a CheckpointError."""
    try:
        files = []
        for path in paths:
            try:
                files.append(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is damaged or cut short ({error}): get the file again") from error
        yield files
    except SafetensorError as error:
        raise CheckpointError(f"{paths[0].parent}: weights can't be read ({error}): get the folder again") from error


def save(
    model: CausalLM, folder: str | Path, tokenizer: SavesTokenizer | None = None, max_shard_bytes: int = 5_000_000_000
) -> None:
    """Write a Hugging Face folder that `load` and `transformers` read; the same weights give the same bytes.

    Everything is written beside the target and renamed, so the target is never half-written: an error leaves what
    was there, and raises CheckpointError. An existing model folder is replaced, its other files (a model card) kept.
    """
    target = Path(folder).absolute()
    _check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        _write_all(model, staging, tokenizer, max_shard_bytes)
        _keep_others(target, staging)
        _sync(staging)
        _swap(staging, target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target} could not be written ({error}); what was there before stays: free space or choose another place"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(target: Path) -> None:
    if not target.exists() or (target / "config.json").is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise CheckpointError(f"{target} exists and is no model folder: name a new folder, or remove it first")


def _write_all(model: CausalLM, folder: Path, tokenizer: SavesTokenizer | None, max_shard_bytes: int) -> None:
    dtype = str(model.dtype).removeprefix("torch.")
    config = {**model.config.to_dict(), "dtype": dtype, "torch_dtype": dtype}
    _write_json(folder / "config.json", config)
    _write_json(folder / GENERATION, _generation_config(config))
    for name, content in model.companions.items():
        if tokenizer is None or name not in TOKENIZER_FILES:
            (folder / name).write_bytes(content)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))
    _write_weights(model, folder, max_shard_bytes)


def _generation_config(config: Mapping[str, Any]) -> dict[str, Any]:
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config.get(key) is not None}
    return {"_from_model_config": True, **ids}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", "utf-8")


def _write_weights(model: CausalLM, folder: Path, max_shard_bytes: int) -> None:
    tensors = checkpoint_tensors(model)
    for copy, original in _copies(model.config).items():
        if copy != "lm_head.weight":
            tensors.setdefault(copy, tensors[original])
    shards = _split(tensors, max_shard_bytes)
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [SINGLE]
    else:
        total = sum(tensor.nbytes for tensor in tensors.values())
        where = {key: name for name, shard in zip(names, shards) for key in shard}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    for name, shard in zip(names, shards):
        # Cloned, since safetensors refuses tensors that share memory, as copies and experts do.
        save_file(
            {key: tensors[key].detach().cpu().clone(memory_format=torch.contiguous_format) for key in shard},
            folder / name,
            {"format": "pt"},
        )


def _split(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[list[str]]:
    """Deal names into shards in order; a tensor larger than a shard has one of its own."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += tensor.nbytes
    return shards


def _keep_others(target: Path, staging: Path) -> None:
    """Carry over the target's files that aren't weights, config or tokenizer."""
    if not target.is_dir():
        return
    for path in target.iterdir():
        ours = path.name in (*TOKENIZER_FILES, INDEX) or path.suffix == ".safetensors"
        if path.is_dir():
            raise CheckpointError(
                f"{target} holds the folder {path.name}, which a model folder has not: move it away first"
            )
        if not ours and not (staging / path.name).exists():
            shutil.copy2(path, staging / path.name)


def _sync(folder: Path) -> None:
    """Make sure that what is renamed next is on the disk and not only in memory."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(staging: Path, target: Path) -> None:
    staging.chmod(0o755)  # mkdtemp's 0700 would hide the model from other users
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_suffix(".old")
    target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
