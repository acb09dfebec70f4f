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
from causalfair.fairness._moments import signed_weights
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


def group_means(
    audit: ProxyFairness,
    X: ArrayLike,
    values: ArrayLike,
    y_pred: ArrayLike,
    y_true: ArrayLike | None = None,
    *,
    proxy: int | str | None = None,
) -> InfluenceEstimates:
    """Means of a score, a loss or any other number in each unseen group.

    E[g | A = a] = E[w_a(proxy) g] with signed weights w_a(c) = (T^{-1})[c, a] / p_a, for any g that
    is independent of the proxy given the group.

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

    Returns
    -------
    InfluenceEstimates
        Terms ``"mean: 0"``, ...; ``contrast`` gives gaps. The standard errors include the
        uncertainty of error rates and shares.

    Raises
    ------
    DataError
        Missing values of the proxy, or lengths that differ.

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
    j = _best_proxy(audit, proxy)
    codes = _codes(audit, X, owner)
    g = check_numeric(values, "values", owner=owner)
    decision = encode_levels(y_pred, "y_pred", owner=owner).astype(np.intp)
    check_lengths(owner=owner, X=codes, values=g, y_pred=decision)
    if (codes[:, j] < 0).any():
        raise DataError(
            f"{owner}: proxy {audit.proxy_names_[j]!r} is missing in "
            f"{int((codes[:, j] < 0).sum())} "
            "rows; choose another proxy=, or leave those rows out of the fit and here."
        )
    model = audit._audit.model
    if not is_likelihood(model) or model.data.n_proxies != codes.shape[1]:
        raise ParameterError(
            f"{owner} needs a likelihood fit without audited rows (model='joint')."
        )
    levels = model.data.n_levels[j]
    by_level = np.bincount(codes[:, j], weights=g, minlength=levels) / len(g)
    weights = signed_weights(audit.transition_[j], audit.prevalence_)
    means = by_level @ weights
    law = covariance(model.data, model.spec, model.fit)
    slope = _slope(audit, law.layout, j, by_level)
    cell = _cell(audit, codes, decision, y_true, owner)
    psi = weights[codes[:, j]] * g[:, None] - means + (law.influence @ slope.T)[cell]
    names = [f"mean: {a}" for a in range(len(means))]
    return InfluenceEstimates(means, psi - psi.mean(axis=0), names)


def _slope(audit: ProxyFairness, layout: Any, j: int, by_level: FloatArray) -> FloatArray:
    """Derivative of the weighted means by the parameters, by central differences: (K, p)."""
    model = audit._audit.model
    theta = pack(layout, model.fit.G, model.fit.T)
    r = int(model.spec.tables[0, j])

    def means(value: FloatArray) -> FloatArray:
        G, T = unpack(layout, value, model.fit.T)
        table = T[r][model.spec.rows[j], : model.spec.table_levels[r]]
        return by_level @ signed_weights(table, G.sum(axis=0))

    out = np.empty((model.spec.n_groups, len(theta)))
    for k in range(len(theta)):
        step = 1e-6
        up, down = theta.copy(), theta.copy()
        up[k] += step
        down[k] -= step
        out[:, k] = (means(up) - means(down)) / (2 * step)
    return out


def _cell(
    audit: ProxyFairness, codes: IntArray, decision: IntArray, y_true: ArrayLike | None, owner: str
) -> IntArray:
    """Cell of each row in the counted table."""
    data = audit._audit.model.data
    stratum = decision * data.n_labels
    if data.n_labels > 1:
        if y_true is None:
            raise DataError(f"{owner} needs y_true, as the fit had it.")
        stratum = stratum + encode_levels(y_true, "y_true", owner=owner).astype(np.intp)
    order = {tuple(p): k for k, p in enumerate(data.patterns.tolist())}
    unique, inverse = np.unique(codes, axis=0, return_inverse=True)
    unknown = [p for p in unique.tolist() if tuple(p) not in order]
    if unknown:
        raise DataError(f"{owner}: the pattern {unknown[0]} of proxies was not in the fit.")
    column = np.array([order[tuple(p)] for p in unique.tolist()])[inverse.ravel()]
    return np.asarray(stratum * len(data.patterns) + column)


@dataclass(frozen=True, slots=True)
class GroupCurves:
    """Operating characteristics of a score in each unseen group.

    Attributes
    ----------
    thresholds : (t,) array
    true_positive, false_positive : (K, t) arrays
        P(score > threshold | Y, group), monotone.
    auc : (K,) array
    base_rate : (K,) array
        P(Y = 1 | group).

    Examples
    --------
    >>> from causalfair.fairness import GroupCurves
    >>> one = np.ones(1)
    >>> GroupCurves(one, one[None], one[None], one, one).auc.tolist()
    [1.0]
    """

    thresholds: FloatArray
    true_positive: FloatArray
    false_positive: FloatArray
    auc: FloatArray
    base_rate: FloatArray

    def plot(self, *, ax: Any = None) -> Any:
        """Draw one ROC curve a group.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional

        Returns
        -------
        matplotlib.axes.Axes
        """
        from causalfair.reporting.plot import new_axes

        axes = new_axes(ax)
        for a in range(len(self.auc)):
            axes.plot(
                self.false_positive[a],
                self.true_positive[a],
                label=f"group {a} (AUC {self.auc[a]:.3f})",
            )
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
        axes.set_xlabel("false-positive rate")
        axes.set_ylabel("true-positive rate")
        axes.legend(frameon=False)
        return axes


def group_roc(
    audit: ProxyFairness,
    proxy_values: ArrayLike,
    scores: ArrayLike,
    y_true: ArrayLike,
    *,
    proxy: int | str = 0,
    n_thresholds: int = 101,
) -> GroupCurves:
    """ROC curves of a score in each unseen group.

    P(score > t, Y = y, proxy = c) is calibrated by signed weights at every threshold, then
    projected on monotone curves between 0 and 1.

    Parameters
    ----------
    audit : ProxyFairness
        Supplies the proxy's error matrix and the group shares.
    proxy_values : (n,) int array
        Levels of the proxy.
    scores : (n,) array
    y_true : (n,) array of 0 and 1
    proxy : int or str, default 0
        Which proxy of the audit ``proxy_values`` are.
    n_thresholds : int, default 101
        Quantiles of the score, with both ends.

    Returns
    -------
    GroupCurves

    Raises
    ------
    DataError
        Labels that are not 0 and 1, or missing proxy values.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> from causalfair.fairness import ProxyFairness, group_roc
    >>> frame, _ = make_weak_proxies(5000, random_state=2)
    >>> X = frame[["proxy_1", "proxy_2", "proxy_3"]]
    >>> audit = ProxyFairness(random_state=0).fit(X, frame["y_pred"])
    >>> score = frame["y_true"] + np.random.default_rng(0).normal(size=5000)
    >>> group_roc(audit, frame["proxy_1"], score, frame["y_true"]).true_positive.shape
    (2, 101)
    """
    owner = "group_roc"
    j = _best_proxy(audit, proxy)
    codes = encode_levels(proxy_values, "proxy_values", owner=owner).astype(np.intp)
    value = check_numeric(scores, "scores", owner=owner)
    label = check_numeric(y_true, "y_true", owner=owner)
    check_lengths(owner=owner, proxy_values=codes, scores=value, y_true=label)
    if not np.isin(label, (0.0, 1.0)).all():
        raise DataError(f"{owner}: y_true must be 0 or 1 in every row.")
    weights = signed_weights(audit.transition_[j], audit.prevalence_)[codes]
    inner = np.quantile(value, np.linspace(0, 1, n_thresholds - 1))
    thresholds = np.concatenate([[-np.inf], inner])
    above = value[:, None] > thresholds
    curves = []
    for y in (1.0, 0.0):
        mass = weights * (label == y)[:, None]
        rate = (mass.T @ above) / mass.sum(axis=0)[:, None]
        curves.append(np.stack([_monotone(row) for row in rate]))
    positive = (weights * (label == 1.0)[:, None]).mean(axis=0)
    auc = np.array(
        [np.trapezoid(t[::-1], f[::-1]) for t, f in zip(curves[0], curves[1], strict=True)]
    )
    return GroupCurves(thresholds, curves[0], curves[1], auc, np.clip(positive, 0.0, 1.0))


def _monotone(rate: FloatArray) -> FloatArray:
    """Closest curve that falls with the threshold, between 0 and 1, with exact ends."""
    from scipy.optimize import isotonic_regression

    fitted = np.clip(isotonic_regression(rate, increasing=False).x, 0.0, 1.0)
    fitted[0], fitted[-1] = 1.0, 0.0
    return np.asarray(fitted)
