"""Bytes that training and sampling hold, worked out from config.json and the shape of a batch alone.

What is counted is what our learner and engine keep alive at their fullest moment. What a process holds beyond that is
not here: its libraries (about 0.3 GB), and pages that an allocator keeps for later, which under glibc's and many
batches of changing shape came to more than everything that is alive (docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

from aftershock.cost import parameters
from aftershock.cost.parameters import Config

FULL, HALF = 4, 2  # bytes of float32 and of bfloat16
ADAM = 8.0  # two moments in float32
# Two moments of a byte each, and a float32 scale for every block of 256 of each (`learn/adam8.py`; arXiv 2110.02861).
ADAM_8BIT = 2 * (1 + 4 / 256)
MOMENTS = {"float32": ADAM, "8bit": ADAM_8BIT}  # by `optim.moments`
# What the learner's packing, attention and head do, and the engine's layout; the tests hold these against both.
BLOCKS, SHORT = 4, 384  # padded blocks of a batch; up to so many tokens, a CPU computes attention's square plainly
CHUNK = 1 << 26  # bytes of logits at once
ROWS, POSITIONS = 8, 16  # what decoded rows and cached positions are rounded up to
STAGED = 16  # prompts prefilled at once
TOKEN_RECORD, LOGIT_RECORD = 12, 40  # bytes that the engine keeps of a drawn token, and spends on a logit
INDEX = 8


@dataclass(frozen=True)
class Shape:
    """What one forward and backward takes: `tokens` end to end, `scored` of them by the head.

    Attention pads sequences to blocks: `places` of them in all, `squares` pairs of positions where scores are held as
    a matrix, `fused` places where a fused kernel holds none.
    """

    tokens: float
    scored: float
    places: float
    squares: float = 0.0
    fused: float = 0.0

    @classmethod
    def of(cls, lengths: Sequence[int], scored: float, plain_to: float = SHORT) -> "Shape":
        """Return the shape of sequences of these lengths; `plain_to` is 0 on a GPU, whose attention is fused."""
        ordered, size = sorted(lengths), ceil(len(lengths) / BLOCKS)
        blocks = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        padded = [(len(block), block[-1]) for block in blocks]
        places = sum(count * longest for count, longest in padded)
        squares = sum(count * longest**2 for count, longest in padded if longest <= plain_to)
        fused = sum(count * longest for count, longest in padded if longest > plain_to)
        return cls(sum(lengths), scored, places, squares, fused)

    @classmethod
    def even(cls, tokens: float, length: float, scored: float | None = None, plain_to: float = SHORT) -> "Shape":
        """Return the shape of `tokens` in sequences of one length, of which all or `scored` reach the head."""
        squares, fused = (tokens * length, 0.0) if length <= plain_to else (0.0, tokens)
        return cls(tokens, tokens if scored is None else scored, tokens, squares, fused)


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
    layers = parameters.adapted(config, targets).values()
    twice = sum(out * inside for out, inside in layers)
    return weights(config) + FULL * twice + sum(rank * sum(shape) for shape in layers) * (2 * FULL + moments)


def activations(
    config: Config, shape: Shape, half: bool = False, recompute: bool = False, frozen: bool = False
) -> float:
    """Return the bytes that a forward keeps for its backward, logits apart.

    `half`: under autocast, where norms stay float32 and every matrix has a copy in bfloat16. `recompute`: each layer
    keeps its input alone. `frozen`: under LoRA, where norms keep no more than their input.
    """
    each = _layers(config, shape, half, frozen)
    width = config["hidden_size"] * shape.tokens
    kept = len(each) * width * FULL if recompute else sum(each)
    copies = parameters.matrices(config) * HALF if half else 0
    angles = shape.tokens * (2 * parameters.rope_dim(config) * FULL + INDEX)
    return (
        kept
        + copies
        + (1 if frozen else 2) * width * FULL
        + angles
        + shape.scored * (config["hidden_size"] * FULL + 3 * INDEX)
    )


def logits(config: Config, scored: float, chunk: float = CHUNK) -> float:
    """Return the bytes of logits at their fullest: theirs and as many for their gradient, or those of one chunk."""
    return 2 * min(scored * config["vocab_size"] * FULL, max(chunk, config["vocab_size"] * FULL))


def training(
    config: Config,
    shape: Shape,
    *,
    half: bool = False,
    recompute: bool = False,
    moments: float = ADAM,
    rank: int = 0,
    targets: tuple[str, ...] = (),
) -> float:
    """Return the bytes that a training step holds at its fullest, on the largest of its batches, `shape`."""
    state = training_state(config, moments, rank=rank, targets=targets)
    again = max(_layers(config, shape, half, rank > 0)) if recompute else 0.0
    passing = max(logits(config, shape.scored), again + _passing(config, shape, HALF if half else FULL))
    return state + activations(config, shape, half, recompute, rank > 0) + passing


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


def _rounded_up(count: float, multiple: int) -> int:
    return ceil(count / multiple) * multiple


def _layers(config: Config, shape: Shape, half: bool, frozen: bool) -> list[float]:
    each = HALF if half else FULL
    unneeded = 2 * config["hidden_size"] * FULL * shape.tokens if frozen else 0.0  # for the norms' own gradients
    return [_layer(config, index, shape, each) - unneeded for index in range(config["num_hidden_layers"])]


def _layer(config: Config, index: int, shape: Shape, half: int) -> float:
    """Return what one layer keeps; each norm keeps its input and what it normalised, in float32 always."""
    hidden = config["hidden_size"]
    norms = 2 * (2 * hidden * FULL + FULL) + 2 * hidden * half
    mlp = _mixture(config, half) if parameters.is_sparse(config, index) else 4 * config["intermediate_size"] * half
    return shape.tokens * (norms + mlp) + _attention(config, shape, half)


def _attention(config: Config, shape: Shape, half: int) -> float:
    """Return what attention keeps: queries, keys and values padded to blocks, shared heads repeated; and scores."""
    heads = config["num_attention_heads"]
    if parameters.is_latent(config):
        query, value = config["qk_nope_head_dim"] + config["qk_rope_head_dim"], config["v_head_dim"]
        rank, query_rank = config["kv_lora_rank"], config.get("q_lora_rank") or 0
        beside = (rank + query_rank) * (2 * FULL + half) + (0 if half == HALF else config["qk_rope_head_dim"] * FULL)
    else:
        query = value = parameters.head_dim(config)
        normed = (heads + parameters.kv_heads(config)) * query if config["model_type"] == "qwen3" else 0
        beside = normed * 2 * FULL
    padded = heads * (2 * query + value) * half + 3 * heads * INDEX
    scores = heads * (FULL if half == FULL else FULL + HALF)
    fused = heads * (2 * query - value) * half + heads * FULL  # values padded to keys, outputs, and sums of rows
    kept = shape.tokens * (beside + heads * value * half + heads * INDEX)
    return kept + shape.places * padded + shape.squares * scores + shape.fused * fused


def _mixture(config: Config, half: int) -> float:
    """Return what a token keeps in a mixture: what its experts read, hold, give and give weighted; the gate's."""
    hidden, inner, chosen = config["hidden_size"], config["moe_intermediate_size"], config["num_experts_per_tok"]
    routed = chosen * (3 * hidden + 4 * inner) * half
    gate = config["n_routed_experts"] * FULL + chosen * (4 * INDEX + 2 * FULL) + (hidden * FULL if half == HALF else 0)
    return routed + gate + parameters.shared_experts(config) * 4 * inner * half


def _passing(config: Config, shape: Shape, half: int) -> float:
    """Return what the last layer's backward needs beside what was kept: gradients of the MLP's inner values."""
    hidden, sparse = config["hidden_size"], parameters.is_sparse(config, config["num_hidden_layers"] - 1)
    if not sparse:
        return shape.tokens * (2 * config["intermediate_size"] * half + hidden * FULL)
    chosen = config["num_experts_per_tok"]
    return shape.tokens * (chosen * (3 * config["moe_intermediate_size"] + 2 * hidden) * half + 2 * hidden * FULL)
