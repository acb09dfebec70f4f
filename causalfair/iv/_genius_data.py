"""Checked data and bases for the constant effect with many instruments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_binary, check_numeric
from causalfair.exceptions import DataError
from causalfair.inference import HypothesisTest
from causalfair.iv._basis import condition_basis, main_effects
from causalfair.iv._data import check_size
from causalfair.iv._gmm import GmmFit
from causalfair.iv._instruments import InstrumentTerms, instrument_terms
from causalfair.iv._moments import GeniusDesign, project
from causalfair.iv._record import design_matrix
from causalfair.iv._scores import Scores

__all__ = ["GeniusData", "GeniusOptions", "direct_effects", "j_test", "prepare"]


@dataclass(frozen=True, slots=True)
class GeniusOptions:
    """Choices of :class:`MRGenius` that shape the moments."""

    outcome: str
    treatment: str
    instrument_terms: str
    residualize: bool


@dataclass(frozen=True, slots=True)
class GeniusData:
    """Checked arrays of one fit.

    Attributes
    ----------
    names
        Terms of the joint basis that belong to instruments, in order.
    transform
        From coefficients on the joint basis to those on its terms; ``rows`` selects instruments.
    """

    design: GeniusDesign
    terms: InstrumentTerms
    exogenous: FloatArray
    transform: FloatArray
    names: tuple[str, ...]


def prepare(data: RoleData, options: GeniusOptions) -> GeniusData:
    """Check the arrays and build the bases."""
    owner = data.owner
    check_size(data.n, owner)
    if data.y is None:
        raise DataError(f"{owner} needs the outcome: give y, an array or a column name.")
    if options.outcome == "multiplicative" and data.y.min() < 0:
        raise DataError(
            f"{owner}: outcome {data.names['y']!r} reaches {data.y.min():.4g}; a "
            "multiplicative effect needs an outcome that is zero or positive. Use "
            "outcome='additive'."
        )
    a = _treatment_values(data, options.treatment)
    kind = "quadratic" if options.instrument_terms == "variance" else options.instrument_terms
    terms = instrument_terms(data.roles, data.names, kind, owner)
    base, labels = main_effects(*design_matrix(data))
    plain = condition_basis(base, base, base, labels)
    stacked = np.column_stack([base, terms.columns])
    joint = condition_basis(stacked, stacked, stacked, [*labels, *terms.names])
    redundant = [name for name in joint.dropped if name in terms.names]
    if redundant:
        raise DataError(
            f"{owner}: instrument term(s) {', '.join(redundant)} are linear combinations of "
            "others and the covariates. Leave them out."
        )
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    moments = terms.columns
    if options.instrument_terms == "variance":
        moments = _fitted_variance(a, joint.observed, weight)[:, None]
    design = GeniusDesign(
        moments,
        a,
        data.y,
        weight,
        plain.observed,
        joint.observed,
        options.treatment,
        options.outcome,
        options.residualize,
    )
    kept = [j for j, name in enumerate(joint.names) if name in terms.names]
    exogenous = np.column_stack([np.ones(data.n), base[:, 1:]])
    return GeniusData(design, terms, exogenous, joint.transform[kept], terms.names)


def _treatment_values(data: RoleData, model: str) -> FloatArray:
    """Check the treatment against its model."""
    owner, name = data.owner, data.names["treatment"]
    values = np.asarray(data.roles["treatment"])
    if np.all(values == values[0]):
        raise DataError(
            f"{owner}: no variation in treatment {name!r}: it takes one value ({values[0]}) in "
            f"all {data.n} rows."
        )
    if model == "logistic" or values.dtype.kind not in "iuf":
        return check_binary(values, f"treatment {name!r}", owner=owner).values
    a = check_numeric(values, f"treatment {name!r}", owner=owner)
    if model == "multiplicative" and a.min() < 0:
        raise DataError(
            f"{owner}: treatment {name!r} reaches {a.min():.4g}; treatment='multiplicative' "
            "needs one that is zero or positive. Use treatment='additive'."
        )
    return a


def _fitted_variance(a: FloatArray, joint: FloatArray, weight: FloatArray) -> FloatArray:
    """Fitted variance of the treatment given instruments and covariates."""
    squared = (a - joint @ project(joint, a, weight)) ** 2
    return np.asarray(joint @ project(joint, squared, weight))


def direct_effects(prepared: GeniusData, found: GmmFit) -> Scores:
    """Coefficients of the instruments in the least-squares fit of ``Y - beta A``."""
    design, b = prepared.design, prepared.design.joint
    w = design.weight
    rest = design.y - found.beta * design.a
    coef = project(b, rest, w)
    error = rest - b @ coef
    gram = (b * w[:, None]).T @ b / w.sum()
    through = (b * w[:, None]).T @ design.a / w.sum()
    influence = b * error[:, None] - found.influence[:, None] * through
    influence = np.linalg.solve(gram, influence.T).T @ prepared.transform.T
    single = len(prepared.names) == 1
    names = tuple(f"direct effect{'' if single else f': {name}'}" for name in prepared.names)
    return Scores(names, prepared.transform @ coef, influence)


def j_test(found: GmmFit) -> HypothesisTest:
    null = "all instruments agree on the effect"
    if found.df == 0:
        reason = "one instrument term identifies the effect exactly"
        return HypothesisTest("J", null, float("nan"), float("nan"), reason=reason)
    p_value = float(chdtrc(float(found.df), found.j_statistic))
    return HypothesisTest("J", null, found.j_statistic, p_value, df=float(found.df))
