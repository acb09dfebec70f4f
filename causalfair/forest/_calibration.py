"""Whether there is heterogeneity, and whether the model has it right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from causalfair._core.validation import check_lengths, check_matrix
from causalfair.exceptions import DataError
from causalfair.forest._regression import least_squares
from causalfair.forest._sample import EffectSample

__all__ = ["CalibrationTest", "best_linear_projection", "calibration_test", "numeric_columns"]

MEAN, DIFFERENTIAL = "mean prediction", "differential prediction"


@dataclass(frozen=True)
class CalibrationTest:
    """Regression of the outcome on predicted effects.

    Attributes
    ----------
    estimates_ : Estimates
        ``mean prediction`` (1: the average is right) and, where effects were predicted to differ,
        ``differential prediction`` (1: their spread is right; above 0: heterogeneity was found).
    p_value : ndarray of shape (2,)
        One-sided p-values against "not above zero"; NaN where a term does not exist.
    reason : str or None
        Why the differential term does not exist.
    """

    estimates_: Any
    p_value: NDArray[np.float64]
    reason: str | None = None

    @property
    def estimate(self) -> NDArray[np.float64]:
        """Both coefficients (2,), NaN where one does not exist."""
        out = np.full(2, np.nan)
        out[: len(self.estimates_.estimate)] = self.estimates_.estimate
        return out

    @property
    def std_error(self) -> NDArray[np.float64]:
        """Both standard errors (2,)."""
        out = np.full(2, np.nan)
        out[: len(self.estimates_.estimate)] = self.estimates_.std_error
        return out

    def to_frame(self, level: float = 0.95) -> Any:
        """Tidy table; ``p_value`` is one-sided.

        Parameters
        ----------
        level : float, default 0.95
            Level of the two-sided intervals.

        Returns
        -------
        pandas.DataFrame
            Two rows.
        """
        frame = self.estimates_.to_frame(level)
        frame["p_value"] = self.p_value[: len(frame)]
        return frame

    def table(self) -> Any:
        """Table for summaries."""
        from causalfair.reporting import Table
        from causalfair.reporting.format import format_estimate, format_p

        rows = []
        interval = self.estimates_.conf_int()
        for j, name in enumerate(self.estimates_.names):
            cells = format_estimate(self.estimate[j], self.std_error[j], *interval[j])
            p = format_p(float(self.p_value[j]))
            rows.append([name, cells.estimate, cells.std_error, cells.interval, p])
        if self.reason is not None:
            rows.append([DIFFERENTIAL, "none", "", "", ""])
        columns = ["", "estimate", "std. error", "95% interval", "p (> 0)"]
        return Table(columns, rows, "Calibration: 1 is perfect, above 0 is signal", "lrrrr")

    def __str__(self) -> str:
        note = "" if self.reason is None else f"\n {DIFFERENTIAL}: {self.reason}"
        return str(self.table()) + note

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.table()._repr_html_())


def calibration_test(sample: EffectSample) -> CalibrationTest:
    """Regress the outcome residual on the treatment residual times mean and deviation of effects.

    Parameters
    ----------
    sample : EffectSample
        Out-of-sample effects and residuals.

    Returns
    -------
    CalibrationTest
        Without intercept; HC3 or clustered errors; one-sided p-values.
    """
    mean = np.average(sample.effect, weights=sample.sample_weight)
    deviation = sample.effect - mean
    spread = np.abs(deviation).max()
    columns, names, reason = [], [], None
    columns.append(sample.w_residual * mean)
    names.append(MEAN)
    if spread > 1e-12 * max(abs(mean), np.abs(sample.y_residual).max(), 1e-300):
        columns.append(sample.w_residual * deviation)
        names.append(DIFFERENTIAL)
    else:
        reason = "every row has the same predicted effect"
    fit = least_squares(
        np.column_stack(columns),
        sample.y_residual,
        names,
        owner="calibration_test",
        **sample.inference(),
    )
    p = np.full(2, np.nan)
    statistic = fit.statistic()
    p[: statistic.size] = ndtr(-statistic) if fit.df is None else stdtr(fit.df, -statistic)
    return CalibrationTest(fit, p, reason)


def best_linear_projection(X: Any, sample: EffectSample, owner: str) -> Any:
    """Least squares of the doubly robust scores on a constant and the columns of ``X``."""
    names = ["(intercept)"]
    design = np.ones((sample.n, 1))
    if X is not None:
        values, labels = numeric_columns(X, owner)
        check_lengths(owner=owner, **{"X": values, "training rows": sample.effect})
        design = np.column_stack([design, values])
        names += labels
    return least_squares(design, sample.scores, names, owner=owner, **sample.inference())


def numeric_columns(X: Any, owner: str) -> tuple[NDArray[np.float64], list[str]]:
    """Numeric columns and their names from a frame of any library, a Series or an array."""
    import narwhals.stable.v2 as nw

    native = nw.from_native(X, pass_through=True, allow_series=True)
    if isinstance(native, nw.LazyFrame):
        raise DataError(f"{owner} got a lazy frame; call .collect() first.")
    if isinstance(native, nw.Series):
        values, labels = native.to_numpy()[:, None], [native.name or "x0"]
    elif isinstance(native, nw.DataFrame):
        values, labels = native.to_numpy(), list(native.columns)
    else:
        array = np.asarray(X)
        values = array[:, None] if array.ndim == 1 else array
        labels = [f"x{j}" for j in range(values.shape[1])] if values.ndim == 2 else []
    return check_matrix(values, "X", owner=owner), [str(label) for label in labels]
