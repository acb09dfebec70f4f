"""Compiled loop that thins pairs."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def cap_pairs(order, chosen, rejected, codes, n_strata, per_stratum, per_text):
    """Which pairs stay when both caps are filled greedily in the given order."""
    in_stratum = np.zeros(n_strata, np.int64)
    in_text = np.zeros(codes.shape[0], np.int64)
    keep = np.zeros(chosen.shape[0], np.bool_)
    for p in order:
        i, j = chosen[p], rejected[p]
        s = codes[i]
        if in_stratum[s] >= per_stratum or in_text[i] >= per_text or in_text[j] >= per_text:
            continue
        keep[p] = True
        in_stratum[s] += 1
        in_text[i] += 1
        in_text[j] += 1
    return keep
