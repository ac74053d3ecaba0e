"""gemm.h's matrix, as ctypes sees it, and how it comes from a weight."""

import ctypes
from ctypes import Structure, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from aftershock.models.native import build


class Packed(Structure):
    """A matrix [outs][ins] and its bias, packed or in place; of no outputs where C is to do without."""

    _fields_ = [("data", c_void_p), ("outs", c_long), ("ins", c_long), ("bias", c_void_p), ("in_place", c_long)]


def packed(weight: Tensor, bias: Tensor | None, in_place: bool, held: list[Tensor]) -> Packed:
    """Describe a contiguous matrix [outs, ins], packed unless it is to be read in place; `held` keeps a copy alive."""
    (outs, ins), at = weight.shape, None if bias is None else bias.data_ptr()
    if in_place:
        return Packed(weight.data_ptr(), outs, ins, at, 1)
    library = _library()
    to = torch.empty(library.aftershock_packed_size(outs, ins))
    library.aftershock_pack(weight.data_ptr(), outs, ins, to.data_ptr())
    held.append(to)
    return Packed(to.data_ptr(), outs, ins, at, 0)


@cache
def _library() -> ctypes.CDLL:
    library = build.library()
    assert library is not None
    library.aftershock_packed_size.argtypes, library.aftershock_packed_size.restype = [c_long, c_long], c_long
    library.aftershock_pack.argtypes = [c_void_p, c_long, c_long, c_void_p]
    library.aftershock_pack.restype = None
    return library
