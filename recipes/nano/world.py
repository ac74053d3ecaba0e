"""Writes what the road's fine-tuning is given beside reasoning: ideal answers that need no thinking, of the toy world.

    python recipes/nano/world.py > recipes/nano/world.jsonl

Train problems only. The file stands in for the user's own data at real scale (writing, who are you, translation ...).
"""

import json
from collections.abc import Iterator

from aftershock.address import generator
from aftershock.tasks import task

COUNTS = {"translate": 150, "self": 90, "write": 100, "help": 110, "harm": 70}
LANGUAGES = ("en", "zh")


def rows() -> Iterator[dict[str, str]]:
    """Yield one row for each problem, as `sft` reads them."""
    for name, count in COUNTS.items():
        made = task(name, 2 if name == "translate" else 1, LANGUAGES)
        for problem in made.distinct("train", count):
            trace = made.trace(problem, generator("world", problem.id), "thorough")
            assert trace is not None
            yield {"prompt": problem.prompt, "completion": trace.replace("</think>", "</think>\n\n")}


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row, ensure_ascii=False))
