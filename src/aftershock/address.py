"""Randomness with an address: every draw is a pure function of where it is made, never of global state.

An address is a tuple such as `(seed, "zero", step, problem, sample)`. The same address gives the same numbers in
every process, on every machine, whatever was drawn before or is drawn beside it.
"""

import hashlib
import random

import numpy as np

Address = tuple[int | str, ...]

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014): SplitMix64's constants.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key(*address: int | str) -> int:
    """Return the 64-bit key of an address; integers and strings never collide (1 and "1" differ).

    >>> key(0, "zero", 3) == key(0, "zero", 3), key(1) == key("1")
    (True, False)
    """
    return int.from_bytes(_digest(_spelt(address)).digest(), "little")


def keys(count: int, *address: int | str) -> list[int]:
    """Return the keys of `count` addresses that go on from this one with 0, 1, 2, ...

    >>> keys(2, 7, "zero") == [key(7, "zero", 0), key(7, "zero", 1)]
    True
    """
    begun, found = _digest(_spelt((*address, 0)).removesuffix("0")), []
    for last in range(count):
        digest = begun.copy()
        digest.update(str(last).encode())
        found.append(int.from_bytes(digest.digest(), "little"))
    return found


def _spelt(address: Address) -> str:
    return "\x1f".join(f"{type(part).__name__[0]}{part}" for part in address)


def _digest(text: str) -> "hashlib.blake2b":
    return hashlib.blake2b(text.encode(), digest_size=8)


def generator(*address: int | str) -> random.Random:
    """Return Python's generator seeded by an address, for drawing problems and traces."""
    return random.Random(key(*address))


def uniforms(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return one uniform number a row in [0, 1), float64[n], from keys uint64[n] and positions int[n].

    Counter-based (SplitMix64 over key + position), so a row's numbers don't depend on its neighbours.
    """
    with np.errstate(over="ignore"):
        z = keys.astype(np.uint64) + (positions.astype(np.uint64) + np.uint64(1)) * _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
