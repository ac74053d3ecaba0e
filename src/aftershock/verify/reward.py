"""R1-Zero's reward: accuracy and format by rule, with DAPO's soft punishment of overlong completions."""

from aftershock.recipe import RewardTable
from aftershock.verify.verdict import Reward, Verdict


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """Return DAPO's soft punishment (arXiv 2503.14476, eq. 13), in [-1, 0], for a completion of `length` tokens.

    0 up to max_tokens - buffer, then falling in a line to -1 at max_tokens; buffer 0 turns it off.
    """
    if buffer == 0:
        return 0.0
    return -min(1.0, max(0.0, (length - (max_tokens - buffer)) / buffer))


def compose(
    verdict: Verdict,
    formatted: bool,
    length: int,
    max_tokens: int,
    table: RewardTable,
    consistent: float = 1.0,
    by_rule: bool = True,
) -> Reward:
    """Return the reward with its unweighted parts: `accuracy` and `format` (1 or 0), and where they are on `language`
    (the share `consistent`) and `overlong` (0 to -1).

    total = the sum of the table's weights x parts, + overlong. Not `by_rule`, in an open task, there is no `accuracy`
    part. An unverifiable verdict has none either: `total` is then the sum of the others and must not be used, which
    `Reward.counted` says.
    """
    known = by_rule and verdict.outcome != "unverifiable"
    parts = {"accuracy": float(verdict.outcome == "right")} if known else {}
    parts["format"] = float(formatted)
    if table.language:
        parts["language"] = consistent
    if table.overlong_buffer:
        parts["overlong"] = overlong_penalty(length, max_tokens, table.overlong_buffer)
    weights = {"accuracy": table.accuracy, "format": table.format, "language": table.language, "overlong": 1.0}
    return Reward(sum(weights[name] * value for name, value in parts.items()), parts, verdict)
