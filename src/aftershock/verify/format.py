"""R1-Zero's format reward [R1 2.2.2]: the completion is reasoning, `</think>`, one answer in tags, and nothing else."""

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
_TAGS = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)


def follows_format(completion: str, prefilled: bool = True) -> bool:
    """Return whether a completion keeps the format to the letter; `prefilled` says the prompt ended in `<think>`.

    Between `</think>` and `<answer>` white space is let by. The reasoning may be empty, the answer may not.

    >>> follows_format("3*4=12</think> <answer>12</answer>"), follows_format("3*4=12</think> 12")
    (True, False)
    """
    if not prefilled:
        if not completion.startswith(THINK_OPEN):
            return False
        completion = completion.removeprefix(THINK_OPEN)
    reasoning, closed, rest = completion.partition(THINK_CLOSE)
    rest = rest.lstrip()
    if not closed or not rest.startswith(ANSWER_OPEN) or not rest.endswith(ANSWER_CLOSE):
        return False
    answer = rest[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]
    return bool(answer.strip()) and not any(tag in reasoning or tag in answer for tag in _TAGS)
