"""Attention over packed segments in C: PyTorch's values and gradients for any layout, and bits of its own."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aftershock.models.base import Segments
from aftershock.models.layers import Packing, causal_attention
from aftershock.models.native import build
from aftershock.models.native.attend import Spans, attend

pytestmark = pytest.mark.skipif(build.library("train") is None, reason=f"no native part: {build.why_not('train')}")

# Lengths of segments depth first, and how far up the path from the segment before each one's parent lies.
trees = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 1, 2, 9])), min_size=1, max_size=12)
heads = st.sampled_from([(1, 1), (3, 3), (4, 2), (7, 1), (14, 2), (100, 1)])
dims = st.sampled_from([(1, 1), (8, 8), (24, 24), (7, 5), (48, 32), (40, 33)])
LONG = [(700, 0), (130, 9), (5, 0), (300, 1)]
DEEP = [(300, 0), (140, 0), (20, 0), (1, 0), (9, 1), (150, 2), (7, 0), (30, 9)]


def laid_out(tree):
    """Return the segments of a tree as `trees` draws it; one without tokens has no children."""
    path, parents = [-1], []
    for number, (length, up) in enumerate(tree):
        path = path[: max(1, len(path) - up)]
        parents.append(path[-1])
        path += [number] * (length > 0)
    bounds = torch.tensor([0] + [length for length, _ in tree]).cumsum(0)
    alone = all(parent < 0 for parent in parents)
    return Segments(bounds, 0, None if alone else torch.tensor(parents))


def drawn(segments, heads, dims, seed, by=1.0):
    """Return q, k, v and a gradient of what they give."""
    rng, total = torch.Generator().manual_seed(seed), int(segments.bounds[-1])
    shapes = (heads[0], dims[0]), (heads[1], dims[0]), (heads[1], dims[1]), (heads[0], dims[1])
    q, k, v, up = (torch.randn(1, total, *shape, generator=rng) for shape in shapes)
    return q * by, k * by, v, up


def seen(q, k, v, up, see):
    """Return what `see` gives and its gradients."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = see(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, up)]


def native(values, segments, scale=0.2):
    return seen(*values, lambda q, k, v: attend(q, k, v, scale, Spans.of(segments)))


def exact(values, segments, scale=0.2):
    packing = Packing.of(segments, values[0].shape[1])
    return seen(*(x.double() for x in values), lambda q, k, v: causal_attention(q, k, v, scale, packing))


def compared(found, wanted, within):
    for mine, theirs, limit in zip(found, wanted, (within, *[10 * within] * 3)):
        assert mine.shape == theirs.shape
        assert (mine - theirs).abs().max() <= limit * theirs.abs().max().clamp(min=1)


@settings(deadline=None, max_examples=60)
@given(trees, heads, dims, st.integers(0, 9))
@example(LONG, (4, 2), (24, 24), 0)
@example(DEEP, (14, 2), (40, 33), 1)
def test_values_and_gradients_are_the_forward_s(tree, heads, dims, seed):
    segments = laid_out(tree)
    if segments.bounds[-1] == 0:
        return
    values = drawn(segments, heads, dims, seed)
    compared(native(values, segments), exact(values, segments), 2e-6)


@settings(deadline=None, max_examples=10)
@given(trees, heads, dims, st.integers(2, 3))
@example(LONG, (4, 2), (24, 24), 2)
@example(DEEP, (4, 2), (24, 24), 2)
def test_bits_depend_on_no_threads_and_no_neighbours(tree, heads, dims, threads):
    segments = laid_out(tree)
    values, before = drawn(segments, heads, dims, 0), torch.get_num_threads()
    alone = native(values, segments)
    try:
        torch.set_num_threads(threads)
        together = native(values, segments)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, alone, together))
    twice = Segments(torch.cat((segments.bounds, segments.bounds[1:] + segments.bounds[-1])), 0, _twice(segments))
    doubled = native([torch.cat((x, x), 1) for x in values], twice)
    assert all(torch.equal(torch.cat((x, x), 1), y) for x, y in zip(alone, doubled))


def _twice(segments):
    if segments.parents is None:
        return None
    shift = (segments.parents >= 0) * len(segments.parents)
    return torch.cat((segments.parents, segments.parents + shift))


def test_large_scores_do_not_overflow():
    segments = laid_out([(20, 0), (30, 0), (1, 1), (150, 9)])
    values = drawn(segments, (4, 2), (24, 24), 0, by=30)
    found = native(values, segments, scale=1.0)
    assert all(x.isfinite().all() for x in found)
    compared(found[:1], exact(values, segments, scale=1.0)[:1], 1e-4)


@settings(deadline=None, max_examples=30)
@given(trees, heads, dims)
@example(DEEP, (4, 2), (24, 24))
def test_a_shared_prefix_changes_no_bit_of_what_is_seen(tree, heads, dims):
    """Each segment with all it goes on from, laid anew as a sequence of its own."""
    segments = laid_out(tree)
    values = drawn(segments, heads, dims, 0)
    out = native(values, segments)[0]
    ends, parents, own = segments.bounds, segments.parents, segments.bounds.diff()
    for last, length in enumerate(segments.lengths().tolist()):
        path, at = [], last
        while at >= 0:
            path, at = [*range(ends[at], ends[at + 1]), *path], -1 if parents is None else int(parents[at])
        assert length == len(path)
        alone = native([x[:, path] for x in values], Segments(torch.tensor([0, length]), length))[0]
        assert torch.equal(alone[:, length - own[last] :], out[:, ends[last] : ends[last + 1]])


def test_the_largest_family_comes_first_and_parents_before_children():
    spans = Spans.of(Segments(torch.tensor([0, 3, 5, 6, 9, 19]), 10, torch.tensor([-1, 0, 1, 0, -1])))
    assert spans.spans.tolist() == [[9, 10, 0], [0, 3, 0], [3, 2, 3], [5, 1, 5], [6, 3, 3]]
    assert spans.families.tolist() == [0, 1, 5]
    assert spans.longest == 10


def test_without_memory_it_says_so():
    segments = Segments(torch.tensor([0, 4]), 4)
    values, spans = drawn(segments, (1, 1), (8, 8), 0), Spans.of(segments)
    huge = Spans(spans.spans, spans.families, 1 << 55)
    with pytest.raises(MemoryError, match="segments of up to"):
        attend(*values[:3], 1.0, huge)
