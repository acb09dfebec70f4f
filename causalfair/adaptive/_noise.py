"""Noise as a function of a secret key, a stream name and a counter.

Nothing is consumed: the same (key, stream, index) gives the same draw, so a transaction that rolls
back has spent nothing, and whoever is shown the key later can recompute every answer.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os

import numpy as np
from scipy import special

from causalfair._core.typing import FloatArray, IntArray

KEY_BYTES = 32
GRID_FRACTION = 1024


def new_key() -> bytes:
    """Fresh 32-byte key from the operating system."""
    return os.urandom(KEY_BYTES)


def key_from_seed(seed: int) -> bytes:
    """Predictable key; whoever knows the seed can subtract the noise."""
    return hashlib.blake2b(f"causalfair insecure seed {seed}".encode(), digest_size=32).digest()


def commitment(key: bytes) -> str:
    """SHA-256 of the key, published when the ledger is created."""
    return hashlib.sha256(key).hexdigest()


def matches(key: bytes, committed: str) -> bool:
    """Whether a revealed key is the committed one."""
    return hmac.compare_digest(commitment(key), committed)


class KeyedNoise:
    """Independent draws indexed by stream and counter (keyed BLAKE2b, 53-bit uniforms)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "KeyedNoise(<secret>)"

    def uniform(self, stream: str, start: int, count: int) -> FloatArray:
        """Uniforms ``(x + 1/2) / 2**53`` at indices start, ..., start + count - 1; never 0 or 1."""
        name = stream.encode()[:16]
        words = b"".join(
            hashlib.blake2b(
                index.to_bytes(8, "little"), key=self._key, person=name, digest_size=8
            ).digest()
            for index in range(start, start + count)
        )
        bits = np.frombuffer(words, dtype="<u8") >> np.uint64(11)
        return np.minimum((bits.astype(np.float64) + 0.5) / 2.0**53, 1.0 - 2.0**-53)

    def normal(self, stream: str, start: int, count: int) -> FloatArray:
        """Standard normal draws."""
        return np.asarray(special.ndtri(self.uniform(stream, start, count)))

    def laplace(self, stream: str, start: int, count: int) -> FloatArray:
        """Laplace draws with scale one."""
        u = self.uniform(stream, start, count)
        return np.where(u < 0.5, np.log(2 * u), -np.log(2 * (1 - u)))

    def gumbel(self, stream: str, start: int, count: int) -> FloatArray:
        """Standard Gumbel draws."""
        return -np.log(-np.log(self.uniform(stream, start, count)))

    def permutation(self, stream: str, n: int) -> IntArray:
        """Random order of 0, ..., n - 1."""
        seed = hashlib.blake2b(
            b"permutation", key=self._key, person=stream.encode()[:16], digest_size=32
        ).digest()
        words = [int.from_bytes(seed[i : i + 4], "little") for i in range(0, 32, 4)]
        return np.random.default_rng(words).permutation(n)


def release_grid(scale: FloatArray | float) -> FloatArray:
    """Spacing ``2**floor(log2(scale / 1024))`` on which noisy values are released."""
    return np.exp2(np.floor(np.log2(np.asarray(scale, dtype=float) / GRID_FRACTION)))


def to_grid(values: FloatArray, grid: FloatArray | float) -> FloatArray:
    """Nearest multiple of the grid; hides the low-order bits of the sum."""
    return np.rint(values / grid) * grid


def finite_or(value: float, other: float) -> float:
    """`value` when finite, else `other`."""
    return value if math.isfinite(value) else other
