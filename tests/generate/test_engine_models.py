"""The engine over real architectures: the same completions in any batch, and log-probabilities training agrees with."""

import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toy import toy_tokenizer

from aftershock.generate import Engine, SamplingParams
from aftershock.models import build
from aftershock.models.native.build import library, why_not

torch.set_num_threads(1)
TOKENIZER = toy_tokenizer()
SHARED = {
    "vocab_size": TOKENIZER.vocab_size,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,  # sharp enough that a wrong key or value would change what is drawn
}
CONFIGS = {
    "deepseek_v3": SHARED
    | {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 2,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "q_lora_rank": None,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
        "num_nextn_predict_layers": 0,
    },
    "llama": SHARED | {"model_type": "llama", "num_key_value_heads": 2},
}
PROMPTS = [[TOKENIZER.bos, *random.Random(i).choices(range(8, 200), k=1 + i % 17)] for i in range(12)]
PARAMS = SamplingParams(n=2, max_tokens=24, logit_bias={TOKENIZER.eos: 2.0})


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param], seed=0)


def _sums_by_shape():
    """Return whether PyTorch's products sum a row otherwise where there are more columns or rows."""
    draw = torch.Generator().manual_seed(0)
    q, k = torch.randn(8, 4, 48, generator=draw), torch.randn(8, 48, 64, generator=draw)
    x, w = torch.randn(64, 256, generator=draw), torch.randn(64, 256, generator=draw)
    columns = torch.equal(torch.bmm(q, k[:, :, :16]), torch.bmm(q, k)[:, :, :16])
    return not (columns and torch.equal(x[:8] @ w.T, (x @ w.T)[:8]))


BY_SHAPE = "PyTorch's products sum by their shape here, as MKL's do on Intel: docs/engine.md"


@pytest.mark.skipif(library() is None and _sums_by_shape(), reason=BY_SHAPE)
def test_a_completion_does_not_depend_on_who_shares_its_batch(model):
    wanted = Engine(model, TOKENIZER, max_rows=64).generate(PROMPTS, PARAMS)
    assert len({len(c.tokens) for group in wanted for c in group}) > 5
    order = random.Random(0).sample(range(len(PROMPTS)), len(PROMPTS))
    for max_rows in (1, 7):
        shuffled = Engine(model, TOKENIZER, max_rows=max_rows).generate([PROMPTS[i] for i in order], PARAMS)
        for i, group in zip(order, shuffled):
            assert [c.tokens for c in group] == [c.tokens for c in wanted[i]]
            for ours, theirs in zip(group, wanted[i]):
                assert ours.logprobs == theirs.logprobs


@pytest.mark.skipif(library() is None, reason=f"no native step: {why_not()}")
@pytest.mark.parametrize(
    "params",
    [
        replace(PARAMS, n=3),
        replace(PARAMS, temperature=0.7, logit_bias={TOKENIZER.eos: 2.0, 9: -math.inf}, stop=("a", "th")),
        SamplingParams(n=2, max_tokens=1),
    ],
)
def test_native_steps_in_a_row_draw_what_single_ones_do(model, params, monkeypatch):
    """The same bits, one step a call or as many as there are, drawn in the step or from its logits, by any threads."""
    taken, run = [], type(model).run
    monkeypatch.setattr(type(model), "run", lambda *given: taken.append(given[3]) or run(*given))
    wanted = Engine(model, TOKENIZER, max_rows=20).generate(PROMPTS, params)
    assert max(taken) > 1 or params.max_tokens == 1
    taken.clear()
    assert Engine(model, TOKENIZER, max_rows=64).generate(PROMPTS, params) == wanted
    assert params.stop or len(taken) < 6  # rows that end wait for the others, where nothing waits for their place
    torch.set_num_threads(3)
    assert Engine(model, TOKENIZER, max_rows=20).generate(PROMPTS, params) == wanted
    torch.set_num_threads(1)
    monkeypatch.setattr("aftershock.generate.decoder.STEPS", 1)
    assert Engine(model, TOKENIZER, max_rows=20).generate(PROMPTS, params) == wanted
    monkeypatch.setattr(type(model), "run", lambda *given: False)
    assert Engine(model, TOKENIZER, max_rows=20).generate(PROMPTS, params) == wanted


@pytest.mark.skipif(_sums_by_shape(), reason=BY_SHAPE)
def test_nor_where_layers_are_large_enough_for_the_other_product(model, monkeypatch):
    monkeypatch.setenv("AFTERSHOCK_NATIVE", "0")
    monkeypatch.setattr("aftershock.models.layers._LARGE", 4096)
    used, onednn = [], torch.ops.mkldnn._linear_pointwise
    counting = SimpleNamespace(_linear_pointwise=lambda *given: used.append(1) or onednn(*given))
    monkeypatch.setattr("torch.ops.mkldnn", counting, raising=False)
    test_a_completion_does_not_depend_on_who_shares_its_batch(model)
    test_the_training_forward_gives_the_same_logprobs(model)
    assert used


@torch.no_grad()
def test_the_training_forward_gives_the_same_logprobs(model):
    for prompt, group in zip(PROMPTS, Engine(model, TOKENIZER, max_rows=16).generate(PROMPTS, PARAMS)):
        for completion in group:
            tokens = torch.tensor([[*prompt, *completion.tokens]])
            logprobs = model(tokens).log_softmax(-1)[0, len(prompt) - 1 : -1]
            wanted = logprobs.gather(-1, tokens[0, len(prompt) :, None])[:, 0]
            assert completion.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)


def test_memory_said_is_memory_held(model):
    held = []
    new_cache = model.new_cache
    model.new_cache = lambda *sizes: held.append(new_cache(*sizes)) or held[-1]
    try:
        engine = Engine(model, TOKENIZER, max_rows=8)
        engine.generate(PROMPTS[:3], PARAMS)
    finally:
        del model.new_cache
    longest = max(map(len, PROMPTS[:3]))
    overhead = 8 * (PARAMS.max_tokens * 12 + TOKENIZER.vocab_size * 40)
    # told without the number of completions, it reserves at least as many staging rows
    assert held[0].bytes + overhead <= engine.memory(PARAMS, longest, completions=6)
