"""Drafts change the pace and nothing else: the distribution, greedy completions, ends, and who shares a batch."""

import math
import random

import pytest
import torch
from toy import toy_tokenizer

from aftershock.errors import SamplingError
from aftershock.generate import Engine, SamplingParams
from aftershock.generate.sampler import inverse_cdf
from aftershock.generate.speculation import SpeculativeDecoder, judge
from aftershock.learn import Predictor, Sample, pack, pack_documents, token_logprobs
from aftershock.models import build, make_exact
from aftershock.recipe import OptimTable

torch.set_num_threads(1)
TOKENIZER = toy_tokenizer()
LETTERS = [TOKENIZER.encode(letter)[0] for letter in "abcdef"]
ONLY = {t: -math.inf for t in range(TOKENIZER.vocab_size) if t not in (*LETTERS[:4], TOKENIZER.eos)}
CONFIG = {
    "model_type": "deepseek_v3",
    "vocab_size": TOKENIZER.vocab_size,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
    "num_nextn_predict_layers": 1,
}
PROMPTS = [LETTERS[: 1 + i % 6] * (1 + i % 3) for i in range(9)]
WAYS = {
    "plain": SamplingParams(logit_bias=ONLY),
    "sharp": SamplingParams(logit_bias=ONLY, temperature=0.6, top_p=0.9),
    "flat": SamplingParams(logit_bias={**ONLY, LETTERS[0]: 1.0}, temperature=1.8, top_k=4, min_p=0.05),
}


def walks(count, rng):
    """Return walks over the letters: mostly two on, as the one before last says, and an end now and then."""
    found = []
    for _ in range(count):
        walk = [rng.randrange(6), rng.randrange(6)]
        while rng.random() > 0.06 and len(walk) < 40:
            walk.append((walk[-2] + walk[-1]) % 6 if rng.random() < 0.75 else rng.randrange(6))
        found.append([LETTERS[one] for one in walk] + [TOKENIZER.eos])
    return found


@pytest.fixture(scope="module")
def model():
    rng, model = random.Random(0), build(CONFIG, seed=0)
    learner = Predictor(model, OptimTable(lr=6e-3, warmup=5, clip_norm=1e9), 0.5)
    told = [learner.step(pack_documents(walks(16, rng), 1024)) for _ in range(60)]
    assert told[-1]["mtp_acceptance"] > 0.6
    return model


def complete(model, prompts=PROMPTS, max_rows=16, **how):
    return Engine(model, TOKENIZER, max_rows=max_rows).generate(prompts, SamplingParams(**how))


def p_value(counts, expected):
    """Return chi-square's p-value; cells expected fewer than five times are taken together."""
    rare = expected < 5
    if rare.any():
        counts = torch.cat((counts[~rare], counts[rare].sum()[None]))
        expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
    chi = ((counts - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2).double(), chi / 2).item()


def law(model, prompt, params, length):
    """Return the probability of every completion of up to `length` tokens, from plain forwards."""
    bias = torch.zeros(TOKENIZER.vocab_size)
    bias[list(params.logit_bias)] = torch.tensor(list(params.logit_bias.values()))
    alive, ended = {(): 1.0}, {}
    for _ in range(length):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *done] for done in alive]))[:, -1]
        probs = ((logits + bias) / params.temperature).double().softmax(-1)
        grown = {}
        for (done, mass), row in zip(alive.items(), probs):
            for token, share in kept(row, params).items():
                (ended if token == TOKENIZER.eos else grown)[(*done, token)] = mass * share
        alive = grown
    return ended | alive


def kept(probs, params):
    """Return what top-k, then top-p, then min-p leave of a distribution, by token."""
    order = sorted(range(len(probs)), key=lambda token: -probs[token].item())
    order = [t for t in order[: params.top_k or None] if probs[t] > 0]
    total, before, found = sum(probs[t].item() for t in order), 0.0, {}
    for token in order:
        if before < params.top_p * total and probs[token] >= params.min_p * probs[order[0]]:
            found[token] = probs[token].item()
        before += probs[token].item()
    return {token: share / sum(found.values()) for token, share in found.items()}


@pytest.mark.parametrize("draft", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_the_distribution_is_the_plain_one(model, way, draft):
    params, n, length = WAYS[way], 2000, 4
    prompt = LETTERS[:3]
    wanted = law(model, prompt, params, length)
    assert sum(wanted.values()) == pytest.approx(1)
    asked = {**vars(params), "n": n, "max_tokens": length, "draft": draft, "seed": 7}
    drawn = complete(model, [prompt], 512, **asked)[0]
    places = {tokens: place for place, tokens in enumerate(wanted)}
    counts = torch.bincount(torch.tensor([places[c.tokens] for c in drawn]), minlength=len(places))
    assert p_value(counts.double(), torch.tensor(list(wanted.values())) * n) > 1e-3
    assert sum(c.forwards for c in drawn) < 0.75 * sum(len(c.tokens) for c in drawn)


def test_judging_gives_the_targets_whatever_was_offered():
    """The first two tokens that a step of two drafts leaves, counted over many draws."""
    torch.manual_seed(0)
    n, target = 100_000, torch.rand(3, 5).softmax(-1)
    target[0, 3], target[1] = 0.0, torch.tensor([0.0, 0.7, 0.3, 0.0, 0.0])
    target /= target.sum(-1, keepdim=True)
    offered = torch.tensor([[0.05, 0.05, 0.6, 0.3, 0.0], [0.2, 0.5, 0.1, 0.1, 0.1]])
    drafts = torch.stack([inverse_cdf(q.expand(n, 5), torch.rand(n).double()) for q in offered], 1)
    accept, last = torch.rand(n, 2).double(), torch.rand(n, 3).double()
    tokens, counts = judge(target.expand(n, 3, 5), drafts, offered.expand(n, 2, 5), accept, last)
    assert (
        p_value(tokens[:, 0].bincount(minlength=5)[[0, 1, 2, 4]].double(), target[0, [0, 1, 2, 4]].double() * n) > 1e-3
    )
    second = tokens[counts > 1, 1].bincount(minlength=5)
    assert second[[0, 3, 4]].sum() == 0
    assert p_value(second[1:3].double(), torch.tensor([0.7, 0.3]).double() * (counts > 1).sum()) > 1e-3
    best = [torch.minimum(target[i], offered[i]).sum().item() for i in range(2)]
    assert (counts > 1).double().mean().item() == pytest.approx(best[0], abs=0.01)
    assert (counts > 2).double().mean().item() == pytest.approx(best[0] * best[1], abs=0.01)


@pytest.mark.parametrize("draft", [1, 2, 5])
def test_greedy_completions_are_the_plain_ones(model, draft):
    how = {"temperature": 0, "max_tokens": 50, "stop": ("cdf", "bb")}
    for plain, ours in zip(complete(model, **how), complete(model, draft=draft, **how)):
        assert ours[0].tokens == plain[0].tokens
        assert (ours[0].text, ours[0].finish_reason) == (plain[0].text, plain[0].finish_reason)
        assert ours[0].logprobs == pytest.approx(plain[0].logprobs, abs=1e-4)
        assert set(ours[0].sampled_logprobs) == {0.0}
        assert ours[0].forwards <= plain[0].forwards == len(plain[0].tokens)


def test_completions_end_where_they_should(model):
    drawn = [c for group in complete(model, n=4, max_tokens=17, stop=("cd",), draft=3) for c in group]
    assert {c.finish_reason for c in drawn} == {"stop", "length"}
    for c in drawn:
        assert "cd" not in c.text
        assert TOKENIZER.eos not in c.tokens[:-1]
        assert "cd" not in TOKENIZER.decode(list(c.tokens[:-1]))
        if c.finish_reason == "length":
            assert len(c.tokens) == 17
        else:
            assert c.tokens[-1] == TOKENIZER.eos or "cd" in TOKENIZER.decode(list(c.tokens))


def test_a_completion_does_not_depend_on_who_shares_its_batch(model):
    how = {"n": 3, "max_tokens": 24, "draft": 2, "top_p": 0.95}
    wanted = complete(model, max_rows=64, **how)
    assert len({c.forwards for group in wanted for c in group}) > 5
    order = random.Random(1).sample(range(len(PROMPTS)), len(PROMPTS))
    for max_rows in (1, 7):
        for i, group in zip(order, complete(model, [PROMPTS[i] for i in order], max_rows, **how)):
            assert group == wanted[i]


@torch.no_grad()
def test_an_exact_models_log_probabilities_are_the_learners_to_the_bit():
    model = build({**CONFIG, "initializer_range": 0.25}, seed=0)
    make_exact(model)
    samples = [
        Sample(c.prompt_tokens, c.tokens, c.logprobs, 1.0)
        for group in complete(model, draft=2, n=2, max_tokens=40, logit_bias={TOKENIZER.eos: 1.0})
        for c in group
    ]
    for batch in pack(samples, 512):
        logprobs, _ = token_logprobs(model, batch.tokens, batch.segments, batch.mask)
        assert torch.equal(logprobs, batch.sampler_logprobs)


@torch.no_grad()
def test_logprobs_are_the_models_and_the_sampled_distributions(model):
    how = {"n": 2, "max_tokens": 20, "temperature": 0.7, "top_k": 3}
    for prompt, group in zip(PROMPTS, complete(model, draft=2, **how)):
        for c in group:
            tokens = torch.tensor([[*prompt, *c.tokens]])
            own = model(tokens).log_softmax(-1)[0, len(prompt) - 1 : -1]
            assert c.logprobs == pytest.approx(own.gather(-1, tokens[0, len(prompt) :, None])[:, 0].tolist(), abs=1e-4)
            shaped = [kept((row / 0.7).softmax(-1), SamplingParams(top_k=3))[t] for row, t in zip(own, c.tokens)]
            assert c.sampled_logprobs == pytest.approx([math.log(share) for share in shaped], abs=1e-4)


@torch.no_grad()
def test_drafts_come_from_what_the_module_says_of_the_whole_text(model, monkeypatch):
    """The module's layer of the cache, refused drafts written over, holds what a forward over all tokens computes."""
    offered = {}

    def noting(decoder, padded):
        drafts, probs = made(decoder, padded)
        for row in range(decoder.rows.active):
            offered[decoder.rows.owners[row].prompt, int(decoder.rows.steps[row])] = probs[row, 0].clone()
        return drafts, probs

    made = SpeculativeDecoder._drafts
    monkeypatch.setattr(SpeculativeDecoder, "_drafts", noting)
    drawn = complete(model, max_tokens=30, draft=2, seed=3)
    for (prompt, step), probs in offered.items():
        tokens = torch.tensor([[*PROMPTS[prompt], *drawn[prompt][0].tokens]])
        states = model.mtp_hidden(model.hidden(tokens), tokens)
        read = len(PROMPTS[prompt]) - 2 + step
        if read >= 0:  # a prompt of one token has no state to draft the first token from
            assert torch.allclose(probs, model.mtp_logits(states)[0, read].softmax(-1), atol=1e-4)
    assert len(offered) > 40


def test_streamed_text_is_the_generated_one(model):
    params = SamplingParams(max_tokens=30, draft=2)
    engine = Engine(model, TOKENIZER, prefilled_think=False)
    assert (
        "".join(piece.text for piece in engine.stream(PROMPTS[2], params))
        == engine.generate([PROMPTS[2]], params)[0][0].text
    )


def test_memory_said_holds_the_modules_layer(model):
    engine = Engine(model, TOKENIZER)
    plain, ours = (engine.memory(SamplingParams(max_tokens=100, draft=draft), 20) for draft in (0, 2))
    assert ours > plain * 1.4
    held = []
    model.new_cache = lambda *sizes, **how: held.append(type(model).new_cache(model, *sizes, **how)) or held[-1]
    try:
        complete(model, n=4, max_tokens=60, draft=2)
    finally:
        del model.new_cache
    assert held[0].bytes < Engine(model, TOKENIZER, max_rows=16).memory(SamplingParams(max_tokens=60, draft=2), 18)


def test_a_model_without_a_module_is_refused():
    plain = build({**CONFIG, "num_nextn_predict_layers": 0}, seed=0)
    with pytest.raises(SamplingError, match=r"draft is 2.*num_nextn_predict_layers"):
        complete(plain, draft=2, max_tokens=9)
    with pytest.raises(SamplingError, match="draft is -1"):
        complete(plain, draft=-1, max_tokens=9)
