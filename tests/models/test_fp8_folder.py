"""Folders in block FP8, as DeepSeek publishes V3 and R1: multiplied out when loaded, refused where scales don't fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import theirs, tokens

from aftershock.errors import CheckpointError
from aftershock.models import load, save

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
NAME = "model.layers.0.mlp.down_proj.weight"  # 144 x 200: two blocks by two, three of them cut


def quantised(weight):
    """Return a weight in E4M3 and its blocks' scales, block by block."""
    tall, wide = weight.shape
    values, scales = torch.empty_like(weight), torch.empty(-(-tall // 128), -(-wide // 128))
    for i in range(0, tall, 128):
        for j in range(0, wide, 128):
            block = weight[i : i + 128, j : j + 128]
            scales[i // 128, j // 128] = block.abs().max() / 448
            values[i : i + 128, j : j + 128] = block / scales[i // 128, j // 128]
    return values.to(torch.float8_e4m3fn), scales


def multiplied(values, scales):
    out = values.float()
    for i, row in enumerate(scales):
        for j, scale in enumerate(row):
            out[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] *= scale
    return out


@pytest.fixture
def published(tmp_path):
    """Return a folder whose layers' matrices are in FP8, their scales in another shard, and one with the plain ones."""
    theirs("deepseek_v3", hidden_size=144, intermediate_size=200).save_pretrained(tmp_path / "plain")
    root = tmp_path / "fp8"
    root.mkdir()
    tensors = load_file(tmp_path / "plain" / "model.safetensors")
    shards = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for name, tensor in tensors.items():
        if "proj" in name and tensor.ndim == 2:
            tensor, shards["model-2.safetensors"][name + "_scale_inv"] = quantised(tensor)
        shards["model-1.safetensors"][name] = tensor
    for file, held in shards.items():
        save_file(held, root / file, {"format": "pt"})
    where = {name: file for file, held in shards.items() for name in held}
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({**config, "quantization_config": FP8}))
    return root, tmp_path / "plain"


def rescaled(root, change):
    scales = load_file(root / "model-2.safetensors")
    change(scales)
    save_file(scales, root / "model-2.safetensors", {"format": "pt"})


def test_every_weight_is_its_values_times_its_blocks_scales(published):
    root, plain = published
    model, values, scales = load(root), *(load_file(root / f"model-{i}.safetensors") for i in (1, 2))
    found = model.model.layers[0].mlp.down_proj.weight
    assert scales[NAME + "_scale_inv"].shape == (2, 2)
    assert torch.equal(found, multiplied(values[NAME], scales[NAME + "_scale_inv"]))
    experts = [f"model.layers.1.mlp.experts.3.{kind}_proj.weight" for kind in ("gate", "up")]
    both = torch.cat([multiplied(values[name], scales[name + "_scale_inv"]) for name in experts])
    assert torch.equal(model.model.layers[1].mlp.experts.gate_up_proj[3], both)
    ours, whole = model(tokens(2, 9)), load(plain)(tokens(2, 9))
    assert 0 < (ours - whole).norm() / whole.norm() < 0.2
    assert load(root, torch.bfloat16).dtype == torch.bfloat16


def test_what_is_saved_is_plain(published, tmp_path):
    model = load(published[0])
    save(model, tmp_path / "saved")
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    assert torch.equal(load(tmp_path / "saved")(tokens(1, 5)), model(tokens(1, 5)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scales: scales.pop(NAME + "_scale_inv"), r"has shape None; wanted .* \[2, 2\]"),
        (lambda scales: scales.update({NAME + "_scale_inv": torch.ones(2, 1)}), r"has shape \[2, 1\]"),
        (lambda scales: scales.update({"model.layers.9.x_scale_inv": torch.ones(1)}), "1 unexpected: model.layers.9"),
    ],
)
def test_scales_that_dont_fit_are_refused_by_name(published, change, said):
    rescaled(published[0], change)
    with pytest.raises(CheckpointError, match=said):
        load(published[0])


def test_fp8_that_the_config_knows_nothing_of_is_refused(published):
    path = published[0] / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"unexpected: .*_scale_inv"):
        load(published[0])
