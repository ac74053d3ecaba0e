"""A model described to C, and its steps called: tokens for a cache's rows, one each or many."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_long, c_void_p
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from aftershock.models.attention import GroupedAttention, LatentAttention
from aftershock.models.config import DenseConfig
from aftershock.models.layers import GatedMLP, Linear, RMSNorm
from aftershock.models.moe import Experts, Gate, MixtureOfExperts
from aftershock.models.native import build, deepseek
from aftershock.models.native.draws import Draws
from aftershock.models.native.moves import Moves
from aftershock.models.native.packed import Packed, packed

if TYPE_CHECKING:
    from aftershock.models.causal_lm import Block, CausalLM

_LARGE = 1 << 23  # weights, 32 MiB: of a larger model no second copy is kept, its matrices are read in place
_AT_ONCE = 512  # tokens of its prompts that pass a large model together
_VERSION = attrgetter("_version")  # rises with each write in place
_NO_MEMORY, _BAD_TOKEN = 1, 2  # what step.c returns


class _Grouped(Structure):
    _fields_ = [
        *((name, c_long) for name in ("heads", "kv_heads", "dim")),
        *((name, c_float) for name in ("eps", "scale")),
        *((name, c_void_p) for name in ("q_norm", "k_norm")),
    ]


class _Layer(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("input_norm", "post_norm")),
        ("attention", _Grouped),
        *((name, Packed) for name in ("q", "k", "v", "out", "gate", "up", "down")),
        ("latent", POINTER(deepseek.Latent)),
        ("mixture", POINTER(deepseek.Mixture)),
    ]


class _Model(Structure):
    held: list[Any]  # what it points to
    _fields_ = [
        *((name, c_long) for name in ("layers", "hidden", "inner")),
        ("eps", c_float),
        ("large", c_long),
        *((name, c_void_p) for name in ("embedding", "norm")),
        ("head", Packed),
        ("layer", POINTER(_Layer)),
    ]


class _Step(Structure):
    _fields_ = [
        ("model", POINTER(_Model)),
        *((name, c_void_p) for name in ("tokens", "starts", "places")),
        *((name, c_long) for name in ("rows", "room")),
        *((name, c_void_p) for name in ("cos", "sin")),
        ("stores", POINTER(c_void_p)),
        ("logits", c_void_p),
        ("draws", POINTER(Draws)),
        ("moves", POINTER(Moves)),
        ("next", c_void_p),
    ]


class _Draw(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("logits", "bias")),
        *((name, c_long) for name in ("rows", "vocab")),
        ("uniforms", c_void_p),
        ("heat", c_float),
        *((name, c_void_p) for name in ("tokens", "own", "sampled")),
        ("failed", c_long),
    ]


class Fed(NamedTuple):
    """`tokens` Long[n], each at a position `starts` Long[n] of a row `places` Long[n] of the cache."""

    tokens: Tensor
    starts: Tensor
    places: Tensor


class NativeStep:
    """One model's step in C. Small matrices are packed, once a decode and again whenever a weight was written.

    A copy of the model, and one that was pickled, starts anew.
    """

    def __init__(self) -> None:
        self._weights: list[nn.Parameter] = []
        self._versioned: list[nn.Parameter] = []
        self._state: list[int] = []
        self._model: _Model | None = None
        self._held: list[Any] = []

    def __reduce__(self) -> tuple[type["NativeStep"], tuple[()]]:
        return NativeStep, ()

    def begin(self, model: "CausalLM") -> None:
        """Pack anew at the next step: not every write can be seen at a tensor."""
        self._weights, self._state = list(model.parameters()) if model.native else [], []
        self._versioned = [weight for weight in self._weights if not weight.is_inference()]

    @property
    def ready(self) -> bool:
        """Whether `begin` found that the model's steps are native."""
        return bool(self._weights)

    def __call__(
        self, model: "CausalLM", tokens: Tensor, starts: Tensor, tables: tuple[Tensor, Tensor], cache: Any
    ) -> Tensor:
        """Feed tokens Long[rows] to a cache's first rows, which hold `starts` Long[rows]; return logits [rows, vocab].

        `tables` are cos and sin up to the longest row. The cache's room must hold one token more.
        """
        described, fed = (
            self._described(model),
            Fed(tokens.contiguous(), starts.contiguous(), torch.arange(len(tokens))),
        )
        logits = torch.empty(len(tokens), described.head.outs)
        step = _step(described, fed, tables, cache)
        step.logits = logits.data_ptr()
        _take(step, 1, tokens)
        return logits

    def run(
        self, model: "CausalLM", draws: Draws, rows: int, count: int, tables: tuple[Tensor, Tensor], cache: Any
    ) -> None:
        """Take up to `count` steps of a cache's first `rows` and draw from each, as `draws` says.

        A large model takes one: its steps take so long that nothing is gained, and an interrupt would have to wait.
        """
        described = self._described(model)
        cache.moves.room = cache.room
        count = 1 if described.head.in_place else count
        last, lengths = (torch.from_numpy(part[:rows]) for part in draws.held[2][2:4])
        fed = Fed(last, lengths, torch.arange(rows))
        logits = torch.empty(rows, described.head.outs)
        step = _step(described, fed, tables, cache)
        step.logits, step.draws, step.moves = logits.data_ptr(), ctypes.pointer(draws), ctypes.pointer(cache.moves)
        _take(step, count, fed.tokens)

    def prefill(self, model: "CausalLM", fed: Fed, tables: tuple[Tensor, Tensor], cache: Any) -> None:
        """Write the keys and values of prompts that lie end to end, each one's positions ascending.

        Of a large model some tokens a call, so that an interrupt needn't wait for all.
        """
        described = self._described(model)
        size = _AT_ONCE if described.head.in_place else max(1, len(fed.tokens))
        for first in range(0, len(fed.tokens), size):
            part = Fed(*(told[first : first + size] for told in fed))
            _take(_step(described, part, tables, cache), 1, part.tokens)

    def _described(self, model: "CausalLM") -> _Model:
        state = [*map(Tensor.data_ptr, self._weights), *map(_VERSION, self._versioned)]
        if state != self._state:
            self._describe(model)
            self._state = state
        assert self._model is not None
        return self._model  # to be held to the end, as another thread's decode may pack anew meanwhile

    def _describe(self, model: "CausalLM") -> None:
        self._held = []
        large = in_place(model)
        together = large and isinstance(model.config, DenseConfig)  # threads share each layer's outputs
        embedding = model.model.embed_tokens.weight
        head = embedding if model.lm_head is None else model.lm_head.weight
        blocks: list[Any] = list(model.model.layers)
        layers = (_Layer * len(blocks))(*(self._layer(block, large) for block in blocks))
        config = model.config
        self._model = _Model(
            *(len(blocks), config.hidden_size, config.intermediate_size, config.rms_norm_eps, together),
            *(embedding.data_ptr(), model.model.norm.weight.data_ptr()),
            self._packed(head, None, large),
            layers,
        )
        self._model.held = self._held

    def _layer(self, block: "Block", large: bool) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        pack = partial(self._packed, in_place=large)
        norms = block.input_layernorm, block.post_attention_layernorm
        layer = _Layer(*(norm.weight.data_ptr() for norm in norms), _Grouped(eps=block.input_layernorm.eps))
        if isinstance(attention, LatentAttention):
            layer.latent = ctypes.pointer(deepseek.latent(attention, pack, partial(self._packed, in_place=False)))
        else:
            assert isinstance(attention, GroupedAttention)
            self._grouped(layer, attention, pack)
        if isinstance(mlp, MixtureOfExperts):
            layer.mixture = ctypes.pointer(deepseek.mixture(mlp, pack))
        else:
            assert isinstance(mlp, GatedMLP)
            matrices = mlp.gate_proj, mlp.up_proj, mlp.down_proj
            layer.gate, layer.up, layer.down = (pack(matrix.weight, matrix.bias) for matrix in matrices)
        return layer

    def _grouped(self, layer: _Layer, module: GroupedAttention, pack: deepseek.Pack) -> None:
        matrices = module.q_proj, module.k_proj, module.v_proj, module.o_proj
        layer.q, layer.k, layer.v, layer.out = (pack(matrix.weight, matrix.bias) for matrix in matrices)
        heads = (layer.q.outs // module.dim, layer.k.outs // module.dim)
        norms = (
            norm.weight.data_ptr() if isinstance(norm, RMSNorm) else None for norm in (module.q_norm, module.k_norm)
        )
        layer.attention = _Grouped(*heads, module.dim, layer.attention.eps, module.scale, *norms)

    def _packed(self, weight: Tensor, bias: Tensor | None, in_place: bool) -> Packed:
        return packed(weight, bias, in_place, self._held)


def serves(model: "CausalLM") -> bool:
    """Whether the model's decoding steps can be native: by the machine, and by its kind, device and precision alone."""
    from aftershock.models.causal_lm import Block
    from aftershock.models.exact import FORMS

    if build.library() is None or (model.exact and build.library("train") is None):
        return False
    parts: set[type] = {GatedMLP, GroupedAttention, LatentAttention, Linear, RMSNorm, Gate, Experts}
    known, ends = {Block, nn.Identity, MixtureOfExperts, *parts}, {nn.Embedding, nn.Linear, RMSNorm, type(None)}
    if model.exact:
        known, ends = known - parts | {FORMS[part] for part in parts}, ends | {FORMS[nn.Linear], FORMS[RMSNorm]}
    if any(type(module) not in known for block in model.model.layers for module in block.modules()):
        return False
    if not {type(model.model.embed_tokens), type(model.lm_head), type(model.model.norm)} <= ends:
        return False
    return all(map(_plain, model.parameters()))


def in_place(model: nn.Module) -> bool:
    """Whether the model is so large that no second copy is kept of its matrices: they are read in place."""
    return sum(weight.numel() for weight in model.parameters()) > _LARGE


def draw(
    logits: Tensor, uniforms: Tensor, temperature: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw by inverse CDF from (logits + bias) / temperature, float32[rows, vocab], with uniforms float64[rows].

    Returns Long[rows] tokens, and their log-probabilities float32[rows] under the logits and under what was drawn
    from. A token without mass is never drawn; a row of NaN gives log-probabilities of NaN.
    """
    rows, vocab = logits.shape
    logits, uniforms = logits.contiguous(), uniforms.contiguous()
    tokens, own, sampled = torch.empty(rows, dtype=torch.long), torch.empty(rows), torch.empty(rows)
    asked = _Draw(
        *(logits.data_ptr(), None if bias is None else bias.data_ptr(), rows, vocab, uniforms.data_ptr(), temperature),
        *(part.data_ptr() for part in (tokens, own, sampled)),
    )
    _check(_library().aftershock_draw(ctypes.byref(asked), torch.get_num_threads()), tokens, vocab)
    return tokens, own, sampled


def _step(model: _Model, fed: Fed, tables: tuple[Tensor, Tensor], cache: Any) -> _Step:
    """Describe a step without logits; what it points to is its caller's to hold."""
    return _Step(
        ctypes.pointer(model),
        *map(Tensor.data_ptr, fed),
        *(len(fed.tokens), cache.room),
        *(table.data_ptr() for table in tables),
        (c_void_p * len(cache.places))(*cache.places),
    )


def _take(step: _Step, count: int, tokens: Tensor) -> None:
    code = _library().aftershock_step(ctypes.byref(step), count, torch.get_num_threads())
    _check(code, tokens, step.model.contents.head.outs)


@cache
def _library() -> ctypes.CDLL:
    library = build.library()
    assert library is not None
    library.aftershock_step.argtypes = [c_void_p, c_long, c_long]
    library.aftershock_draw.argtypes = [c_void_p, c_long]
    library.aftershock_step.restype = library.aftershock_draw.restype = c_int
    return library


def _check(code: int, tokens: Tensor, vocab: int) -> None:
    if code == _NO_MEMORY:
        raise MemoryError("no memory for a decoding step: lower max_rows")
    if code == _BAD_TOKEN:
        low, high = int(tokens.min()), int(tokens.max())
        raise IndexError(
            f"tokens from {low} to {high} were fed; the model knows 0 to {vocab - 1}: encode with its own tokenizer"
        )


def _plain(weight: nn.Parameter) -> bool:
    """Whether C can read it: float32 in this machine's memory, row by row."""
    return (
        type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
    )
