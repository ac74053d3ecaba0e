"""gemm.h's matrix, as ctypes sees it."""

from ctypes import Structure, c_long, c_void_p


class Packed(Structure):
    """A matrix [outs][ins] and its bias, packed or in place; of no outputs where C is to do without."""

    _fields_ = [("data", c_void_p), ("outs", c_long), ("ins", c_long), ("bias", c_void_p), ("in_place", c_long)]
