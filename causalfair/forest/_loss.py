"""How well effects are predicted, without knowing them: losses, and stacking by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.exceptions import DataError, ParameterError
from causalfair.forest._origin import origin_of
from causalfair.forest._sample import EffectSample
from causalfair.inference import InfluenceEstimates

__all__ = ["EffectLosses", "StackedEffects", "effect_losses", "stack_effects"]

CONSTANT = "constant effect"


@dataclass(frozen=True)
class EffectLosses:
    """Losses of predicted effects on the same rows.

    Attributes
    ----------
    estimates_ : Estimates
        Losses: ``constant effect`` and one term a candidate, jointly.
    r_squared_ : Estimates
        One less the ratio of each candidate's loss to that of the best constant effect.
    differences_ : Estimates or None
        Loss of each further candidate less that of the first; None for one candidate.
    loss : str
        ``"r"`` or ``"dr"``.
    """

    estimates_: Any
    r_squared_: Any
    differences_: Any
    loss: str

    def to_frame(self) -> Any:
        """One row a candidate, the constant effect first.

        Returns
        -------
        pandas.DataFrame
            Columns ``candidate, loss, std_error, r_squared, r_squared_std_error, difference,
            difference_std_error, difference_p_value``; differences are from the first candidate.
        """
        import pandas as pd

        names = list(self.estimates_.names)
        apart = self.differences_
        blank = [np.nan] * 2

        def tail(values: Any) -> list[float]:
            return blank + ([] if apart is None else list(values))

        return pd.DataFrame(
            {"candidate": names, "loss": self.estimates_.estimate,
             "std_error": self.estimates_.std_error,
             "r_squared": [0.0, *self.r_squared_.estimate],
             "r_squared_std_error": [np.nan, *self.r_squared_.std_error],
             "difference": tail(apart.estimate if apart else ()),
             "difference_std_error": tail(apart.std_error if apart else ()),
             "difference_p_value": tail(apart.p_value() if apart else ())}
        )  # fmt: skip

    def summary(self) -> Any:
        """Printable table.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_estimate, format_p

        rows = []
        for row in self.to_frame().itertuples():
            loss = format_estimate(row.loss, row.std_error).estimate
            r2 = format_estimate(row.r_squared, row.r_squared_std_error)
            apart = ("", "")
            if np.isfinite(row.difference):
                cells = format_estimate(row.difference, row.difference_std_error)
                apart = (f"{cells.estimate} ({cells.std_error})", format_p(row.difference_p_value))
            constant = row.candidate == CONSTANT
            share = "" if constant else f"{r2.estimate} ({r2.std_error})"
            rows.append([row.candidate, loss, share, *apart])
        columns = ["effects", "loss", "R2 (std. error)", "less the first (std. error)", "p"]
        title = {"r": "R-loss", "dr": "DR-loss"}[self.loss]
        return Summary(
            f"{title} of predicted effects",
            [("rows", f"{len(self.estimates_.influence):,}")],
            [Table(columns, rows, None, "lrrrr")],
            ["R2 compares with the best constant effect; below zero is worse than that.",
             "Losses share most of their noise: compare by the differences."],
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def effect_losses(effects: Any, model: Any, *, loss: str = "r") -> EffectLosses:
    """Compare predicted effects by a loss that needs no known effects.

    Parameters
    ----------
    effects : mapping of str to array of shape (n_samples,), or one array
        Candidates: out-of-sample effects of the rows ``model`` was fitted to, for instance
        ``other_model.predict()``.
    model : effect model or ImageSequenceCATE
        Fitted to the rows; all candidates are judged with its nuisances, so that differences are
        differences in effects.
    loss : {"r", "dr"}, default "r"
        ``"r"``: mean of ``(y_res - effect * w_res)**2``; ``"dr"``: mean squared distance to the
        doubly robust scores.

    Returns
    -------
    EffectLosses
        Losses, shares of the loss explained, and paired differences; errors are clustered where the
        model was fitted with clusters.

    Raises
    ------
    DataError
        Effects that do not fit the rows.
    ParameterError
        Another loss, or effects predicted for rows that trained them.

    Notes
    -----
    Up to terms that are the same for all candidates, both losses are mean squared errors of the
    effect; the R-loss weighs rows by the variance of their treatment. Noise of the outcome is part
    of the loss, so an R2 of a few per cent can be all there is to find.

    References
    ----------
    .. [1] X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319, eq. 4. doi:10.1093/biomet/asaa076

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> from causalfair.forest import CausalForest, effect_losses
    >>> frame, truth = make_heterogeneous_effects(500, setup="B", random_state=0)
    >>> forest = CausalForest(100, random_state=0).fit(
    ...     frame, "y", treatment="treatment", covariates="all", nuisances={"propensity": 0.5})
    >>> losses = effect_losses({"forest": forest.predict(), "truth": truth["effect"]}, forest)
    >>> bool(losses.differences_.estimate[0] < 0)
    True
    """
    owner = "effect_losses"
    if loss not in ("r", "dr"):
        raise ParameterError(f"{owner}: loss={loss!r} is neither 'r' nor 'dr'.")
    sample = _sample_of(model, owner)
    candidates = _candidates(effects, sample.n, owner)
    target, slope = (
        (sample.y_residual, sample.w_residual)
        if loss == "r"
        else (sample.scores, np.ones(sample.n))
    )
    weight = np.ones(sample.n) if sample.sample_weight is None else sample.sample_weight
    # The best constant: its derivative vanishes, so its own noise does not enter to first order.
    constant = (weight * slope * target).sum() / (weight * slope**2).sum()
    predicted = {CONSTANT: np.full(sample.n, constant), **candidates}
    each = np.column_stack([(target - slope * tau) ** 2 for tau in predicted.values()])
    mean = np.average(each, axis=0, weights=weight)
    losses = InfluenceEstimates(
        mean, each - mean, list(predicted), small_sample=sample.cluster is None,
        **sample.inference(),
    )  # fmt: skip
    names = list(candidates)
    explained = losses.transform(lambda t: 1 - t[1:] / t[0], names)
    apart = None
    if len(names) > 1:
        apart = losses.transform(
            lambda t: t[2:] - t[1], [f"{name} - {names[0]}" for name in names[1:]]
        )
    return EffectLosses(losses, explained, apart, loss)


def _sample_of(model: Any, owner: str) -> EffectSample:
    """Out-of-sample quantities of a fitted model, or of the effect model within it."""
    for fitted in (model, getattr(model, "effect_model_", None)):
        sample = getattr(fitted, "sample_", None)
        if isinstance(sample, EffectSample):
            return sample
    raise ParameterError(
        f"{owner} got model of type {type(model).__name__}; give a fitted effect model, such as "
        "CausalForest or ImageSequenceCATE."
    )


def _candidates(effects: Any, n: int, owner: str) -> dict[str, FloatArray]:
    given = effects if isinstance(effects, Mapping) else {"effects": effects}
    if not given:
        raise ParameterError(f"{owner} got no effects; give one array or more.")
    out = {}
    for name, values in given.items():
        if str(name) == CONSTANT:
            raise ParameterError(f"{owner}: {CONSTANT!r} is there already; use another name.")
        origin = origin_of(values)
        if origin is not None and origin[0] == "in-sample":
            raise ParameterError(
                f"{owner}: effects {name!r} are predictions for rows that trained the model and "
                "look better than they are; use predict() without X."
            )
        array = check_numeric(values, f"effects[{name!r}]", owner=owner)
        check_lengths(owner=owner, **{f"effects[{name!r}]": array, "training rows": np.empty(n)})
        out[str(name)] = array
    return out


@dataclass(frozen=True)
class StackedEffects:
    """A combination of predicted effects with non-negative weights.

    Attributes
    ----------
    weights : dict of str to float
        Weight of each candidate.
    constant : float
        What is added to the weighted sum.
    effect : ndarray of shape (n,)
        Combined effects of the training rows.
    """

    _citations: ClassVar[tuple[str, ...]] = ("nie2021quasi",)

    weights: dict[str, float]
    constant: float
    effect: FloatArray

    def predict(self, effects: Mapping[str, Any]) -> FloatArray:
        """Combine the candidates' predictions for new rows.

        Parameters
        ----------
        effects : mapping of str to array of shape (n_rows,)
            Predictions under the names of the candidates.

        Returns
        -------
        ndarray of shape (n_rows,)
            Effects.

        Raises
        ------
        DataError
            A candidate is missing.
        """
        missing = [name for name in self.weights if name not in effects]
        if missing:
            raise DataError(
                f"StackedEffects.predict: effects lack {', '.join(map(repr, missing))}."
            )
        parts = [a * np.asarray(effects[name], float) for name, a in self.weights.items()]
        return np.asarray(self.constant + sum(parts))

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}: {a:.3g}" for name, a in self.weights.items())
        return f"StackedEffects({parts}; constant {self.constant:.3g})"


def stack_effects(effects: Mapping[str, Any], model: Any) -> StackedEffects:
    """Combine effects of several learners or representations so that the R-loss is least.

    Parameters
    ----------
    effects : mapping of str to array of shape (n_samples,)
        Out-of-sample effects of the rows ``model`` was fitted to.
    model : effect model or ImageSequenceCATE
        Fitted to the rows; gives the nuisances.

    Returns
    -------
    StackedEffects
        Weights, combined effects, and ``predict``.

    Raises
    ------
    DataError
        Effects that do not fit the rows.

    Notes
    -----
    Minimises ``sum_i w_i {y_i - b - c x_i - sum_k a_k x_i tau_k(i)}**2`` over b, c and a >= 0, with
    ``y`` and ``x`` the residuals of outcome and treatment. The weights have seen the outcomes:
    judge the combination on other rows.

    References
    ----------
    .. [1] X. Nie and S. Wager (2021). Quasi-oracle estimation of heterogeneous treatment effects.
       Biometrika 108, 299-319, section 4.2. doi:10.1093/biomet/asaa076

    Examples
    --------
    >>> from causalfair.datasets import make_heterogeneous_effects
    >>> from causalfair.forest import CausalForest, stack_effects
    >>> frame, truth = make_heterogeneous_effects(500, setup="B", random_state=0)
    >>> forest = CausalForest(100, random_state=0).fit(
    ...     frame, "y", treatment="treatment", covariates="all", nuisances={"propensity": 0.5})
    >>> stack = stack_effects({"forest": forest.predict(), "noise": frame["x5"]}, forest)
    >>> stack.weights["forest"] > 5 * stack.weights["noise"]
    True
    """
    from scipy.optimize import nnls

    sample = _sample_of(model, "stack_effects")
    candidates = _candidates(effects, sample.n, "stack_effects")
    root = np.ones(sample.n) if sample.sample_weight is None else np.sqrt(sample.sample_weight)
    free = root[:, None] * np.column_stack([np.ones(sample.n), sample.w_residual])
    tau = np.column_stack(list(candidates.values()))
    varying = (root * sample.w_residual)[:, None] * tau
    outcome = root * sample.y_residual
    basis = np.linalg.qr(free)[0]

    def rest(values: FloatArray) -> FloatArray:
        return np.asarray(values - basis @ (basis.T @ values))

    a = nnls(rest(varying), rest(outcome))[0]
    c = np.linalg.lstsq(free, outcome - varying @ a, rcond=None)[0][1]
    return StackedEffects(
        dict(zip(candidates, a.tolist(), strict=True)), float(c), np.asarray(c + tau @ a)
    )
