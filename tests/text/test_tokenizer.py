import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import CheckpointError
from aftershock.text import Tokenizer, chat_prompt, train_tokenizer, zero_prompt
from aftershock.text.tokenizer import CONTROL_TOKENS, TAG_TOKENS

SAMPLES = [
    "try 3*7+5=26, too big; no. (12-4)/8=1",
    "试一试 3*7+5=26，太大了；不对",
    "a  b\n\n c\t<think>x</think><answer>-3</answer>",
    "½ ٣٤ 😀 e\u0301 \u200d",
]


def corpus(count=800):
    rng = random.Random(0)
    for _ in range(count):
        a, b = rng.randint(1, 99), rng.randint(1, 99)
        yield f"User: make {a}.\n<think> try {a}*{b}={a * b}, too big; 试一试 {a}-{b}={a - b}，太大了；</think>"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(corpus(), 320)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=100)
@given(st.text("0123456789+-*/=() ax", max_size=30))
def test_every_digit_and_operator_is_one_token(tokenizer, text):
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    for piece in pieces:
        assert len(piece) == 1 or not any(c in "0123456789+-*/=()" for c in piece)


def test_frequent_words_are_one_token(tokenizer):
    for word in (" too", " big", "太大了"):
        assert len(tokenizer.encode(word)) == 1, word


def test_special_tokens_are_one_token_each_with_r1s_spelling(tokenizer):
    assert CONTROL_TOKENS == (
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<\uff5cUser\uff5c>",
        "<\uff5cAssistant\uff5c>",
    )
    for token in CONTROL_TOKENS + TAG_TOKENS:
        assert len(tokenizer.encode(token)) == 1, token
    assert tokenizer.encode(zero_prompt("1?"))[0] == tokenizer.bos
    assert tokenizer.encode("x")[0] != tokenizer.bos


def test_decoding_keeps_tags_and_drops_control_tokens(tokenizer):
    text = CONTROL_TOKENS[0] + "a<think>b</think><answer>c</answer>" + CONTROL_TOKENS[1]
    assert tokenizer.decode(tokenizer.encode(text)) == "a<think>b</think><answer>c</answer>"


def test_training_is_deterministic_and_bounded(tokenizer):
    again = train_tokenizer(corpus(), 320)
    assert again.fast.to_str() == tokenizer.fast.to_str()
    assert tokenizer.vocab_size <= 320
    with pytest.raises(CheckpointError, match="vocab_size is 200"):
        train_tokenizer(["a"], 200)


def test_transformers_reads_the_same_tokenizer(tokenizer, saved):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(saved)
    for text in SAMPLES:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos, tokenizer.eos)


def test_loading_gives_back_what_was_saved(tokenizer, saved, tmp_path):
    ours = Tokenizer.load(saved)
    assert ours.fast.to_str() == tokenizer.fast.to_str()
    assert ours.config == tokenizer.config
    assert ours.template == "zero"
    ours.with_template("chat").save_pretrained(tmp_path)
    assert Tokenizer.load(tmp_path).template == "chat"


def test_a_folder_written_by_transformers_loads(tokenizer, saved, tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(saved).save_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert [ours.encode(text) for text in SAMPLES] == [tokenizer.encode(text) for text in SAMPLES]
    assert ours.config["chat_template"] == tokenizer.config["chat_template"]
    assert (ours.bos, ours.eos, ours.template) == (tokenizer.bos, tokenizer.eos, "zero")


def test_a_folder_without_a_mark_is_a_chat_model_if_it_has_a_chat_template(tokenizer):
    config = {name: tokenizer.config[name] for name in ("bos_token", "eos_token", "chat_template")}
    assert Tokenizer(tokenizer.fast, config).template == "chat"
    del config["chat_template"]
    assert Tokenizer(tokenizer.fast, config).template == "paper"


def test_missing_files_and_tokens_are_named(tokenizer, tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="eos_token is '<nowhere>'"):
        Tokenizer(tokenizer.fast, {"bos_token": CONTROL_TOKENS[0], "eos_token": "<nowhere>"})


@pytest.fixture(scope="module")
def theirs(saved):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(saved)


contents = st.text("ab\n<think></think>12 {}é", max_size=20)
turns = st.builds(dict, role=st.sampled_from(["user", "assistant"]), content=contents)
systems = st.lists(st.builds(dict, role=st.just("system"), content=contents), max_size=1)


@settings(deadline=None, max_examples=50)
@given(system=systems, chat=st.lists(turns, min_size=1, max_size=5), prefill=st.booleans())
def test_the_saved_chat_template_is_ours(theirs, system, chat, prefill):
    messages = system + chat
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, prefill_think=prefill)
    assert rendered == chat_prompt(messages, prefill_think=prefill)
