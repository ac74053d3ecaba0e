"""FLOPs a token of a model of the R1 family, worked out from its config.json alone.

A multiply-add counts as two. Matrix products and attention are counted; norms, activations, rotary embedding and
softmax are not, as is the field's habit (Kaplan et al., arXiv 2001.08361, 2.1; PaLM, arXiv 2204.02311, appendix B).
Attention counts the positions a token may see: half of a causal sequence. A kernel that computes the whole square and
masks it, as ours does on a CPU up to 384 tokens, spends twice that.
"""

import math
from collections.abc import Sequence

from aftershock.cost import parameters
from aftershock.cost.ledger import Work
from aftershock.cost.parameters import Config

TRAINING = 3  # forward, and twice as much backward: one product for the inputs' gradients, one for the weights'


def forward(config: Config, context: float, latent: bool = False) -> float:
    """Return the FLOPs of one token's forward that attends to `context` positions, itself among them.

    `latent` is for MLA decoding on its compressed cache [V3 2.1.1]; it changes nothing in other models.
    """
    return 2 * parameters.multiplied(config) + config["num_hidden_layers"] * attention(config, latent) * context


def training(
    config: Config,
    context: float,
    *,
    recompute: bool = False,
    chunked: bool = False,
    prediction: bool = False,
    rank: int = 0,
    targets: tuple[str, ...] = (),
) -> float:
    """Return the FLOPs that training spends on one token that attends to `context` positions.

    `recompute`: each layer's forward runs again in the backward (Chen et al., arXiv 1604.06174), whole, where torch's
    own leaves out a layer's last product. `chunked`: the head's does, as in learn/logprobs.py where logits pass its
    limit. `prediction`: the multi-token-prediction modules are trained too [V3 2.2]. `rank` and `targets` are LoRA's
    (arXiv 2106.09685): frozen weights need no gradient, nor does what lies before the first adapter.
    """
    head = 2 * parameters.head(config)
    body, seen = 2 * parameters.multiplied(config) - head, config["num_hidden_layers"] * attention(config) * context
    if rank:
        frozen = (TRAINING - 1 + recompute) * body + (TRAINING - 1 + chunked) * head - 2 * _first_inputs(config)
        return frozen + (TRAINING + recompute) * seen + _adapters(config, rank, targets, recompute)
    spent = (TRAINING + recompute) * (body + seen) + (TRAINING + chunked) * head
    return spent + (TRAINING + recompute) * _predicting(config, context) if prediction else spent


def prefill(config: Config, length: int) -> float:
    """Return the FLOPs of reading a prompt of `length` tokens into the cache; nothing is asked of the head."""
    body = 2 * (parameters.multiplied(config) - parameters.head(config))
    return length * (body + config["num_hidden_layers"] * attention(config) * (length + 1) / 2)


def decode(config: Config, prompt: int, completion: int) -> float:
    """Return the FLOPs of sampling one completion after a prompt whose last token is the first that is fed."""
    return completion * forward(config, prompt + (completion - 1) / 2, latent=True)


def even(lengths: Sequence[int]) -> float:
    """Return the length of equal sequences whose tokens attend as far, on average, as those packed in `lengths` do.

    >>> even([100, 100]), even([150, 50])
    (100.0, 125.0)
    """
    return sum(length * length for length in lengths) / sum(lengths)


def work(
    config: Config, length: float, trained_tokens: int = 0, sampled_tokens: int = 0, *, prediction: bool = False
) -> Work:
    """Return the work of training on and sampling so many tokens in sequences of `length` tokens on average.

    A token of a causal sequence sees half of it on average. Sampling counts each sampled token, those too that
    samples of one prompt share and that are computed once; the prompt that a group shares is left out. What is computed
    twice to save memory counts once. `prediction`: as in `training`.
    """
    context = (length + 1) / 2
    trained = training(config, context, prediction=prediction) * trained_tokens
    return Work(trained_tokens, sampled_tokens, trained + forward(config, context, latent=True) * sampled_tokens)


def attention(config: Config, latent: bool = False) -> int:
    """Return the FLOPs of one layer's scores and weighted values for one query and one position."""
    heads = config["num_attention_heads"]
    if not parameters.is_latent(config):
        return 2 * heads * 2 * parameters.head_dim(config)
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    if latent:
        return 2 * heads * (rank + rope + rank)
    return 2 * heads * (config["qk_nope_head_dim"] + rope + config["v_head_dim"])


def _predicting(config: Config, context: float) -> float:
    depth = config.get("num_nextn_predict_layers") or 0
    return 2 * parameters.predicting(config) + depth * attention(config) * context


def _first_inputs(config: Config) -> int:
    """Return the weights that read the first layer's input, whose gradient a frozen embedding doesn't ask for."""
    first = parameters.block(config, 0)
    readers = ("q_proj", "k_proj", "v_proj", "q_a_proj", "kv_a_proj_with_mqa")
    return sum(math.prod(shape) for name, shape in first.items() if name.split(".")[-2] in readers and len(shape) > 1)


def _adapters(config: Config, rank: int, targets: tuple[str, ...], recompute: bool) -> int:
    """Return what adapters of `rank` add: B (A x) forward; backward the gradients of B, of A and of what lies between.

    The gradient of x is the frozen weight's already (see learn/lora.py).
    """
    layers = parameters.adapted(config, targets).values()
    return sum(2 * rank * ((1 + recompute) * (out + inside) + 2 * out + inside) for out, inside in layers)
