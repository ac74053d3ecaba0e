"""move.h's Moves: a cache's rows copied and laid out anew, all layers in one call."""

import ctypes
import math
from ctypes import POINTER, Structure, c_long, c_void_p

from torch import Tensor

from aftershock.models.native import build


class Moves(Structure):
    """The stores of a cache in this machine's memory, and what is to move between their rows."""

    _fields_ = [
        ("stores", c_long),
        *(("data", POINTER(c_void_p)), ("heads", POINTER(c_long)), ("bytes", POINTER(c_long))),
        *(("room", c_long), ("source", c_void_p), ("target", c_void_p), ("rows", c_long), ("length", c_long)),
    ]

    @classmethod
    def of(cls, held: list[Tensor], shapes: list[tuple[int, ...]]) -> "Moves | None":
        """Describe stores `held` that are [rows, heads, room, dim] in memory, `shapes` giving heads and dim in turn.

        None where there is no library, or they lie in a device's memory.
        """
        if build.library() is None or held[0].device.type != "cpu":
            return None
        each = [shapes[number % len(shapes)] for number in range(len(held))]
        return cls(
            len(held),
            (c_void_p * len(held))(*(store.data_ptr() for store in held)),
            (c_long * len(held))(*(math.prod(shape[:-1]) for shape in each)),
            (c_long * len(held))(*(shape[-1] * store.itemsize for shape, store in zip(each, held))),
        )

    def copy(self, source: Tensor, target: Tensor, length: int, room: int) -> None:
        """Copy the first `length` positions of rows `source` Long[n], of `room` each, to rows `target` Long[n]."""
        source, target = source.contiguous(), target.contiguous()
        self.source, self.target, self.rows = source.data_ptr(), target.data_ptr(), len(source)
        self.length, self.room = length, room
        build.library().aftershock_copy_rows(ctypes.byref(self))  # type: ignore[union-attr]

    def widen(self, rows: int, before: int, room: int) -> None:
        """Lay the first `rows` out for `room` positions each, which had `before`."""
        self.rows, self.length, self.room = rows, before, room
        build.library().aftershock_widen(ctypes.byref(self))  # type: ignore[union-attr]
