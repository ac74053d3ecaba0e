"""The model itself: one definition of the four architectures, for training and for sampling."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from aftershock.address import key
from aftershock.errors import CheckpointError
from aftershock.models.attention import GroupedAttention, LatentAttention
from aftershock.models.base import KVCache, LanguageModel, Segments
from aftershock.models.config import DeepseekConfig, DenseConfig, ModelConfig
from aftershock.models.graphs import GraphedSteps, bucket, captures
from aftershock.models.invariant import SPAN
from aftershock.models.layers import Context, GatedMLP, Packing, RMSNorm, cached_context, narrowed, product, read_length
from aftershock.models.moe import Gate, MixtureOfExperts
from aftershock.models.native import linear
from aftershock.models.native.attend import Spans
from aftershock.models.native.draws import Draws
from aftershock.models.native.exact import serves as serves_exactly
from aftershock.models.native.moves import Moves
from aftershock.models.native.step import Fed, NativeStep, serves
from aftershock.models.native.train import serves as serves_learner
from aftershock.models.recorded import Layers, Recorder
from aftershock.models.rope import RotaryTable
from aftershock.models.unset import unset

_MOVED = 64  # rows moved at once when a cache is laid out anew
_EARLY = 16  # positions: few completions end before, and so much later is the cache first laid out anew


class LayerCache(KVCache):
    """One tuple of tensors [rows, room, ...] a layer: keys and values, or MLA's single latent.

    In memory a head's positions lie together, so that rows and heads are the batch of one product. All of `capacity`
    is reserved, but only `room` of it is laid out; and cleared, unless `raw`, as a masked place multiplies its value by
    0: native steps read what they wrote alone.
    """

    def __init__(
        self, shapes: list[tuple[int, ...]], layers: int, rows: int, capacity: int, room: int, like: Tensor, raw: bool
    ) -> None:
        self.rows, self.capacity, self.room, self.raw, self._shapes = rows, capacity, room, raw, shapes
        sizes = [rows * capacity * math.prod(shape) for shape in shapes] * layers
        held = [_memory(size, like) for size in sizes]
        for store, size in zip(held, sizes if not raw else ()):
            store[: size // capacity * room] = 0
        self._held = [held[at : at + len(shapes)] for at in range(0, len(held), len(shapes))]
        self.places = [store.data_ptr() for store in held]
        self.moves = Moves.of(held, shapes)
        self._layers: list[tuple[Tensor, ...]] | None = None
        self.graphs = GraphedSteps()

    @property
    def layers(self) -> list[tuple[Tensor, ...]]:
        """Each layer's tensors as they are laid out now; C does with `places`, where each begins in memory."""
        if self._layers is None:
            self._layers = [tuple(map(self._view, held, self._shapes)) for held in self._held]
        return self._layers

    def _view(self, held: Tensor, shape: tuple[int, ...]) -> Tensor:
        *heads, dim = shape
        size = self.rows * self.room * math.prod(shape)
        return held[:size].view(self.rows, *heads, self.room, dim).movedim(-2, 1)

    def widen(self, room: int, rows: int) -> None:
        """Move rows from the last to the first, as each one's place begins further on."""
        before, stores = self.room, self._stores() if self.moves is None else []
        on_gpu = self._held[0][0].is_cuda
        self.rows, self.room, self._layers = rows, bucket(room, self.capacity) if on_gpu else room, None
        if self.moves is not None:
            self.moves.widen(rows, before, self.room)
            return
        for old, new in zip(stores, self._stores()):
            for start in range(0, rows, _MOVED)[::-1]:  # from the end, as every row moves back
                part = slice(start, min(start + _MOVED, rows))
                moved = old[part].clone()
                new[part, :before] = moved
                new[part, before:] = 0

    def copy_rows(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy all layers in one call of C, where there is one."""
        if self.moves is not None:
            self.moves.copy(source, target, length, self.room)
            return
        for store in self._stores():
            store[target, :length] = store[source, :length]

    def clear(self, rows: Tensor | None, starts: Tensor) -> None:
        """Clear what lies past the `starts` Long[n] positions that each of `rows` Long[n], or of the first n, holds."""
        part = slice(len(starts)) if rows is None else rows
        free = torch.arange(self.room) >= starts[:, None]
        for store in self._stores():
            store[part] = store[part].masked_fill(free.view(*free.shape, *[1] * (store.ndim - 2)), 0)

    @property
    def bytes(self) -> int:
        return sum(held.nbytes for layer in self._held for held in layer)

    def _stores(self) -> list[Tensor]:
        return [store for layer in self.layers for store in layer]


def _memory(count: int, like: Tensor) -> Tensor:
    """Return values as they come.

    On a CPU they are numpy's, which lie in huge pages. Each store has its own: up to 32 MiB that were freed are found
    again (`process.prepare`), where more would come anew from the system, cleared a page at a time.
    """
    if like.device.type != "cpu":
        return like.new_empty(count)
    return torch.from_numpy(np.empty(count * like.itemsize, dtype=np.uint8)).view(like.dtype)


class Block(nn.Module):
    """Pre-norm attention and MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn: nn.Module
        self.mlp: nn.Module
        if isinstance(config, DeepseekConfig):
            self.self_attn = LatentAttention(config)
            sparse = index >= config.first_k_dense_replace
            self.mlp = MixtureOfExperts(config) if sparse else GatedMLP(config.hidden_size, config.intermediate_size)
        else:
            assert isinstance(config, DenseConfig)
            self.self_attn = GroupedAttention(config)
            self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, bias=config.gated_bias)

    def forward(self, x: Tensor, context: Context, store: tuple[Tensor, ...] | None = None) -> Tensor:
        x, normed = self.input_layernorm.after(x)
        x, normed = self.post_attention_layernorm.after(x, self.self_attn(narrowed(normed), context, store))
        return self.mlp(narrowed(normed), x)


class SharedHead(nn.Module):
    """The MTP module's output norm, and its own head where a checkpoint has one that differs from the model's."""

    def __init__(self, config: ModelConfig, *, own_head: bool) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if own_head else None


class PredictionLayer(Block):
    """One multi-token-prediction module [V3 2.2, eq. 21 to 23]: a block over [norm(embedding); norm(hidden)]."""

    def __init__(self, config: ModelConfig, index: int, *, own_embedding: bool, own_head: bool) -> None:
        super().__init__(config, index)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size) if own_embedding else None
        self.shared_head = SharedHead(config, own_head=own_head)

    def predict(
        self, embedded: Tensor, hidden: Tensor, context: Context, store: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """Return the normed hidden state that the head turns into the token after next, [batch, time, hidden]."""
        x = self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(hidden)), -1))
        return self.shared_head.norm(self(x, context, store))


class Trunk(nn.Module):
    """Embedding, blocks and final norm, under the names that checkpoints use; `mtp` lies past the last layer there."""

    def __init__(self, config: ModelConfig, own: frozenset[str]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        depth = config.num_nextn_predict_layers if isinstance(config, DeepseekConfig) else 0
        first = config.num_hidden_layers
        self.mtp = nn.ModuleList(
            PredictionLayer(
                config,
                first + index,
                own_embedding=f"model.layers.{first + index}.embed_tokens.weight" in own,
                own_head=f"model.layers.{first + index}.shared_head.head.weight" in own,
            )
            for index in range(depth)
        )

    def forward(self, tokens: Tensor, context: Context, stores: Layers | None = None) -> Tensor:
        """Return the last hidden state after the final norm, [batch, time, hidden]; `stores` are a cache's layers."""
        x = self.embed_tokens(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x, context, None if stores is None else stores[index])
        return self.norm(x)


class CausalLM(LanguageModel):
    """deepseek_v3, qwen2, qwen3 or llama, by its config.

    `companions` are the tokenizer's and generation files of the folder it came from, as bytes by name. `own` names the
    embedding and head tensors of MTP modules that are not the model's own.
    """

    def __init__(self, config: ModelConfig, own: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.config = config
        self.companions: dict[str, bytes] = {}
        self.model = Trunk(config, own)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        interleave = isinstance(config, DeepseekConfig) and config.rope_interleave
        self.rotary = RotaryTable(config.rope, config.rope_dim, config.max_position_embeddings, interleave=interleave)
        self._recorder, self._native = Recorder(), NativeStep()

    def hidden(
        self,
        tokens: Tensor,
        *,
        segments: Segments | None = None,
        cache: KVCache | None = None,
        rows: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> Tensor:
        """Do as `LanguageModel.hidden` says; a cached step of one token may be replayed."""
        if cache is None:
            return self.model(tokens, self._context(tokens, segments))
        if starts is None or segments is not None or not isinstance(cache, LayerCache):
            raise ValueError("a cached forward wants `starts` Long[batch] and no `segments`")
        if cache.raw:
            cache.clear(rows, starts)
        time = tokens.shape[1]
        length = read_length(starts, time, cache.room)
        cos, sin = (table[:length] for table in self.rotary.upto(length, tokens.device))
        layers = tuple(cache.layers)
        if time == 1 and rows is None and length > 1 and self._records(length):
            hidden = self._recorder.take(self.model, tokens, starts, cos, sin, layers)
            if hidden is not None:
                return hidden
        if time == 1 and rows is None and captures(tokens):
            cos, sin = (table[: cache.room] for table in self.rotary.upto(cache.room, tokens.device))
            hidden = cache.graphs.take(self.model, tokens, starts, cos, sin, layers)
            if hidden is not None:
                return hidden
        context = cached_context(starts, rows, time, cos, sin, exact=self.exact_in_c)
        return self.model(tokens, context, layers)

    @property
    def native(self) -> bool:
        return serves(self)

    @property
    def learns_natively(self) -> bool:
        if self.exact:
            return self.exact_in_c
        return serves_learner(self.model.norm.weight) and not torch.is_autocast_enabled("cpu")

    @property
    def exact_in_c(self) -> bool:
        """Whether the model is exact, and its parts are in C in each form of its forward."""
        return self.exact and serves_exactly(self.model.norm.weight)

    def decode(self, tokens: Tensor, starts: Tensor, cache: KVCache) -> Tensor:
        """Decode in C where the machine and the cache allow."""
        if not self._natively(cache):
            return super().decode(tokens, starts, cache)
        assert isinstance(cache, LayerCache)
        tables = self.rotary.upto(read_length(starts, 1, cache.room), tokens.device)
        return self._native(self, tokens, starts, tables, cache)

    def run(self, draws: Draws, rows: int, count: int, cache: KVCache) -> bool:
        if not self._natively(cache):
            return False
        self._native.run(self, draws, rows, count, self.rotary.upto(cache.room, self.device), cache)
        return True

    def prefill(self, prompts: Sequence[Sequence[int]], rows: Sequence[int], cache: KVCache) -> bool:
        """Feed prompts end to end, without padding, where that is native."""
        if not self._natively(cache):
            return False
        assert isinstance(cache, LayerCache)
        lengths = [len(prompt) for prompt in prompts]
        tables = self.rotary.upto(read_length(torch.tensor(lengths), 0, cache.room), self.device)
        tokens = np.concatenate([np.array(prompt, dtype=np.int64) for prompt in prompts])
        starts, places = np.concatenate([*map(np.arange, lengths)]), np.repeat(rows, lengths)
        self._native.prefill(self, Fed(*map(torch.from_numpy, (tokens, starts, places))), tables, cache)
        return True

    def _natively(self, cache: KVCache) -> bool:
        plain = not torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu")
        return not plain and self._native.ready and isinstance(cache, LayerCache)

    def _records(self, length: int) -> bool:
        """Whether a decoding step may be replayed: not where what runs depends on values, as the choice of experts."""
        return (
            torch.is_inference_mode_enabled()
            and isinstance(self.config, DenseConfig)
            and self.device.type == "cpu"
            and not self.exact_in_c  # of C nothing is recorded
            and not (self.exact and length > SPAN)  # a recording has a fixed number of products
            and not torch.is_autocast_enabled("cpu")
        )

    def _context(self, tokens: Tensor, segments: Segments | None) -> Context:
        batch, time = tokens.shape
        if segments is None:
            cos, sin = self.rotary.upto(time, tokens.device)
            return Context(cos[None, :time, None], sin[None, :time, None], exact=self.exact_in_c)
        if batch != 1:
            raise ValueError(f"packed tokens want a batch of 1, got {batch}")
        positions = segments.positions()
        tables = self.rotary.upto(segments.longest, tokens.device)
        cos, sin = (table.index_select(0, positions)[None, :, None] for table in tables)
        if self.learns_natively:
            return Context(cos, sin, spans=Spans.of(segments), exact=self.exact)
        return Context(cos, sin, packing=Packing.of(segments, time))

    @property
    def head_weight(self) -> Tensor:
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return product(hidden, self.head_weight)

    def head_into(self, hidden: Tensor, to: Tensor) -> None:
        if linear.serves(hidden, self.head_weight):
            linear.linear_into(hidden, self.head_weight, False, to)
        else:
            super().head_into(hidden, to)

    def mtp_hidden(self, hidden: Tensor, tokens: Tensor, segments: Segments | None = None, depth: int = 1) -> Tensor:
        """Return MTP module `depth`'s hidden state [batch, time, hidden]: position t predicts token t + 1 + depth.

        `hidden` is what `hidden(tokens)` returned (or the previous depth's result), `tokens` the same tokens. The last
        `depth` positions of a sequence or segment have no next token to read; what they hold means nothing.
        """
        layer = self._prediction_layer(depth)
        return layer.predict(self._embedded(layer, tokens.roll(-depth, 1)), hidden, self._context(tokens, segments))

    def draft_hidden(
        self, following: Tensor, hidden: Tensor, cache: KVCache, *, rows: Tensor | None = None, starts: Tensor
    ) -> Tensor:
        """Return MTP module 1's hidden state [batch, time, hidden] over its own layer of a `cache` made for `drafting`.

        `hidden` [batch, time, hidden] are the model's states at positions `starts` Long[batch].., or the module's own
        where it foretells further than its training, and `following` Long[batch, time] the tokens after them.
        """
        assert isinstance(cache, LayerCache)
        layer, time = self._prediction_layer(1), following.shape[1]
        length = read_length(starts, time, cache.room)
        cos, sin = (table[:length] for table in self.rotary.upto(length, following.device))
        context = cached_context(starts, rows, time, cos, sin, exact=self.exact_in_c)
        return layer.predict(self._embedded(layer, following), hidden, context, cache.layers[-1])

    def _embedded(self, layer: PredictionLayer, tokens: Tensor) -> Tensor:
        embed = layer.embed_tokens if layer.embed_tokens is not None else self.model.embed_tokens
        return embed(tokens)

    def mtp_logits(self, hidden: Tensor, depth: int = 1) -> Tensor:
        """Apply MTP module `depth`'s head, mostly the model's: [..., hidden] -> [..., vocab]."""
        head = self._prediction_layer(depth).shared_head.head
        return self.logits(hidden) if head is None else head(hidden)

    def _prediction_layer(self, depth: int) -> PredictionLayer:
        if not 1 <= depth <= len(self.model.mtp):
            raise CheckpointError(
                f"the model has {len(self.model.mtp)} multi-token-prediction modules, module {depth} was wanted: "
                "set num_nextn_predict_layers, or load a checkpoint that holds them"
            )
        layer = self.model.mtp[depth - 1]
        assert isinstance(layer, PredictionLayer)
        return layer

    def _token_shapes(self) -> list[tuple[int, ...]]:
        if isinstance(self.config, DeepseekConfig):
            return LatentAttention.cache_shapes(self.config)
        assert isinstance(self.config, DenseConfig)
        return GroupedAttention.cache_shapes(self.config)

    def new_cache(self, rows: int, capacity: int, room: int | None = None, *, drafting: bool = False) -> LayerCache:
        """Reserve a cache as `LanguageModel` says; for `drafting`, with one more layer for MTP module 1.

        One that grows and is native isn't cleared, and is laid out for `_EARLY` more positions than `room`.
        """
        self._recorder.check(self.model)
        self._native.begin(self)
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        raw = self._native.ready and room is not None and not drafting
        room = capacity if room is None else min(capacity, room + raw * _EARLY)
        layers = self.config.num_hidden_layers + drafting
        return LayerCache(self._token_shapes(), layers, rows, capacity, room, like, raw)

    def cache_bytes(self, rows: int, capacity: int, *, drafting: bool = False) -> int:
        a_token = sum(math.prod(shape) for shape in self._token_shapes())
        return rows * capacity * a_token * (self.config.num_hidden_layers + drafting) * self.dtype.itemsize


def empty(
    config: ModelConfig,
    dtype: torch.dtype,
    device: str | torch.device,
    own: frozenset[str] = frozenset(),
    kind: type[CausalLM] = CausalLM,
) -> CausalLM:
    """Return a model whose weights are allocated but not set; gates' biases and counts are zero."""
    with unset():
        model = kind(config, own)
    # What `to_empty` does, but not by `empty_like`, which imports sympy for a tensor on meta.
    model.to(dtype)._apply(lambda held: torch.empty(held.shape, dtype=held.dtype, device=device))
    for module in model.modules():
        if isinstance(module, Gate):
            module.counts.zero_()
            module.e_score_correction_bias.zero_()
    return model


@torch.no_grad()
def build(
    config: ModelConfig | dict, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", *, seed: int
) -> CausalLM:
    """Return a new model with random weights that depend on the seed and on each tensor's name, shape and nothing else.

    Matrices are normal with config's `initializer_range`, norms are 1, biases 0. A dict is read as `config.json`.
    """
    config = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
    model = empty(config, dtype, device)
    for name, weight in model.named_parameters():
        if name.endswith(".bias"):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_(1.0)
        else:
            draw = torch.Generator().manual_seed(key(seed, "init", name) >> 1)
            weight.copy_(torch.empty(weight.shape).normal_(0.0, config.initializer_range, generator=draw))
    return model
