"""The scan of a Thresholdout batch; equal to the sequential algorithm on the same noise."""

from __future__ import annotations

import numpy as np

from causalfair._core.typing import FloatArray, IntArray


def scan(excess: FloatArray, thresholds: FloatArray, budget: int) -> tuple[IntArray, int]:
    """Exceedances of a batch.

    Parameters
    ----------
    excess : (q,) array
        Difference to the guess minus the fresh comparison noise of each query.
    thresholds : array
        Noisy thresholds in the order in which they come into force, one more than can be used.
    budget : int
        Exceedances that can be afforded.

    Returns
    -------
    hits : (h,) array
        Indices of the exceedances, h <= budget.
    answered : int
        Number of queries answered; the rest is refused.
    """
    hits: list[int] = []
    position = 0
    while len(hits) < budget and position < len(excess):
        over = excess[position:] > thresholds[len(hits)]
        first = int(np.argmax(over))
        if not over[first]:
            return np.asarray(hits, dtype=np.intp), len(excess)
        hits.append(position + first)
        position += first + 1
    answered = position if len(hits) >= budget else len(excess)
    return np.asarray(hits, dtype=np.intp), answered
