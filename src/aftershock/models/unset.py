"""Modules made without memory and without the initial values that torch would give them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode


class _NoInit(TorchFunctionMode):
    """Leaves a tensor as it is where `nn` would fill it."""

    _fills = (init.normal_, init.uniform_, init.kaiming_uniform_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in self._fills:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def unset() -> Iterator[None]:
    """Make tensors on the meta device, with shapes alone, until the block ends.

    Filling a tensor there with random numbers changes nothing, and imports torch's compiler for it: two seconds of
    whatever loads a model first.
    """
    with torch.device("meta"), _NoInit():
        yield
