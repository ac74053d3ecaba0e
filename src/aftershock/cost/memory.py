"""Bytes that training and sampling hold, worked out from config.json and the shape of a batch alone.

What is counted is what our learner and engine keep alive at their fullest moment. What a process holds beyond that is
not here: its libraries (about 0.3 GB), and pages that an allocator keeps for later, which under glibc's and many
batches of changing shape came to more than everything that is alive (docs/log.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil, floor, inf, log2

from aftershock.cost import parameters
from aftershock.cost.parameters import Config

FULL, HALF = 4, 2  # bytes of float32 and of bfloat16
ADAM = 8.0  # two moments in float32
# Two moments of a byte each, and a float32 scale for every block of 256 of each (`learn/adam8.py`; arXiv 2110.02861).
ADAM_8BIT = 2 * (1 + 4 / 256)
MOMENTS = {"float32": ADAM, "8bit": ADAM_8BIT}  # by `optim.moments`
# What the learner's packing, attention and head do, and the engine's layout; the tests hold these against both.
BLOCKS = 2  # padded blocks of a batch's sequences, for each doubling of their length
SHORT = 384  # up to so many tokens, a CPU computes attention's square plainly
CHUNK = 1 << 26  # bytes of logits at once
ROWS, POSITIONS = 8, 16  # what decoded rows and cached positions are rounded up to
STAGED, PREFILL = 16, 8192  # prompts and tokens prefilled at once
MOVED = 64  # rows that are moved at once when a cache is laid out anew
TOKEN_RECORD, LOGIT_RECORD = 12, 40  # bytes that the engine keeps of a drawn token, and spends on a logit
INDEX = 8
LARGE = 1 << 23  # weights of a model whose decoding step reads them where they lie


@dataclass(frozen=True)
class Shape:
    """What one forward and backward takes: `tokens` end to end, `scored` of them by the head.

    Attention pads sequences to blocks: `places` of them in all, `squares` pairs of positions where scores are held as
    a matrix, `fused` places where a fused kernel holds none. `native`: the learner's passes over rows are those in C
    (models/native), which keep what they read and little else; in float32, attention too, which pads nothing.
    """

    tokens: float
    scored: float
    places: float
    squares: float = 0.0
    fused: float = 0.0
    native: bool = False

    @classmethod
    def of(cls, lengths: Sequence[float], scored: float, plain_to: float = SHORT, *, native: bool = False) -> "Shape":
        """Return the shape of sequences of these lengths; `plain_to` is 0 on a GPU, whose attention is fused."""
        blocks = [list(block) for _, block in groupby(sorted(lengths), key=lambda length: floor(BLOCKS * log2(length)))]
        padded = [(len(block), block[-1]) for block in blocks]
        places = sum(count * longest for count, longest in padded)
        squares = sum(count * longest**2 for count, longest in padded if longest <= plain_to)
        fused = sum(count * longest for count, longest in padded if longest > plain_to)
        return cls(sum(lengths), scored, places, squares, fused, native)

    @classmethod
    def even(cls, tokens: float, length: float, scored: float | None = None, plain_to: float = SHORT) -> "Shape":
        """Return the shape of `tokens` in sequences of one length, of which all or `scored` reach the head."""
        squares, fused = (tokens * length, 0.0) if length <= plain_to else (0.0, tokens)
        return cls(tokens, tokens if scored is None else scored, tokens, squares, fused)

    def scaled(self, times: float, tokens: float) -> "Shape":
        """Return the shape of `times` as many sequences of the same lengths, with `tokens` of them computed."""
        scored, places, squares, fused = (times * each for each in (self.scored, self.places, self.squares, self.fused))
        return Shape(tokens, scored, places, squares, fused, self.native)


def weights(config: Config, each: float = FULL) -> float:
    """Return the bytes of the weights, prediction modules among them."""
    return parameters.total(config) * each


def training_state(config: Config, moments: float = ADAM, *, rank: int = 0, targets: tuple[str, ...] = ()) -> float:
    """Return the bytes of weights, gradients and the optimiser's `moments` (bytes a weight), gradients all there.

    With LoRA of `rank`, only adapters have gradients and moments, and each adapted weight is held twice: frozen, and
    with its adapter added, as the engine reads it.
    """
    if not rank:
        return weights(config) + parameters.total(config) * (FULL + moments)
    twice = sum(out * inside for out, inside in parameters.adapted(config, targets).values())
    return weights(config) + FULL * twice + trained(config, rank, targets) * (2 * FULL + moments)


def activations(
    config: Config,
    shape: Shape,
    half: bool = False,
    recompute: bool = False,
    frozen: bool = False,
    prediction: bool = False,
) -> float:
    """Return the bytes that a forward keeps for its backward, logits apart.

    `half`: under autocast, where norms stay float32 and every matrix has a copy in bfloat16. `recompute`: each layer
    keeps its input alone. `frozen`: under LoRA, where norms keep no more than their input.
    """
    each = _layers(config, shape, half, frozen)
    width = config["hidden_size"] * shape.tokens
    kept = len(each) * width * FULL if recompute else sum(each)
    copies = parameters.matrices(config) * HALF if half else 0
    modules = [_module(config, shape, half, recompute, frozen, index) for index in range(depth(config, prediction))]
    norm = _normed(shape, frozen) * width * FULL
    return kept + copies + norm + _angles(config, shape) + _scored(config, shape) + sum(modules)


def depth(config: Config, prediction: bool = True) -> int:
    """Return how many multi-token-prediction modules are trained [V3 2.2]."""
    return (config.get("num_nextn_predict_layers") or 0) if prediction else 0


def logits(config: Config, scored: float, chunk: float = CHUNK, modules: int = 0) -> float:
    """Return the bytes of logits at their fullest: theirs and as many for their gradient, or those of one chunk.

    Where they aren't chunked, those of prediction `modules` are there too.
    """
    whole, most = scored * config["vocab_size"] * FULL, max(chunk, config["vocab_size"] * FULL)
    return 2 * most if whole > most else (2 + modules) * whole


def training(
    config: Config,
    shape: Shape,
    *,
    half: bool = False,
    recompute: bool = False,
    moments: float = ADAM,
    rank: int = 0,
    targets: tuple[str, ...] = (),
    alone: bool = False,
    prediction: bool = False,
) -> float:
    """Return the bytes that a training step holds at its fullest, on the largest of its batches, `shape`.

    `alone`: it is the step's only batch, so that gradients come while what was kept goes; else those of a batch before
    are there. The fullest moment is the head's backward, some layer's, or the embedding's. `prediction` trains the
    multi-token-prediction modules too: layers more, and logits of each module's beside the model's.
    """
    gradients = FULL * trained(config, rank, targets)
    state = training_state(config, moments, rank=rank, targets=targets) - gradients * alone
    kept = activations(config, shape, half, recompute, rank > 0, prediction)
    modules = depth(config, prediction)
    fullest = [*_backward(config, shape, half, recompute, rank > 0, kept, FULL * alone, modules)]
    matrix = 0 if rank else FULL * parameters.head(config)  # a gradient of the head, or of the embedding
    fullest.append(kept + _head(config, shape, matrix, modules))
    tied = bool(config.get("tie_word_embeddings"))  # the embedding's, the head's and their sum, each as large
    fullest.append(gradients * alone + matrix * (2 * tied + (not alone)))
    return state + max(fullest)


def _head(config: Config, shape: Shape, matrix: float, modules: int) -> float:
    """Return what the head's backward holds beside what was kept: logits, and `matrix`, the gradient of its weight.

    In C logits become their gradient in place, and all of them are kept up to the bytes of the weight (learn/head.py).
    """
    whole = shape.scored * config["vocab_size"] * FULL
    if not shape.native or modules:
        return logits(config, shape.scored, modules=modules) + matrix * (whole > CHUNK)  # each chunk has a gradient
    most = max(CHUNK, FULL * parameters.head(config))
    return matrix + (whole if whole <= most else max(CHUNK, config["vocab_size"] * FULL))


def trained(config: Config, rank: int = 0, targets: tuple[str, ...] = ()) -> int:
    """Return how many weights have gradients: all, or those of LoRA's adapters."""
    if not rank:
        return parameters.total(config)
    return sum(rank * sum(shape) for shape in parameters.adapted(config, targets).values())


def _backward(
    config: Config, shape: Shape, half: bool, recompute: bool, frozen: bool, kept: float, gradient: float, modules: int
) -> Iterator[float]:
    """Yield what is held in each layer's backward, from the last on; a weight passed has left `gradient` bytes.

    The head's part and the last norm's of what was `kept` are gone by then, and modules are before any layer. Each
    leaves a gradient of the embedding, to which the model's own is added.
    """
    width = config["hidden_size"] * FULL
    kept -= (1 + modules) * _scored(config, shape)
    made = gradient * (0 if frozen else parameters.head(config))
    for index in reversed(range(modules)):
        place = config["num_hidden_layers"] + index
        again = _layer(config, place, shape, HALF if half else FULL, frozen) if recompute else 0.0
        yield made + kept + again + _passing(config, place, shape, HALF if half else FULL)
        kept -= _module(config, shape, half, recompute, frozen, index) - _scored(config, shape)
        made += FULL * parameters.head(config) + gradient * parameters.module(config, index)
    kept -= _normed(shape, frozen) * shape.tokens * width
    copied = parameters.matrices(config) / config["num_hidden_layers"] * HALF * half
    for index, held in reversed([*enumerate(_layers(config, shape, half, frozen))]):
        here = kept + held * recompute
        yield made + here + _passing(config, index, shape, HALF if half else FULL)
        kept -= (shape.tokens * width if recompute else held) + copied
        made += gradient * (0 if frozen else parameters.layer(config, index))


def cache(config: Config, rows: int, capacity: int, each: float = FULL) -> float:
    """Return the bytes of keys and values of `rows` sequences of `capacity` tokens, or of MLA's latents [V3 2.1.1]."""
    if parameters.is_latent(config):
        a_token = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    else:
        a_token = 2 * parameters.kv_heads(config) * parameters.head_dim(config)
    return float(rows * capacity * a_token * config["num_hidden_layers"] * each)


def sampling(
    config: Config,
    max_rows: int,
    longest_prompt: int,
    max_tokens: int,
    completions: float = inf,
    prompts: float = inf,
    each: float = FULL,
) -> float:
    """Return the bytes that the engine reserves, weights apart, for so many completions of so many prompts."""
    decoded = _rounded_up(min(max_rows, completions), ROWS)
    staged = int(min(STAGED, prompts, completions, max(1, max_rows // 4)))
    held = cache(config, decoded + staged, _rounded_up(longest_prompt + max_tokens - 1, POSITIONS), each)
    return held + decoded * (max_tokens * TOKEN_RECORD + config["vocab_size"] * LOGIT_RECORD)


def packed(config: Config) -> float:
    """Return the bytes of the copy that a native decoding step keeps of a small model's matrices, head among them."""
    return 0.0 if parameters.total(config) > LARGE else FULL * (parameters.matrices(config) + parameters.head(config))


def sampled(
    config: Config,
    max_rows: int,
    prompt: int,
    max_tokens: int,
    completions: float = inf,
    prompts: float = inf,
    native: bool = False,
) -> float:
    """Return the bytes that sampling takes at its fullest, weights apart: what it reserves, and what it works with.

    That is the sampler on all rows or a longer cache laid out; prompts read, or copied into their rows. Where all rows
    begin at once, the cache beyond the prompts isn't touched as yet when these are read, and so takes nothing.
    `native`: steps in C draw, and move rows, where they lie, so that logits and what reading works with are all.
    """
    rows = int(min(max_rows, completions))
    staged = int(min(STAGED, prompts, completions, max(1, max_rows // 4)))
    store = cache(config, 1, 1) / config["num_hidden_layers"] / (1 if parameters.is_latent(config) else 2)
    drawing = rows * config["vocab_size"] * LOGIT_RECORD
    widening = 2 * min(MOVED, rows + staged) * (prompt + max_tokens - POSITIONS) * store
    read = _rounded_up(max(1, prompt - 1), POSITIONS)
    copying = rows * (prompt - 1) * store
    reading = _reading(config, min(staged * read, PREFILL), min(prompt, SHORT))
    reserved = sampling(config, max_rows, prompt, max_tokens, completions, prompts)
    reserved -= _rounded_up(rows, ROWS) * config["vocab_size"] * LOGIT_RECORD
    if native:
        return reserved + rows * config["vocab_size"] * FULL + reading
    unread = _rounded_up(prompt + max_tokens - 1, POSITIONS) - read if completions <= max_rows else 0
    untouched = cache(config, _rounded_up(rows, ROWS) + staged, unread)
    return reserved + max(drawing, widening, max(copying, reading) - untouched)


def _reading(config: Config, tokens: float, length: float) -> float:
    """Return what the forward of so many prompt tokens works with: the largest of its layers' MLP and attention."""
    hidden = config["hidden_size"]
    if "n_routed_experts" in config:
        chosen, inner = config["num_experts_per_tok"], config["moe_intermediate_size"]
        mlp = chosen * (3 * hidden + 2 * inner)  # rows of experts: read, given, given in order; and their inner ones
    else:
        mlp = 3 * config["intermediate_size"]
    scores = 3 * config["num_attention_heads"] * length
    return tokens * (3 * hidden + max(mlp, scores)) * FULL


def _rounded_up(count: float, multiple: int) -> int:
    return ceil(count / multiple) * multiple


def _scored(config: Config, shape: Shape) -> float:
    """Return what the head keeps beside logits."""
    return shape.scored * (config["hidden_size"] * FULL + 3 * INDEX)


def _angles(config: Config, shape: Shape) -> float:
    """Return what the rotation's tables take, looked up by token; and tokens' places."""
    return shape.tokens * (2 * parameters.rope_dim(config) * FULL + INDEX)


def _module(config: Config, shape: Shape, half: bool, recompute: bool, frozen: bool, index: int) -> float:
    """Return what a prediction module keeps: norms of the embedding and of the state, both side by side, and its own.

    Only its block is computed twice where layers are. Under autocast the block's states are bfloat16, which no norm in
    C reads: only those of the embedding and of the model's own state are.
    """
    hidden, each = config["hidden_size"], HALF if half else FULL
    plain = replace(shape, native=shape.native and not half)
    block = _layer(config, config["num_hidden_layers"] + index, plain, each, frozen)
    normed = _normed(shape, frozen) + _normed(plain if index else shape, frozen) + _normed(plain, frozen)
    norms = normed * hidden * FULL + 3 * FULL + 2 * hidden * each
    copies = parameters.module(config, index) * HALF if half else 0.0
    kept = shape.tokens * hidden * each if recompute else block
    return kept + copies + shape.tokens * norms + _angles(config, shape) + _scored(config, shape)


def _normed(shape: Shape, frozen: bool) -> int:
    """Return how many values a norm keeps for each it reads: those, and for its own gradient the normalised ones."""
    return 1 if frozen or shape.native else 2


def _gated(shape: Shape, half: int) -> int:
    """Return how many values a gated unit and the product after it keep for each of its outputs."""
    return 3 if shape.native and half == FULL else 4


def _layers(config: Config, shape: Shape, half: bool, frozen: bool) -> list[float]:
    each = HALF if half else FULL
    return [_layer(config, index, shape, each, frozen) for index in range(config["num_hidden_layers"])]


def _layer(config: Config, index: int, shape: Shape, half: int, frozen: bool) -> float:
    """Return what one layer keeps; norms are in float32 always."""
    hidden, sparse = config["hidden_size"], parameters.is_sparse(config, index)
    norms = 2 * (_normed(shape, frozen) * hidden * FULL + FULL) + 2 * hidden * half
    mlp = _mixture(config, shape, half) if sparse else _gated(shape, half) * config["intermediate_size"] * half
    return shape.tokens * (norms + mlp) + _attention(config, shape, half)


def _attention(config: Config, shape: Shape, half: int) -> float:
    """Return what attention keeps: queries, keys and values padded to blocks, shared heads repeated; and scores.

    In C queries, keys and values as they are, the output, and a sum for each query.
    """
    heads = config["num_attention_heads"]
    inner = _normed(shape, False) if half == FULL else 2  # norms within attention read bfloat16
    if parameters.is_latent(config):
        query, value = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
        rank, query_rank = config["kv_lora_rank"], config.get("q_lora_rank") or 0
        whole = half == FULL and not shape.native  # the latent is kept as part of what it was split from
        beside = (rank + query_rank) * (inner * FULL + half) + whole * config["qk_rope_head_dim"] * FULL
    else:
        query = value = parameters.head_dim(config)
        normed = (heads + parameters.kv_heads(config)) * query if config["model_type"] == "qwen3" else 0
        beside = normed * inner * FULL
    if shape.native and half == FULL:
        keys = heads if parameters.is_latent(config) else parameters.kv_heads(config)
        return shape.tokens * (beside + ((heads + keys) * (query + value) + heads) * FULL)
    padded = heads * (2 * query + value) * half + 3 * heads * INDEX
    scores = heads * (FULL if half == FULL else FULL + HALF)
    fused = heads * (2 * query - value) * half + heads * FULL  # values padded to keys, outputs, and sums of rows
    kept = shape.tokens * (beside + heads * value * half + heads * INDEX)
    return kept + shape.places * padded + shape.squares * scores + shape.fused * fused


def _mixture(config: Config, shape: Shape, half: int) -> float:
    """Return what a token keeps in a mixture: what its experts read, hold, give and give weighted; the gate's."""
    hidden, inner, chosen = config["hidden_size"], config["moe_intermediate_size"], config["num_experts_per_tok"]
    routed = chosen * (3 * hidden + _gated(shape, half) * inner) * half
    gate = config["n_routed_experts"] * FULL + chosen * (4 * INDEX + 2 * FULL) + (hidden * FULL if half == HALF else 0)
    return routed + gate + parameters.shared_experts(config) * _gated(shape, half) * inner * half


def _passing(config: Config, index: int, shape: Shape, half: int) -> float:
    """Return what a layer's backward holds beside what was kept, at its fullest: gradients of its MLP's values.

    In a mixture the shared experts' backward comes first, and what they kept is gone before the routed ones'.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if not parameters.is_sparse(config, index):
        return shape.tokens * (2 * inner * half + hidden * FULL)
    inner = config["moe_intermediate_size"]
    routed = 2 * config["num_experts_per_tok"] * max(hidden, inner) - parameters.shared_experts(config) * 4 * inner
    return shape.tokens * (routed * half + 2 * hidden * FULL)
