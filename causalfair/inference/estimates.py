"""Estimates: the object every estimator returns and all inference is derived from.

An estimator hands over a point estimate and, per row, its influence. Standard errors, intervals,
clusters, bands, contrasts, transformations and tests follow here, once for all families.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, TypeVar

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_level, suggest
from causalfair.exceptions import DataError, ParameterError
from causalfair.inference.hooks import TableHooks
from causalfair.inference.multiplicity import adjust_p_values, romano_wolf
from causalfair.inference.multiplier import gaussian_max_draws, simultaneous_critical_value
from causalfair.inference.tests import HypothesisTest

__all__ = ["Estimates"]

Self = TypeVar("Self", bound="Estimates")
N_DRAWS = 9_999


def numerical_jacobian(fn: Callable[[FloatArray], Any], theta: FloatArray) -> FloatArray:
    """Central differences with step ``eps**(1/3) * max(1, |theta|)``; shape (m, k)."""
    columns = []
    for j, value in enumerate(theta):
        step = np.finfo(float).eps ** (1 / 3) * max(1.0, abs(value))
        up, down = theta.copy(), theta.copy()
        up[j] += step
        down[j] -= step
        difference = np.atleast_1d(fn(up)) - np.atleast_1d(fn(down))
        columns.append(difference / (up[j] - down[j]))
    return np.column_stack(columns)


@dataclass(frozen=True, eq=False, repr=False)
class Estimates(TableHooks, ABC):
    """A vector of estimates with their joint uncertainty.

    Use one of :class:`InfluenceEstimates`, :class:`RepeatedEstimates`, :class:`DrawEstimates` and
    :class:`CovarianceEstimates`; they differ in what is known (rows' influence, repeated sample
    splits, posterior or bootstrap draws, a covariance) and answer the same questions.
    """

    # A NumPy number or array on the left leaves the arithmetic to the estimates on the right.
    __array_ufunc__: ClassVar[None] = None

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""

    @property
    @abstractmethod
    def estimate(self) -> FloatArray:
        """Point estimates (k,)."""

    @property
    @abstractmethod
    def vcov(self) -> FloatArray:
        """Covariance matrix (k, k)."""

    @abstractmethod
    def _map(
        self: Self, fn: Callable[[FloatArray], FloatArray], jac: FloatArray, names: tuple[str, ...]
    ) -> Self:
        """Estimates of ``fn(theta)``, whose Jacobian at the estimate is ``jac``."""

    @abstractmethod
    def _take(self: Self, at: list[int], names: tuple[str, ...]) -> Self:
        """Some of the terms, by position, under ``names``."""

    # What subclasses may know better -----------------------------------------------------------

    @property
    def influence(self) -> FloatArray | None:
        """Influence values (n, k), weighted where there are weights; None where unknown."""
        return None

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the t distribution; None for the normal."""
        return None

    @property
    def sample_id(self) -> str | None:
        """Identity of the rows: estimates on the same rows may be combined."""
        return None

    @property
    def std_error(self) -> FloatArray:
        """Standard errors (k,)."""
        return np.sqrt(np.clip(np.diag(self.vcov), 0, None))

    def _studentised_draws(self) -> FloatArray:
        """Draws (B, k) of the studentised estimates around zero."""
        return gaussian_max_draws(self.vcov, N_DRAWS)

    # Intervals and tests ------------------------------------------------------------------------

    def _quantile(self, probability: float) -> float:
        from scipy.special import ndtri, stdtrit

        return float(ndtri(probability) if self.df is None else stdtrit(self.df, probability))

    def critical_value(self, level: float = 0.95, *, simultaneous: bool = False) -> float:
        """Half-width of the intervals in standard errors.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        simultaneous : bool, default False
            Cover all terms at once with probability ``level`` (sup-t band).

        Returns
        -------
        float
            Quantile of the normal law, of the t law, or of the largest studentised draw.

        Raises
        ------
        ParameterError
            If ``level`` is not strictly between 0 and 1.
        """
        check_level(level)
        pointwise = self._quantile((1 + level) / 2)
        if not simultaneous or len(self.names) == 1:
            return pointwise
        from scipy.special import ndtr

        largest = simultaneous_critical_value(self._studentised_draws(), level)
        if self.df is not None:
            # With few clusters, the point of the t law that is as far out as that of the normal.
            largest = self._quantile(float(ndtr(largest)))
        # Draws are finitely many, and few clusters give them short tails.
        return max(largest, pointwise)

    def conf_int(self, level: float = 0.95, *, simultaneous: bool = False) -> FloatArray:
        """Confidence intervals.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        simultaneous : bool, default False
            Cover all terms at once with probability ``level`` (sup-t band).

        Returns
        -------
        numpy.ndarray of shape (k, 2)
            Lower and upper ends.
        """
        half = self.critical_value(level, simultaneous=simultaneous) * self.std_error
        return np.column_stack([self.estimate - half, self.estimate + half])

    def statistic(self, null: float | FloatArray = 0.0) -> FloatArray:
        """Studentised distances of the estimates from ``null``.

        Parameters
        ----------
        null : float or array-like of shape (k,), default 0.0
            Hypothesised values.

        Returns
        -------
        numpy.ndarray of shape (k,)
            Distances in standard errors.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((self.estimate - null) / self.std_error)

    def p_value(self, null: float | FloatArray = 0.0) -> FloatArray:
        """Two-sided p-values of each term against ``null``.

        Parameters
        ----------
        null : float or array-like of shape (k,), default 0.0
            Hypothesised values.

        Returns
        -------
        numpy.ndarray of shape (k,)
            Unadjusted p-values, normal or t.
        """
        from scipy.special import ndtr, stdtr

        distance = np.abs(self.statistic(null))
        tail = ndtr(-distance) if self.df is None else stdtr(self.df, -distance)
        return np.asarray(2 * tail)

    def test(self, null: float | FloatArray = 0.0) -> HypothesisTest:
        """Joint Wald test that every term equals ``null``.

        Parameters
        ----------
        null : float or array of shape (k,), default 0
            Hypothesised values.

        Returns
        -------
        HypothesisTest
            Chi-square test; its degrees of freedom are the rank of the covariance. nan, with the
            reason, when a term could not be estimated.
        """
        from scipy.special import chdtrc

        terms = " = ".join(self.names) if len(self.names) < 4 else f"all {len(self.names)} terms"
        hypothesis = f"{terms} = {null:g}" if np.ndim(null) == 0 else f"{terms} = the given values"
        known = np.isfinite(self.estimate) & np.isfinite(self.std_error)
        if not known.all():
            first = self.names[int(np.argmin(known))]
            reason = f"{int((~known).sum())} term(s) could not be estimated, the first is {first!r}"
            return HypothesisTest("Wald", hypothesis, np.nan, np.nan, reason=reason)
        gap = self.estimate - np.broadcast_to(null, self.estimate.shape)
        scale = np.where(self.std_error > 0, self.std_error, 1.0)
        correlation = self.vcov / np.outer(scale, scale)
        rank = int(np.linalg.matrix_rank(correlation, hermitian=True))
        value = float((gap / scale) @ np.linalg.pinv(correlation, hermitian=True) @ (gap / scale))
        return HypothesisTest("Wald", hypothesis, value, float(chdtrc(rank, value)), rank)

    def equivalence_test(self, low: float, high: float) -> HypothesisTest:
        """Two one-sided tests that the single term lies inside ``(low, high)``.

        Parameters
        ----------
        low, high : float
            Margins of equivalence.

        Returns
        -------
        HypothesisTest
            The null is that the term lies outside; a small p-value speaks for equivalence.

        Raises
        ------
        ParameterError
            More than one term, or ``low >= high``.
        """
        from scipy.special import ndtr, stdtr

        if len(self.names) != 1:
            raise ParameterError(
                f"equivalence_test is for one term and these are {len(self.names)}; select one "
                f"first: est[{self.names[0]!r}]."
            )
        if not low < high:
            raise ParameterError(f"low={low!r} must be below high={high!r}.")
        above, below = self.statistic(low)[0], self.statistic(high)[0]
        closest = min(above, -below)
        p = ndtr(-closest) if self.df is None else stdtr(self.df, -closest)
        null = f"{self.names[0]} outside ({low:g}, {high:g})"
        return HypothesisTest(
            "equivalence",
            null,
            float(closest),
            float(p),
            self.df,
            "normal" if self.df is None else "t",
        )

    def p_adjust(
        self, method: str = "romano-wolf", *, null: float | FloatArray = 0.0
    ) -> FloatArray:
        """P-values adjusted for testing all terms.

        Parameters
        ----------
        method : {"romano-wolf", "holm", "bh", "bonferroni"}, default "romano-wolf"
            Romano-Wolf uses the joint law of the terms and is the most powerful of the three that
            bound any false rejection; ``"bh"`` bounds the false discovery rate.
        null : float or array of shape (k,), default 0
            Hypothesised values.

        Returns
        -------
        numpy.ndarray of shape (k,)
            Adjusted p-values; nan for terms that could not be estimated, which do not count.
        """
        p_values = self.p_value(null)
        known = ~np.isnan(p_values)
        out = np.full(len(known), np.nan)
        if method == "romano-wolf":
            from scipy.special import ndtri

            draws = self._studentised_draws()[:, known]
            # With few clusters, as far out on the normal scale of the draws as on that of t.
            distance = self.statistic(null) if self.df is None else ndtri(p_values / 2)
            # Draws are finitely many, and few clusters give them short tails.
            out[known] = np.maximum(romano_wolf(distance[known], draws), p_values[known])
        else:
            out[known] = adjust_p_values(p_values[known], method)
        return out

    # New estimates from these -------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self: Self, key: str | Sequence[str]) -> Self:
        wanted = (key,) if isinstance(key, str) else tuple(key)
        return self._take(self._positions(wanted), wanted)

    def _positions(self, wanted: Sequence[str]) -> list[int]:
        """Places of terms; a name that two terms share names neither."""
        for name in wanted:
            if name not in self.names:
                raise KeyError(
                    f"no term {name!r}.{suggest(str(name), self.names)} "
                    f"Terms: {', '.join(self.names[:12])}."
                )
            if self.names.count(name) > 1:
                raise ParameterError(
                    f"{self.names.count(name)} terms are called {name!r}; give them names of their "
                    "own first: with_names([...])."
                )
        return [self.names.index(name) for name in wanted]

    def _linear(self: Self, weights: FloatArray, names: Sequence[str]) -> Self:
        return self._map(lambda theta: weights @ theta, weights, tuple(names))

    def with_names(self: Self, names: Sequence[str]) -> Self:
        """The same estimates under other names.

        Parameters
        ----------
        names : sequence of str
            One name a term.

        Returns
        -------
        Estimates
            Estimates of the same kind.
        """
        if len(names) != len(self.names):
            raise ParameterError(f"{len(names)} names for {len(self.names)} terms.")
        return self._take(list(range(len(self))), tuple(names))

    def contrast(self: Self, weights: Mapping[str, float], *, name: str | None = None) -> Self:
        """Linear combination of terms.

        Parameters
        ----------
        weights : mapping of str to float
            Term -> weight, for instance ``{"a": 1, "b": -1}``.
        name : str, optional
            Name of the result.

        Returns
        -------
        Estimates
            One term.

        Examples
        --------
        >>> import numpy as np
        >>> from causalfair.inference import CovarianceEstimates
        >>> est = CovarianceEstimates(np.array([3.0, 1.0]), np.eye(2), ("a", "b"))
        >>> float(est.contrast({"a": 1, "b": -1}).estimate[0])
        2.0
        """
        if not weights:
            raise ParameterError("contrast got no weights; give some, such as {'a': 1, 'b': -1}.")
        label = name or " ".join(f"{w:+g}*{term}" for term, w in weights.items())
        row = np.array([list(weights.values())], dtype=float)
        return self[list(weights)]._linear(row, (label,))

    def transform(
        self: Self,
        fn: Callable[[FloatArray], Any],
        names: Sequence[str] | None = None,
        *,
        jac: Callable[[FloatArray], FloatArray] | None = None,
    ) -> Self:
        """Smooth function of the estimates by the delta method.

        Parameters
        ----------
        fn : callable
            Maps the estimates (k,) to (m,) values.
        names : sequence of str, optional
            Names of the m results.
        jac : callable, optional
            Maps the estimates (k,) to the (m, k) Jacobian; central differences when None.

        Returns
        -------
        Estimates
            The m transformed terms.
        """
        theta = np.array(self.estimate)
        value = np.atleast_1d(np.asarray(fn(theta), dtype=float))
        jacobian = numerical_jacobian(fn, theta) if jac is None else np.atleast_2d(jac(theta))
        labels = tuple(names) if names is not None else tuple(f"f{j}" for j in range(len(value)))
        if len(labels) != len(value):
            raise ParameterError(f"{len(labels)} names for the {len(value)} values of fn.")
        return self._map(lambda t: np.atleast_1d(np.asarray(fn(t), dtype=float)), jacobian, labels)

    def combine(self, other: Estimates, *, independent: bool = False) -> Estimates:
        """Put the terms of two estimates side by side, with their joint uncertainty.

        Parameters
        ----------
        other : Estimates
            Further estimates.
        independent : bool, default False
            Declare that the two come from independent samples. Without it both must come from the
            same rows: adding variances of dependent estimates is the classic mistake.

        Returns
        -------
        Estimates
            All terms.

        Raises
        ------
        DataError
            Different samples that were not declared independent.
        """
        from causalfair.inference.joint import join

        return join(self, other, independent=independent)

    @staticmethod
    def concat(parts: Sequence[Estimates]) -> Estimates:
        """Terms of several estimates on the same rows, side by side.

        Parameters
        ----------
        parts : sequence of Estimates
            Estimates with the same ``sample_id``.

        Returns
        -------
        Estimates
            All terms, in order, with their covariance.
        """
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.combine(part)
        return joined

    def _arithmetic(self, other: Any, sign: float) -> Estimates:
        if not isinstance(other, Estimates):
            shift = np.broadcast_to(np.asarray(other, dtype=float), self.estimate.shape)
            return self._map(lambda t: t + sign * shift, np.eye(len(self)), self.names)
        if len(other) != len(self):
            raise DataError(
                f"cannot combine {len(self)} term(s) with {len(other)}; select terms first."
            )
        both = self.combine(other)
        k = len(self)
        symbol = "+" if sign > 0 else "-"
        names = [
            f"{a} {symbol} {b}" if a != b else a
            for a, b in zip(self.names, other.names, strict=True)
        ]
        return both._linear(np.hstack([np.eye(k), sign * np.eye(k)]), names)

    def __add__(self, other: Any) -> Estimates:
        return self._arithmetic(other, 1.0)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Estimates:
        return self._arithmetic(other, -1.0)

    def __rsub__(self, other: Any) -> Estimates:
        return (-self)._arithmetic(other, 1.0)

    def __mul__(self: Self, factor: float) -> Self:
        if not isinstance(factor, Real):
            return NotImplemented
        return self._linear(float(factor) * np.eye(len(self)), self.names)

    __rmul__ = __mul__

    def __neg__(self: Self) -> Self:
        return self * -1.0

    def __truediv__(self: Self, factor: float) -> Self:
        if not isinstance(factor, Real):
            return NotImplemented
        return self * (1.0 / float(factor))

    def drop_influence(self) -> Estimates:
        """A light copy that keeps estimates and covariance only."""
        from causalfair.inference.kinds import CovarianceEstimates

        return CovarianceEstimates(self.estimate, self.vcov, self.names, df=self.df)

    # What people see ----------------------------------------------------------------------------

    def to_frame(
        self,
        level: float = 0.95,
        *,
        simultaneous: bool = False,
        native: str | None = None,
    ) -> Any:
        """Tidy table, one row a term.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        simultaneous : bool, default False
            Simultaneous instead of pointwise intervals.
        native : {"pandas", "polars"}, optional
            Library of the result; pandas when None.

        Returns
        -------
        pandas.DataFrame or polars.DataFrame
            Columns ``term, estimate, std_error, statistic, p_value, conf_low, conf_high``.
        """
        import pandas as pd

        from causalfair._core.frames import to_native

        low, high = self.conf_int(level, simultaneous=simultaneous).T
        columns = {
            "term": np.array(self.names, dtype=object),
            "estimate": self.estimate,
            "std_error": self.std_error,
            "statistic": self.statistic(),
            "p_value": self.p_value(),
            "conf_low": low,
            "conf_high": high,
        }
        return to_native(pd.DataFrame(columns), native or "pandas")

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """Forest plot of the terms.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; new axes when None.
        level : float, default 0.95
            Level of the pointwise intervals.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting import forest_plot

        return forest_plot(self, ax=ax, level=level)

    def summary(self, level: float = 0.95) -> Any:
        """Table of the terms with intervals and p-values.

        Parameters
        ----------
        level : float, default 0.95
            Level of the pointwise intervals.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text, HTML, LaTeX or Markdown.
        """
        from causalfair.reporting import Summary, estimates_table

        return Summary("Estimates", [], [estimates_table(self, level)], [])

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self) or not isinstance(other, Estimates):
            return NotImplemented
        mine, theirs = self.influence, other.influence
        same_influence = (
            np.array_equal(mine, theirs)
            if mine is not None and theirs is not None
            else mine is theirs
        )
        return (
            self.names == other.names
            and np.array_equal(self.estimate, other.estimate, equal_nan=True)
            and np.array_equal(self.vcov, other.vcov, equal_nan=True)
            and same_influence
        )

    __hash__ = None  # type: ignore[assignment]
