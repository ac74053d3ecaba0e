"""Folders: what is refused, what comes back, and that a failed write leaves what was there."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import their_class, theirs, tokens

from aftershock.errors import CheckpointError
from aftershock.models import build, folder, load, save

MTP = {
    "model_type": "deepseek_v3",
    "vocab_size": 53,
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 1,
    "eos_token_id": [2, 5],
    "initializer_range": 0.2,
    "something_new": {"kept": True},
}


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def rewrite(root: Path, change) -> None:
    tensors = load_file(root / "model.safetensors")
    change(tensors)
    save_file(tensors, root / "model.safetensors", {"format": "pt"})


def test_missing_unexpected_and_misshapen_are_all_named_at_once(checkpoint):
    def spoil(tensors):
        del tensors["model.norm.weight"], tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
        tensors["model.layers.7.surprise"] = torch.zeros(2)
        tensors["lm_head.weight"] = torch.zeros(3, 4)

    rewrite(checkpoint, spoil)
    with pytest.raises(CheckpointError) as error:
        load(checkpoint)
    message = str(error.value)
    assert "2 missing" in message
    assert "model.norm.weight" in message
    assert "experts.3.up_proj" in message
    assert "1 unexpected: model.layers.7.surprise" in message
    assert "lm_head.weight is [3, 4], wanted [89, 32]" in message


def test_a_long_list_of_faults_is_shortened(checkpoint):
    rewrite(checkpoint, lambda tensors: [tensors.pop(name) for name in list(tensors) if "experts" in name])
    with pytest.raises(CheckpointError, match=r"27 missing.* and 19 more") as error:
        load(checkpoint)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickles_are_refused_by_name_and_never_opened(checkpoint, name):
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    with pytest.raises(CheckpointError, match=f"pickles.*{name}.*convert"):
        load(checkpoint)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.6, 0.999])
def test_truncated_files_are_refused(checkpoint, keep):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
        load(checkpoint)


def test_a_missing_shard_is_named(tmp_path):
    save(build(MTP, seed=0), tmp_path / "m", max_shard_bytes=4000)
    lost = sorted((tmp_path / "m").glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load(tmp_path / "m")


def test_an_index_cannot_point_outside_the_folder(tmp_path):
    save(build(MTP, seed=0), tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (tmp_path / "m" / folder.INDEX).write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside"):
        load(tmp_path / "m")


@pytest.mark.parametrize("spoil", ["remove", "not json", "list"])
def test_a_bad_config_is_refused(checkpoint, spoil):
    path = checkpoint / "config.json"
    path.unlink() if spoil == "remove" else path.write_text("{" if spoil == "not json" else "[]")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(checkpoint)


def test_no_weights_and_no_folder_are_refused(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="neither"):
        load(checkpoint)
    with pytest.raises(CheckpointError, match="missing"):
        load(tmp_path / "nowhere")


def test_same_weights_give_the_same_bytes_and_shards_read_alike(tmp_path):
    model = build(MTP, seed=3)
    save(model, tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    save(model, tmp_path / "c", max_shard_bytes=6000)
    shards = sorted((tmp_path / "c").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(path.stat().st_size < 9000 for path in shards)
    save(load(tmp_path / "c"), tmp_path / "d")
    assert contents(tmp_path / "a") == contents(tmp_path / "d")


def test_config_keys_and_dtype_are_written_back(tmp_path):
    save(build(MTP, torch.bfloat16, seed=0), tmp_path / "m")
    data = json.loads((tmp_path / "m" / "config.json").read_text())
    assert data["something_new"] == {"kept": True}
    assert data["eos_token_id"] == [2, 5]
    assert data["architectures"] == ["DeepseekV3ForCausalLM"]
    assert data["dtype"] == data["torch_dtype"] == "bfloat16"
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert stored["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    assert stored["model.embed_tokens.weight"].dtype == torch.bfloat16
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (1, [2, 5])


def test_tokenizer_files_travel_and_a_given_tokenizer_replaces_them(checkpoint, tmp_path):
    (checkpoint / "tokenizer.json").write_bytes(b'{"mine": 1}')
    (checkpoint / "chat_template.jinja").write_bytes(b"{{ x }}")
    (checkpoint / "generation_config.json").write_bytes(b'{"temperature": 0.6}')
    model = load(checkpoint)
    save(model, tmp_path / "a")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == b'{"mine": 1}'
    assert (tmp_path / "a" / "chat_template.jinja").read_bytes() == b"{{ x }}"
    assert (tmp_path / "a" / "generation_config.json").read_bytes() == b'{"temperature": 0.6}'

    class Tokenizer:
        def save_pretrained(self, folder: str) -> None:
            Path(folder, "tokenizer.json").write_bytes(b'{"other": 2}')

    save(model, tmp_path / "b", tokenizer=Tokenizer())
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == b'{"other": 2}'
    assert not (tmp_path / "b" / "chat_template.jinja").exists()


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("broken", ["save_file", "_sync", "_swap"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, existing, broken):
    target = tmp_path / "m"
    if existing:
        save(build(MTP, seed=0), target)
        (target / "README.md").write_text("card")
    before = contents(target) if existing else None

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder, broken, full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(build(MTP, seed=1), target)
    assert (contents(target) if existing else target.exists()) == (before if existing else False)
    assert [path.name for path in tmp_path.iterdir()] == (["m"] if existing else [])


def test_a_crash_while_renaming_leaves_the_old_folder(tmp_path, monkeypatch):
    target = tmp_path / "m"
    save(build(MTP, seed=0), target)
    before = contents(target)
    rename = Path.rename

    def failing(self, to):
        if self.suffix == ".partial":
            raise OSError("refused")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(CheckpointError, match="refused"):
        save(build(MTP, seed=1), target)
    assert contents(target) == before


def test_saving_over_keeps_other_files_and_drops_old_shards(tmp_path):
    target = tmp_path / "m"
    save(build(MTP, seed=0), target, max_shard_bytes=6000)
    (target / "README.md").write_text("card")
    save(build(MTP, seed=1), target)
    assert sorted(contents(target)) == ["README.md", "config.json", "generation_config.json", "model.safetensors"]


def test_a_folder_that_is_no_model_is_not_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("words")
    with pytest.raises(CheckpointError, match="no model folder"):
        save(build(MTP, seed=0), tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "words"


def test_mtp_weights_survive_the_round_trip_even_where_untied(tmp_path):
    """A checkpoint's MTP embedding and head usually repeat the model's; where they differ they are kept apart."""
    save(build(MTP, seed=0), tmp_path / "a")
    names = [name for name in load_file(tmp_path / "a" / "model.safetensors") if ".layers.2." in name]
    for part in ("enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head", "embed_tokens"):
        assert f"model.layers.2.{part}.weight" in names

    def shake(tensors):
        draw = torch.Generator().manual_seed(0)
        for name in names:
            tensors[name].normal_(0, 0.3, generator=draw)

    assert load(tmp_path / "a").model.mtp[0].embed_tokens is None
    rewrite(tmp_path / "a", shake)
    save(load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


def test_transformers_ignores_mtp_and_its_own_files_lack_it(tmp_path, checkpoint):
    """transformers 5 writes num_nextn_predict_layers 1 by default, yet never the layer: ours then has no module."""
    assert json.loads((checkpoint / "config.json").read_text()).get("num_nextn_predict_layers", 1) == 1
    assert len(load(checkpoint).model.mtp) == 0
    ours = build(MTP, seed=0).eval()
    save(ours, tmp_path / "a")
    batch = tokens(2, 20) % 53
    with torch.no_grad():
        wanted = their_class("deepseek_v3").from_pretrained(tmp_path / "a").float().eval()(batch).logits
        assert (ours(batch) - wanted).abs().max() <= 1e-4


def test_fused_experts_are_read_too(checkpoint):
    """transformers keeps experts fused in memory; a file may hold them so."""
    split = load(checkpoint)

    def fuse(tensors):
        for name in [name for name in tensors if ".experts." in name]:
            del tensors[name]
        state = split.state_dict()
        tensors.update({name: state[name] for name in state if ".experts." in name})

    rewrite(checkpoint, fuse)
    batch = tokens(1, 10)
    with torch.no_grad():
        assert torch.equal(load(checkpoint)(batch), split(batch))


def test_a_tied_head_that_differs_is_refused(tmp_path):
    theirs("qwen2", tie_word_embeddings=True).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load(tmp_path)
