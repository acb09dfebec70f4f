"""Keyed random streams.

A task's stream depends on the root entropy and the task's key alone, never on how many streams were
made before it. Nothing here reads or writes a global generator, and nothing changes what the user
passed: ``SeedSequence.spawn`` counts its children, so it is not used on a user's object.
"""

from __future__ import annotations

import copy
import hashlib
import pickle

import numpy as np

from causalfair._core.typing import RandomState
from causalfair.exceptions import ParameterError

__all__ = ["child_seed", "generator", "int_seed", "root_seed", "uint64_seed"]


def root_seed(random_state: RandomState) -> np.random.SeedSequence:
    """Root of all random streams of one fit.

    Parameters
    ----------
    random_state : int, SeedSequence, Generator, RandomState or None
        ``None`` draws fresh entropy from the system. A ``Generator`` or ``RandomState`` is read,
        not advanced: the root depends on its current state.

    Returns
    -------
    numpy.random.SeedSequence
        A new object; spawning from it leaves the argument alone.

    Raises
    ------
    ParameterError
        The value cannot seed anything.

    Examples
    --------
    >>> root_seed(3).entropy
    3
    """
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, np.random.SeedSequence):
        return copy.copy(random_state)
    if isinstance(random_state, (np.random.Generator, np.random.RandomState)):
        state = (
            random_state.bit_generator.state
            if isinstance(random_state, np.random.Generator)
            else random_state.get_state(legacy=False)
        )
        digest = hashlib.blake2b(pickle.dumps(state, protocol=4), digest_size=16).digest()
        return np.random.SeedSequence(int.from_bytes(digest, "little"))
    whole = isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool)
    if whole and int(random_state) >= 0:
        return np.random.SeedSequence(int(random_state))
    raise ParameterError(
        f"random_state={random_state!r} cannot seed a stream; give a non-negative integer, a "
        "SeedSequence, a Generator, a RandomState or None."
    )


def child_seed(root: np.random.SeedSequence, *key: int) -> np.random.SeedSequence:
    """Seed of the task with this key."""
    return np.random.SeedSequence(
        entropy=root.entropy, spawn_key=(*root.spawn_key, *key), pool_size=root.pool_size
    )


def generator(root: np.random.SeedSequence, *key: int) -> np.random.Generator:
    """Generator of the task with this key."""
    return np.random.Generator(np.random.PCG64(child_seed(root, *key)))


def int_seed(root: np.random.SeedSequence, *key: int) -> int:
    """Integer below 2**32 for scikit-learn's ``random_state``."""
    return int(child_seed(root, *key).generate_state(1, np.uint32)[0])


def uint64_seed(root: np.random.SeedSequence, *key: int) -> np.uint64:
    """Seed of a kernel's counter-based generator."""
    return np.uint64(child_seed(root, *key).generate_state(1, np.uint64)[0])
