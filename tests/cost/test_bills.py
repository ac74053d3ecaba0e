"""DeepSeek's published bills beside the model's."""

from pathlib import Path

import pytest

from aftershock.cost.cluster import parse
from aftershock.cost.published import LEFT_OUT, bill
from aftershock.errors import CapacityError, RecipeError

TOTALS = {"deepseek-v3": (2_788_000, 5.576e6), "deepseek-r1": (147_000, 294e3)}


@pytest.mark.parametrize("name", TOTALS)
def test_lines_add_up_to_the_published_sums(name):
    lines, (hours, usd) = bill(name), TOTALS[name]
    assert sum(line.published_gpu_hours for line in lines) == hours
    assert sum(line.published_usd for line in lines) == pytest.approx(usd)
    for line in lines:
        assert line.low <= line.estimated_gpu_hours <= line.high
        assert line.usd == pytest.approx(2.0 * line.estimated_gpu_hours)  # the table's price of an H800 is DeepSeek's
        assert line.rests_on


@pytest.mark.parametrize("name", TOTALS)
def test_published_hours_lie_within_the_ranges(name):
    for line in bill(name):
        assert line.low <= line.published_gpu_hours <= line.high, line.name


def test_post_training_s_range_reaches_up_and_says_why():
    """Its RL isn't published, so the likely hours lack it: 14% of the published ones, with room above alone."""
    line = bill("deepseek-v3")[2]
    assert line.high / line.estimated_gpu_hours > 2 * line.estimated_gpu_hours / line.low
    assert any("RL isn't said" in ground for ground in line.rests_on)


def test_the_page_says_what_the_model_says():
    page = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()
    for short, name in (("V3", "deepseek-v3"), ("R1", "deepseek-r1")):
        for line in bill(name):
            low, likely, high = (
                f"{float(f'{value:.3g}'):,.0f}" for value in (line.low, line.estimated_gpu_hours, line.high)
            )
            off = f"{line.estimated_gpu_hours / line.published_gpu_hours - 1:+.0%}"
            told = f"| {short}: {line.name} | {line.published_gpu_hours:,} | {likely} | {low} to {high} | {off} |"
            assert told in page, told


def test_other_clusters_cost_what_they_are():
    own = {chip: bill("deepseek-v3", parse(chip))[0] for chip in ("H800", "H100@3", "H20", "A100")}
    assert own["H100@3"].usd == pytest.approx(3 * own["H100@3"].estimated_gpu_hours)
    assert own["H100@3"].estimated_gpu_hours <= own["H800"].estimated_gpu_hours
    # an H20 computes 6.7 times slower, an A100 has no FP8
    assert own["H20"].estimated_gpu_hours > 4 * own["H800"].estimated_gpu_hours
    assert own["A100"].estimated_gpu_hours > 3 * own["H800"].estimated_gpu_hours


def test_sampling_leans_on_memory_so_r1_is_relatively_cheap_on_h20():
    def ratio(name):
        return bill(name, parse("H20"))[0].estimated_gpu_hours / bill(name)[0].estimated_gpu_hours

    assert ratio("deepseek-r1") < ratio("deepseek-v3") / 2


def test_a_cluster_that_cant_hold_it_and_a_name_without_a_bill_are_refused():
    with pytest.raises(CapacityError, match="no layout fits 8x"):
        bill("deepseek-v3", parse("8xH100"))
    with pytest.raises(RecipeError, match="nearest: deepseek-r1"):
        bill("deepseek-r2")


def test_what_is_left_out_has_sources():
    assert len(LEFT_OUT) > 3
    assert all(what and who for what, who in LEFT_OUT)
