"""Units of the fit: those with an outcome, and whole clusters in place of their members."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from causalfair._core.logging import warn
from causalfair._core.roles import RoleData
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import missing_mask
from causalfair.exceptions import CausalFairWarning, DataError, IdentificationError
from causalfair.imagery._design import Design, take_role
from causalfair.imagery._sequence import ImageSequence

__all__ = ["Trial", "as_clusters", "drop_missing"]


@dataclass(frozen=True)
class Trial:
    """What the models are trained on.

    Attributes
    ----------
    data : RoleData
        Outcome, covariates, clusters and weights.
    design : Design
        Features of the units.
    w : ndarray of shape (n,)
        Treatment.
    propensity : ndarray of shape (n,) or None
        Its expectation; None to estimate it.
    groups : ndarray of shape (n,) or None
        What folds must not part.
    """

    data: RoleData
    design: Design
    w: FloatArray
    propensity: FloatArray | None
    groups: IntArray | None


def drop_missing(
    sequence: ImageSequence | None, roles: dict[str, Any], owner: str
) -> tuple[ImageSequence | None, dict[str, Any], IntArray]:
    """Images and roles of the units whose outcome is known, and their numbers.

    A warning says how many are left out in each arm, and whether arms differ by more than chance.
    """
    y = _values(roles["y"], roles["X"])
    gone = missing_mask(y)
    keep = np.flatnonzero(~gone)
    if not gone.any():
        return sequence, roles, keep
    if not keep.size:
        raise DataError(f"{owner}: no unit has an outcome.")
    warn(
        f"{owner}: {int(gone.sum())} of {gone.size} units have no outcome and are left out"
        f"{_by_arm(gone, _values(roles['treatment'], roles['X']))}. Effects are those of units "
        "that were seen again.",
        CausalFairWarning,
    )
    if sequence is not None:
        if sequence.n_units != gone.size:
            raise DataError(
                f"{owner}: the images have {sequence.n_units} units, y has {gone.size}."
            )
        sequence = sequence.subset(keep)
    return sequence, {name: take_role(value, keep) for name, value in roles.items()}, keep


def _values(role: Any, X: Any) -> Any:
    """Values of a role given as an array or by the name of a column."""
    if not isinstance(role, str):
        return np.asarray(role)
    import narwhals.stable.v2 as nw

    return nw.from_native(X, eager_only=True)[role].to_numpy()


def _by_arm(gone: Any, treatment: Any) -> str:
    """Shares without outcome by arm, and the p-value of their difference."""
    arms = np.unique(treatment)
    if arms.size != 2:
        return ""
    count = np.array([(treatment == arm).sum() for arm in arms])
    share = np.array([gone[treatment == arm].mean() for arm in arms])
    spread = np.sqrt((share * (1 - share) / count).sum())
    p = 2 * ndtr(-abs(share[1] - share[0]) / spread) if spread > 0 else float(share[0] == share[1])
    return f" ({share[1]:.1%} of treated, {share[0]:.1%} of untreated units, p = {p:.3f})"


def as_clusters(trial: Trial, owner: str) -> Trial:
    """The same trial with one row a cluster: means of its units, weighted by their number."""
    data = trial.data
    if data.cluster is None or data.cluster.shape[1] != 1:
        raise DataError(f"{owner}: level='cluster' needs cluster=, one way of clustering.")
    code = np.unique(data.cluster[:, 0], return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    if (trial.w[first][code] != trial.w).any():
        raise IdentificationError(
            f"{owner}: level='cluster' is for treatments of whole clusters; this one varies within "
            "clusters. Use level='unit'."
        )
    weight = np.ones(data.n) if data.sample_weight is None else data.sample_weight
    size = np.bincount(code, weights=weight)
    if (size == 0).any():
        raise DataError(f"{owner}: {int((size == 0).sum())} cluster(s) have no weight.")

    def mean(values: FloatArray) -> FloatArray:
        wide = values.reshape(len(values), -1)
        out = np.zeros((size.size, wide.shape[1]))
        np.add.at(out, code, weight[:, None] * wide)
        return np.asarray((out / size[:, None]).reshape(size.size, *values.shape[1:]))

    covariates = _mean_covariates(data.covariates, mean, owner)
    design = trial.design
    if design.raw is not None and design.row_of_unit is not None:
        design = replace(
            design, raw=mean(design.raw[design.row_of_unit]), row_of_unit=np.arange(size.size)
        )
    kept = list(design.tabular.columns)
    design = replace(design, tabular=covariates[kept])
    data = replace(
        data, n=size.size, y=mean(np.asarray(data.y)), covariates=covariates, cluster=None,
        roles=data.roles | {"treatment": trial.w[first]}, sample_weight=size / size.mean(),
    )  # fmt: skip
    e = None if trial.propensity is None else mean(trial.propensity)
    groups = None if trial.groups is None else trial.groups[first]
    if groups is not None and np.unique(groups).size == size.size:
        groups = None  # a cluster each: nothing to keep together
    return Trial(data, design, trial.w[first], e, groups)


def _mean_covariates(covariates: Any, mean: Any, owner: str) -> Any:
    import pandas as pd

    words = [str(c) for c in covariates if covariates[c].dtype.kind not in "fiub"]
    if words:
        raise DataError(
            f"{owner}: level='cluster' averages covariates; {', '.join(words)} cannot be averaged. "
            "Give numbers."
        )
    values = mean(covariates.to_numpy(dtype=np.float64))
    return pd.DataFrame(values, columns=covariates.columns)
