"""Exact mode: the learner's log-probabilities are the sampler's to the bit, whoever shares a batch, and still learn."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import RecipeError, TrainingError
from aftershock.generate import Engine, SamplingParams
from aftershock.learn import Learner, Sample, pack, token_logprobs
from aftershock.models import Segments, build, invariant, make_exact
from aftershock.models.native import build as native
from aftershock.recipe import LossTable, OptimTable, load_recipe

torch.set_num_threads(1)
SIZES = {
    "vocab_size": 131,  # no multiple of a vector's width, as none of these sizes is
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
DENSE = SIZES | {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12}
CONFIGS = {
    "qwen2": DENSE | {"model_type": "qwen2"},
    "llama": DENSE | {"model_type": "llama", "num_key_value_heads": 3},
    "qwen3": DENSE | {"model_type": "qwen3", "tie_word_embeddings": True},
    "deepseek_v3": SIZES
    | {
        "model_type": "deepseek_v3",
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "moe_intermediate_size": 20,
        "n_routed_experts": 6,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 20,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
    },
}


class Bare:
    """As much of a tokenizer as the engine asks for."""

    vocab_size, eos = 131, 1

    def decode(self, tokens):
        return " ".join(map(str, tokens))

    def token_bytes(self, token):
        return str(token).encode()


@pytest.fixture(params=["C", "PyTorch"])
def form(request, monkeypatch):
    if request.param == "PyTorch":
        monkeypatch.setenv(native.SWITCH, "0")
    elif native.library() is None:
        pytest.skip("no C library")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def exact(kind, seed=0):
    model = build(CONFIGS[kind], seed=seed)
    make_exact(model)
    return model


def rollouts(model, max_rows, prompts=4, longest=24, max_tokens=40, seed=0, **how):
    rng = random.Random(seed)
    asked = [[rng.randrange(2, 131) for _ in range(rng.randint(1, longest))] for _ in range(prompts)]
    engine = Engine(model, Bare(), max_rows=max_rows)
    params = SamplingParams(n=3, max_tokens=max_tokens, logit_bias={1: 2.0}, seed=seed)
    groups = engine.generate(asked, replace(params, **how))
    return [
        Sample(one.prompt_tokens, one.tokens, one.logprobs, rng.uniform(-1, 1), number)
        for number, group in enumerate(groups)
        for one in group
    ]


def gaps(model, samples, micro_tokens, deep=False):
    """Return |sampler - learner| of every token, from the forward that is learnt from."""
    found = []
    for batch in pack(samples, micro_tokens, deep=deep):
        logprobs, _ = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
        assert logprobs.requires_grad
        found.append((batch.counted(logprobs.detach()) - batch.sampler_logprobs).abs())
    return torch.cat(found)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_learner_has_the_sampler_s_bits(kind, form):
    model = exact(kind)
    for max_rows, micro_tokens in ((1, 4096), (64, 20), (7, 200)):
        found = gaps(model, rollouts(model, max_rows, max_tokens=16), micro_tokens)
        assert len(found) > 80
        assert found.max() == 0


@pytest.mark.parametrize("kind", CONFIGS)
def test_so_it_is_in_a_tree_of_prefixes(kind, form):
    model = exact(kind)
    samples = rollouts(model, 64, max_tokens=16, n=12, temperature=0.3)
    flat, deep = pack(samples, 4096), pack(samples, 4096, deep=True)
    assert sum(len(batch.tokens) for batch in deep) < 0.9 * sum(len(batch.tokens) for batch in flat)
    assert gaps(model, samples, 4096, deep=True).max() == 0


def test_so_it_is_with_two_threads(threads, form):
    threads(2)
    model = exact("deepseek_v3")
    assert gaps(model, rollouts(model, 64, max_tokens=3), 64).max() == 0


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v3"])
def test_so_it_is_where_sums_over_keys_are_cut(kind, form):
    model = exact(kind)
    samples = rollouts(model, 64, prompts=4, longest=300, max_tokens=20, seed=3)
    assert max(len(one.prompt) for one in samples) > invariant.PLACES
    assert gaps(model, samples, 800).max() == 0


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_it_bits_differ(kind):
    """Were they equal anyway, the tests above would prove nothing."""
    model = build(CONFIGS[kind], seed=0)
    assert 0 < gaps(model, rollouts(model, 64), 4096).max() < 1e-4


@pytest.mark.parametrize("kind", CONFIGS)
def test_values_and_gradients_are_the_plain_model_s(kind, form):
    plain, other = build(CONFIGS[kind], seed=0), exact(kind)
    (batch,) = pack(rollouts(plain, 64), 4096)
    grads = []
    for model in (plain, other):
        logprobs, entropy = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
        (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
        grads.append([logprobs.detach(), entropy, *(weight.grad for weight in model.parameters())])
    for one, two in zip(*grads):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "deepseek_v3"])
def test_in_tiles_of_one_shape_too(kind, monkeypatch):
    """What a GPU runs, on a CPU: the same numbers but for rounding, and sampler and learner equal."""
    model, plain = exact(kind), build(CONFIGS[kind], seed=0)
    monkeypatch.setattr(invariant, "tiled", lambda x: True)
    monkeypatch.setenv(native.SWITCH, "0")
    samples = rollouts(model, 8, prompts=2, max_tokens=12)
    assert gaps(model, samples, 100).max() == 0
    assert gaps(plain, samples, 100).max() < 1e-4


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(0, 40), st.integers(1, 60), st.integers(0, 99))
def test_a_row_of_a_product_has_its_own_bits(rows, first, width, seed):
    draw = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(120, width, generator=draw), torch.randn(19, width, generator=draw)
    whole = invariant.linear(x, weight)
    assert torch.equal(invariant.linear(x[first : first + rows], weight), whole[first : first + rows])
    for act, plain in ((invariant.silu, torch.nn.functional.silu), (invariant.sigmoid, torch.sigmoid)):
        assert torch.equal(act(x[first : first + rows]), act(x)[first : first + rows])
        torch.testing.assert_close(act(x * 30), plain(x * 30))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 300),
    st.integers(0, 60),
    st.integers(1, 5),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 99),
)
def test_a_query_sees_the_same_alone_as_among_others(length, more, shared, dim, value_dim, seed):
    draw = torch.Generator().manual_seed(seed)
    time = length + more
    q = torch.randn(2, 2, time, shared, dim, generator=draw)
    k, v = torch.randn(2, 2, time, dim, generator=draw), torch.randn(2, 2, time, value_dim, generator=draw)
    whole = invariant.causal(q, k, v, 0.3)
    last = slice(length - 1, length)
    alone = invariant.attention(q[:1, :1, last], k[:1, :1, :length], v[:1, :1, :length], 0.3, torch.zeros(1, 1, length))
    assert torch.equal(alone, whole[:1, :1, last])
    seen = k[:, :, None, :length] * q[:, :, length - 1, :, None]
    wanted = (seen.sum(-1) * 0.3).softmax(-1) @ v[:, :, :length]
    torch.testing.assert_close(whole[:, :, length - 1], wanted, rtol=1e-4, atol=1e-5)


def test_a_model_that_has_sampled_before_becomes_exact_too(form):
    model = build(CONFIGS["llama"], seed=0)
    rollouts(model, 2, max_tokens=30)  # long enough that a step is recorded
    make_exact(model)
    assert gaps(model, rollouts(model, 64), 400).max() == 0


def test_one_bit_ends_the_step_and_leaves_the_weights(form):
    model = exact("qwen2")
    samples = rollouts(model, 64)
    learner = Learner(model, OptimTable(lr=1e-2), LossTable(), 4)
    assert learner.step(pack(samples, 400))["mismatch_max"] == 0
    told = rollouts(model, 64)
    last = torch.tensor(told[-1].logprobs)
    last[-1] = torch.nextafter(last[-1], torch.tensor(0.0))
    one = told[-1]
    told[-1] = Sample(one.prompt, one.completion, tuple(last.tolist()), one.advantage, one.group)
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(TrainingError, match="differ in 1 of"):
        learner.step(pack(told, 400))
    assert all(map(torch.equal, before, model.parameters()))
    assert learner.steps_done == 1


def test_the_ratio_to_the_sampler_is_one_in_every_minibatch():
    model = exact("deepseek_v3")
    learner = Learner(model, OptimTable(lr=1e-2, balance_rate=0.1), LossTable(), 4)
    for seed in range(2):  # the second on weights and balance that the first has moved
        samples = rollouts(model, 16, seed=seed)
        told = learner.step_minibatches([pack(samples[:6], 100), pack(samples[6:], 100)])
        assert told["mismatch_max"] == 0


def test_half_precision_is_refused(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        '[run]\nname = "r"\n[stage.a]\nkind = "rl"\nsteps = 1\ntasks = [{name = "countdown"}]\nexact = true\n'
    )
    assert load_recipe(path, []).stage["a"].exact
    with pytest.raises(RecipeError, match=r"exact.*float32"):
        load_recipe(path, ["stage.a.optim.precision=bfloat16"])


def test_the_same_experts_are_chosen_with_the_same_weights(form):
    model, (tokens, other) = (
        exact("deepseek_v3"),
        torch.randint(2, 131, (2, 30), generator=torch.Generator().manual_seed(0)),
    )
    gate, seen = model.model.layers[1].mlp.gate, []
    gate.register_forward_hook(lambda *told: seen.append([part[:30] for part in told[2]]))
    cache, rows = model.new_cache(8, 48), torch.stack([tokens, *[other] * 7])
    with torch.inference_mode():
        for place in range(30):
            model.hidden(rows[:, place, None], cache=cache, starts=torch.full((8,), place))
    stepwise, seen[:] = [torch.cat([one[part][:1] for one in seen]) for part in (0, 1)], []
    model.hidden(torch.cat([tokens, other])[None], segments=Segments(torch.tensor([0, 30, 60]), 30))
    for one, two in zip(zip(*stepwise), zip(*seen[0])):
        assert dict(zip(*(part.tolist() for part in one))) == dict(zip(*(part.tolist() for part in two)))
