"""Decisions that are fair to groups nobody saw, from estimated statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import DataError, IdentificationError, ParameterError
from causalfair.fairness._encode import encode_levels
from causalfair.fairness._moments import attenuation, signed_weights
from causalfair.fairness._optimise import linear_programme

if TYPE_CHECKING:
    from causalfair._core.typing import ArrayLike, FloatArray, IntArray, RandomState
    from causalfair.fairness._estimator import ProxyFairness

CONSTRAINTS = ("equalized_odds", "equal_opportunity", "demographic_parity")


def _check_constraint(constraint: str, tolerance: float, owner: str) -> None:
    if constraint not in CONSTRAINTS:
        raise ParameterError(
            f"{owner} got constraint={constraint!r}; choose one of {', '.join(CONSTRAINTS)}."
        )
    if not 0 <= tolerance <= 1:
        raise ParameterError(f"{owner} got tolerance={tolerance!r}; it is a gap in [0, 1].")


def rescaled_tolerance(tolerance: float, prevalence: ArrayLike, transition: ArrayLike) -> float:
    """Tolerance on a binary proxy that is equivalent to one on the true group.

    A gap on the group of at most tau is a gap on the proxy of at most rho * tau, when the decision
    is independent of the proxy given the group.

    Parameters
    ----------
    tolerance : float
        Tolerance tau on the true groups.
    prevalence : (2,) array
        Group shares.
    transition : (2, 2) array
        P(proxy = c | group = a) in row a.

    Returns
    -------
    float
        Tolerance on the proxy.

    References
    ----------
    .. [1] Lamy, Zhong, Menon & Verma (2019), "Noise-tolerant fair classification", NeurIPS,
       arXiv:1901.10837, theorem 2.

    Examples
    --------
    >>> from causalfair.fairness import rescaled_tolerance
    >>> round(rescaled_tolerance(0.1, [0.5, 0.5], [[0.8, 0.2], [0.2, 0.8]]), 3)
    0.06
    """
    _check_constraint("equalized_odds", tolerance, "rescaled_tolerance")
    p, table = np.asarray(prevalence, dtype=float), np.asarray(transition, dtype=float)
    if p.shape != (2,) or table.shape != (2, 2):
        raise ParameterError(
            f"rescaled_tolerance is for two groups and a binary proxy; got shares of shape "
            f"{p.shape} "
            f"and a matrix of shape {table.shape}."
        )
    return abs(attenuation(p, table)) * tolerance


def post_processing(
    joint: FloatArray, transition: FloatArray | None, constraint: str, tolerance: float
) -> tuple[FloatArray, float, FloatArray]:
    """Solve the linear programme of fair randomised decisions.

    Parameters
    ----------
    joint : (n_pred, 2, K) array
        P(prediction, label, group).
    transition : (K, L) array or None
        Error matrix of the proxy the decision may use; None for a group-blind decision.
    constraint : str
    tolerance : float
        Largest gap between two groups.

    Returns
    -------
    mixing : (n_pred, L) array
        Probability of decision 1 from prediction k and proxy level c.
    error : float
        P(decision != label).
    rates : (2, K) array
        P(decision 1 | label, group).
    """
    n_pred, n_labels, n_groups = joint.shape
    table = np.ones((n_groups, 1)) if transition is None else transition
    n_levels = table.shape[1]
    mass = joint.sum(axis=0)  # (label, group)
    conditional = joint / mass  # P(k | y, a)
    # R[y, a] = sum_kc pi[k, c] H_y[a, k] T[a, c]
    forms = np.einsum("kya,ac->yakc", conditional, table).reshape(n_labels, n_groups, -1)
    share = mass.sum(axis=0)
    selection = np.einsum("ya,yav->av", mass, forms) / share[:, None]
    cost = np.einsum("a,av->v", mass[0], forms[0]) - np.einsum("a,av->v", mass[1], forms[1])
    rows = []
    for a in range(n_groups):
        for b in range(a):
            if constraint == "demographic_parity":
                rows.append(selection[a] - selection[b])
                continue
            for y in (0, 1) if constraint == "equalized_odds" else (1,):
                rows.append(forms[y, a] - forms[y, b])
    A = np.concatenate([np.array(rows), -np.array(rows)])
    solved = linear_programme(cost, at_most=(A, np.full(len(A), tolerance)), upper=1.0)
    if solved is None:  # constant decisions are always fair, so this cannot happen
        raise IdentificationError("the post-processing programme has no solution.")
    mixing, fun = solved
    return (
        mixing.reshape(n_pred, n_levels),
        float(fun + mass[1].sum()),
        np.asarray(forms @ mixing),
    )


class PostProcessor:
    """Randomised decisions that are fair to the true groups, from a prediction and a proxy.

    Solves a small linear programme on the fitted joint table: decide 1 with probability pi(k, c)
    from
    prediction k and proxy level c, minimise the error, keep the gaps between the true groups within
    a tolerance. Exact for the true groups when the proxy is independent of the prediction given
    group and label.

    Parameters
    ----------
    constraint : {"equalized_odds", "equal_opportunity", "demographic_parity"}
    tolerance : float, default 0
        Largest gap between two groups.
    proxy : int, str or None, default 0
        Proxy the decision may look at; None for a group-blind decision, which usually needs a
        larger tolerance.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Attributes
    ----------
    mixing_ : (n_pred, L) array
        Probability of decision 1.
    error_ : float
        P(decision != label) after processing.
    rates_ : (2, K) array
        P(decision 1 | label, group) after processing.
    original_error_ : float

    See Also
    --------
    corrected_reduction : Fairness while training.

    References
    ----------
    .. [1] Hardt, Price & Srebro (2016), "Equality of opportunity in supervised learning", NeurIPS.
    .. [2] Awasthi, Kleindessner & Morgenstern (2020), "Equalized odds postprocessing under
       imperfect group information", AISTATS, arXiv:1906.03284.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> from causalfair.fairness import PostProcessor, ProxyFairness
    >>> frame, _ = make_weak_proxies(20_000, random_state=0)
    >>> names = ["proxy_1", "proxy_2", "proxy_3"]
    >>> audit = ProxyFairness(random_state=0).fit(
    ...     frame, "y_pred", y_true="y_true", proxies=names)
    >>> fair = PostProcessor("equal_opportunity", tolerance=0.02).fit(audit)
    >>> bool(abs(fair.rates_[1, 1] - fair.rates_[1, 0]) <= 0.02 + 1e-9)
    True
    """

    def __init__(
        self,
        constraint: str = "equalized_odds",
        *,
        tolerance: float = 0.0,
        proxy: int | str | None = 0,
        random_state: RandomState = None,
    ) -> None:
        self.constraint = constraint
        self.tolerance = tolerance
        self.proxy = proxy
        self.random_state = random_state

    def __repr__(self) -> str:
        options = f"tolerance={self.tolerance!r}, proxy={self.proxy!r}"
        return f"PostProcessor({self.constraint!r}, {options})"

    def fit(self, audit: ProxyFairness) -> PostProcessor:
        """Solve the programme on a fitted audit.

        Parameters
        ----------
        audit : ProxyFairness
            Fitted with binary labels.

        Returns
        -------
        PostProcessor
            Itself.

        Raises
        ------
        ParameterError
            Unknown constraint, or an audit without binary labels.
        """
        from sklearn.utils.validation import check_is_fitted

        _check_constraint(self.constraint, self.tolerance, "PostProcessor")
        if not hasattr(audit, "_proxy_position"):
            raise ParameterError(
                f"PostProcessor.fit takes a fitted ProxyFairness; got {type(audit).__name__}."
            )
        check_is_fitted(audit)
        data = audit._audit.model.data
        if data.n_labels != 2:
            raise ParameterError(
                "PostProcessor needs an audit with binary labels (y_true): it minimises the error."
            )
        table = None
        if self.proxy is not None:
            table = audit.transition_[audit._proxy_position(self.proxy)]
        joint = np.clip(audit.joint_, 1e-12, None).reshape(data.n_pred, 2, -1)
        joint = joint / joint.sum()
        self.mixing_, self.error_, self.rates_ = post_processing(
            joint, table, self.constraint, self.tolerance
        )
        best = joint.sum(axis=2).max(axis=1)
        self.original_error_ = float(1.0 - best.sum())
        return self

    def predict(self, y_pred: ArrayLike, proxy: ArrayLike | None = None) -> IntArray:
        """Draw decisions.

        Parameters
        ----------
        y_pred : (n,) int array
            Predictions.
        proxy : (n,) int array, optional
            Levels of the proxy; needed unless the decision is group-blind.

        Returns
        -------
        (n,) int array
            Decisions 0 or 1, the same for the same ``random_state``.

        Raises
        ------
        DataError
            Missing or unknown levels.
        """
        from causalfair._core.random import generator, root_seed

        if not hasattr(self, "mixing_"):
            raise ParameterError("PostProcessor is not fitted; call fit(audit) first.")
        owner = "PostProcessor.predict"
        prediction = encode_levels(y_pred, "y_pred", owner=owner)
        level = np.zeros(len(prediction), dtype=np.intp)
        if self.proxy is not None:
            if proxy is None:
                raise DataError(f"{owner} needs proxy=: this decision looks at the proxy's level.")
            level = encode_levels(proxy, "proxy", owner=owner)
        if len(level) != len(prediction) or prediction.max() >= len(self.mixing_):
            raise DataError(f"{owner}: y_pred and proxy must have equal lengths and known levels.")
        if level.max() >= self.mixing_.shape[1]:
            raise DataError(f"{owner}: proxy has the unknown level {int(level.max())}.")
        u = generator(root_seed(self.random_state), 0).random(len(prediction))
        return np.asarray(u < self.mixing_[prediction, level], dtype=np.intp)


def group_blind_threshold(
    true_positive: ArrayLike,
    false_positive: ArrayLike,
    base_rate: ArrayLike,
    prevalence: ArrayLike,
    *,
    tolerance: float = 0.0,
    constraint: str = "equalized_odds",
) -> tuple[FloatArray, float]:
    """Mixture of score thresholds, the same for everybody, that keeps group gaps small.

    Parameters
    ----------
    true_positive, false_positive : (K, t) arrays
        Calibrated rates of each group on a grid of t thresholds, as from ``group_roc``; include a
        threshold that selects everybody and one that selects nobody.
    base_rate : (K,) array
        P(Y = 1 | group).
    prevalence : (K,) array
        Group shares.
    tolerance : float, default 0
        Largest gap between two groups.
    constraint : {"equalized_odds", "equal_opportunity", "demographic_parity"}

    Returns
    -------
    mixture : (t,) array
        Probability with which each threshold is used.
    error : float
        P(decision != label).

    Raises
    ------
    IdentificationError
        No mixture keeps the gaps within the tolerance.

    Examples
    --------
    >>> from causalfair.fairness import group_blind_threshold
    >>> tpr, fpr = [[1, 0.8, 0], [1, 0.6, 0]], [[1, 0.3, 0], [1, 0.2, 0]]
    >>> mixture, error = group_blind_threshold(tpr, fpr, [0.5, 0.5], [0.5, 0.5], tolerance=0.1)
    >>> mixture.round(2).tolist()
    [0.5, 0.5, 0.0]
    """
    _check_constraint(constraint, tolerance, "group_blind_threshold")
    tpr, fpr = np.asarray(true_positive, dtype=float), np.asarray(false_positive, dtype=float)
    base, p = np.asarray(base_rate, dtype=float), np.asarray(prevalence, dtype=float)
    if tpr.shape != fpr.shape or tpr.shape[0] != len(p) or base.shape != p.shape:
        raise ParameterError(
            f"group_blind_threshold got rates of shapes {tpr.shape} and {fpr.shape} for {len(p)} "
            "groups; give (K, t) for both."
        )
    cost = (p * (1 - base)) @ fpr - (p * base) @ tpr
    kinds = {
        "equal_opportunity": [tpr],
        "equalized_odds": [tpr, fpr],
        "demographic_parity": [base[:, None] * tpr + (1 - base[:, None]) * fpr],
    }[constraint]
    rows = [r[a] - r[b] for r in kinds for a in range(len(p)) for b in range(len(p)) if a != b]
    solved = linear_programme(
        cost,
        at_most=(np.array(rows), np.full(len(rows), tolerance)),
        equal=(np.ones((1, tpr.shape[1])), np.ones(1)),
        upper=1.0,
    )
    if solved is None:
        raise IdentificationError(
            f"no mixture of thresholds keeps the gaps within {tolerance}: raise the tolerance, or "
            "let the decision see a proxy (PostProcessor)."
        )
    return solved[0], float(solved[1] + (p * base).sum())


def corrected_reduction(
    estimator: Any,
    audit: ProxyFairness | None = None,
    *,
    proxy: int | str = 0,
    transition: ArrayLike | None = None,
    prevalence: ArrayLike | None = None,
    constraint: str = "demographic_parity",
    tolerance: float = 0.01,
    **options: Any,
) -> Any:
    """Exponentiated-gradient reduction whose constraints hold for the true groups.

    Group moments are replaced by signed-weight averages over the proxy, so fairlearn's algorithm
    enforces parity of the true groups when predictions are independent of the proxy given group
    (and
    label). Fit it with the proxy's levels as ``sensitive_features``. Posterior group probabilities
    must not be used in this place: they bring back the bias of the weighted estimator.

    Parameters
    ----------
    estimator : classifier
        With ``fit(X, y, sample_weight=)``.
    audit : ProxyFairness, optional
        Fitted audit that supplies error matrix and shares.
    proxy : int or str, default 0
        Proxy of the audit.
    transition : (K, L) array, optional
        Error matrix, instead of an audit.
    prevalence : (K,) array, optional
        Group shares, instead of an audit.
    constraint : {"demographic_parity", "equalized_odds", "equal_opportunity"}
    tolerance : float, default 0.01
        Largest difference of a group from the whole.
    **options
        Further arguments of ``fairlearn.reductions.ExponentiatedGradient``.

    Returns
    -------
    fairlearn.reductions.ExponentiatedGradient
        Unfitted: ``.fit(X, y, sensitive_features=proxy_levels)``.

    Raises
    ------
    MissingDependencyError
        fairlearn is not installed.
    ParameterError
        Neither an audit nor both of ``transition`` and ``prevalence``.

    References
    ----------
    .. [1] Agarwal, Beygelzimer, Dudik, Langford & Wallach (2018), "A reductions approach to fair
       classification", ICML, arXiv:1803.02453.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from causalfair.fairness import corrected_reduction
    >>> reduction = corrected_reduction(LogisticRegression(), prevalence=[0.6, 0.4],
    ...                                 transition=[[0.8, 0.2], [0.3, 0.7]])  # doctest: +SKIP
    """
    from causalfair._core.optional import import_optional

    _check_constraint(constraint, tolerance, "corrected_reduction")
    reductions = import_optional("fairlearn.reductions", extra="fairness")
    if audit is not None:
        table, p = audit.transition_[audit._proxy_position(proxy)], audit.prevalence_
    elif transition is not None and prevalence is not None:
        table, p = np.asarray(transition, dtype=float), np.asarray(prevalence, dtype=float)
    else:
        raise ParameterError(
            "corrected_reduction needs a fitted audit, or both transition= and prevalence=."
        )
    from causalfair.fairness._fairlearn import CorrectedParity

    events: tuple[int | None, ...] = {
        "demographic_parity": (None,),
        "equal_opportunity": (1,),
        "equalized_odds": (0, 1),
    }[constraint]
    moment = CorrectedParity(signed_weights(table, p), events, tolerance)
    return reductions.ExponentiatedGradient(estimator, moment, **options)
