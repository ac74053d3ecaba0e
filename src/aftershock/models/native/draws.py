"""draw.h's Draws: tokens drawn and written down between native steps, without a word of Python."""

from ctypes import Structure, c_float, c_long, c_void_p
from typing import Any

import numpy as np
from torch import Tensor


class Draws(Structure):
    """How rows are drawn from, and where their state lies; what it points to is `held`."""

    held: tuple[Any, ...]
    _fields_ = [
        *((name, c_void_p) for name in ("bias", "closers")),
        *(("heat", c_float), ("most", c_long)),
        *((name, c_void_p) for name in ("keys", "last", "lengths", "steps", "tokens", "own", "sampled")),
        *((name, c_long) for name in ("ended", "failed")),
    ]


def draws(temperature: float, bias: Tensor | None, closers: np.ndarray, state: list[np.ndarray]) -> Draws:
    """Describe draws from (logits + bias) / temperature that go on until a row draws one of `closers` bool[vocab].

    `state`: keys uint64[rows], last tokens, lengths and steps int64[rows]; then int32[rows, most] tokens and their
    float32 log-probabilities under the logits and under what was drawn from. They are written, never moved.
    """
    made = Draws(
        *(None if bias is None else bias.data_ptr(), closers.ctypes.data),
        *(temperature, state[-1].shape[1]),
        *(part.ctypes.data for part in state),
    )
    made.held = (bias, closers, state)
    return made
