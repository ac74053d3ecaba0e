"""A sandbox for untrusted programs: bubblewrap's namespaces, limits, seccomp and Landlock. See docs/sandbox.md."""

from aftershock.verify.sandbox.box import Box, Ended
from aftershock.verify.sandbox.runtime import Walls, runtime, walls

__all__ = ["Box", "Ended", "Walls", "runtime", "walls"]
