"""A decoding step captured as a CUDA graph and replayed: a launch instead of Python's walk through every layer.

The counterpart of `recorded.py` on a GPU, where it was NOT MEASURED: tests on a CPU hold all but the capturing itself.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aftershock.models.layers import cached_context
from aftershock.models.recorded import Layers

_AFTER = 16  # steps of one shape; capturing takes as long as several
_WARM = 2  # steps before a capture, in which libraries choose kernels and reserve their memory


def captures(tokens: Tensor) -> bool:
    """Whether steps on the tokens' device can be captured as things stand."""
    plain = torch.is_inference_mode_enabled() and not torch.is_autocast_enabled(tokens.device.type)
    return plain and tokens.is_cuda


def bucket(size: int, most: int) -> int:
    """Return the power of two from `size` on, `most` at most: so that few shapes come up and are captured."""
    return min(most, 1 << (size - 1).bit_length())


class GraphedSteps:
    """The captured steps of one cache, by rows and room; they end with it, as they read it where it lies.

    A captured step reads the whole room, so that nothing in it depends on how far rows have come; the caller has seen
    to it that they fit. Where one can't be captured, such as a mixture whose expert counts the host waits for, no more
    is tried.
    """

    def __init__(self) -> None:
        self._taken: Counter[tuple[int, int]] = Counter()
        self._steps: dict[tuple[int, int], _Step] = {}
        self.refused: str | None = None

    def take(
        self, trunk: nn.Module, tokens: Tensor, starts: Tensor, cos: Tensor, sin: Tensor, layers: Layers
    ) -> Tensor | None:
        """Return hidden states [rows, 1, hidden] of tokens Long[rows, 1]; None where the step isn't captured yet.

        `cos` and `sin` are as long as the cache's room.
        """
        key = (len(tokens), len(cos))
        if self.refused is not None:
            return None
        self._taken[key] += 1
        if self._taken[key] == _AFTER:
            self._capture(key, trunk, tokens, starts, cos, sin, layers)
        step = self._steps.get(key)
        return None if step is None else step(tokens, starts)

    def _capture(self, key: tuple[int, int], *given: Any) -> None:
        try:
            self._steps[key] = _Step(*given)
        except RuntimeError as error:
            self.refused = str(error)
            warnings.warn(
                f"a decoding step of {key[0]} rows could not be captured as a CUDA graph, and is computed layer by "
                f"layer from now on: {error}",
                stacklevel=2,
            )


class _Step:
    """One captured step, its inputs in tensors of their own."""

    def __init__(
        self, trunk: nn.Module, tokens: Tensor, starts: Tensor, cos: Tensor, sin: Tensor, layers: Layers
    ) -> None:
        self._tokens, self._starts = tokens.clone(), starts.clone()
        self._read = (cos, sin, layers)  # the graph knows addresses alone: what lies there must stay

        def step() -> Tensor:
            return trunk(self._tokens, cached_context(self._starts, None, 1, cos, sin), layers)

        self._replay, self._hidden = _captured(step)

    def __call__(self, tokens: Tensor, starts: Tensor) -> Tensor:
        self._tokens.copy_(tokens)
        self._starts.copy_(starts)
        self._replay()
        return self._hidden.clone()


def _captured(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Return what replays `step`, and the tensor that holds its result after each replay.

    It is run a few times first, on a stream beside, as capturing wants it. That writes to the cache what the replay
    writes again.
    """
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(_WARM):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result
