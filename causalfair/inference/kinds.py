"""The four kinds of estimates: influence, repeated splits, draws, covariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_level
from causalfair.exceptions import DataError, ParameterError, SmallSampleWarning
from causalfair.inference.checks import (
    check_centred,
    check_names,
    cluster_codes,
    frozen,
    mean_one,
)
from causalfair.inference.estimates import N_DRAWS, Estimates
from causalfair.inference.multiplier import multiplier_draws, simultaneous_critical_value
from causalfair.inference.vcov import (
    clustered_vcov,
    iid_vcov,
    nearest_psd,
    smallest_cluster_count,
)

__all__ = ["CovarianceEstimates", "DrawEstimates", "InfluenceEstimates", "RepeatedEstimates"]

FEW_CLUSTERS = 30


class _Stored(Estimates):
    """Estimates that store their point estimate and names."""

    _estimate: FloatArray
    _names: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""
        return self._names

    @property
    def estimate(self) -> FloatArray:
        """Point estimates (k,)."""
        return self._estimate


@dataclass(frozen=True, eq=False, repr=False, init=False)
class InfluenceEstimates(_Stored):
    """Estimates with the influence of every row: ``theta_hat - theta = mean(psi_i) + o(n**-1/2)``.

    Parameters
    ----------
    estimate : array of shape (k,)
        Point estimates.
    influence : array of shape (n, k)
        Influence values. Their (weighted) mean is zero: checked to 1e-8 of their scale.
    names : sequence of str
        Names of the k terms.
    cluster : array of int of shape (n,) or (n, c), optional
        Cluster codes, one column a way of clustering.
    sample_weight : array of shape (n,), optional
        Non-negative weights; scaled to mean one they enter as ``w_i psi_i``.
    sample_id : str, optional
        Identity of the rows; estimates with the same identity may be combined.
    small_sample : bool, default False
        Multiply the covariance of independent rows by ``n / (n - 1)``.

    Raises
    ------
    DataError
        Shapes disagree, or the influence does not have mean zero.

    Warns
    -----
    SmallSampleWarning
        Fewer than 30 clusters; intervals then use the t distribution with G - 1 degrees of freedom.

    References
    ----------
    .. [1] V. Chernozhukov et al. (2018). Double/debiased machine learning for treatment and
       structural parameters. Econometrics Journal 21, C1-C68, section 3. doi:10.1111/ectj.12097

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> est = InfluenceEstimates(y.mean(), (y - y.mean())[:, None], ["mean"])
    >>> bool(est.std_error[0] == np.sqrt(y.var() / 4))
    True
    """

    _vcov_kind: ClassVar[str] = "influence function"
    _estimate: FloatArray
    _names: tuple[str, ...]
    _influence: FloatArray
    cluster: IntArray | None
    small_sample: bool
    _sample_id: str | None

    def __init__(
        self,
        estimate: Any,
        influence: Any,
        names: Sequence[str],
        *,
        cluster: Any = None,
        sample_weight: Any = None,
        sample_id: str | None = None,
        small_sample: bool = False,
    ) -> None:
        theta = frozen(estimate, 1, "estimate")
        psi = np.array(influence, dtype=np.float64)
        psi = psi[:, None] if psi.ndim == 1 else psi
        if psi.ndim != 2 or psi.shape[1] != len(theta):
            raise DataError(f"influence has shape {psi.shape}; it needs (n, {len(theta)}).")
        if sample_weight is not None:
            psi = psi * mean_one(sample_weight, len(psi))[:, None]
        check_centred(psi, theta)
        psi.setflags(write=False)
        codes = cluster_codes(cluster, len(psi))
        for name, value in (
            ("_estimate", theta),
            ("_names", check_names(names, len(theta))),
            ("_influence", psi),
            ("cluster", codes),
            ("small_sample", bool(small_sample)),
            ("_sample_id", sample_id),
        ):
            object.__setattr__(self, name, value)
        if codes is not None and smallest_cluster_count(codes) < FEW_CLUSTERS:
            warn(
                f"Only {smallest_cluster_count(codes)} clusters: the clustered standard errors are "
                f"rough below {FEW_CLUSTERS}. Intervals use the t distribution.",
                SmallSampleWarning,
            )

    @property
    def influence(self) -> FloatArray:
        """Influence values (n, k), weighted where there are weights."""
        return self._influence

    @property
    def sample_id(self) -> str | None:
        """Identity of the rows."""
        return self._sample_id

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self._influence)

    @property
    def n_clusters(self) -> int | None:
        """Number of clusters (of the way with fewest); None without clusters."""
        return None if self.cluster is None else smallest_cluster_count(self.cluster)

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the t distribution; None for the normal."""
        groups = self.n_clusters
        return None if groups is None or groups >= FEW_CLUSTERS else float(groups - 1)

    @cached_property
    def vcov(self) -> FloatArray:  # type: ignore[override]
        """Covariance matrix (k, k)."""
        if self.cluster is None:
            return iid_vcov(self._influence, small_sample=self.small_sample)
        return clustered_vcov(self._influence, self.cluster)

    def _derived(
        self, estimate: Any, influence: FloatArray, names: tuple[str, ...]
    ) -> InfluenceEstimates:
        """A copy on the same rows, without checking and warning once more."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__.pop("vcov", None)
        influence.setflags(write=False)
        new.__dict__.update(
            _estimate=frozen(estimate, 1, "estimate"), _influence=influence, _names=names
        )
        return new

    def _map(self, fn: Any, jac: FloatArray, names: tuple[str, ...]) -> InfluenceEstimates:
        return self._derived(fn(np.array(self._estimate)), self._influence @ jac.T, names)

    def _take(self, at: list[int], names: tuple[str, ...]) -> InfluenceEstimates:
        return self._derived(self._estimate[at], self._influence[:, at], names)

    def draws(
        self, n_draws: int = N_DRAWS, *, kind: Any = "rademacher", rng: Any = 0
    ) -> FloatArray:
        """Multiplier-bootstrap draws of the estimates around zero.

        Parameters
        ----------
        n_draws : int
            Number of draws.
        kind : {"rademacher", "mammen", "normal"}, default "rademacher"
            Law of the weights.
        rng : int, Generator or SeedSequence, default 0
            Source of randomness.

        Returns
        -------
        numpy.ndarray of shape (n_draws, k)
            Draws; weights are constant within clusters.
        """
        if self.cluster is not None and self.cluster.shape[1] > 1:
            raise ParameterError(
                "the multiplier bootstrap is for independent rows or one way of clustering; with "
                f"{self.cluster.shape[1]} ways use simultaneous intervals, which draw from the "
                "estimated normal law."
            )
        codes = None if self.cluster is None else self.cluster[:, 0]
        return multiplier_draws(self._influence, n_draws, kind=kind, cluster=codes, rng=rng)

    def _studentised_draws(self) -> FloatArray:
        if self.cluster is not None and self.cluster.shape[1] > 1:
            return super()._studentised_draws()
        scale = np.where(self.std_error > 0, self.std_error, 1.0)
        return np.asarray(self.draws() / scale)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class RepeatedEstimates(Estimates):
    """Estimates from repeated random sample splits, aggregated last.

    With the median (the default) the estimate is ``theta = median_s theta_s`` and its variance
    ``median_s(V_s + (theta_s - theta)**2)``, so that the spread between splits counts [1]_.

    Parameters
    ----------
    members : sequence of InfluenceEstimates
        One per split, on the same rows with the same names.
    aggregate : {"median", "mean"}, default "median"
        How members are aggregated.

    References
    ----------
    .. [1] V. Chernozhukov et al. (2018). Double/debiased machine learning for treatment and
       structural parameters. Econometrics Journal 21, C1-C68, definition 3.3.
       doi:10.1111/ectj.12097

    Examples
    --------
    >>> import numpy as np
    >>> psi = np.array([[1.0], [-1.0]])
    >>> members = [InfluenceEstimates([t], psi, ["a"]) for t in (1.0, 2.0, 9.0)]
    >>> float(RepeatedEstimates(members).estimate[0])
    2.0
    """

    _vcov_kind: ClassVar[str] = "influence function, repeated splits"
    members: tuple[InfluenceEstimates, ...]
    aggregate: Literal["median", "mean"]

    def __init__(
        self,
        members: Sequence[InfluenceEstimates],
        aggregate: Literal["median", "mean"] = "median",
    ) -> None:
        if not members:
            raise DataError("members is empty; give at least one InfluenceEstimates.")
        if aggregate not in ("median", "mean"):
            raise ParameterError(f"aggregate={aggregate!r} must be 'median' or 'mean'.")
        if len({m.names for m in members}) > 1 or len({m.n_obs for m in members}) > 1:
            raise DataError("members differ in their terms or their number of rows.")
        object.__setattr__(self, "members", tuple(members))
        object.__setattr__(self, "aggregate", aggregate)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms."""
        return self.members[0].names

    @property
    def sample_id(self) -> str | None:
        """Identity of the rows."""
        return self.members[0].sample_id

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the t distribution; None for the normal."""
        return self.members[0].df

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.members[0].n_obs

    @property
    def n_clusters(self) -> int | None:
        """Number of clusters (of the way with fewest); None without clusters."""
        return self.members[0].n_clusters

    def _pool(self, values: list[FloatArray]) -> FloatArray:
        return np.asarray((np.median if self.aggregate == "median" else np.mean)(values, axis=0))

    @cached_property
    def estimate(self) -> FloatArray:  # type: ignore[override]
        """Point estimates (k,)."""
        return self._pool([m.estimate for m in self.members])

    @cached_property
    def vcov(self) -> FloatArray:  # type: ignore[override]
        """Covariance matrix (k, k)."""
        gaps = [m.estimate - self.estimate for m in self.members]
        spread = [m.vcov + np.outer(g, g) for m, g in zip(self.members, gaps, strict=True)]
        pooled = self._pool(spread)
        # The elementwise median of covariances need not be one: keep its diagonal, repair the rest.
        values = np.linalg.eigvalsh(pooled)
        return pooled if values[0] >= 0 else _repair_correlation(pooled)

    @cached_property
    def influence(self) -> FloatArray:  # type: ignore[override]
        """Influence values (n, k), weighted where there are weights."""
        return np.asarray(np.mean([m.influence for m in self.members], axis=0))

    def _map(self, fn: Any, jac: FloatArray, names: tuple[str, ...]) -> RepeatedEstimates:
        # A member's own Jacobian differs from the pooled one only to second order.
        return RepeatedEstimates([m._map(fn, jac, names) for m in self.members], self.aggregate)

    def _take(self, at: list[int], names: tuple[str, ...]) -> RepeatedEstimates:
        return RepeatedEstimates([m._take(at, names) for m in self.members], self.aggregate)

    def _studentised_draws(self) -> FloatArray:
        first = self.members[0]
        if first.cluster is not None and first.cluster.shape[1] > 1:
            return super()._studentised_draws()
        pooled = first._derived(self.estimate, np.array(self.influence), self.names)
        return pooled._studentised_draws()


def _repair_correlation(vcov: FloatArray) -> FloatArray:
    scale = np.sqrt(np.diag(vcov))
    safe = np.where(scale > 0, scale, 1.0)
    fixed = nearest_psd(vcov / np.outer(safe, safe), what="median of the splits' covariances")
    unit = np.sqrt(np.diag(fixed))
    unit = np.where(unit > 0, unit, 1.0)
    return np.asarray(fixed / np.outer(unit, unit) * np.outer(scale, scale))


@dataclass(frozen=True, eq=False, repr=False, init=False)
class DrawEstimates(_Stored):
    """Estimates known through draws: a posterior or a resampling law.

    Parameters
    ----------
    draws : array of shape (B, k)
        Draws of the k terms.
    names : sequence of str
        Names of the terms.
    interval : {"equal-tailed", "hdi"}, default "equal-tailed"
        Kind of interval: quantiles, or the shortest interval of that mass.
    estimate : array of shape (k,), optional
        Point estimates; the mean of the draws when None.

    Notes
    -----
    ``p_value`` is twice the smaller posterior probability of lying on either side of the null.

    Examples
    --------
    >>> import numpy as np
    >>> est = DrawEstimates(np.arange(101.0)[:, None], ["risk"])
    >>> est.conf_int(0.9).round(6).tolist()
    [[5.0, 95.0]]
    """

    _vcov_kind: ClassVar[str] = "draws"
    _estimate: FloatArray
    _names: tuple[str, ...]
    draws: FloatArray
    interval: Literal["equal-tailed", "hdi"]

    def __init__(
        self,
        draws: Any,
        names: Sequence[str],
        *,
        interval: Literal["equal-tailed", "hdi"] = "equal-tailed",
        estimate: Any = None,
    ) -> None:
        values = np.array(draws, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or len(values) < 2:
            raise DataError(f"draws has shape {values.shape}; it needs (B, k) with B >= 2.")
        if not np.isfinite(values).all():
            raise DataError(
                f"draws has {int((~np.isfinite(values)).sum())} value(s) that are not finite."
            )
        if interval not in ("equal-tailed", "hdi"):
            raise ParameterError(f"interval={interval!r} must be 'equal-tailed' or 'hdi'.")
        values.setflags(write=False)
        point = values.mean(axis=0) if estimate is None else estimate
        object.__setattr__(self, "draws", values)
        object.__setattr__(self, "interval", interval)
        object.__setattr__(self, "_estimate", frozen(point, 1, "estimate"))
        object.__setattr__(self, "_names", check_names(names, values.shape[1]))

    @cached_property
    def vcov(self) -> FloatArray:  # type: ignore[override]
        """Covariance matrix (k, k)."""
        # From the first draw, so that a term held fixed has no variance, not one of rounding.
        return np.atleast_2d(np.cov(self.draws - self.draws[0], rowvar=False))

    def _map(self, fn: Any, jac: FloatArray, names: tuple[str, ...]) -> DrawEstimates:  # noqa: ARG002
        """Every draw is mapped itself; the Jacobian is not needed."""
        mapped = np.array([fn(np.array(draw)) for draw in self.draws])
        centred = np.array_equal(self._estimate, self.draws.mean(axis=0))
        point = None if centred else fn(np.array(self._estimate))
        return DrawEstimates(mapped, names, interval=self.interval, estimate=point)

    def _take(self, at: list[int], names: tuple[str, ...]) -> DrawEstimates:
        kept = self._estimate[at]
        return DrawEstimates(self.draws[:, at], names, interval=self.interval, estimate=kept)

    def conf_int(self, level: float = 0.95, *, simultaneous: bool = False) -> FloatArray:
        """Intervals from the draws.

        Parameters
        ----------
        level : float, default 0.95
            Probability.
        simultaneous : bool, default False
            Cover all terms at once: mean plus or minus a common number of standard deviations.

        Returns
        -------
        numpy.ndarray of shape (k, 2)
            Lower and upper ends.
        """
        check_level(level)
        if simultaneous and len(self.names) > 1:
            critical = simultaneous_critical_value(self._studentised_draws(), level)
            half = critical * self.std_error
            return np.column_stack([self._estimate - half, self._estimate + half])
        if self.interval == "hdi":
            return np.array([_shortest_interval(column, level) for column in self.draws.T])
        tail = (1 - level) / 2
        return np.asarray(np.quantile(self.draws, [tail, 1 - tail], axis=0).T)

    def p_value(self, null: float | FloatArray = 0.0) -> FloatArray:
        """Twice the smaller probability of the two sides of ``null``, at least 1/B.

        NaN for a term that is held fixed, whose draws are all the same: nothing is tested.

        Parameters
        ----------
        null : float or array-like of shape (k,), default 0.0
            Hypothesised values.

        Returns
        -------
        numpy.ndarray of shape (k,)
            One value a term.
        """
        below = (self.draws < null).mean(axis=0) + (self.draws == null).mean(axis=0) / 2
        tail = np.maximum(np.minimum(below, 1 - below), 0.5 / len(self.draws))
        fixed = np.ptp(self.draws, axis=0) == 0
        return np.asarray(np.where(fixed, np.nan, np.minimum(2 * tail, 1.0)))

    def probability(self, above: float = 0.0) -> FloatArray:
        """Share of draws above a value: the probability of direction for ``above=0``.

        Parameters
        ----------
        above : float, default 0.0
            The value.

        Returns
        -------
        numpy.ndarray of shape (k,)
            One share a term.
        """
        return np.asarray((self.draws > above).mean(axis=0))

    def _studentised_draws(self) -> FloatArray:
        scale = np.where(self.std_error > 0, self.std_error, 1.0)
        return np.asarray((self.draws - self.draws.mean(axis=0)) / scale)


def _shortest_interval(draws: FloatArray, level: float) -> tuple[float, float]:
    ordered = np.sort(draws)
    inside = int(np.ceil(level * len(ordered)))
    widths = ordered[inside - 1 :] - ordered[: len(ordered) - inside + 1]
    start = int(np.argmin(widths))
    return float(ordered[start]), float(ordered[start + inside - 1])


@dataclass(frozen=True, eq=False, repr=False, init=False)
class CovarianceEstimates(_Stored):
    """Estimates of which only the covariance is known.

    Parameters
    ----------
    estimate : array of shape (k,)
        Point estimates.
    vcov : array of shape (k, k)
        Their covariance; NaN where an estimate has none.
    names : sequence of str
        Names of the terms.
    df : float, optional
        Degrees of freedom of a t distribution; None for the normal.

    Examples
    --------
    >>> import numpy as np
    >>> est = CovarianceEstimates([1.0], [[0.25]], ["a"])
    >>> est.std_error.tolist()
    [0.5]
    """

    _estimate: FloatArray
    _names: tuple[str, ...]
    _vcov: FloatArray
    _df: float | None

    def __init__(
        self,
        estimate: Any,
        vcov: Any,
        names: Sequence[str],
        *,
        df: float | None = None,
    ) -> None:
        theta = frozen(estimate, 1, "estimate")
        matrix = frozen(vcov, 2, "vcov")
        if matrix.shape != (len(theta), len(theta)):
            raise DataError(
                f"vcov has shape {matrix.shape}; it needs ({len(theta)}, {len(theta)})."
            )
        object.__setattr__(self, "_estimate", theta)
        object.__setattr__(self, "_vcov", matrix)
        object.__setattr__(self, "_names", check_names(names, len(theta)))
        object.__setattr__(self, "_df", df)

    @property
    def vcov(self) -> FloatArray:
        """Covariance matrix (k, k)."""
        return self._vcov

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the t distribution; None for the normal."""
        return self._df

    def _map(
        self, fn: Callable[[FloatArray], FloatArray], jac: FloatArray, names: tuple[str, ...]
    ) -> CovarianceEstimates:
        return CovarianceEstimates(
            fn(np.array(self._estimate)), jac @ self._vcov @ jac.T, names, df=self._df
        )

    def _take(self, at: list[int], names: tuple[str, ...]) -> CovarianceEstimates:
        kept = self._vcov[np.ix_(at, at)]
        return CovarianceEstimates(self._estimate[at], kept, names, df=self._df)

    def _linear(self, weights: FloatArray, names: Sequence[str]) -> CovarianceEstimates:
        """Linear combinations; a term that could not be estimated spoils only those it enters."""
        lost = np.isnan(self._estimate) | np.isnan(np.diag(self._vcov))
        spoilt = (weights[:, lost] != 0).any(axis=1)
        kept = weights[:, ~lost]
        value, vcov = kept @ self._estimate[~lost], kept @ self._vcov[np.ix_(~lost, ~lost)] @ kept.T
        value[spoilt], vcov[spoilt], vcov[:, spoilt] = np.nan, np.nan, np.nan
        return CovarianceEstimates(value, vcov, tuple(names), df=self._df)
