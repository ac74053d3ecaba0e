"""Every weight of a model of the R1 family by name and shape, worked out from its config.json alone, and their sums.

Names are those of our own models' parameters, in which a mixture's experts are stacked and prediction modules stand
under `mtp`; the tests hold shapes against the models themselves, and sums against what publishers state.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar

Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
FROZEN = ("lm_head", "gate")  # what LoRA leaves alone where no targets are named, as in learn/lora.py
_QWEN3_HEAD = 128  # what transformers' Qwen3Config takes where the key is absent
_TEXTS: dict[int, tuple[Config, str]] = {}
T = TypeVar("T")


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """Keep what a function of a config gave, as a search asks again and again; configs are no keys as they are.

    Whoever asks doesn't change the config afterwards.
    """
    kept: dict[tuple[Any, ...], T] = {}

    @wraps(function)
    def asked(config: Config, *others: Any) -> T:
        key = (_text(config), *others)
        if key not in kept:
            kept[key] = function(config, *others)
        return kept[key]

    return asked


def _text(config: Config) -> str:
    """Return a config as JSON, written once for each object; it stays alive here, so no other gets its id."""
    found = _TEXTS.get(id(config))
    if found is None or found[0] is not config:
        found = _TEXTS[id(config)] = (config, json.dumps(config))
    return found[1]


def shapes(config: Config) -> Shapes:
    """Return the shape of each weight; tied ones stand once.

    >>> shapes(dict(model_type="llama", vocab_size=9, hidden_size=4, intermediate_size=6, num_attention_heads=2,
    ...             num_hidden_layers=1))["model.layers.0.mlp.down_proj.weight"]
    (4, 6)
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    found: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for index in range(layers):
        found |= _under(f"model.layers.{index}.", block(config, index))
    for index in range(config.get("num_nextn_predict_layers") or 0):
        found |= _under(f"model.mtp.{index}.", block(config, layers + index) | _prediction(hidden))
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def block(config: Config, index: int) -> Shapes:
    """Return the shapes of the weights of layer `index`, by their names within it."""
    hidden = config["hidden_size"]
    norms: Shapes = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    attention = _latent(config) if is_latent(config) else _grouped(config)
    mlp = _mixture(config) if is_sparse(config, index) else _gated(config, config["intermediate_size"])
    return norms | _under("self_attn.", attention) | _under("mlp.", mlp)


def layer(config: Config, index: int) -> int:
    """Return how many weights layer `index` has."""
    return sum(math.prod(shape) for shape in block(config, index).values())


def module(config: Config, index: int) -> int:
    """Return how many weights prediction module `index` has; embedding and head are the model's."""
    return layer(config, config["num_hidden_layers"] + index) + sum(
        math.prod(shape) for shape in _prediction(config["hidden_size"]).values()
    )


def total(config: Config, prediction: bool = True) -> int:
    """Return how many weights the model has, with its multi-token-prediction modules or without them.

    A module's embedding and head are the model's; V3's files repeat both, so that 671.0B + 11.5B become 684.5B there.
    """
    return sum(math.prod(shape) for name, shape in _chosen(config, prediction))


def active(config: Config) -> int:
    """Return how many weights work on one token: all but the experts it isn't sent to and the prediction modules.

    Of an embedding that is no head as well it reads one row. So V3 has 36.6B: "37B" in its report, 36.7B in its files'.
    """
    used = sum(_used(config, name, shape) for name, shape in _chosen(config, prediction=False))
    return used if _is_tied(config) else used - head(config) + int(config["hidden_size"])


@remembered
def multiplied(config: Config) -> int:
    """Return how many weights one token is multiplied with: `active` less norms, biases and the embedding's look-up."""
    matrices = [(name, shape) for name, shape in _chosen(config, prediction=False) if is_matrix(name, shape)]
    return sum(_used(config, name, shape) for name, shape in matrices) + head(config) * _is_tied(config)


@remembered
def matrices(config: Config) -> int:
    """Return the weights of all layers' matrices, every expert among them: what autocast copies."""
    within = _chosen(config, prediction=False)
    return sum(math.prod(s) for n, s in within if is_matrix(n, s) and n != "lm_head.weight")


@remembered
def predicting(config: Config) -> int:
    """Return how many weights a token is multiplied with in all prediction modules, the shared head again in each."""
    modules = [(n, s) for n, s in shapes(config).items() if n.startswith("model.mtp.") and is_matrix(n, s)]
    depth = config.get("num_nextn_predict_layers") or 0
    return sum(_used(config, name, shape) for name, shape in modules) + depth * head(config)


def adapted(config: Config, targets: tuple[str, ...] = ()) -> Shapes:
    """Return the shapes [out, in] of the layers that LoRA adapts: those named in `targets`, or all it can.

    Routed experts are stacked tensors and no linear layers: they stay frozen, as do head and gate unless named.
    """
    linear = {name.removesuffix(".weight"): shape for name, shape in shapes(config).items() if _is_linear(name, shape)}
    return {
        name: shape
        for name, shape in linear.items()
        if (last := name.rpartition(".")[2]) in targets or (not targets and last not in FROZEN)
    }


def head(config: Config) -> int:
    """Return the size of the output head."""
    return int(config["hidden_size"] * config["vocab_size"])


def is_latent(config: Config) -> bool:
    """Whether attention is multi-head latent (MLA) rather than grouped-query."""
    return "kv_lora_rank" in config


def is_sparse(config: Config, index: int) -> bool:
    """Whether layer `index` holds a mixture of experts."""
    return "n_routed_experts" in config and index >= (config.get("first_k_dense_replace") or 0)


def kv_heads(config: Config) -> int:
    """Return the heads of keys and values."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def head_dim(config: Config) -> int:
    """Return a head's width under grouped-query attention."""
    if config.get("model_type") == "qwen3" and "head_dim" not in config:
        return _QWEN3_HEAD
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rope_dim(config: Config) -> int:
    """Return how many values of a head are rotated."""
    return int(config["qk_rope_head_dim"]) if is_latent(config) else head_dim(config)


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is one that tokens are multiplied with."""
    return len(shape) > 1 and "embed_tokens" not in name


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and is_matrix(name, shape) and not name.endswith("mlp.gate.weight")


def _chosen(config: Config, prediction: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((n, s) for n, s in shapes(config).items() if prediction or not n.startswith("model.mtp."))


def _used(config: Config, name: str, shape: tuple[int, ...]) -> int:
    if ".experts." not in name:
        return math.prod(shape)
    return int(config["num_experts_per_tok"]) * math.prod(shape[1:])


def _is_tied(config: Config) -> bool:
    return bool(config.get("tie_word_embeddings"))


def _under(prefix: str, found: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in found.items()}


def _linear(name: str, out: int, inside: int, bias: bool = False) -> Shapes:
    weight: Shapes = {f"{name}.weight": (out, inside)}
    return weight | {f"{name}.bias": (out,)} if bias else weight


def _grouped(config: Config) -> Shapes:
    """Grouped-query attention: Qwen2 always has biases on q, k and v and never on o; Qwen3 norms queries and keys."""
    kind, hidden, dim = config["model_type"], config["hidden_size"], head_dim(config)
    queries, keys = config["num_attention_heads"] * dim, kv_heads(config) * dim
    bias = bool(config.get("attention_bias"))
    inward = kind == "qwen2" or bias
    found = _linear("q_proj", queries, hidden, inward) | _linear("k_proj", keys, hidden, inward)
    found |= _linear("v_proj", keys, hidden, inward) | _linear("o_proj", hidden, queries, bias and kind != "qwen2")
    return found | {"q_norm.weight": (dim,), "k_norm.weight": (dim,)} if kind == "qwen3" else found


def _latent(config: Config) -> Shapes:
    """Multi-head latent attention [V3, arXiv 2412.19437, 2.1.1]."""
    hidden, heads, bias = config["hidden_size"], config["num_attention_heads"], bool(config.get("attention_bias"))
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    rank, query_rank = config["kv_lora_rank"], config.get("q_lora_rank")
    if query_rank:
        found = _linear("q_a_proj", query_rank, hidden, bias) | {"q_a_layernorm.weight": (query_rank,)}
        found |= _linear("q_b_proj", heads * (nope + rope), query_rank)
    else:
        found = _linear("q_proj", heads * (nope + rope), hidden)
    found |= _linear("kv_a_proj_with_mqa", rank + rope, hidden, bias) | {"kv_a_layernorm.weight": (rank,)}
    return found | _linear("kv_b_proj", heads * (nope + value), rank) | _linear("o_proj", hidden, heads * value, bias)


def _gated(config: Config, inner: int) -> Shapes:
    hidden, bias = config["hidden_size"], config["model_type"] == "llama" and bool(config.get("mlp_bias"))
    found = _linear("gate_proj", inner, hidden, bias) | _linear("up_proj", inner, hidden, bias)
    return found | _linear("down_proj", hidden, inner, bias)


def _mixture(config: Config) -> Shapes:
    """A mixture of experts [V3 2.1.2]; the gate's correction bias is no weight: no gradient moves it."""
    hidden, experts, inner = config["hidden_size"], config["n_routed_experts"], config["moe_intermediate_size"]
    found: Shapes = {"gate.weight": (experts, hidden)}
    found |= {"experts.gate_up_proj": (experts, 2 * inner, hidden), "experts.down_proj": (experts, hidden, inner)}
    shared = shared_experts(config)
    return found | _under("shared_experts.", _gated(config, shared * inner)) if shared else found


def shared_experts(config: Config) -> int:
    """Return how many experts every token passes; one where config.json doesn't say, as our models read it."""
    count = config.get("n_shared_experts")
    return 1 if count is None else int(count)


def _prediction(hidden: int) -> Shapes:
    """Return what a multi-token-prediction module has beside its block [V3 2.2]."""
    norms: Shapes = {f"{name}.weight": (hidden,) for name in ("enorm", "hnorm", "shared_head.norm")}
    return norms | {"eh_proj.weight": (hidden, 2 * hidden)}
