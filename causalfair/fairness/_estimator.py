"""The estimator of group fairness from weak proxies."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from causalfair._core.base import CausalEstimator
from causalfair._core.compat import Interval, StrOptions, fit_context
from causalfair._core.random import root_seed
from causalfair.exceptions import ParameterError
from causalfair.fairness import _setup
from causalfair.fairness._diagnostics import small_cells, warn_about
from causalfair.fairness._encode import check_levels
from causalfair.fairness._findings import AuditFindings
from causalfair.fairness._gaps import INTERVALS, pairwise_estimates, scalar_gap
from causalfair.fairness._inference import Audit, bootstrap_joint, joint_covariance
from causalfair.fairness._metrics import fairness_matrix, group_metric, rates_by_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import ArrayLike, FloatArray, RandomState
    from causalfair.inference import Estimates

KINDS = ("difference", "ratio", "max", "mean")
MIN_BOOTSTRAP = 100


class ProxyFairness(AuditFindings, CausalEstimator):
    r"""Group fairness of decisions when the sensitive attribute was never recorded.

    Three or more weak proxies of the attribute (names, places, language, images, noisy answers)
    that are independent of each other and of the decision given the group are enough to recover the
    group shares, every proxy's error rates and all group rates, without a single individual label.
    Everything is read off the table of counts of decisions, labels and proxy levels.

    Parameters
    ----------
    n_groups : int, default 2
        Number of groups K.
    model : {"joint", "local", "moments", "tied", "known", "two_view", "bayes"}, default "joint"
        "joint": maximum likelihood, error rates the same for every decision and label. "local":
        error rates free in every stratum of decision and label (robust to proxies that influence
        decisions, much noisier). "moments": closed form or simultaneous diagonalisation. "tied":
        one error matrix for all proxies, as first published; inconsistent when proxies differ.
        "known": error matrices supplied in ``transition``. "two_view": two proxies, with decision
        and label as the third view; fails where groups do not differ. "bayes": posterior draws.
    transition : sequence of (K, L_j) arrays or None, optional
        Known error matrices, P(proxy = c | group = a) in row a; None for a proxy whose matrix is
        unknown. A single matrix is accepted for a single proxy.
    prevalence : (K,) array, optional
        Known group shares.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seeds random starts and the bootstrap.
    transition_counts : sequence of (K, L_j) arrays or None, optional
        Counts of a validation sample (true group by proxy level): they enter the likelihood, so the
        uncertainty of the error rates enters the standard errors.
    pseudo_count : float, default 0
        Dirichlet pseudo-count on every probability; 0.5 helps with rare groups.
    n_bins : int, default 4
        Levels into which soft proxies of two groups are cut, at quantiles.
    factors : sequence of int, optional
        Numbers of levels of the factors whose product is the group, e.g. ``(2, 2)`` for sex by
        race; ``n_groups`` must be their product. Group ``a1 * K2 + a2``.
    proxy_factor : sequence of int, optional
        For each proxy the factor it is a proxy of; needed with ``factors``.
    n_starts : int, default 4
        Random starts, in addition to a moment start and two agreement starts.

    Attributes
    ----------
    group_rates_ : (K, n_pred) array
        P(decision | group); nan for a group of fewer than 10 estimated rows.
    rates_by_label_ : (n_labels, K, n_pred) array or None
        P(decision | label, group), nan where fewer than 10 rows are estimated; None without labels.
    prevalence_ : (K,) array
        Group shares.
    transition_ : list of (K, L_j) arrays
        Error matrices of the proxies (in the first stratum where they vary).
    joint_ : (S, K) array
        P(stratum, group); stratum ``k * n_labels + y``. Everything else follows from it.
    loglik_ : float
        Log-likelihood of the counts.
    counts_ : (S, P) array
        The counts that were read.
    estimates_ : causalfair.inference.Estimates
        Pairwise gaps of demographic parity and, with labels, of equalised odds.
    proxy_names_ : tuple of str

    See Also
    --------
    count_tensor : Counts of shards, to be added and fitted by ``from_counts``.
    frechet_bounds : What is known without any independence.
    OutcomeRegressionEM : Surname and place probabilities instead of discrete proxies.

    Notes
    -----
    The model is :math:`P(s, c_1, \dots, c_m) = \sum_a G_{sa} \prod_j T_j[a, c_j]`. It is
    identified up
    to the names of the classes when three views have full rank [2]_; the names come from the
    proxies' own labels. EM with acceleration from several starts, then Newton steps; the cost after
    counting does not depend on the number of rows. No test can see a cause that all proxies share:
    if every proxy reads how a name sounds, the group found is "how the name sounds".

    References
    ----------
    .. [1] Zhu, Yao, Sun, Li & Liu (2023), "Weak Proxies are Sufficient and Preferable for Fairness
       with Missing Sensitive Attributes", ICML, arXiv:2210.03175.
    .. [2] Allman, Matias & Rhodes (2009), "Identifiability of parameters in latent structure models
       with many observed variables", Annals of Statistics 37, doi:10.1214/09-AOS689, theorem 1.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> from causalfair.fairness import ProxyFairness
    >>> frame, truth = make_weak_proxies(20_000, random_state=1)
    >>> audit = ProxyFairness(random_state=0).fit(
    ...     frame, "y_pred", y_true="y_true", proxies=["proxy_1", "proxy_2", "proxy_3"])
    >>> gap = audit.disparity("demographic_parity")
    >>> low, high = gap.conf_int()[0]
    >>> bool(low < truth["demographic_parity"] < high)
    True
    """

    _title: ClassVar[str] = "Group fairness from weak proxies"
    _estimand: ClassVar[str] = "gaps between groups in the rates of decisions; groups are unseen"
    _citations: ClassVar[tuple[str, ...]] = (
        "zhu2023weak",
        "allman2009identifiability",
        "varadhan2008simple",
    )
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_groups": [Interval(Integral, 1, None, closed="left")],
        "model": [StrOptions(set(_setup.MODELS))],
        "transition": ["array-like", list, tuple, None],
        "prevalence": ["array-like", None],
        "random_state": [
            int,
            np.random.SeedSequence,
            np.random.Generator,
            np.random.RandomState,
            None,
        ],
        "transition_counts": ["array-like", list, tuple, None],
        "pseudo_count": [Interval(Real, 0, None, closed="left")],
        "n_bins": [Interval(Integral, 2, None, closed="left")],
        "factors": [list, tuple, None],
        "proxy_factor": [list, tuple, None],
        "n_starts": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_groups: int = 2,
        *,
        model: str = "joint",
        transition: Any = None,
        prevalence: ArrayLike | None = None,
        random_state: RandomState = None,
        transition_counts: Any = None,
        pseudo_count: float = 0.0,
        n_bins: int = 4,
        factors: Sequence[int] | None = None,
        proxy_factor: Sequence[int] | None = None,
        n_starts: int = 4,
    ) -> None:
        self.n_groups = n_groups
        self.model = model
        self.transition = transition
        self.prevalence = prevalence
        self.random_state = random_state
        self.transition_counts = transition_counts
        self.pseudo_count = pseudo_count
        self.n_bins = n_bins
        self.factors = factors
        self.proxy_factor = proxy_factor
        self.n_starts = n_starts

    @fit_context
    def fit(
        self,
        X: Any,
        y_pred: Any,
        *,
        y_true: Any = None,
        proxies: Sequence[str] | None = None,
        sensitive_features: Any = None,
        cluster: Any = None,
        sample_weight: Any = None,
    ) -> ProxyFairness:
        """Count the rows and fit the model to the counts.

        Parameters
        ----------
        X : (n, m) int array, (n, m, K) float array, or table
            Proxies: levels 0, 1, 2, ... with -1 for missing; or soft proxies, probabilities of the
            groups; or a table, with ``proxies`` naming its columns. Lazy frames (polars, DuckDB,
            Dask, PySpark) are grouped in their own engine; then every role is a column name.
        y_pred : (n,) int array or str
            Decisions 0, 1, ...
        y_true : (n,) int array or str, optional
            Outcome labels, for metrics that compare with them.
        proxies : list of str, optional
            Proxy columns of a table.
        sensitive_features : (n,) int array or str, optional
            The attribute where it was audited, -1 elsewhere.
        cluster : (n,) array or str, optional
            Clusters of dependent rows.
        sample_weight : (n,) array or str, optional
            Non-negative sampling weights.

        Returns
        -------
        ProxyFairness
            Itself.

        Raises
        ------
        DataError
            Values that are not levels, identical or uninformative proxies, lengths that differ.
        IdentificationError
            Too few views, or labels that the proxies do not determine.
        ParameterError
            Error matrices or shares that are not probabilities.
        """
        root = root_seed(self.random_state)
        _setup.check_groups(self)
        rows, data, soft = _setup.read(
            self,
            X,
            y_pred,
            y_true=y_true,
            proxies=proxies,
            sensitive_features=sensitive_features,
            cluster=cluster,
            sample_weight=sample_weight,
        )
        fitted = _setup.fit_audit(self, data, rows, root, soft)
        return self._store(fitted, rows.role_data, rows.proxy_names, root)

    @classmethod
    def from_counts(
        cls,
        N: ArrayLike,
        n_groups: int = 2,
        *,
        missing: Sequence[bool] | None = None,
        **parameters: Any,
    ) -> ProxyFairness:
        """Fit to a tensor of counts, for instance a sum over shards.

        Parameters
        ----------
        N : (n_pred, n_labels or 1, L_1, ..., L_m) array
            Counts, as from :func:`count_tensor`.
        n_groups : int, default 2
            Number of groups K.
        missing : sequence of bool, optional
            For each proxy whether its last level means "missing".
        **parameters
            Constructor parameters.

        Returns
        -------
        ProxyFairness
            A fitted estimator.

        Examples
        --------
        >>> import numpy as np
        >>> N = np.array([[163, 57, 57, 27, 57, 27, 27, 33], [57, 27, 27, 33, 27, 33, 33, 83]])
        >>> audit = ProxyFairness.from_counts(N.reshape(2, 1, 2, 2, 2), random_state=0)
        >>> audit.prevalence_.round(6).tolist()
        [0.666667, 0.333333]
        >>> round(float(audit.disparity("demographic_parity").estimate[0]), 6)
        0.5
        """
        return cls(n_groups, **parameters)._fit_counts(N, missing)

    @fit_context
    def _fit_counts(self, N: ArrayLike, missing: Sequence[bool] | None) -> ProxyFairness:
        root = root_seed(self.random_state)
        _setup.check_groups(self)
        data, role_data = _setup.read_counts(N, missing)
        names = tuple(f"proxy {j + 1}" for j in range(data.n_proxies))
        check_levels(data, _setup.needed_levels(self), names, owner="ProxyFairness.from_counts")
        fitted = _setup.fit_audit(self, data, None, root, None, names)
        return self._store(fitted, role_data, names, root)

    def _store(
        self, audit: Audit, role_data: Any, proxy_names: tuple[str, ...], root: Any
    ) -> ProxyFairness:
        data, fit = audit.model.data, audit.model.fit
        self._audit = audit
        self._law = joint_covariance(audit)
        self.proxy_names_ = proxy_names
        self.joint_ = fit.G
        self.prevalence_ = fit.prevalence
        by_group, by_label = small_cells(data, fit.G)
        self.group_rates_ = fairness_matrix(fit.G, data.n_pred, data.n_labels)
        self.group_rates_[by_group] = np.nan
        self.rates_by_label_ = None
        if data.n_labels > 1:
            self.rates_by_label_ = rates_by_label(fit.G, data.n_pred, data.n_labels)
            self.rates_by_label_[by_label] = np.nan
        self.transition_ = audit.model.tables()[: len(proxy_names)]
        self.loglik_ = fit.loglik
        self.counts_ = data.counts
        self.label_margin_ = fit.label_margin
        warn_about(audit.model, proxy_names, self._law.rank_deficiency)
        self.estimates_ = self._headline()
        self._finish(role_data, seed=root)
        self.feature_names_in_ = np.array(proxy_names, dtype=object)
        self.n_features_in_ = len(proxy_names)
        return self

    def _headline(self) -> Any:
        from causalfair.fairness._gaps import headline_gaps

        names = ["demographic_parity"]
        if self._audit.model.data.n_labels > 1:
            names.append("equalized_odds")
        return headline_gaps(self._audit, self._law, names)

    # ------------------------------------------------------------------------------- results
    def disparity(
        self,
        metric: str,
        kind: str = "difference",
        interval: str = "delta",
        *,
        n_bootstrap: int = 1000,
    ) -> Estimates:
        """Gaps of one fairness metric between groups.

        Parameters
        ----------
        metric : str
            "demographic_parity", "equalized_odds", "equal_opportunity", "accuracy_parity",
            "predictive_parity", "calibration", "base_rate", "error_rate_ratio" or
            "treatment_equality".
        kind : {"difference", "ratio", "max", "mean"}, default "difference"
            Signed differences (later minus earlier group) or ratios (intervals and p-values on the
            log scale, against 1) of all pairs; or the largest or mean absolute difference, whose
            interval follows from simultaneous intervals of the signed ones, since the absolute
            value has a kink at zero.
        interval : {"delta", "bootstrap", "bca", "profile"}, default "delta"
            "delta" is fast and fine from a few thousand rows; below, or near the boundary, use the
            tensor bootstrap (percentile or bias-corrected) or the profile likelihood.
        n_bootstrap : int, default 1000
            Number of bootstrap tables.

        Returns
        -------
        causalfair.inference.Estimates
            One term a pair and component, e.g. ``"P(f=1): 1 - 0"``; nan, with ``reasons``, where a
            group is too small.

        Raises
        ------
        ParameterError
            Unknown metric, kind or interval; or a metric that needs y_true.
        """
        check_is_fitted(self)
        if kind not in KINDS:
            raise ParameterError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
        if interval not in INTERVALS:
            raise ParameterError(
                f"interval must be one of {', '.join(INTERVALS)}; got {interval!r}."
            )
        if interval in ("bootstrap", "bca") and n_bootstrap < MIN_BOOTSTRAP:
            raise ParameterError(
                f"n_bootstrap={n_bootstrap} is too few for an interval; use {MIN_BOOTSTRAP} or "
                "more."
            )
        data = self._audit.model.data
        described = group_metric(metric, data.n_pred, data.n_labels, every=kind in ("max", "mean"))
        base = kind if kind in ("difference", "ratio") else "difference"
        if self._audit.draws is not None:
            interval = "bootstrap"
        found = pairwise_estimates(self._audit, self._law, described, base, interval, n_bootstrap)
        if kind in ("max", "mean"):
            return scalar_gap(found, kind, metric.replace("_", " "))
        return found  # type: ignore[no-any-return]

    def direct(self, proxy: int | str = 0, metric: str = "demographic_parity") -> Estimates:
        """Gaps when one proxy is used as if it were the group (usually too small).

        Parameters
        ----------
        proxy : int or str, default 0
            Position or name of the proxy.
        metric : str, default "demographic_parity"
            Name of a metric, as in :meth:`disparity`.

        Returns
        -------
        causalfair.inference.Estimates
            One term a pair of groups.
        """
        from causalfair.fairness._compare import direct_audit
        from causalfair.fairness._gaps import wald_gaps

        check_is_fitted(self)
        j = self._proxy_position(proxy)
        data = self._audit.model.data
        described = group_metric(metric, data.n_pred, data.n_labels)
        audit, law = direct_audit(self._audit, j)
        return wald_gaps(audit, law, described, "difference")  # type: ignore[no-any-return]

    def _proxy_position(self, proxy: int | str) -> int:
        if isinstance(proxy, str):
            if proxy not in self.proxy_names_:
                raise ParameterError(
                    f"no proxy {proxy!r}; the proxies are {', '.join(self.proxy_names_)}."
                )
            return self.proxy_names_.index(proxy)
        if not 0 <= proxy < len(self.proxy_names_):
            raise ParameterError(
                f"proxy={proxy} is out of range; there are {len(self.proxy_names_)} proxies."
            )
        return int(proxy)

    def bootstrap(self, n_bootstrap: int = 1000) -> FloatArray:
        """Bootstrap draws of the joint table.

        Parameters
        ----------
        n_bootstrap : int, default 1000
            Number of bootstrap tables.

        Returns
        -------
        (n_bootstrap, S, K) array
            Draws of ``joint_``, classes named as in the fit.
        """
        check_is_fitted(self)
        return bootstrap_joint(self._audit, n_bootstrap)

    def _summary_header(self) -> list[tuple[str, str]]:
        kept = [
            (k, v) for k, v in super()._summary_header() if not k.startswith(("proxies[", "counts"))
        ]
        return [*kept, ("proxies", ", ".join(self.proxy_names_)), ("model", self.model)]

    def _summary_tables(self) -> list[Any]:
        from causalfair.fairness._reports import group_table

        return [group_table(self)]

    def _summary_notes(self) -> list[str]:
        from causalfair.fairness._reports import assumption_notes

        return assumption_notes(self)

    def _cite_extra(self) -> tuple[str, ...]:
        return _setup.MODEL_CITATIONS.get(self.model, ())
