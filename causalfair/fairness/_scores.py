"""Real-valued scores and losses by unseen group, through signed weights on one proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.fairness._diagnostics import informativeness
from causalfair.fairness._encode import encode_levels
from causalfair.fairness._inference import is_likelihood
from causalfair.fairness._information import covariance, pack, unpack
from causalfair.inference import InfluenceEstimates

if TYPE_CHECKING:
    from causalfair._core.typing import ArrayLike, FloatArray, IntArray
    from causalfair.fairness._estimator import ProxyFairness


def _best_proxy(audit: ProxyFairness, proxy: int | str | None) -> int:
    check_is_fitted(audit)
    if proxy is not None:
        return audit._proxy_position(proxy)
    return int(np.argmax([informativeness(t) for t in audit.transition_]))


def _codes(audit: ProxyFairness, X: ArrayLike, owner: str) -> IntArray:
    codes = encode_levels(X, "X", owner=owner, allow_missing=True)
    if codes.ndim != 2 or codes.shape[1] != len(audit.proxy_names_):
        raise ParameterError(
            f"{owner} got X of shape {codes.shape}; it needs the {len(audit.proxy_names_)} "
            "proxies of "
            "the fit, in their order."
        )
    return codes.astype(np.intp)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rows of a fit: ``codes`` (n,) levels of the proxy relied on, ``cell`` (n,) of the counts."""

    audit: ProxyFairness
    proxy: int
    codes: IntArray
    cell: IntArray
    weight: FloatArray
    cluster: Any

    @classmethod
    def of(
        cls,
        audit: ProxyFairness,
        X: ArrayLike,
        y_pred: ArrayLike,
        y_true: ArrayLike | None,
        proxy: int | str | None,
        cluster: Any,
        sample_weight: ArrayLike | None,
        owner: str,
    ) -> _Sample:
        j = _best_proxy(audit, proxy)
        codes = _codes(audit, X, owner)
        model = audit._audit.model
        if not is_likelihood(model) or model.data.n_proxies != codes.shape[1]:
            raise ParameterError(
                f"{owner} needs a likelihood fit without audited rows (model='joint')."
            )
        if (codes[:, j] < 0).any():
            raise DataError(
                f"{owner}: proxy {audit.proxy_names_[j]!r} is missing in "
                f"{int((codes[:, j] < 0).sum())} rows; choose another proxy=, or leave those rows "
                "out of the fit and here."
            )
        for had, given, name in (
            (audit._audit.weighted, sample_weight, "sample_weight"),
            (audit._audit.units is not None, cluster, "cluster"),
        ):
            if had and given is None:
                raise DataError(f"{owner}: the fit had {name}=; pass the same here.")
        weight = np.ones(len(codes))
        if sample_weight is not None:
            weight = check_numeric(sample_weight, "sample_weight", owner=owner)
            check_lengths(owner=owner, X=codes, sample_weight=weight)
            weight = weight / weight.mean()
        cell = _cell(audit, codes, y_pred, y_true, owner)
        return cls(audit, j, codes[:, j], cell, weight, cluster)

    def signed(self) -> FloatArray:
        """Signed weight of each row for each group, w_i (T^-1)[c_i, a]: (n, K)."""
        inverse = np.linalg.pinv(self.audit.transition_[self.proxy])
        return np.asarray(self.weight[:, None] * inverse[self.codes])

    def estimates(
        self, value: FloatArray, kernel: FloatArray, names: list[str]
    ) -> InfluenceEstimates:
        """Estimates of statistics of group a that move by signed weight times ``kernel[i, a]``.

        Their dependence on the error rates follows from the same kernel: the derivative by
        (T^-1)[c, a] is its weighted mean over the rows of level c.
        """
        model = self.audit._audit.model
        law = covariance(model.data, model.spec, model.fit, robust=self.audit._audit.weighted)
        n_levels = model.data.n_levels[self.proxy]
        by_level = np.stack(
            [
                np.bincount(self.codes, weights=self.weight * k, minlength=n_levels)
                for k in kernel.T
            ],
            axis=1,
        ) / len(self.codes)
        slope = _slope(self.audit, law.layout, self.proxy, by_level)
        psi = self.signed() * kernel
        psi += self.weight[:, None] * (law.influence @ slope.T)[self.cell]
        return InfluenceEstimates(value, psi - psi.mean(axis=0), names, cluster=self.cluster)


def _slope(audit: ProxyFairness, layout: Any, j: int, by_level: FloatArray) -> FloatArray:
    """Derivative of sum_c by_level[c, a] (T^-1)[c, a] by the parameters (K, p), by differences."""
    model = audit._audit.model
    theta = pack(layout, model.fit.G, model.fit.T)
    r = int(model.spec.tables[0, j])

    def means(value: FloatArray) -> FloatArray:
        _, T = unpack(layout, value, model.fit.T)
        table = T[r][model.spec.rows[j], : model.spec.table_levels[r]]
        return np.asarray((by_level * np.linalg.pinv(table)).sum(axis=0))

    out = np.zeros((model.spec.n_groups, len(theta)))
    for k in layout.t[r][layout.t[r] >= 0]:
        step = 1e-6
        up, down = theta.copy(), theta.copy()
        up[k] += step
        down[k] -= step
        out[:, k] = (means(up) - means(down)) / (2 * step)
    return out


def _cell(
    audit: ProxyFairness,
    codes: IntArray,
    y_pred: ArrayLike,
    y_true: ArrayLike | None,
    owner: str,
) -> IntArray:
    """Cell of each row in the counted table."""
    data = audit._audit.model.data
    stratum = encode_levels(y_pred, "y_pred", owner=owner).astype(np.intp)
    check_lengths(owner=owner, X=codes, y_pred=stratum)
    _check_known(stratum, data.n_pred, "y_pred", owner)
    if data.n_labels > 1:
        if y_true is None:
            raise DataError(f"{owner} needs y_true, as the fit had it.")
        label = encode_levels(y_true, "y_true", owner=owner).astype(np.intp)
        check_lengths(owner=owner, X=codes, y_true=label)
        _check_known(label, data.n_labels, "y_true", owner)
        stratum = stratum * data.n_labels + label
    order = {tuple(p): k for k, p in enumerate(data.patterns.tolist())}
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    unknown = [p for p in unique.tolist() if tuple(p) not in order]
    if unknown:
        raise DataError(f"{owner}: the pattern {unknown[0]} of proxies was not in the fit.")
    column = np.array([order[tuple(p)] for p in unique.tolist()])[inverse.ravel()]
    return np.asarray(stratum * len(data.patterns) + column)


def _check_known(levels: IntArray, n_levels: int, name: str, owner: str) -> None:
    if levels.max() >= n_levels:
        raise DataError(f"{owner}: {name} has the level {int(levels.max())}, which fit had not.")


def group_means(
    audit: ProxyFairness,
    X: ArrayLike,
    values: ArrayLike,
    y_pred: ArrayLike,
    y_true: ArrayLike | None = None,
    *,
    proxy: int | str | None = None,
    cluster: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> InfluenceEstimates:
    """Means of a score, a loss or any other number in each unseen group.

    E[g | A = a] = E[w_a(proxy) g] with signed weights w_a(c) = (T^{-1})[c, a] / p_a, for any g that
    is independent of the proxy given the group. The shares p come from the same matrix, so that a
    constant has itself as mean.

    Parameters
    ----------
    audit : ProxyFairness
        Fitted on the same rows.
    X : (n, m) int array
        All proxies of the fit.
    values : (n,) array
        The numbers to average.
    y_pred, y_true : (n,) int arrays
        As in the fit; they carry the uncertainty of the error rates.
    proxy : int or str, optional
        Proxy to weight by; the most informative when None.
    cluster, sample_weight : (n,) arrays, optional
        As in the fit.

    Returns
    -------
    InfluenceEstimates
        Terms ``"mean: 0"``, ...; ``contrast`` gives gaps. The standard errors include the
        uncertainty of the error rates.

    Raises
    ------
    DataError
        Missing values of the proxy, levels the fit had not, or lengths that differ.

    References
    ----------
    .. [1] Bolck, Croon & Hagenaars (2004), "Estimating latent structure models with categorical
       variables: one-step versus three-step estimators", Political Analysis 12,
       doi:10.1093/pan/mph001.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> from causalfair.fairness import ProxyFairness, group_means
    >>> frame, truth = make_weak_proxies(20_000, random_state=0)
    >>> X = frame[["proxy_1", "proxy_2", "proxy_3"]].to_numpy()
    >>> audit = ProxyFairness(random_state=0).fit(X, frame["y_pred"], y_true=frame["y_true"])
    >>> loss = (frame["y_pred"] != frame["y_true"]).to_numpy(dtype=float)
    >>> group_means(audit, X, loss, frame["y_pred"], frame["y_true"]).names
    ('mean: 0', 'mean: 1')
    """
    owner = "group_means"
    rows = _Sample.of(audit, X, y_pred, y_true, proxy, cluster, sample_weight, owner)
    g = check_numeric(values, "values", owner=owner)
    check_lengths(owner=owner, X=rows.codes, values=g)
    signed = rows.signed()
    share = signed.mean(axis=0)
    means = (signed * g[:, None]).mean(axis=0) / share
    kernel = (g[:, None] - means) / share
    return rows.estimates(means, kernel, [f"mean: {a}" for a in range(len(means))])


@dataclass(frozen=True, slots=True)
class GroupCurves:
    """Operating characteristics of a score in each unseen group.

    Attributes
    ----------
    thresholds : (t,) array
    true_positive, false_positive : (K, t) arrays
        P(score > threshold | Y, group), monotone.
    auc : InfluenceEstimates
        Areas under the curves, terms ``"AUC: 0"``, ...; ``contrast`` gives gaps. Standard errors
        include the uncertainty of the error rates.
    base_rate : (K,) array
        P(Y = 1 | group).

    Examples
    --------
    >>> from causalfair.fairness import GroupCurves
    >>> from causalfair.inference import CovarianceEstimates
    >>> area = CovarianceEstimates([0.7], [[0.01]], ["AUC: 0"])
    >>> GroupCurves(np.ones(1), np.ones((1, 1)), np.ones((1, 1)), area, np.ones(1)).auc.names
    ('AUC: 0',)
    """

    thresholds: FloatArray
    true_positive: FloatArray
    false_positive: FloatArray
    auc: Any
    base_rate: FloatArray

    def plot(self, *, ax: Any = None) -> Any:
        """Draw one ROC curve a group.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; new ones when None.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.reporting.plot import new_axes

        axes = new_axes(ax)
        for a, area in enumerate(self.auc.estimate):
            axes.plot(
                self.false_positive[a],
                self.true_positive[a],
                label=f"group {a} (AUC {area:.3f})",
            )
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.set_aspect("equal")
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        return axes


def group_roc(
    audit: ProxyFairness,
    X: ArrayLike,
    scores: ArrayLike,
    y_pred: ArrayLike,
    y_true: ArrayLike,
    *,
    proxy: int | str | None = None,
    n_thresholds: int = 101,
    cluster: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> GroupCurves:
    """ROC curves of a score in each unseen group.

    P(score > t, Y = y, proxy = c) is calibrated by signed weights at every threshold, then
    projected on monotone curves between 0 and 1. Areas are of the unprojected curves.

    Parameters
    ----------
    audit : ProxyFairness
        Fitted on the same rows.
    X : (n, m) int array
        All proxies of the fit.
    scores : (n,) array
        The score, larger for likelier positives.
    y_pred : (n,) int array
        As in the fit.
    y_true : (n,) array of 0 and 1
        Outcome of each row.
    proxy : int or str, optional
        Proxy to weight by; the most informative when None.
    n_thresholds : int, default 101
        Quantiles of the score, with both ends.
    cluster, sample_weight : (n,) arrays, optional
        As in the fit.

    Returns
    -------
    GroupCurves
        Curves, areas and base rates.

    Raises
    ------
    DataError
        Labels that are not 0 and 1, or missing proxy values.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> from causalfair.fairness import ProxyFairness, group_roc
    >>> frame, _ = make_weak_proxies(5000, random_state=2)
    >>> X = frame[["proxy_1", "proxy_2", "proxy_3"]].to_numpy()
    >>> audit = ProxyFairness(random_state=0).fit(X, frame["y_pred"])
    >>> score = frame["y_true"] + np.random.default_rng(0).normal(size=5000)
    >>> curves = group_roc(audit, X, score, frame["y_pred"], frame["y_true"])
    >>> curves.true_positive.shape
    (2, 101)
    """
    owner = "group_roc"
    rows = _Sample.of(audit, X, y_pred, y_true, proxy, cluster, sample_weight, owner)
    value = check_numeric(scores, "scores", owner=owner)
    label = check_numeric(y_true, "y_true", owner=owner)
    check_lengths(owner=owner, X=rows.codes, scores=value, y_true=label)
    if not np.isin(label, (0.0, 1.0)).all():
        raise DataError(f"{owner}: y_true must be 0 or 1 in every row.")
    signed, positive = rows.signed(), label == 1.0
    thresholds = np.concatenate(
        [[-np.inf], np.quantile(value, np.linspace(0, 1, n_thresholds - 1))]
    )
    curves = []
    for side in (positive, ~positive):
        above = 1.0 - _share_below(value[side], signed[side], thresholds, "right")
        curves.append(np.stack([_monotone(rate) for rate in above.T]))
    area, kernel = _areas(value, signed, positive)
    names = [f"AUC: {a}" for a in range(len(area))]
    base = (signed * positive[:, None]).mean(axis=0) / signed.mean(axis=0)
    return GroupCurves(
        thresholds,
        curves[0],
        curves[1],
        rows.estimates(area, kernel, names),
        np.clip(base, 0.0, 1.0),
    )


def _share_below(value: FloatArray, signed: FloatArray, at: FloatArray, side: Any) -> FloatArray:
    """Signed share of ``value`` below each point (at or below with side "right"): (t, K)."""
    order = np.argsort(value, kind="stable")
    cumulative = np.vstack([np.zeros(signed.shape[1]), np.cumsum(signed[order], axis=0)])
    return np.asarray(cumulative[np.searchsorted(value[order], at, side=side)] / cumulative[-1])


def _areas(
    value: FloatArray, signed: FloatArray, positive: IntArray | Any
) -> tuple[FloatArray, FloatArray]:
    """Areas (K,), ties counted half, and the kernel of each row for each group (n, K)."""

    def rank(side: Any, at: FloatArray) -> FloatArray:
        return 0.5 * (
            _share_below(value[side], signed[side], at, "left")
            + _share_below(value[side], signed[side], at, "right")
        )

    wins = rank(~positive, value[positive])  # share of negatives below each positive
    losses = 1.0 - rank(positive, value[~positive])  # share of positives above each negative
    mass = signed[positive].sum(axis=0)
    area = (signed[positive] * wins).sum(axis=0) / mass
    kernel = np.empty(signed.shape)
    kernel[positive] = (wins - area) / (mass / len(value))
    kernel[~positive] = (losses - area) / (signed[~positive].sum(axis=0) / len(value))
    return area, kernel


def _monotone(rate: FloatArray) -> FloatArray:
    """Closest curve that falls with the threshold, between 0 and 1, with exact ends."""
    from scipy.optimize import isotonic_regression

    fitted = np.clip(isotonic_regression(rate, increasing=False).x, 0.0, 1.0)
    fitted[0], fitted[-1] = 1.0, 0.0
    return np.asarray(fitted)
