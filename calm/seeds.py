"""Random streams named by what they are for.

A draw depends on the run's seed and on its own name alone, never on how many draws came before it: adding a draw
somewhere leaves all others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np

_BITS = 63  # fits numpy's, torch's and Arrow's signed 64-bit integers


def derive(seed: int, *names: str | int) -> int:
    """A seed in 0..2**63-1 that depends on `seed` and on every name, in their order.

    Parts are length-prefixed and typed before hashing, so ("ab", "c") differs from ("a", "bc") and 1 from "1".
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, *names):
        encoded = f"{'i' if isinstance(part, int) else 's'}{part}".encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "big") >> (64 - _BITS)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator seeded with `derive(seed, *names)`."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
