"""Chips of the hardware table, and clusters of them as a user names them: `8xH100@2.5/h`."""

import re
from dataclasses import dataclass, replace

from aftershock.cost import hardware
from aftershock.errors import RecipeError
from aftershock.own import nearest

PER_NODE = 8
_FORM = re.compile(r"(?:(?P<count>\d+)x)?(?P<name>[A-Za-z0-9][\w.-]*?)(?:@(?P<price>\d+(?:\.\d+)?)(?:/h)?)?")


@dataclass(frozen=True)
class Chip:
    """One GPU: memory in bytes, dense peaks in FLOP/s (`fp8` is 0 where there is none), speeds in bytes a second.

    `link` and `network` are each way, for one GPU, within a node and between nodes; dollars are of one hour.
    """

    name: str
    memory: float
    bf16: float
    fp8: float
    bandwidth: float
    link: float
    network: float
    usd_per_hour: float
    watts: float
    source: str


@dataclass(frozen=True)
class Cluster:
    """So many chips of one kind, `per_node` of them in each node."""

    chip: Chip
    count: int = 1
    per_node: int = PER_NODE

    @property
    def nodes(self) -> int:
        """How many nodes hold the chips; the last one may be part empty."""
        return -(-self.count // self.per_node)

    def __str__(self) -> str:
        return f"{self.count}x{self.chip.name}"


def chip(name: str) -> Chip:
    """Return a chip by its name in the table, or by the beginning of one (`H100`): the first that fits.

    RecipeError for a name that the table doesn't have.
    """
    rows = {row["name"]: row for row in hardware.table()}
    found = name if name in rows else next((known for known in rows if known.lower().startswith(name.lower())), None)
    found = found or next((known for known in rows if known.lower().partition("-")[2].startswith(name.lower())), None)
    if found is None:
        raise RecipeError(f"no machine is named {name!r}{nearest(name, rows)}; the table has {', '.join(rows)}")
    row = rows[found]
    return Chip(
        found,
        memory=float(row["memory_gb"]) * 1e9,
        bf16=float(row["bf16_tflops"]) * 1e12,
        fp8=float(row["fp8_tflops"]) * 1e12,
        bandwidth=float(row["memory_gbps"]) * 1e9,
        link=float(row["link_gbps"]) * 1e9,
        network=float(row["network_gbps"]) * 1e9,
        usd_per_hour=float(row["usd_per_hour"]),
        watts=float(row["watts"]),
        source=row["source"],
    )


def parse(text: str) -> Cluster:
    """Return the cluster that a user names: `H100`, `8xH100`, `64xH800@2`, `8xH100-SXM@2.5/h`, `4090`.

    RecipeError where it isn't of that form, has no chip in it, or names one that the table doesn't have.
    """
    match = _FORM.fullmatch(text.strip())
    if not match or match["count"] == "0":
        raise RecipeError(f"{text!r} names no machine; write it as 8xH100, or 8xH100@2.5/h with dollars an hour a chip")
    found = chip(match["name"])
    if match["price"]:
        found = replace(found, usd_per_hour=float(match["price"]), source=f"{found.source}; price: yours")
    return Cluster(found, int(match["count"] or 1))
