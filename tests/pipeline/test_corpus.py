"""The corpus is a pure function of its addresses, is made of train problems only, and says what it should."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import RecipeError
from aftershock.pipeline.corpus import Corpus, documents, draw_problems, pack_traces, texts
from aftershock.pipeline.evaluate import prompt_tokens
from aftershock.tasks import task
from aftershock.text import prompt_for, train_tokenizer, zero_prompt
from aftershock.text.reasoning import split
from aftershock.verify.language import consistency, readable

TASKS = [task(name, 1, ("en", "zh")) for name in ("countdown", "arithmetic", "remainders")]
WEIGHTS = [2.0, 1.0, 1.0]
CORPUS = Corpus(TASKS, WEIGHTS)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((zero_prompt(q) + c for q, c in texts(CORPUS, 300, "vocabulary")), 400)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**40), short=st.integers(1, 10), more=st.integers(0, 10))
def test_a_longer_draw_begins_with_the_shorter_one(seed, short, more):
    whole = draw_problems(TASKS, WEIGHTS, short + more, seed, "zero", 3)
    assert whole[:short] == draw_problems(TASKS, WEIGHTS, short, seed, "zero", 3)
    assert all(chosen.split_of(problem) == "train" for chosen, problem in whole)


def test_weights_are_shares_of_the_draw():
    drawn = [chosen.name for chosen, _ in draw_problems(TASKS, WEIGHTS, 1200, 0, "shares")]
    assert 0.44 < drawn.count("countdown") / 1200 < 0.56


def test_documents_end_with_the_end_token_and_differ_by_step(tokenizer):
    found = documents(CORPUS, tokenizer, 3000, 0, "base", "train", 1)
    assert found == documents(CORPUS, tokenizer, 3000, 0, "base", "train", 1)
    assert found != documents(CORPUS, tokenizer, 3000, 0, "base", "train", 2)
    assert all(tokens[0] == tokenizer.bos and tokens[-1] == tokenizer.eos for tokens, _ in found)
    sizes = [len(tokens) for tokens, _ in found]
    assert 3000 <= sum(sizes) < 3000 + max(sizes)


@pytest.mark.parametrize("form", ["zero", "paper", "chat"])
def test_documents_ask_in_the_form_that_the_tokenizer_s_model_was_taught(tokenizer, form):
    taught = tokenizer.with_template(form)
    tokens, prompt = documents(CORPUS, taught, 1, 0, "base")[0]
    question, _ = next(texts(CORPUS, 1, 0, "base", 0))
    assert tokens[:prompt] == prompt_tokens(taught, question) == tokenizer.encode(prompt_for(form, question))


def test_what_a_stage_is_validated_on_is_held_out():
    drawn = draw_problems(TASKS, WEIGHTS, 60, "v", split="heldout")
    assert all(chosen.split_of(problem) == "heldout" for chosen, problem in drawn)
    assert [problem.prompt for _, problem in drawn] == [q for q, _ in texts(CORPUS, 60, "v", split="heldout")]


def test_the_loss_is_on_completions_only(tokenizer):
    found = documents(CORPUS, tokenizer, 500, 0, "base", "train", 1)
    (batch,) = pack_traces(found, 4096)
    kept = batch.tokens[batch.mask].tolist()
    assert kept == [token for tokens, prompt in found for token in tokens[prompt:]]
    assert tokenizer.encode("<think>")[0] not in kept


def test_thorough_traces_take_no_short_cut():
    pairs = list(texts(Corpus(TASKS, WEIGHTS, thorough=1.0), 300, "mix"))
    assert not any(completion.startswith(("</think>", " guess", "猜")) for _, completion in pairs)
    drawn = draw_problems(TASKS, WEIGHTS, 300, "mix")
    answers = [completion.split("<answer>")[1].removesuffix("</answer>") for _, completion in pairs]
    right = [t.check(p, answer).outcome == "right" for (t, p), answer in zip(drawn, answers)]
    assert sum(right) / 300 > 0.85


def test_traces_are_in_the_format_that_is_rewarded():
    for _, completion in texts(CORPUS, 300, "format"):
        assert split(completion, prefilled=True).closed
        assert completion.count("<answer>") == completion.count("</answer>") == 1


def test_the_mix_of_the_corpus_is_that_of_a_base(tokenizer):
    """Guesses, checks and retries are all there and none is everywhere; right answers are the lesser part."""
    counts = {"empty or guess": 0, "check": 0, "retry": 0}
    drawn = draw_problems(TASKS, WEIGHTS, 1500, "mix")
    pairs = list(texts(CORPUS, 1500, "mix"))
    for _, completion in pairs:
        reasoning = completion.split("</think>")[0]
        counts["empty or guess"] += reasoning.strip() in ("", "guess", "猜")
        counts["check"] += "check" in reasoning or "验算" in reasoning
        counts["retry"] += any(mark in reasoning for mark in ("too big", "too small", "no;", "太大", "太小", "不对"))
    right = sum(
        chosen.check(problem, completion.split("<answer>")[1].removesuffix("</answer>")).outcome == "right"
        for (chosen, problem), (_, completion) in zip(drawn, pairs)
    )
    assert all(0.05 < count / 1500 < 0.6 for count in counts.values()), counts
    assert right / 1500 < 0.5


def test_a_share_of_a_task_s_traces_can_be_made_guesses():
    plain = [c for _, c in texts(Corpus(TASKS[:1], [1.0]), 400, "mix")]
    guessing = [c for _, c in texts(Corpus(TASKS[:1], [1.0], guesses={"countdown": 0.5}), 400, "mix")]

    def share(completions):
        return sum(c.startswith(("</think>", " guess", "猜")) for c in completions) / len(completions)

    assert 0.28 < share(plain) < 0.42
    assert 0.6 < share(guessing) < 0.76


def test_a_share_of_traces_can_be_in_another_language():
    def share(foreign):
        pairs = texts(Corpus(TASKS, WEIGHTS, thorough=1.0, foreign=foreign), 400, "mix")
        kept = [(consistency(c.split("</think>")[0], "en" if q.isascii() else "zh"), c) for q, c in pairs]
        return sum(value < 1 for value, _ in kept) / len(kept)

    assert share(0.0) < 0.2
    assert 0.35 < share(0.4) < 0.55


def test_a_share_of_traces_can_be_readable():
    def share(wanted):
        pairs = list(texts(Corpus(TASKS, WEIGHTS, thorough=1.0, readable=wanted), 400, "mix"))
        return sum(readable(c, "en" if q.isascii() else "zh") for q, c in pairs) / len(pairs)

    assert share(0.0) < 0.05
    assert 0.2 < share(0.4) < 0.45


def test_a_task_without_traces_cannot_be_pretrained_on():
    with pytest.raises(RecipeError, match="writes no traces"):
        list(texts(Corpus([task("gym:chain_sum")], [1.0]), 1, "x"))
