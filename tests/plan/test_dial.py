"""The dial: what it writes is a recipe that runs, within the budget, and it tells no accuracy that nobody measured."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftershock import preflight
from aftershock.errors import RecipeError
from aftershock.plan import dial, lengths
from aftershock.plan.stages import plan
from aftershock.recipe import load_recipe


@settings(max_examples=8, deadline=None)
@given(
    amount=st.floats(0.01, 2000).map(lambda value: f"{value:.4f}"),
    form=st.sampled_from(["${}", "{} minutes", "{} h"]),
    on=st.sampled_from([None, "H100", "RTX-4090", "8xH20@0.5/h"]),
)
def test_what_a_budget_buys_loads_and_is_planned_within_it(tmp_path_factory, amount, form, on):
    out, budget = tmp_path_factory.mktemp("dial") / "mine.toml", form.format(amount)
    try:
        dial.dial(budget, on, out)
    except RecipeError:  # it buys nothing, as another test has it
        assert not out.exists()
        return
    found = plan(load_recipe(out), on)
    usd, seconds = dial.amount(budget)
    assert found.seconds[1] <= seconds
    assert found.bill(found.seconds)["usd"][1] <= usd
    assert not found.misfits


def test_a_budget_that_buys_nothing_is_told_the_least_that_would(tmp_path):
    with pytest.raises(RecipeError, match=r"buys nothing there; the least is R1-Zero .* \d+ s and \$0"):
        dial.dial("2 s", None, tmp_path / "mine.toml")


@pytest.mark.parametrize("on", [None, "H100"])
def test_more_budget_never_buys_a_smaller_model_or_fewer_stages(tmp_path, on):
    sizes = [source.source for source in reversed(dial.MODELS)]
    bought = [dial.dial(f"{minutes} min", on, tmp_path / f"{minutes}.toml") for minutes in (1, 5, 100, 5000)]
    ranks = [(sizes.index(one.choice.source), len(one.stages)) for one in bought]
    assert [model for model, _ in ranks] == sorted(model for model, _ in ranks)
    for (model, stages), (larger, more) in pairwise(ranks):
        assert larger > model or more >= stages


@pytest.mark.parametrize("choice", dial.MODELS, ids=lambda choice: choice.source)
def test_every_road_is_one_that_a_run_begins(tmp_path, choice):
    for level in dial.LEVELS:
        (tmp_path / "road.toml").write_text(dial.toml.write(dial.road(choice, level, 0.05)))
        preflight.check(load_recipe(tmp_path / "road.toml"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$30", (30, math.inf)),
        ("$ 2.50", (2.5, math.inf)),
        ("20 minutes", (math.inf, 1200)),
        ("2h", (math.inf, 7200)),
        ("3 days", (math.inf, 259200)),
        ("90 s", (math.inf, 90)),
    ],
)
def test_budgets_are_dollars_or_times(text, found):
    assert dial.amount(text) == found


@pytest.mark.parametrize("text", ["30", "thirty dollars", "5 fortnights", "$", "-3 h"])
def test_a_budget_of_another_form_is_refused_with_one_that_is_right(text):
    with pytest.raises(RecipeError, match=r'write dollars as "\$30"'):
        dial.amount(text)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "mine.toml").write_text("# mine")
    with pytest.raises(RecipeError, match="name another file with --out"):
        dial.dial("$30", None, tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text() == "# mine"


def test_accuracy_is_told_where_it_was_measured_and_nowhere_else():
    whole, zero = dial.LEVELS[2], dial.LEVELS[0]
    assert dial.expected(dial.NANO, zero, 1.0, 30).startswith("pass@1 of 84% (83% to 86%) after zero")
    assert "84% (83% to 85%) after final" in dial.expected(dial.NANO, whole, 1.0, 30)
    assert dial.expected(dial.NANO, whole, 0.5, 15).endswith("; these were not measured")
    assert dial.expected(dial.MODELS[0], whole, 1.0, 400).startswith("not known")
    assert dial.expected(dial.NANO, zero, 1.0, 31).startswith("not known")


@given(steps=st.integers(0, 60))
def test_curves_go_through_what_was_measured_and_stay_between(steps):
    point, known = lengths.after("base", steps), lengths.curve("base")
    assert point is not None
    assert point.low <= point.likely <= point.high
    near = [one for one in known if abs(one.steps - steps) < 5]
    assert min(one.likely for one in near) <= point.likely <= max(one.likely for one in near)
    if len(near) == 1:
        assert point.likely == near[0].likely
    sixth = lengths.after("base", 6)
    assert sixth is not None
    assert sixth.likely == pytest.approx(0.8 * 0.517 + 0.2 * 0.739)


def test_every_row_of_the_curves_names_a_kept_result():
    assert lengths._rows()
    for row in lengths._rows():
        assert Path(row["source"].partition(":")[0]).is_file()


def test_a_recipe_for_a_folder_that_is_not_there_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RecipeError, match="there is no folder"):
        dial.dial("20 minutes", None, tmp_path / "none" / "mine.toml")
