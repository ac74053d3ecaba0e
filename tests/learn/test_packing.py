import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock.errors import TrainingError
from aftershock.learn import Sample, pack, pack_documents, split

tokens = st.lists(st.integers(0, 99), min_size=1, max_size=12).map(tuple)


@st.composite
def samples(draw):
    completion = draw(tokens)
    logprobs = tuple(draw(st.floats(-9, 0, width=32)) for _ in completion)
    return Sample(draw(tokens), completion, logprobs, draw(st.floats(-3, 3, width=32)), draw(st.integers(0, 4)))


def unpack(batches):
    """Read the sequences back from the tensors of batches, as samples of no group."""
    found = []
    for batch in batches:
        bounds = batch.segments.bounds.tolist()
        for index, (low, high) in enumerate(itertools.pairwise(bounds)):
            mask = batch.mask[low:high]
            assert batch.sequence[low:high].eq(index).all()
            assert batch.advantages[low:high].unique().numel() == 1
            row = batch.tokens[low:high]
            prompt, completion = tuple(row[~mask].tolist()), tuple(row[mask].tolist())
            assert row.tolist() == [*prompt, *completion]
            logprobs = tuple(batch.sampler_logprobs[low:high][mask].tolist())
            found.append(Sample(prompt, completion, logprobs, batch.advantages[low].item()))
    return found


def bare(sample):
    return Sample(sample.prompt, sample.completion, sample.logprobs, sample.advantage)


@settings(deadline=None, max_examples=60)
@given(st.lists(samples(), min_size=1, max_size=12), st.integers(1, 60))
def test_nothing_is_lost_padded_or_reordered_within_a_batch(given_samples, micro_tokens):
    batches = pack(given_samples, micro_tokens, max_tokens=7)
    want = [bare(sample) for sample in given_samples]
    assert sorted(unpack(batches), key=repr) == sorted(want, key=repr)
    firsts = []
    for batch in batches:
        lengths = batch.segments.bounds.diff()
        assert lengths.sum() == len(batch.tokens)
        assert batch.segments.longest == lengths.max()
        assert len(batch.tokens) <= micro_tokens or len(lengths) == 1
        assert not batch.mask[batch.segments.bounds[:-1]].any()
        order = iter(want)
        assert all(any(sample == other for other in order) for sample in unpack([batch]))
        firsts.append(unpack([batch])[0])
    order = iter(want)
    assert all(any(first == other for other in order) for first in firsts)


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
    sizes = sorted(len(batch.tokens) for batch in first)
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
