"""The shapes of published models, held against the counts that their publishers give."""

import pytest
import torch

from aftershock.errors import CheckpointError
from aftershock.known import known_config, names
from aftershock.models import ModelConfig
from aftershock.models.causal_lm import empty

# The tensors in the safetensors files on the hub, as the hub's own metadata counts them (bfloat16 files: half of
# `total_size` in model.safetensors.index.json). Tied heads are stored once, so counted once.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7_615_616_512,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": 14_770_033_664,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": 32_763_876_352,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": 8_030_261_248,
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": 70_553_706_496,
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
}
# DeepSeek-V3's files on the hub: BF16 and F8_E4M3 elements. Its F32 ones are the FP8 blocks' scales and gate biases.
V3_BF16, V3_FP8, V3_F32 = 3_918_786_560, 680_571_043_840, 41_555_600


def count(name):
    return sum(tensor.numel() for tensor in weights(name).values())


def weights(name):
    model = empty(ModelConfig.from_dict(known_config(name)), torch.float32, "meta")
    return dict(model.named_parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_known_model_has_as_many_weights_as_its_publisher_stores(name):
    assert count(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"])
def test_deepseek_has_its_671_billion_and_the_prediction_module(name):
    tensors = weights(name)
    config = known_config(name)
    ours = sum(tensor.numel() for tensor in tensors.values())
    copies = 2 * config["vocab_size"] * config["hidden_size"]  # the files repeat embedding and head for the module
    assert ours + copies == V3_BF16 + V3_FP8
    main = sum(tensor.numel() for key, tensor in tensors.items() if ".mtp." not in key)
    assert round(main / 1e9) == 671  # the technical report's figure, arXiv 2412.19437


def test_names_may_carry_hub_and_revision_and_a_strange_one_is_refused():
    assert known_config("hub:Qwen/Qwen2.5-0.5B@abc") == known_config("Qwen/Qwen2.5-0.5B")
    assert set(names()) == {*PUBLISHED, "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"}
    with pytest.raises(CheckpointError, match=r"Qwen9.*not known here.*Qwen2\.5-0\.5B"):
        known_config("Qwen/Qwen9")
