"""A cleaner for cold-start data: R1-Zero's answer becomes reasoning, then a summary with the box [R1 2.3.1]."""

import re
from collections.abc import Mapping
from typing import Any

LEAST_WORDS = 30  # of reasoning that shows something


def summarised(row: Mapping[str, Any]) -> str | None:
    """Take the answer out of its tags and put a sentence before its box; drop what hardly reasons."""
    reasoning = row["reasoning"].strip()
    if len(reasoning.split()) < LEAST_WORDS:
        return None
    answer = re.sub(r"\s*</?answer>\s*", "", row["answer"]).strip()
    summary = answer if re.search(r"[A-Za-z]{3,} ", answer) else f"The answer is {answer}."
    return f"<think>\n{reasoning}\n</think>\n\n{summary}"
