import hashlib
import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToyLM, toy_tokenizer

from aftershock.address import key, keys, uniforms
from aftershock.errors import AftershockError, CapacityError, SamplingError
from aftershock.generate import Engine, SamplingParams
from aftershock.generate.sampler import Sampler

torch.set_num_threads(1)
PROMPTS = ["ab", "try 3*7", "试一试", "x", "ab", "a much longer prompt than all of the others", [5, 6, 7]]
OPTIONS = {
    "plain": SamplingParams(n=3, max_tokens=40),
    "one": SamplingParams(max_tokens=40, seed=3),
    "greedy": SamplingParams(n=2, max_tokens=40, temperature=0),
    "truncated": SamplingParams(n=3, max_tokens=40, temperature=0.8, top_p=0.9, top_k=50, min_p=0.01),
    "stop": SamplingParams(n=3, max_tokens=40, stop=("a", "太", "of"), logit_bias={1: 2.0, 9: -math.inf}),
    "ends at once": SamplingParams(n=5, max_tokens=40, logit_bias={1: 5.0}),
    "one token": SamplingParams(n=9, max_tokens=1),
}


def test_keys_are_those_of_the_addresses_one_by_one():
    assert keys(12, 3, "zero") == [key(3, "zero", number) for number in range(12)]


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer()


@pytest.fixture
def model(tokenizer):
    return ToyLM(tokenizer.vocab_size)


@pytest.fixture
def engine(model, tokenizer):
    return Engine(model, tokenizer, max_rows=8)


def naive(model, tokenizer, prompt, params, address):
    """One completion by the textbook: the whole sequence anew for each token, alone, without a cache."""
    tokens = list(tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
    drawn, sampler = [], Sampler(params, tokenizer.vocab_size, model.device)
    row = torch.tensor([key(params.seed, *address)], dtype=torch.uint64).numpy()
    model.eval()
    with torch.no_grad():
        for position in range(params.max_tokens):
            logits = model(torch.tensor([tokens + [int(d.tokens) for d in drawn]]))[:, -1]
            at = torch.tensor([position]).numpy()
            drawn.append(sampler(logits, torch.from_numpy(uniforms(row, at))))
            text = tokenizer.decode([int(d.tokens) for d in drawn])
            if int(drawn[-1].tokens) == tokenizer.eos or any(stop in text for stop in params.stop):
                break
    return drawn


@pytest.mark.parametrize("name", OPTIONS)
def test_completions_are_those_of_a_naive_loop(model, tokenizer, name):
    params = OPTIONS[name]
    addresses = [("here", i) for i in range(len(PROMPTS))]
    groups = Engine(model, tokenizer, max_rows=4).generate(PROMPTS, params, addresses)
    for prompt, address, group in zip(PROMPTS, addresses, groups):
        assert len(group) == params.n
        for sample, completion in enumerate(group):
            drawn = naive(model, tokenizer, prompt, params, (*address, sample))
            assert completion.tokens == tuple(int(d.tokens) for d in drawn)
            for ours, theirs in ((completion.logprobs, 1), (completion.sampled_logprobs, 2)):
                assert ours == pytest.approx([float(d[theirs]) for d in drawn], abs=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_completion_does_not_depend_on_who_shares_its_batch(model, tokenizer, name):
    wanted = Engine(model, tokenizer, max_rows=1).generate(PROMPTS, OPTIONS[name])
    for max_rows in (7, 64):
        assert Engine(model, tokenizer, max_rows=max_rows).generate(PROMPTS, OPTIONS[name]) == wanted
    for prompt, group in zip(PROMPTS, wanted):
        if prompt != "ab":
            assert Engine(model, tokenizer).generate([prompt], OPTIONS[name]) == [group]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), max_rows=st.integers(1, 20))
def test_nor_on_the_order_of_prompts_and_not_in_one_bit(tokenizer, seed, max_rows):
    model, params = ToyLM(tokenizer.vocab_size), OPTIONS["plain"]
    order = list(range(len(PROMPTS)))
    random.Random(seed).shuffle(order)
    order = [i for i in order if i != 4]  # of two equal prompts the first comes first, by definition
    wanted = Engine(model, tokenizer).generate(PROMPTS, params)
    got = Engine(model, tokenizer, max_rows=max_rows).generate([PROMPTS[i] for i in order], params)
    assert got == [wanted[i] for i in order]


def test_seeds_samples_addresses_and_equal_prompts_all_differ(engine):
    params = SamplingParams(n=2, max_tokens=12)
    ab, again = engine.generate(["ab", "ab"], params)
    other_seed = engine.generate(["ab"], replace(params, seed=1))[0]
    addressed = engine.generate(["ab"], params, [("zero", 1)])[0]
    assert len({c.tokens for c in ab + again + other_seed + addressed}) == 8


def test_the_default_address_is_the_prompt_and_its_occurrence(engine):
    tokens = tuple(engine.tokenizer.encode("ab"))
    digest = hashlib.blake2b(repr(tokens).encode(), digest_size=16).hexdigest()
    addresses = [("prompt", digest, 0), ("prompt", digest, 1)]
    params = SamplingParams(n=2, max_tokens=12)
    assert engine.generate(["ab", "ab"], params, addresses) == engine.generate(["ab", "ab"], params)


def test_a_shared_prompt_is_prefilled_once_without_its_last_token(engine, model):
    engine.generate(["ab", "xyz", "ab"], SamplingParams(n=20, max_tokens=6))
    encode = engine.tokenizer.encode
    rows = [row for batch, _ in model.prefilled for row in batch]
    assert sorted(row[: len(encode(p)) - 1] for row, p in zip(rows, ["ab", "xyz"])) == sorted(
        encode(p)[:-1] for p in ("ab", "xyz")
    )
    assert len(rows) == 2


def test_waiting_prompts_are_prefilled_together(tokenizer, model):
    Engine(model, tokenizer, max_rows=64).generate([f"prompt {i}" for i in range(40)], SamplingParams(max_tokens=4))
    assert [len(batch) for batch, _ in model.prefilled] == [16, 16, 8]


def test_a_long_prompt_is_prefilled_in_parts(tokenizer, model, monkeypatch):
    prompt = [random.Random(0).randrange(10, 200) for _ in range(50)]
    params = SamplingParams(max_tokens=8)
    wanted = Engine(model, tokenizer).generate([prompt], params)
    model.prefilled.clear()
    monkeypatch.setattr("aftershock.generate.decoder.PREFILL_TOKENS", 16)
    got = Engine(model, tokenizer).generate([prompt], params)
    assert [starts[0] for _, starts in model.prefilled] == [0, 16, 32, 48]
    assert got[0][0].tokens == wanted[0][0].tokens


def test_a_finished_rows_place_is_taken_at_once_and_rows_stay_compact(tokenizer, model):
    params = SamplingParams(n=10, max_tokens=60, logit_bias={tokenizer.eos: 3.0})
    groups = Engine(model, tokenizer, max_rows=8).generate([f"prompt {i}" for i in range(6)], params)
    lengths = [len(c.tokens) for group in groups for c in group]
    decodes = [starts for _, time, starts in model.calls if time == 1 and starts != [0] * len(starts)]
    assert len(set(lengths)) > 10
    assert {len(starts) for starts in decodes} == {8}
    # a decode call holds one token of each active row; rows rest, at start 0, only once nothing waits
    busy = [sum(start > 0 for start in starts) for starts in decodes]
    assert sum(busy) == sum(lengths)
    assert busy == sorted(busy, reverse=True)
    assert all(all(s > 0 for s in starts[:n]) for starts, n in zip(decodes, busy))


def test_finish_reasons_and_the_end_token(engine, tokenizer):
    params = SamplingParams(n=8, max_tokens=15, logit_bias={tokenizer.eos: 4.0})
    seen = set()
    for completion in engine.generate(["ab"], params)[0]:
        seen.add(completion.finish_reason)
        assert (completion.tokens[-1] == tokenizer.eos) == (completion.finish_reason == "stop")
        assert tokenizer.eos not in completion.tokens[:-1]
        assert len(completion.tokens) == len(completion.logprobs) == len(completion.sampled_logprobs) <= 15
        assert (completion.finish_reason == "length") <= (len(completion.tokens) == 15)
        assert completion.text == tokenizer.decode(completion.tokens)
    assert seen == {"stop", "length"}


def forced(tokenizer, text):
    """A model that writes `text` and then ends: each token of it has but one successor."""
    tokens = [*tokenizer.encode(text), tokenizer.eos]
    model = ToyLM(tokenizer.vocab_size)

    def logits(hidden):
        result = torch.full((*hidden.shape[:-1], tokenizer.vocab_size), -50.0)
        result[..., tokens[min(len(seen), len(tokens) - 1)]] = 50.0
        seen.append(1)
        return result

    seen = []
    model.logits = logits
    return Engine(model, tokenizer)


@pytest.mark.parametrize(
    ("text", "stops", "kept", "tokens_kept"),
    [
        ("12+34=5", ("+3",), "12", "12+3"),  # straddles two tokens
        ("12+34=5", ("9", "=", "4="), "12+3", "12+34="),  # the first in the text, of several that end together
        ("ok 太大了 no", ("大",), "ok 太", "ok 太大了"),  # inside a token
        ("ok 😀 no", ("😀",), "ok ", "ok 😀"),  # several tokens a character
        ("13太大了", ("3太",), "1", "13太大了"),  # straddles, and ends inside a token
        ("12</think>34", ("</think>3",), "12", "12</think>3"),
        ("1212", ("3",), "1212", None),  # never comes
        ("+++", ("+",), "", "+"),
    ],
)
def test_stop_strings_end_a_completion_and_stay_out_of_its_text(tokenizer, text, stops, kept, tokens_kept):
    completion = forced(tokenizer, text).generate(["x"], SamplingParams(stop=stops))[0][0]
    wanted = [*tokenizer.encode(text), tokenizer.eos] if tokens_kept is None else tokenizer.encode(tokens_kept)
    assert completion.text == kept
    assert completion.tokens == tuple(wanted)
    assert completion.finish_reason == "stop"
    pieces = list(forced(tokenizer, text).stream("x", SamplingParams(stop=stops)))
    assert "".join(piece.text for piece in pieces) == completion.reasoning + completion.answer


def test_reasoning_and_answer_follow_the_prefill(tokenizer):
    text = "so 4 </think> <answer>4</answer>"
    prefilled = forced(tokenizer, text).generate(["x"], SamplingParams())[0][0]
    assert (prefilled.reasoning, prefilled.answer) == ("so 4", "<answer>4</answer>")
    engine = forced(tokenizer, "so 4")
    engine.prefilled_think = False
    assert engine.generate(["x"], SamplingParams())[0][0].answer == "so 4"


def drain(stream):
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_is_the_completion_bit_by_bit(engine, seed):
    params = SamplingParams(max_tokens=60, seed=seed, stop=("z", "大"), logit_bias={1: 2.0})
    pieces, completion = drain(engine.stream("ab", params))
    assert [[completion]] == engine.generate(["ab"], params)
    assert "".join(piece.text for piece in pieces if piece.part == "reasoning") == completion.reasoning
    assert "".join(piece.text for piece in pieces if piece.part == "answer") == completion.answer


def test_a_stream_comes_while_it_is_written(tokenizer):
    pieces, _ = drain(forced(tokenizer, "12+3=4</think>太大了 😀!").stream("x", SamplingParams()))
    assert [p.text for p in pieces if p.part == "reasoning"] == list("12+3=4")
    assert [p.text for p in pieces if p.part == "answer"] == ["太大了", " 😀", "!"]


def test_only_one_completion_can_be_streamed(engine):
    with pytest.raises(SamplingError, match="n is 2"):
        next(engine.stream("ab", SamplingParams(n=2)))


def test_memory_is_said_beforehand_and_kept_to(engine, model):
    params = SamplingParams(n=3, max_tokens=10)
    engine.generate(["abcde", "x"], params)
    longest = len(engine.tokenizer.encode("abcde"))
    record, working = 8 * 10 * 12, 8 * 40 * model.config.vocab_size
    said = engine.memory(params, longest, completions=6)
    assert said >= model.caches[0].bytes + record + working
    assert said <= engine.memory(params, longest)
    assert longest + 10 - 1 <= model.caches[0].capacity < longest + 10 - 1 + 16


def test_what_does_not_fit_is_refused_with_numbers_and_remedy(model, tokenizer):
    params = SamplingParams(max_tokens=100)
    needed = Engine(model, tokenizer).memory(params, 2, completions=1)
    enough = Engine(model, tokenizer, max_memory_bytes=needed)
    assert len(enough.generate([[5, 6]], params)) == 1
    with pytest.raises(CapacityError, match=f"need {needed:,} bytes; max_memory_bytes is {needed - 1:,}: lower"):
        Engine(model, tokenizer, max_memory_bytes=needed - 1).generate([[5, 6]], params)
    model.config.max_position_embeddings = 101
    with pytest.raises(CapacityError, match="2 tokens and max_tokens is 100, together 102; the model has 101 pos"):
        enough.generate([[5, 6]], params)
    with pytest.raises(CapacityError, match="max_rows is 0"):
        Engine(model, tokenizer, max_rows=0)


def test_prompts_that_make_no_sense_are_refused(engine):
    for prompt, words in (("", "prompt 1 has no tokens"), ([4, 300], "300"), ([-1], "-1")):
        with pytest.raises(SamplingError, match=words):
            engine.generate(["ab", prompt], SamplingParams())
    with pytest.raises(SamplingError, match="1 addresses for 2 prompts"):
        engine.generate(["ab", "ab"], SamplingParams(), [(1,)])
    with pytest.raises(SamplingError, match="temperature"):
        engine.generate(["ab"], SamplingParams(temperature=-1))
    assert engine.generate([], SamplingParams()) == []


def test_weights_that_have_diverged_are_named_not_sampled(engine, model):
    with torch.no_grad():
        model.head.bias[3] = math.nan
    with pytest.raises(AftershockError, match="not finite while completing prompt 0"):
        engine.generate(["ab"], SamplingParams(max_tokens=3))


def test_the_engine_reads_the_weights_as_they_are_now(engine, model):
    params = SamplingParams(max_tokens=5, temperature=0)
    with torch.no_grad():
        model.head.bias[7] = 1e4
        assert engine.generate(["ab"], params)[0][0].tokens == (7,) * 5
        model.head.bias[8] = 1e5
        assert engine.generate(["ab"], params)[0][0].tokens == (8,) * 5


def test_modes_are_given_back_as_they_were(engine, model):
    model.train()
    model.embed.eval()  # a frozen part
    engine.generate(["ab"], SamplingParams(max_tokens=2))
    with torch.no_grad():
        model.head.bias[3] = math.nan
    with pytest.raises(AftershockError):
        engine.generate(["ab"], SamplingParams(max_tokens=2))
    assert model.training
    assert model.dropout.training
    assert not model.embed.training


def test_on_finish_hears_of_each_completion_once(engine):
    heard = {}
    params = SamplingParams(n=6, max_tokens=20, logit_bias={1: 3.0})
    groups = engine.generate(["ab", "x"], params, on_finish=lambda p, s, c: heard.setdefault((p, s), c))
    assert heard == {(p, s): c for p, group in enumerate(groups) for s, c in enumerate(group)}
