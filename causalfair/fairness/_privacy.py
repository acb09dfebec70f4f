"""Randomised response on proxies, noisy counts, and what proxies give away."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from causalfair.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    from causalfair._core.typing import ArrayLike, FloatArray, IntArray, RandomState


def _check_epsilon(epsilon: float, owner: str) -> None:
    if not isinstance(epsilon, Real) or not epsilon > 0:
        raise ParameterError(
            f"{owner} got epsilon={epsilon!r}; a privacy budget is a positive number "
            "(np.inf leaves the values alone)."
        )


def response_matrix(n_levels: int, epsilon: float) -> FloatArray:
    """Randomised-response matrix Q (K, K): row = true level, column = reported level.

    A level is kept with probability e^eps / (e^eps + K - 1) and otherwise replaced by one of the
    others, all equally likely.

    Parameters
    ----------
    n_levels : int
        Number of levels.
    epsilon : float
        Local privacy budget of one answer.

    Returns
    -------
    (n_levels, n_levels) array
        Rows sum to one.

    Examples
    --------
    >>> from causalfair.fairness import response_matrix
    >>> response_matrix(2, np.log(3.0)).round(2).tolist()
    [[0.75, 0.25], [0.25, 0.75]]
    """
    _check_epsilon(epsilon, "response_matrix")
    if n_levels < 2:
        raise ParameterError(f"response_matrix got n_levels={n_levels}; at least 2 are needed.")
    other = float(np.exp(-epsilon))
    total = 1.0 + (n_levels - 1) * other
    Q = np.full((n_levels, n_levels), other / total)
    np.fill_diagonal(Q, 1.0 / total)
    return Q


def response_inverse(n_levels: int, epsilon: float) -> FloatArray:
    """Inverse of :func:`response_matrix`, ((e^eps + K - 1) I - 1 1') / (e^eps - 1).

    Parameters
    ----------
    n_levels : int
        Number of levels.
    epsilon : float
        Privacy budget.

    Returns
    -------
    (n_levels, n_levels) array
        The inverse matrix.

    Examples
    --------
    >>> from causalfair.fairness import response_inverse, response_matrix
    >>> bool(np.allclose(response_matrix(3, 1.0) @ response_inverse(3, 1.0), np.eye(3)))
    True
    """
    _check_epsilon(epsilon, "response_inverse")
    other = float(np.exp(-epsilon))
    scale = 1.0 + (n_levels - 1) * other
    return np.asarray((scale * np.eye(n_levels) - other) / -np.expm1(-epsilon))


def randomized_response(
    values: ArrayLike,
    epsilon: float,
    *,
    n_levels: int | None = None,
    random_state: RandomState = None,
) -> IntArray:
    """Randomise each value so that it satisfies ``epsilon``-local differential privacy.

    The error matrix of a randomised proxy is T Q, so its group information stays identified and Q
    need not be known to the analyst. Several randomised proxies of one person spend the sum of
    their budgets.

    Parameters
    ----------
    values : (n,) or (n, m) int array
        Levels 0..K-1; -1 (missing) stays missing.
    epsilon : float
        Budget per value; ``np.inf`` leaves the values alone.
    n_levels : int, optional
        Number of levels; default the largest seen plus one.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Returns
    -------
    array like ``values``
        Randomised levels.

    Raises
    ------
    ParameterError
        Budget not positive.
    DataError
        Values that are not levels.

    References
    ----------
    .. [1] Mozannar, Ohannessian & Srebro (2020), "Fair learning with private demographic data",
       ICML.

    Examples
    --------
    >>> from causalfair.fairness import randomized_response
    >>> randomized_response([0, 1, 1, 0], np.inf, n_levels=2).tolist()
    [0, 1, 1, 0]
    """
    from causalfair._core.random import generator, root_seed

    _check_epsilon(epsilon, "randomized_response")
    levels = np.asarray(values)
    if levels.dtype.kind not in "iub":
        raise DataError(
            f"randomized_response got values of dtype {levels.dtype}; give integer levels 0..K-1."
        )
    levels = levels.astype(np.intp)
    top = int(levels.max(initial=0)) + 1 if n_levels is None else n_levels
    if levels.min(initial=0) < -1 or levels.max(initial=0) >= top:
        raise DataError(
            f"randomized_response got levels from {levels.min()} to {levels.max()}; they must lie "
            f"in 0..{top - 1} (or -1 for missing)."
        )
    rng = generator(root_seed(random_state), 0)
    stay = response_matrix(max(top, 2), epsilon)[0, 0]
    kept = rng.random(levels.shape) < stay
    shift = rng.integers(1, max(top, 2), size=levels.shape)
    answer = np.where(kept, levels, (levels + shift) % max(top, 2))
    return np.where(levels < 0, -1, answer)


def laplace_counts(N: ArrayLike, epsilon: float, *, random_state: RandomState = None) -> FloatArray:
    """Release a count tensor under central ``epsilon``-differential privacy.

    Adds Laplace noise of scale 2 / epsilon to every cell (replacing one person moves two cells by
    one each) and clips at zero. Everything computed from the result keeps the guarantee.

    Parameters
    ----------
    N : array
        Counts, of any shape.
    epsilon : float
        Privacy budget.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Returns
    -------
    array like ``N``
        Noisy counts, none negative.

    Examples
    --------
    >>> from causalfair.fairness import laplace_counts
    >>> noisy = laplace_counts(np.full((2, 1, 2, 2, 2), 100.0), 1.0, random_state=0)
    >>> noisy.shape, bool((noisy >= 0).all())
    ((2, 1, 2, 2, 2), True)
    """
    from causalfair._core.random import generator, root_seed

    _check_epsilon(epsilon, "laplace_counts")
    counts = np.asarray(N, dtype=np.float64)
    rng = generator(root_seed(random_state), 0)
    return np.maximum(counts + rng.laplace(scale=2.0 / epsilon, size=counts.shape), 0.0)
