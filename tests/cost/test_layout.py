"""What a chip holds under a layout, and the search for the quickest that fits."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import layout, memory, parameters
from aftershock.cost.cluster import parse
from aftershock.cost.layout import Layout, candidates, sampling_memory, search, training_memory
from aftershock.cost.memory import Shape
from aftershock.errors import CapacityError
from aftershock.known import known_config

V3, QWEN = known_config("deepseek-ai/DeepSeek-V3"), known_config("Qwen/Qwen2.5-7B")
NOTHING = Shape.even(0, 1)
sizes = st.sampled_from([1, 2, 4, 8, 16])


def test_every_weight_has_a_place():
    shared, routed = layout.counts(V3)
    assert shared + routed == parameters.total(V3)
    assert routed == 59 * 256 * 3 * 7168 * 2048  # 58 layers' and the prediction module's
    assert layout.counts(QWEN) == (parameters.total(QWEN), 0)


def test_states_are_those_of_zero_on_paper():
    """ZeRO's own example (arXiv 1910.02054, figure 1): 7.5B weights on 64 chips, 16 bytes a weight there, 18 here."""
    held = [training_memory(QWEN, Layout(64, zero=zero), NOTHING) for zero in range(4)]
    total = parameters.total(QWEN)
    assert held[0] == pytest.approx(18 * total)
    assert held[1] == pytest.approx((6 + 12 / 64) * total)
    assert held[2] == pytest.approx((2 + 16 / 64) * total)
    assert held[3] == pytest.approx(18 / 64 * total)


@given(data=sizes, tensor=sizes, pipeline=sizes, zero=st.integers(0, 3))
def test_no_way_of_spreading_makes_a_chip_hold_more_or_all_chips_less_than_the_model(data, tensor, pipeline, zero):
    shape = Shape.even(4096, 4096, plain_to=0)
    one, spread = (
        training_memory(QWEN, each, shape, micro_batches=8)
        for each in (Layout(), Layout(data, tensor, 1, pipeline, zero))
    )
    assert spread <= one * (1 + 1e-9)
    assert spread * data * tensor * pipeline >= one * (1 - 1e-9) - memory.logits(QWEN, 4096)


def test_a_pipeline_keeps_as_many_micro_batches_as_it_has_stages_or_as_there_are():
    shape = Shape.even(4096, 4096, plain_to=0)

    def kept(stages, micro_batches):
        held = training_memory(QWEN, Layout(pipeline=stages), shape, micro_batches=micro_batches)
        return held - training_memory(QWEN, Layout(pipeline=stages), NOTHING) - memory.logits(QWEN, 4096)

    assert kept(4, 8) == pytest.approx(kept(1, 8))
    assert kept(4, 2) == pytest.approx(kept(1, 8) / 2)


def test_predictions_and_small_moments_are_held_as_on_one_machine():
    shape = Shape.even(4096, 4096, plain_to=0)
    plain, ahead = (training_memory(V3, Layout(), shape, prediction=wanted) for wanted in (False, True))
    alone = [memory.activations(V3, shape, True, prediction=wanted) for wanted in (False, True)]
    copies = 2 * parameters.module(V3, 0)  # which only autocast makes
    assert ahead - plain == pytest.approx(alone[1] - alone[0] - copies)  # logits come in chunks: no more of them
    small = training_memory(V3, Layout(16, zero=1), NOTHING, moments=memory.ADAM_8BIT)
    large = training_memory(V3, Layout(16, zero=1), NOTHING)
    assert large - small == pytest.approx((8 - memory.ADAM_8BIT) / 16 * parameters.total(V3))


@given(expert=sizes, zero=st.integers(0, 3))
def test_experts_are_spread_once_over_their_group_and_again_by_zero(expert, zero):
    held = training_memory(V3, Layout(16, 1, expert, 1, zero), NOTHING)
    alone = training_memory(V3, Layout(16, 1, 1, 1, zero), NOTHING)
    assert held <= alone
    assert training_memory(V3, Layout(16, 1, expert, 1, 3), NOTHING) == pytest.approx(18 / 16 * parameters.total(V3))


def test_sampling_holds_weights_and_cache():
    whole = sampling_memory(V3, Layout(), 8, 1000, each=1)
    assert whole == parameters.total(V3) + memory.cache(V3, 8, 1000, 2)
    # latents are whole on each chip of a tensor-parallel group, grouped-query heads are spread as far as there are any
    assert sampling_memory(V3, Layout(tensor=8), 8, 1000, each=0) == memory.cache(V3, 8, 1000, 2)
    assert sampling_memory(QWEN, Layout(tensor=8), 8, 1000, each=0) == memory.cache(QWEN, 8, 1000, 2) / 4


@pytest.mark.parametrize("count", [1, 3, 8, 24, 64])
def test_candidates_use_all_chips_and_stay_within_what_there_is(count):
    cluster = parse(f"{count}xH100")
    found = list(candidates(V3, cluster))
    assert len(set(found)) == len(found) > 0
    for each in found:
        assert each.chips == count
        assert each.tensor <= 8
        assert 256 % each.expert == 0
        assert (each.data * each.tensor) % each.expert == 0
        assert each.pipeline == 1 or each.zero == 1
    assert all(each.pipeline == 1 and each.zero == 0 for each in candidates(QWEN, cluster, sampling=True))
    assert {each.expert for each in candidates(QWEN, cluster)} == {1}
    assert {each.tensor for each in candidates(QWEN, parse("8xH100"))} == {1, 2, 4}  # of 28 heads


@given(room=st.floats(0.01, 1.0), seed=st.integers(0, 9))
def test_search_finds_the_quickest_that_fits_or_says_what_the_leanest_takes(room, seed):
    cluster = parse("16xH100")
    held = {each: hash((each, seed)) % 1000 / 1000 * 80e9 / room for each in candidates(V3, cluster)}
    seconds = {each: hash((seed, each)) % 997 for each in held}
    fitting = [each for each in held if held[each] <= 72e9]
    if not fitting:
        with pytest.raises(CapacityError, match=f"{min(held.values()) / 1e9:.0f} GB a chip"):
            search(V3, cluster, held.__getitem__, seconds.__getitem__)
    else:
        found = search(V3, cluster, held.__getitem__, seconds.__getitem__)
        assert found in fitting
        assert seconds[found] == min(seconds[each] for each in fitting)


def test_a_model_too_large_for_a_card_is_refused_with_a_remedy():
    with pytest.raises(CapacityError, match=re.escape("no layout fits 1xRTX-4090")):
        search(
            QWEN, parse("4090"), lambda each: sampling_memory(QWEN, each, 1, 4096, each=4), lambda _: 1.0, sampling=True
        )
