"""Test a ranking on data that did not train it, by sample splits that keep the level."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from causalfair._core.crossfit import make_folds
from causalfair._core.logging import progress
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair.exceptions import (
    DataError,
    IdentificationError,
    ParameterError,
    SmallSampleWarning,
)
from causalfair.forest._base import Problem
from causalfair.forest._rate import RATE, rank_average_treatment_effect
from causalfair.inference import HypothesisTest

__all__ = ["RankingValidation", "validate_ranking"]

FloatArray = NDArray[np.float64]
OWNER = "validate_ranking"
LEAST_CLUSTERS = 10
SCHEMES = ("split", "sequential", "repeated")


@dataclass(frozen=True)
class RankingValidation:
    """Result of :func:`validate_ranking`.

    Attributes
    ----------
    test_ : HypothesisTest
        Of "ranking by the model is of no use".
    rates_ : tuple of RATE
        One an evaluation sample.
    scheme : str
        ``"split"``, ``"sequential"`` or ``"repeated"``.
    n_train, n_test : tuple of int
        Rows that trained and that evaluated each ranking.
    """

    test_: HypothesisTest
    rates_: tuple[RATE, ...]
    scheme: str
    method: str
    n_train: tuple[int, ...]
    n_test: tuple[int, ...]
    _citations: ClassVar[tuple[str, ...]] = ("wager2024sequential", "yadlowsky2025evaluating")

    @property
    def p_value(self) -> float:
        """Two-sided p-value."""
        return self.test_.p_value

    def to_frame(self) -> Any:
        """One row an evaluation sample.

        Returns
        -------
        pandas.DataFrame
            Columns ``sample, n_train, n_test, estimate, std_error, statistic, p_value``.
        """
        import pandas as pd

        first = [r.estimates_ for r in self.rates_]
        return pd.DataFrame(
            {
                "sample": np.arange(1, len(first) + 1),
                "n_train": self.n_train,
                "n_test": self.n_test,
                "estimate": [e.estimate[0] for e in first],
                "std_error": [e.std_error[0] for e in first],
                "statistic": [r.ratio[0] for r in self.rates_],
                "p_value": [r.p_value[0] for r in self.rates_],
            }
        )

    def summary(self) -> Any:
        """Test and the evaluation samples behind it.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_number

        rows = [
            [f"{row.sample}", f"{row.n_train:,}", f"{row.n_test:,}", format_number(row.estimate),
             format_number(row.std_error), f"{row.statistic:.2f}"]
            for row in self.to_frame().itertuples()
        ]  # fmt: skip
        columns = ["sample", "trained on", "evaluated on", self.method.upper(), "std. error"]
        how = {
            "split": "one split: ratio against the normal law",
            "sequential": "sequential folds: each trained on all before it; sum of ratios over the "
            "root of their number against the normal law",
            "repeated": "repeated splits: twice the median p-value",
        }[self.scheme]
        return Summary(
            "Does the ranking by effect mean anything?",
            [],
            [Table([*columns, "ratio"], rows, None, "lrrrrr")],
            [f"{self.test_}", f"Scheme: {how}."],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())

    def plot(self, *, ax: Any = None) -> Any:
        """TOC curves of the evaluation samples.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on.
        """
        from causalfair.forest._plots import toc_curves

        return toc_curves(self.rates_, ax=ax)

    def cite(self) -> Any:
        """References.

        Returns
        -------
        causalfair.reporting.Citations
            Prints as text.
        """
        from causalfair.reporting import Citations

        return Citations((*self._citations, "causalfair"))


def validate_ranking(
    model: Any,
    X: Any,
    y: Any,
    *,
    treatment: Any,
    nuisances: Any = None,
    covariates: Any = None,
    effect_modifiers: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    scheme: str = "sequential",
    method: str = "autoc",
    n_folds: int = 5,
    n_repeats: int = 20,
    n_bootstrap: int = 200,
    random_state: Any = None,
) -> RankingValidation:
    """Test whether a model's ranking by effect is of use, on data that did not train it.

    Parameters
    ----------
    model : CausalForest or meta-learner
        Cloned and fitted to training rows; the argument stays as it is.
    X, y, treatment, nuisances, covariates, effect_modifiers, cluster, sample_weight : object
        As for the model's ``fit``.
    scheme : {"sequential", "split", "repeated"}, default "sequential"
        ``"sequential"``: fold k is ranked by a model trained on folds 1 to k - 1, which uses nearly
        all rows and holds its level. ``"split"``: one half ranks the other. ``"repeated"``: many
        halves, and twice the median p-value.
    method : {"autoc", "qini"}, default "autoc"
        Weighting of the curve.
    n_folds : int, default 5
        Folds of the sequential scheme.
    n_repeats : int, default 20
        Splits of the repeated scheme.
    n_bootstrap : int, default 200
        Half-samples of each standard error.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of splits, bootstrap and, where theirs is None, models.

    Returns
    -------
    RankingValidation
        Test and the RATE of each evaluation sample.

    Raises
    ------
    ParameterError
        An unknown scheme.
    DataError
        Fewer than ten clusters in an evaluation sample.
    IdentificationError
        Fewer than two treated or untreated rows in an evaluation sample.

    Notes
    -----
    Under no heterogeneity the sequential statistic, the sum of the K - 1 ratios over the root of
    K - 1, is a sum of martingale differences and standard normal in large samples. Folds in which
    the model ranks nobody above another hold no evidence and are not counted. Its scores come
    from one model fitted to all rows, which is allowed since only the ranking must not have seen
    them; the other schemes score with a model of the evaluation half.

    References
    ----------
    .. [1] S. Wager (2024). Sequential validation of treatment heterogeneity. arXiv:2405.05534.
    .. [2] S. Yadlowsky et al. (2025). Evaluating treatment prioritization rules via rank-weighted
       average treatment effects. Journal of the American Statistical Association 120, 38-51.
       doi:10.1080/01621459.2024.2393466

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> from causalfair.forest import CausalForest, validate_ranking
    >>> frame, _ = make_heterogeneous_effects(400, setup="B", random_state=0)
    >>> check = validate_ranking(
    ...     CausalForest(100), frame, "y", treatment="treatment", covariates="all",
    ...     nuisances={"propensity": 0.5}, random_state=0)
    >>> check.p_value < 0.01
    True
    """
    if scheme not in SCHEMES:
        raise ParameterError(
            f"{OWNER}: scheme={scheme!r} is not one of {', '.join(map(repr, SCHEMES))}. (Ordinary "
            "cross-fitting folds are not offered: pooling them rejects far too often.)"
        )
    problem = Problem(
        X, y, owner=OWNER, treatment=treatment, nuisances=nuisances, binary_only=False,
        allow_nan=True, covariates=covariates, effect_modifiers=effect_modifiers, cluster=cluster,
        sample_weight=sample_weight,
    )  # fmt: skip
    root = root_seed(random_state)
    work = Work(model, problem, method, n_bootstrap, root)
    if scheme == "sequential":
        return _sequential(work, n_folds)
    return _splits(work, 1 if scheme == "split" else n_repeats, scheme)


@dataclass
class Work:
    """A model and the rows it is validated on."""

    model: Any
    problem: Problem
    method: str
    n_bootstrap: int
    root: Any

    def folds(self, n_folds: int, key: int) -> NDArray[np.intp]:
        p = self.problem
        labels = p.w if p.binary else None
        return make_folds(
            p.n, n_folds, seed=child_seed(self.root, key, 0), stratify=labels, groups=p.cluster
        )

    def fitted(self, rows: NDArray[np.intp], *key: int, scores: bool = True) -> Any:
        """The model learned from some of the rows; without ``scores`` only to rank others."""
        from sklearn.base import clone

        p = self.problem
        model = clone(self.model)
        if model.get_params()["random_state"] is None:
            model.set_params(random_state=int_seed(self.root, *key))
        fit = model.fit if scores else getattr(model, "_fit_predictor", model.fit)
        with warnings.catch_warnings():
            if not scores:  # averages of a part of the rows, which nobody reads
                warnings.simplefilter("ignore", SmallSampleWarning)
            return fit(
                p.data.covariates.iloc[rows],
                p.y[rows],
                treatment=p.w[rows],
                nuisances={name: value[rows] for name, value in p.given.items()},
                cluster=None if p.data.cluster is None else p.data.cluster[rows],
                sample_weight=None if p.weight is None else p.weight[rows],
                **self._modifiers(),
            )

    def _modifiers(self) -> dict[str, Any]:
        chosen = tuple(self.problem.data.modifiers)
        every = chosen == self.problem.data.covariate_names
        return {} if every else {"effect_modifiers": list(chosen)}

    def check(self, rows: NDArray[np.intp]) -> None:
        """Enough clusters, and both arms."""
        p = self.problem
        if p.cluster is not None and np.unique(p.cluster[rows]).size < LEAST_CLUSTERS:
            raise DataError(
                f"{OWNER}: an evaluation sample has {np.unique(p.cluster[rows]).size} clusters; it "
                f"needs {LEAST_CLUSTERS}. Use fewer folds, or scheme='split'."
            )
        if p.binary:
            treated = int(p.w[rows].sum())
            if min(treated, rows.size - treated) < 2:
                raise IdentificationError(
                    f"{OWNER}: an evaluation sample has {treated} treated of {rows.size} rows; it "
                    "needs two of each arm. Use fewer folds, or more data."
                )

    def rate(self, ranking: Any, scores: FloatArray, rows: NDArray[np.intp], key: int) -> RATE:
        p = self.problem
        return rank_average_treatment_effect(
            np.asarray(ranking.predict(p.data.covariates.iloc[rows])),
            scores,
            method=self.method,
            cluster=None if p.cluster is None else p.cluster[rows],
            sample_weight=None if p.weight is None else p.weight[rows],
            n_bootstrap=self.n_bootstrap,
            random_state=child_seed(self.root, key, 3),
        )


NULL = "ranking by the model is of no use"


def _sequential(work: Work, n_folds: int) -> RankingValidation:
    if n_folds < 2:
        raise ParameterError(f"{OWNER}: n_folds={n_folds!r} must be 2 or more.")
    folds = work.folds(n_folds, 0)
    for fold in range(1, n_folds):
        work.check(np.flatnonzero(folds == fold))
    scores = np.asarray(work.fitted(np.arange(work.problem.n), 0, 1).scores_)
    rates, n_train, n_test = [], [], []
    for fold in progress(range(1, n_folds), "sequential folds"):
        train, test = np.flatnonzero(folds < fold), np.flatnonzero(folds == fold)
        ranking = work.fitted(train, 0, 2, fold, scores=False)
        rates.append(work.rate(ranking, scores[test], test, fold))
        n_train.append(train.size)
        n_test.append(test.size)
    # A ranking without differences is no evidence: its ratio is zero, and it does not count.
    ranked = sum(r.estimates_.std_error[0] > 0 for r in rates)
    statistic = float(sum(r.ratio[0] for r in rates) / np.sqrt(max(ranked, 1)))
    test_ = HypothesisTest(
        "sequential RATE", NULL, statistic, float(2 * ndtr(-abs(statistic))), None, "normal"
    )
    return RankingValidation(
        test_, tuple(rates), "sequential", work.method, tuple(n_train), tuple(n_test)
    )


def _splits(work: Work, n_repeats: int, scheme: str) -> RankingValidation:
    rates, n_train, n_test = [], [], []
    for repeat in progress(range(n_repeats), "splits"):
        folds = work.folds(2, repeat)
        train, test = np.flatnonzero(folds == 0), np.flatnonzero(folds == 1)
        work.check(test)
        scores = np.asarray(work.fitted(test, repeat, 1).scores_)
        ranking = work.fitted(train, repeat, 2, scores=False)
        rates.append(work.rate(ranking, scores, test, repeat))
        n_train.append(train.size)
        n_test.append(test.size)
    ratios = np.array([r.ratio[0] for r in rates])
    p = 2 * ndtr(-np.abs(ratios))
    if scheme == "split":
        name, value = "split-sample RATE", float(p[0])
    else:
        name, value = "repeated-split RATE", float(min(1.0, 2 * np.median(p)))
    test_ = HypothesisTest(name, NULL, float(np.median(ratios)), value, None, "normal")
    return RankingValidation(
        test_, tuple(rates), scheme, work.method, tuple(n_train), tuple(n_test)
    )
