"""Ours and transformers' compute the same from the same folder, both ways, over the grid of options."""

import pytest
import torch
from tiny_models import YARN, eager, their_class, theirs, tokens

from aftershock.models import Segments, load, save

TOLERANCE = 1e-4
MSCALES = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}

GRID = [
    ("deepseek_v3", {}),
    ("deepseek_v3", {"q_lora_rank": None}),
    ("deepseek_v3", {"n_group": 1, "topk_group": 1}),
    ("deepseek_v3", {"n_group": 2, "topk_group": 1}),
    ("deepseek_v3", {"n_group": 4, "topk_group": 4, "num_experts_per_tok": 8}),
    ("deepseek_v3", {"norm_topk_prob": False, "routed_scaling_factor": 1.0}),
    ("deepseek_v3", {"rope_interleave": False}),
    ("deepseek_v3", {"rope_interleave": False, "rope_parameters": MSCALES, "qk_rope_head_dim": 16}),
    ("deepseek_v3", {"rope_parameters": MSCALES, "qk_rope_head_dim": 16}),
    ("deepseek_v3", {"rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}, "q_lora_rank": None}),
    ("deepseek_v3", {"rope_parameters": YARN}),
    ("deepseek_v3", {"attention_bias": True}),
    ("deepseek_v3", {"first_k_dense_replace": 0, "n_shared_experts": 2}),
    ("deepseek_v3", {"first_k_dense_replace": 2, "tie_word_embeddings": True}),
    ("deepseek_v3", {"moe_intermediate_size": 10, "rms_norm_eps": 1e-3}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("qwen2", {"rope_parameters": YARN, "num_key_value_heads": 1}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}),
    ("qwen3", {"attention_bias": True}),
    ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    ("qwen3", {"rope_parameters": {**YARN, "attention_factor": 1.4, "truncate": False}, "head_dim": 16}),
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3}),
    ("llama", {"rope_parameters": LLAMA3, "head_dim": 16}),
    ("llama", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
    ("llama", {"rope_parameters": DYNAMIC}),
]
_NAMES = [f"{kind}-{'-'.join(options) or 'plain'}-{i}" for i, (kind, options) in enumerate(GRID)]


@pytest.fixture(scope="module", params=GRID, ids=_NAMES)
def pair(request, tmp_path_factory):
    kind, options = request.param
    reference = theirs(kind, **options)
    folder = tmp_path_factory.mktemp("pair")
    reference.save_pretrained(folder / "theirs")
    return reference, load(folder / "theirs"), folder


@torch.no_grad()
def test_ours_from_theirs_and_theirs_from_ours(pair):
    reference, ours, folder = pair
    batch = tokens(2, 60)
    wanted = reference(batch).logits
    assert (ours(batch) - wanted).abs().max() <= TOLERANCE
    save(ours, folder / "ours")
    kind = reference.config.model_type
    back, report = their_class(kind).from_pretrained(folder / "ours", output_loading_info=True, **eager(kind))
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert (back.float().eval()(batch).logits - wanted).abs().max() <= TOLERANCE


@torch.no_grad()
def test_cached_decoding_equals_full_forward(pair):
    """Uneven rows in shuffled cache places: right-padded prefill, a chunk of two, then token by token."""
    _, ours, _ = pair
    batch = tokens(3, 40)
    full = ours(batch)
    cache = ours.new_cache(rows=5, capacity=48)
    rows, at = torch.tensor([4, 0, 2]), torch.tensor([9, 2, 14])
    each = torch.arange(3)
    hidden = ours.hidden(batch[:, :14], cache=cache, rows=rows, starts=torch.zeros(3, dtype=torch.long))
    assert (ours.logits(hidden)[each, at - 1] - full[each, at - 1]).abs().max() <= TOLERANCE
    for size in (2, 1, 1, 1, 3, 1):
        chunk = torch.stack([row[a : a + size] for row, a in zip(batch, at)])
        logits = ours.logits(ours.hidden(chunk, cache=cache, rows=rows, starts=at))
        wanted = torch.stack([row[a : a + size] for row, a in zip(full, at)])
        assert (logits - wanted).abs().max() <= TOLERANCE
        at = at + size


@torch.no_grad()
def test_packed_equals_separate(pair):
    _, ours, _ = pair
    lengths = [5, 1, 33, 17, 17, 2]
    parts = [tokens(1, n, seed=n) for n in lengths]
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    packed = ours(torch.cat(parts, 1), segments=Segments(bounds, max(lengths)))[0]
    for part, logits in zip(parts, packed.split(lengths)):
        assert (logits - ours(part)[0]).abs().max() <= TOLERANCE


def test_the_old_names_of_rope_are_read_the_same(tmp_path):
    """Files before transformers 5 have rope_theta and rope_scaling {"type": ...}."""
    import json

    reference = theirs("deepseek_v3", rope_parameters=MSCALES)
    reference.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    scaling = data.pop("rope_parameters")
    data["rope_theta"] = scaling.pop("rope_theta")
    data["rope_scaling"] = {**{k: v for k, v in scaling.items() if k != "rope_type"}, "type": "yarn"}
    (tmp_path / "config.json").write_text(json.dumps(data))
    batch = tokens(1, 50)
    with torch.no_grad():
        assert (load(tmp_path)(batch) - reference(batch).logits).abs().max() <= TOLERANCE
