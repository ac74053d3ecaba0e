"""Shapes and sums from config.json alone, against our own models and against what publishers state."""

import math

import pytest
import torch
from small_configs import CONFIGS, DENSE, MIXTURE

from aftershock.cost import parameters
from aftershock.known import known_config, names
from aftershock.learn import lora
from aftershock.models import ModelConfig
from aftershock.models.causal_lm import empty
from aftershock.recipe import LoraTable

FORMS = {
    **CONFIGS,
    "llama with biases": {"model_type": "llama", **DENSE, "attention_bias": True, "mlp_bias": True},
    "qwen2 told of biases": {"model_type": "qwen2", **DENSE, "attention_bias": True, "mlp_bias": True},
    "qwen3 without head_dim": {"model_type": "qwen3", **DENSE},
    "one head of keys each": {"model_type": "llama", **DENSE, "num_key_value_heads": None},
    "deepseek_v3 with all it can have": {
        "model_type": "deepseek_v3",
        **MIXTURE,
        "q_lora_rank": 24,
        "attention_bias": True,
        "n_shared_experts": 2,
        "num_nextn_predict_layers": 2,
    },
    "deepseek_v3 without shared experts": {"model_type": "deepseek_v3", **MIXTURE, "n_shared_experts": 0},
    "deepseek_v3 all dense": {"model_type": "deepseek_v3", **MIXTURE, "first_k_dense_replace": 3},
}


def built(config):
    return empty(ModelConfig.from_dict(config), torch.float32, "meta")


@pytest.mark.parametrize("name", [*FORMS, *names()])
def test_every_weight_has_the_shape_that_the_model_gives_it(name):
    config = FORMS[name] if name in FORMS else known_config(name)
    ours = {key: tuple(weight.shape) for key, weight in built(config).named_parameters()}
    assert parameters.shapes(config) == ours
    assert parameters.total(config) == sum(math.prod(shape) for shape in ours.values())
    written = ModelConfig.from_dict(config).to_dict()  # what runs keep beside their weights says the same
    assert parameters.shapes(written) == ours


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1"])
def test_deepseeks_published_counts(name):
    """README_WEIGHTS.md of DeepSeek-V3: 671B, of them 36.7B active with 0.9B of embedding and 0.9B of head; 11.5B of
    the module's own beside both again, which the hub shows as 685B.
    """
    config = known_config(name)
    main, whole = parameters.total(config, prediction=False), parameters.total(config)
    assert main == 671_026_404_352
    assert whole - main == pytest.approx(11.5e9, rel=0.01)
    assert round((whole + 2 * parameters.head(config)) / 1e9, 1) == 684.5
    assert round(parameters.head(config) / 1e9, 1) == 0.9
    active = parameters.active(config)
    assert round(active / 1e9) == 37  # "37B activated for each token", arXiv 2412.19437
    assert active == pytest.approx(36.7e9, rel=0.003)
    assert active == parameters.active({**config, "num_nextn_predict_layers": 0})


def test_all_of_a_dense_model_is_active_but_an_embedding_s_other_rows():
    tied, untied = known_config("Qwen/Qwen2.5-0.5B"), known_config("Qwen/Qwen2.5-7B")
    assert parameters.active(tied) == parameters.total(tied) == 494_032_768
    assert parameters.total(untied) - parameters.active(untied) == (152064 - 1) * 3584


@pytest.mark.parametrize("targets", [(), ("q_proj", "o_proj"), ("lm_head", "down_proj")])
@pytest.mark.parametrize("name", FORMS)
def test_lora_adapts_what_the_trainer_adapts(name, targets):
    config, model = FORMS[name], built(FORMS[name]).to_empty(device="cpu")
    lora.attach(model, LoraTable(rank=2, targets=targets), seed=0)
    ours = {key: tuple(layer.weight.shape) for key, layer in lora.adapted(model)}
    assert parameters.adapted(config, targets) == ours
