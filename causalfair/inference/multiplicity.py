"""Adjusted p-values for several hypotheses at once."""

from __future__ import annotations

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ParameterError

__all__ = ["adjust_p_values", "romano_wolf"]


def romano_wolf(statistic: FloatArray, studentised: FloatArray) -> FloatArray:
    """Step-down adjusted p-values from joint draws under the null.

    Parameters
    ----------
    statistic : numpy.ndarray of shape (k,)
        Studentised estimates.
    studentised : numpy.ndarray of shape (B, k)
        Draws of the studentised estimates around zero.

    Returns
    -------
    numpy.ndarray of shape (k,)
        Adjusted p-values, monotone along the step-down order.

    References
    ----------
    .. [1] J. P. Romano, M. Wolf (2005). Exact and approximate stepdown methods for multiple
       hypothesis testing. Journal of the American Statistical Association 100, 94-108, section 3.
       doi:10.1198/016214504000000539
    """
    observed, draws = np.abs(statistic), np.abs(studentised)
    order = np.argsort(-observed, kind="stable")
    # Maxima over the hypotheses not yet rejected: a running maximum from the least significant up.
    running = np.maximum.accumulate(draws[:, order[::-1]], axis=1)[:, ::-1]
    exceed = (running >= observed[order]).sum(axis=0)
    stepped = np.maximum.accumulate((exceed + 1) / (len(draws) + 1))
    out = np.empty_like(observed)
    out[order] = stepped
    return out


def adjust_p_values(p_values: FloatArray, method: str) -> FloatArray:
    """Adjust p-values without their joint law.

    Parameters
    ----------
    p_values : numpy.ndarray of shape (k,)
        Unadjusted p-values.
    method : {"bonferroni", "holm", "bh"}
        Bonferroni and Holm [1]_ bound the chance of any false rejection; Benjamini-Hochberg [2]_
        the expected share of false rejections.

    Returns
    -------
    numpy.ndarray of shape (k,)
        Adjusted p-values.

    Raises
    ------
    ParameterError
        The method is not known.

    References
    ----------
    .. [1] S. Holm (1979). A simple sequentially rejective multiple test procedure. Scandinavian
       Journal of Statistics 6, 65-70.
    .. [2] Y. Benjamini, Y. Hochberg (1995). Controlling the false discovery rate. Journal of the
       Royal Statistical Society B 57, 289-300. doi:10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> import numpy as np
    >>> adjust_p_values(np.array([0.01, 0.04]), "holm")
    array([0.02, 0.04])
    """
    count = len(p_values)
    if method == "bonferroni":
        return np.asarray(np.minimum(p_values * count, 1.0))
    order = np.argsort(p_values, kind="stable")
    ranked = p_values[order]
    if method == "holm":
        stepped = np.maximum.accumulate(ranked * np.arange(count, 0, -1))
    elif method == "bh":
        stepped = np.minimum.accumulate((ranked * count / np.arange(1, count + 1))[::-1])[::-1]
    else:
        raise ParameterError(
            f"method={method!r} must be 'romano-wolf', 'holm', 'bh' or 'bonferroni'."
        )
    out = np.empty_like(p_values)
    out[order] = np.minimum(stepped, 1.0)
    return out
