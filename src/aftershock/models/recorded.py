"""A decoding step recorded once and replayed: the model's own forward as TorchScript, without Python's cost."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aftershock.models.layers import cached_context

_AFTER = 64  # steps; recording takes as long as a few hundred steps save, which a short life doesn't pay back
Layers = tuple[tuple[Tensor, ...], ...]


class Recorder:
    """Records a trunk's step once it has been taken often; the weights are shared, so what a learner writes is seen.

    A copy of the model, and one whose tensors were replaced, starts anew.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._weights: list[nn.Parameter] = []
        self._step: Callable[..., Tensor] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recorder":
        return Recorder()

    def check(self, trunk: nn.Module) -> None:
        """Forget a recording of other weights."""
        weights = list(trunk.parameters())
        if len(weights) != len(self._weights) or any(a is not b for a, b in zip(weights, self._weights)):
            self._taken, self._weights, self._step = 0, weights, None

    def take(self, trunk: nn.Module, *given: Any) -> Tensor | None:
        """Return the step's hidden state, to the same bits as the forward; None where it isn't recorded yet."""
        self._taken += 1
        if self._taken == _AFTER:
            self._step = _recorded(trunk, given)
        return None if self._step is None else self._step(*given)


class _Step(nn.Module):
    """One token for each of a cache's first rows; the tables `cos` and `sin` end where reading does."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, tokens: Tensor, starts: Tensor, cos: Tensor, sin: Tensor, layers: Layers) -> Tensor:
        return self.trunk(tokens, cached_context(starts, None, 1, cos, sin), layers)


def _recorded(trunk: nn.Module, given: tuple[Any, ...]) -> Callable[..., Tensor] | None:
    """Return the recording, or None where this torch can't make one that computes the same."""
    step = _Step(trunk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants, which the caller's conditions make constant; of deprecation
        try:
            made = torch.jit.trace(step, given, check_trace=False)
        except (RuntimeError, AttributeError):
            return None
    return made if torch.equal(made(*given), step(*given)) else None
