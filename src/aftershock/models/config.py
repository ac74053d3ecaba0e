"""What a model is made of: `config.json` of the four architectures, read into frozen dataclasses and written back."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, get_type_hints

from aftershock.errors import CheckpointError

ARCHITECTURES = {
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
}
_ROPE_NEEDS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (),
}
_ROPE_KEYS = ("rope_theta", "rope_scaling", "rope_parameters")


def _fail(key: str, value: object, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"config.json: {key} is {value!r}, wanted {wanted}; correct the file or the recipe's model table"
    )


@dataclass(frozen=True)
class Rope:
    """Rotary embedding: base `theta`, the scaling's `kind`, and its parameters under their Hugging Face names."""

    theta: float = 10000.0
    kind: str = "default"
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Rope":
        """Read `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before it).

        Where both stand, `rope_scaling` wins, as in transformers 5. CheckpointError where a value is impossible.
        """
        source = data.get("rope_scaling") or data.get("rope_parameters") or {}
        params = {key: value for key, value in source.items() if value is not None}
        kind = params.pop("rope_type", None) or params.get("type", "default")
        params.pop("type", None)
        theta = params.pop("rope_theta", None) or data.get("rope_theta") or 10000.0
        if kind not in _ROPE_NEEDS:
            raise _fail("rope_type", kind, f"one of {', '.join(_ROPE_NEEDS)}")
        if params.pop("partial_rotary_factor", data.get("partial_rotary_factor") or 1.0) != 1.0:
            raise _fail("partial_rotary_factor", source.get("partial_rotary_factor"), "1.0 or nothing")
        if kind in ("llama3", "yarn"):
            outer = data.get("original_max_position_embeddings") or params.get("original_max_position_embeddings")
            params["original_max_position_embeddings"] = outer or data["max_position_embeddings"]
        rope = cls(float(theta), kind, params)
        rope._check()
        return rope

    def _check(self) -> None:
        for key in _ROPE_NEEDS[self.kind]:
            if key not in self.params:
                raise _fail(f"rope scaling {self.kind}: {key}", None, "a number")
        for key, value in self.params.items():
            if not isinstance(value, bool | int | float):
                raise _fail(f"rope scaling {self.kind}: {key}", value, "a number")
        if not self.theta > 1 or not self.params.get("factor", 1.0) >= 1:
            raise _fail("rope_theta, factor", (self.theta, self.params.get("factor")), "theta > 1 and factor >= 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that transformers 5 reads and those that older versions read, saying the same."""
        scaling = {"type": self.kind, "rope_type": self.kind, **self.params}
        return {
            "rope_parameters": {"rope_type": self.kind, "rope_theta": self.theta, **self.params},
            "rope_theta": self.theta,
            "rope_scaling": None if self.kind == "default" else scaling,
        }


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What all four architectures share, under the field names of `config.json`.

    Keys that no field is named after are kept in `extras` and written back as they were.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    rope: Rope = Rope()
    extras: Mapping[str, Any] = field(default_factory=dict)

    may_be_zero: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "ModelConfig":
        """Read a `config.json`; CheckpointError, naming the key, where a value is missing, wrong or unsupported."""
        kind = data.get("model_type")
        if kind not in ARCHITECTURES:
            raise _fail("model_type", kind, f"one of {', '.join(ARCHITECTURES)}")
        if is_block_fp8(data):
            data = {key: value for key, value in data.items() if key != "quantization_config"}
        cls = DeepseekConfig if kind == "deepseek_v3" else DenseConfig
        config = cls(**_read_fields(cls, data), rope=Rope.from_dict({"max_position_embeddings": 4096, **data}))
        config.check()
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-able `config.json`, extras included, in an order that depends on nothing."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("rope", "extras")}
        merged = {"architectures": [ARCHITECTURES[self.model_type]], **self.extras, **own, **self.rope.to_dict()}
        return dict(sorted(merged.items()))

    @property
    def rope_dim(self) -> int:
        """How many values of a head are rotated."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise CheckpointError where a value is impossible or asks for what isn't implemented."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                low = 0 if f.name in self.may_be_zero else 1 if isinstance(value, int) else 0.0
                if value < low or not math.isfinite(value):
                    raise _fail(f.name, value, f"at least {low}")
        if self.hidden_act != "silu":
            raise _fail("hidden_act", self.hidden_act, "'silu'")
        if self.rope_dim % 2:
            raise _fail("rotated head dimension", self.rope_dim, "an even number")


def is_block_fp8(data: Mapping[str, Any]) -> bool:
    """Whether a `config.json` says that weights lie in FP8, in blocks of 128 x 128, as DeepSeek publishes them.

    CheckpointError where it says any other quantization.
    """
    said = data.get("quantization_config") or {}
    wanted = {"quant_method": ("fp8",), "weight_block_size": ([128, 128],), "fmt": ("e4m3", None)}
    for key, values in wanted.items():
        if said and said.get(key) not in values:
            raise _fail(f"quantization_config.{key}", said.get(key), f"{values[0]!r}, or weights converted to bfloat16")
    return bool(said)


@dataclass(frozen=True, kw_only=True)
class DenseConfig(ModelConfig):
    """`qwen2`, `qwen3` and `llama`: grouped-query attention and a gated MLP, with each one's habits."""

    num_key_value_heads: int | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    mlp_bias: bool = False

    @property
    def kv_heads(self) -> int:
        """Key-value heads; as many as query heads where config.json says null or nothing."""
        return self.num_key_value_heads or self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        said = super().to_dict()
        return said if self.head_dim else {k: v for k, v in said.items() if k != "head_dim"}  # Qwen2 can't take null

    @property
    def rope_dim(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def qkv_bias(self) -> bool:
        """Qwen2 always has biases on q, k and v, whatever its config says."""
        return self.model_type == "qwen2" or self.attention_bias

    @property
    def out_bias(self) -> bool:
        """Qwen2 never has one on the output projection."""
        return self.model_type != "qwen2" and self.attention_bias

    @property
    def gated_bias(self) -> bool:
        """Only llama has biases in its MLP."""
        return self.model_type == "llama" and self.mlp_bias

    @property
    def qk_norm(self) -> bool:
        """Qwen3 normalises each head's queries and keys."""
        return self.model_type == "qwen3"

    def check(self) -> None:
        """Check also how heads share keys."""
        super().check()
        if self.num_attention_heads % self.kv_heads:
            raise _fail("num_key_value_heads", self.kv_heads, f"a divisor of {self.num_attention_heads} heads")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise _fail("hidden_size", self.hidden_size, f"a multiple of {self.num_attention_heads} heads")
        window_from = self.extras.get("max_window_layers", 28)
        windowed = self.extras.get("use_sliding_window") and self.num_hidden_layers > window_from
        if windowed or "sliding_attention" in (self.extras.get("layer_types") or ()):
            raise _fail("use_sliding_window", True, "false: sliding-window attention isn't implemented")


@dataclass(frozen=True, kw_only=True)
class DeepseekConfig(ModelConfig):
    """`deepseek_v3`: latent attention and a mixture of experts [V3, arXiv 2412.19437, section 2.1].

    A key that is absent takes the plain value below, not R1's size; DeepSeek's and transformers' files state them all.
    """

    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    moe_intermediate_size: int
    n_routed_experts: int
    num_experts_per_tok: int
    q_lora_rank: int | None = None
    n_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 0
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    num_nextn_predict_layers: int = 0
    rope_interleave: bool = True
    attention_bias: bool = False

    may_be_zero: ClassVar[tuple[str, ...]] = ("first_k_dense_replace", "num_nextn_predict_layers", "n_shared_experts")

    @property
    def rope_dim(self) -> int:
        return self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        """Values of a query or key head: those without and those with rotation."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def check(self) -> None:
        """Check also that the gate is V3's."""
        super().check()
        for key, wanted in (("scoring_func", "sigmoid"), ("topk_method", "noaux_tc")):
            if self.extras.get(key, wanted) != wanted:
                raise _fail(key, self.extras[key], repr(wanted))
        if self.extras.get("moe_layer_freq", 1) != 1:
            raise _fail("moe_layer_freq", self.extras["moe_layer_freq"], "1")
        self._check_groups()

    def _check_groups(self) -> None:
        experts, groups = self.n_routed_experts, self.n_group
        if experts % groups or experts < 2 * groups:
            raise _fail("n_group", groups, f"a divisor of {experts} experts that leaves two or more in a group")
        if self.topk_group > groups:
            raise _fail("topk_group", self.topk_group, f"at most n_group, {groups}")
        if self.num_experts_per_tok > experts // groups * self.topk_group:
            reach = experts // groups * self.topk_group
            raise _fail(
                "num_experts_per_tok", self.num_experts_per_tok, f"at most {reach}, the experts in topk_group groups"
            )


def _read_fields(cls: type[ModelConfig], data: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(cls)
    plain = {f.name: f for f in fields(cls) if f.name not in ("rope", "extras")}
    values: dict[str, Any] = {}
    for name, f in plain.items():
        if data.get(name) is not None:
            values[name] = _typed(name, data[name], hints[name])
        elif f.default is MISSING:
            raise _fail(name, data.get(name), "a value")
    if cls is DenseConfig and data["model_type"] == "qwen3" and "head_dim" not in data:
        values["head_dim"] = 128  # what transformers' Qwen3Config takes where the key is absent
    ignored = {*plain, *_ROPE_KEYS, "architectures"}
    values["extras"] = {key: value for key, value in data.items() if key not in ignored}
    return values


def _typed(name: str, value: Any, hint: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise _fail(name, value, f"a value of type {getattr(hint, '__name__', hint)}")
    return value
