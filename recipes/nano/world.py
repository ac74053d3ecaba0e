"""Writes what the road's fine-tuning is given beside reasoning: ideal answers of the toy world, in the readable form.

    python recipes/nano/world.py > recipes/nano/world.jsonl

Train problems only. The file stands in for the user's own data at real scale (writing, who are you, translation ...).
"""

import json
from collections.abc import Iterator

from aftershock.address import generator
from aftershock.pipeline.clean import summarised
from aftershock.tasks import task
from aftershock.text import split

COUNTS = {"facts": 300, "instructions": 300, "translate": 150, "self": 90, "write": 100, "help": 24, "harm": 16}
HARDER = ("facts", "instructions", "translate")  # asked at difficulty 2
LANGUAGES = ("en", "zh")


def rows() -> Iterator[dict[str, str | None]]:
    """Yield one row for each problem, as `sft` reads them."""
    for name, count in COUNTS.items():
        made = task(name, 2 if name in HARDER else 1, LANGUAGES)
        for problem in made.distinct("train", count):
            trace = made.trace(problem, generator("world", problem.id), "thorough")
            assert trace is not None
            parts = split(trace, prefilled=True)
            row = {"task": name, "language": problem.language, "reasoning": parts.reasoning, "answer": parts.answer}
            yield {"prompt": problem.prompt, "completion": summarised(row)}


if __name__ == "__main__":
    for row in rows():
        print(json.dumps(row, ensure_ascii=False))
