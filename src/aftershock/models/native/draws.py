"""draw.h's Draws: tokens drawn and written down between native steps, without a word of Python."""

from ctypes import Structure, c_float, c_long, c_void_p
from typing import Any

import numpy as np
from torch import Tensor


class Draws(Structure):
    """How rows are drawn from, and where their state lies; what it points to is `held`.

    `fed` counts the rows that passed the model: fewer than the tokens drawn, where rows of one prompt drew the same.
    """

    held: tuple[Any, ...]
    _fields_ = [
        *((name, c_void_p) for name in ("bias", "closers")),
        *(("heat", c_float), ("most", c_long)),
        *((name, c_void_p) for name in ("groups", "keys", "last", "lengths", "steps")),
        *((name, c_void_p) for name in ("tokens", "own", "sampled", "ended")),
        *(("failed", c_long), ("fed", c_long)),
    ]

    def begin(self) -> None:
        """Let all rows go on, each until it has drawn a closer or its last token."""
        self.held[-1].fill(0)


def draws(temperature: float, bias: Tensor | None, closers: np.ndarray, state: list[np.ndarray]) -> Draws:
    """Describe draws from (logits + bias) / temperature; a row that draws one of `closers` bool[vocab] may have ended.

    `state`: groups int64[rows], of one number where the prompt is the same; keys uint64[rows]; last tokens, lengths and
    steps int64[rows]; then int32[rows, most] tokens and their
    float32 log-probabilities under the logits and under what was drawn from. They are written, never moved.
    """
    ended = np.zeros(len(state[0]), dtype=np.uint8)
    made = Draws(
        *(None if bias is None else bias.data_ptr(), closers.ctypes.data),
        *(temperature, state[-1].shape[1]),
        *(part.ctypes.data for part in (*state, ended)),
    )
    made.held = (bias, closers, state, ended)
    return made
