import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learn_tiny import unpack

from aftershock.errors import TrainingError
from aftershock.learn import Sample, pack, pack_documents, split

tokens = st.lists(st.integers(0, 99), min_size=1, max_size=12).map(tuple)


@st.composite
def samples(draw):
    completion = draw(tokens)
    logprobs = tuple(draw(st.floats(-9, 0, width=32)) for _ in completion)
    return Sample(draw(tokens), completion, logprobs, draw(st.floats(-3, 3, width=32)), draw(st.integers(0, 4)))


def bare(sample):
    return Sample(sample.prompt, sample.completion, sample.logprobs, sample.advantage)


@settings(deadline=None, max_examples=60)
@given(st.lists(samples(), min_size=1, max_size=12), st.integers(1, 60))
def test_nothing_is_lost_padded_or_laid_twice(given_samples, micro_tokens):
    batches = pack(given_samples, micro_tokens, max_tokens=7)
    want = [bare(sample) for sample in given_samples]
    assert sorted(unpack(batches), key=repr) == sorted(want, key=repr)
    for batch in batches:
        held = unpack([batch])
        prompts = {sample.prompt for sample in held}
        lengths = [len(sample.prompt) + len(sample.completion) for sample in held]
        assert len(batch.tokens) == sum(map(len, prompts)) + sum(len(sample.completion) for sample in held)
        assert batch.segments.longest == max(lengths) == batch.segments.lengths().max()
        assert sum(lengths) <= micro_tokens or len(held) == 1
        for prompt in prompts:
            order = iter(want)
            assert all(any(sample == other for other in order) for sample in held if sample.prompt == prompt)


@settings(deadline=None, max_examples=30)
@given(st.lists(samples(), min_size=4, max_size=12, unique_by=lambda s: s.completion))
def test_a_group_stays_together_where_it_fits(given_samples):
    same = [dataclasses.replace(sample, prompt=(1, 2, 3)) for sample in given_samples]
    others = [dataclasses.replace(sample, prompt=(4, 5)) for sample in given_samples]
    size = sum(3 + len(sample.completion) for sample in same)
    mixed = [sample for pair in zip(same, others) for sample in pair]
    assert [{s.prompt for s in unpack([batch])} for batch in pack(mixed, size)] == [{(1, 2, 3)}, {(4, 5)}]


@settings(deadline=None, max_examples=30)
@given(st.lists(samples(), min_size=1, max_size=12), st.integers(1, 60))
def test_every_batch_knows_the_whole_step(given_samples, micro_tokens):
    whole = {batch.whole for batch in pack(given_samples, micro_tokens, max_tokens=7)}
    assert len(whole) == 1
    (whole,) = whole
    assert whole.tokens == sum(len(sample.completion) for sample in given_samples)
    assert (whole.sequences, whole.max_tokens) == (len(given_samples), 7)


@settings(deadline=None, max_examples=30)
@given(st.lists(samples(), min_size=1, max_size=12), st.integers(1, 60))
def test_packing_is_deterministic_and_tight(given_samples, micro_tokens):
    first, second = pack(given_samples, micro_tokens), pack(given_samples, micro_tokens)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))
    sizes = sorted(sum(len(s.prompt + s.completion) for s in unpack([batch])) for batch in first)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > micro_tokens, "two batches would fit in one"


@settings(deadline=None, max_examples=30)
@given(st.lists(samples(), min_size=1, max_size=12), st.integers(1, 6))
def test_split_keeps_groups_whole_and_loses_nothing(given_samples, count):
    parts = split(given_samples, count)
    assert sorted(map(repr, given_samples)) == sorted(repr(sample) for part in parts for sample in part)
    homes = [{sample.group for sample in part} for part in parts]
    assert len(parts) == min(count, len({sample.group for sample in given_samples}))
    assert sum(map(len, homes)) == len(set().union(*homes)), "a group was torn"
    assert max(map(len, homes)) - min(map(len, homes)) <= 1


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 30))
def test_documents_learn_every_token_but_their_first(documents, micro_tokens):
    batches = pack_documents(documents, micro_tokens)
    found = []
    for batch in batches:
        firsts = set(batch.segments.bounds[:-1].tolist())
        assert [i not in firsts for i in range(len(batch.tokens))] == batch.mask.tolist()
        found += [piece.tolist() for piece in batch.tokens.split(batch.segments.bounds.diff().tolist())]
    assert sorted(found) == sorted(documents)


def test_a_document_s_mask_chooses_the_tokens():
    (batch,) = pack_documents([[5, 6, 7], [8, 9]], 100, masks=[[False, False, True], [False, True]])
    assert batch.tokens[batch.mask].tolist() == [7, 9]
    assert batch.whole.tokens == 2


@pytest.mark.parametrize("mask", [[True, True], [False], [False, True, True]])
def test_a_mask_that_cant_be_is_refused(mask):
    with pytest.raises(TrainingError, match="document 0"):
        pack_documents([[1, 2]], 10, masks=[mask])


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (((), (1,), (0.0,), 0.0), "at least one"),
        (((1,), (), (), 0.0), "at least one"),
        (((1,), (1, 2), (0.0,), 0.0), "1 log"),
    ],
)
def test_a_sample_that_cant_be_is_refused(sample, words):
    with pytest.raises(TrainingError, match=words):
        Sample(*sample)
