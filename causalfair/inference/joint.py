"""Join estimates: on the same rows through their influence, else only if declared independent."""

from __future__ import annotations

import numpy as np

from causalfair.exceptions import DataError
from causalfair.inference.estimates import Estimates
from causalfair.inference.kinds import (
    CovarianceEstimates,
    DrawEstimates,
    InfluenceEstimates,
    RepeatedEstimates,
)

__all__ = ["join"]


def join(left: Estimates, right: Estimates, *, independent: bool) -> Estimates:
    """Terms of both, with their joint law.

    Raises
    ------
    DataError
        The estimates are not known to come from the same rows and were not declared independent.
    """
    if independent:
        return _independent(left, right)
    if isinstance(left, RepeatedEstimates) or isinstance(right, RepeatedEstimates):
        return _join_repeated(left, right)
    if isinstance(left, InfluenceEstimates) and isinstance(right, InfluenceEstimates):
        _check_same_rows(left, right)
        return left._derived(
            np.concatenate([left.estimate, right.estimate]),
            np.hstack([left.influence, right.influence]),
            left.names + right.names,
        )
    if (
        isinstance(left, DrawEstimates)
        and isinstance(right, DrawEstimates)
        and len(left.draws) == len(right.draws)
    ):
        return DrawEstimates(
            np.hstack([left.draws, right.draws]),
            left.names + right.names,
            interval=left.interval,
            estimate=np.concatenate([left.estimate, right.estimate]),
        )
    raise DataError(
        f"cannot join {type(left).__name__} and {type(right).__name__}: their joint law is not "
        "known. If they come from independent samples say so: combine(other, independent=True)."
    )


def _check_same_rows(left: InfluenceEstimates, right: InfluenceEstimates) -> None:
    known = left.sample_id is not None and left.sample_id == right.sample_id
    if not known or left.n_obs != right.n_obs:
        raise DataError(
            f"these estimates are not known to come from the same rows (n {left.n_obs} and "
            f"{right.n_obs}). Use combine(other, independent=True) for independent samples; give "
            "both the same sample_id where the rows are the same."
        )
    same = (left.cluster is None and right.cluster is None) or (
        left.cluster is not None
        and right.cluster is not None
        and np.array_equal(left.cluster, right.cluster)
    )
    if not same:
        raise DataError("these estimates are clustered differently; fit both with one cluster=.")


def _join_repeated(left: Estimates, right: Estimates) -> RepeatedEstimates:
    parts = []
    for side in (left, right):
        if isinstance(side, RepeatedEstimates):
            parts.append(list(side.members))
        elif isinstance(side, InfluenceEstimates):
            parts.append([side])
        else:
            raise DataError(f"cannot join repeated splits with {type(side).__name__}.")
    count = max(map(len, parts))
    if any(len(part) not in (1, count) for part in parts):
        raise DataError(f"numbers of splits differ ({len(parts[0])} and {len(parts[1])}).")
    first, second = (part * count if len(part) == 1 else part for part in parts)
    members = [join(a, b, independent=False) for a, b in zip(first, second, strict=True)]
    how = left.aggregate if isinstance(left, RepeatedEstimates) else right.aggregate  # type: ignore[attr-defined]
    return RepeatedEstimates([m for m in members if isinstance(m, InfluenceEstimates)], how)


def _independent(left: Estimates, right: Estimates) -> CovarianceEstimates:
    if left.sample_id is not None and left.sample_id == right.sample_id:
        raise DataError(
            "these estimates come from the same rows, so they are not independent; leave "
            "independent=False."
        )
    k = len(left)
    vcov = np.zeros((k + len(right),) * 2)
    vcov[:k, :k], vcov[k:, k:] = left.vcov, right.vcov
    known = [d for d in (left.df, right.df) if d is not None]
    return CovarianceEstimates(
        np.concatenate([left.estimate, right.estimate]),
        vcov,
        left.names + right.names,
        df=min(known) if known else None,
    )
