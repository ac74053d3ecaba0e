"""What a process of ours sets before PyTorch is loaded, unless its environment says otherwise."""

import ctypes
import gc
import os

_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT = 1 << 30  # bytes at the heap's end that are kept for the next step
MAPPED = 1 << 25  # bytes of a block that gets pages of its own: the most that glibc allows
MADE = 10_000  # objects made and not yet freed, at which Python looks for cycles among them; its own is 700


def prepare() -> None:
    """Let PyTorch's idle threads sleep, and keep a step's freed memory for the next one.

    Idle threads would spin in the way of C's, which costs a learner on two threads a sixth. Memory that was given back
    is cleared by the system when it is asked for again: up to a tenth of a nano learner's step on two threads. The
    second is for glibc alone. Python looks for cycles as a step makes thousands of tuples, and now and then through all
    that PyTorch has made: that took 5 ms of a nano RL step, in which there are 20 objects to find. Large tensors lie in
    huge pages where Linux gives them on request: 5% to 10% of a learner's step of half a billion weights.
    """
    gc.set_threshold(MADE)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    said = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if mallopt is not None and not said:
        mallopt(_MAP, MAPPED)
        mallopt(_TRIM, KEPT)
