"""Clusters as a user names them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftershock.cost import cluster, hardware
from aftershock.errors import RecipeError


@given(
    st.sampled_from([row["name"] for row in hardware.table()]),
    st.integers(1, 10_000),
    st.floats(0.01, 100).map(lambda price: round(price, 2)),
)
def test_what_is_written_is_read(name: str, count: int, price: float) -> None:
    found = cluster.parse(f"{count}x{name}@{price}/h")
    assert (found.chip.name, found.count, found.chip.usd_per_hour) == (name, count, price)
    assert cluster.parse(str(found)) == cluster.parse(f"{count}x{name}")


@pytest.mark.parametrize(
    ("text", "name"), [("H100", "H100-SXM"), ("h800", "H800-SXM"), ("4090", "RTX-4090"), ("1xA100", "A100-80G-SXM")]
)
def test_a_name_may_be_short(text: str, name: str) -> None:
    assert cluster.parse(text).chip.name == name


@pytest.mark.parametrize("text", ["", "8x", "0xH100", "8xH100@", "8xH100@2/day", "x", "nine H100"])
def test_what_names_no_machine_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"8xH100|no machine"):
        cluster.parse(text)


def test_nodes_may_be_part_empty() -> None:
    assert [cluster.parse(text).nodes for text in ("1xH100", "8xH100", "9xH100")] == [1, 1, 2]
