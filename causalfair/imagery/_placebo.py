"""Does transport work inside the trial? Each region in turn is treated as outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtrc, ndtr
from sklearn.base import clone

from causalfair._core.logging import progress
from causalfair.exceptions import DataError
from causalfair.imagery._design import take_role
from causalfair.imagery._sequence import as_sequence
from causalfair.inference import HypothesisTest

__all__ = ["PlaceboTransport", "placebo_transport"]

OWNER = "placebo_transport"
LEAST_UNITS = 20


@dataclass(frozen=True)
class PlaceboTransport:
    """Regions of a trial, predicted from the others and seen for themselves.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a region: ``region, n, predicted, predicted_std_error, observed,
        observed_std_error, difference, std_error, statistic, p_value, supported`` (share of the
        region's units that the other regions support).
    test_ : HypothesisTest
        All differences are zero: the sum of squared statistics.
    """

    table: Any
    test_: HypothesisTest

    def to_frame(self) -> Any:
        """One row a region.

        Returns
        -------
        pandas.DataFrame
            The table.
        """
        return self.table

    def summary(self) -> Any:
        """Printable table.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table
        from causalfair.reporting.format import format_p

        rows = [
            [str(row.region), f"{row.n:,}", f"{row.predicted:.3g} ({row.predicted_std_error:.2g})",
             f"{row.observed:.3g} ({row.observed_std_error:.2g})", f"{row.statistic:.2f}",
             format_p(row.p_value), f"{row.supported:.0%}"]
            for row in self.table.itertuples()
        ]  # fmt: skip
        columns = ["region", "n", "predicted from others", "own effect", "z", "p", "supported"]
        return Summary(
            "Transport between regions of the trial",
            [("regions", f"{len(rows)}")],
            [Table(columns, rows, None, "lrrrrrr")],
            [
                f"{self.test_}",
                "Standard errors in brackets. Regions that differ from their prediction by more "
                "than chance speak against carrying effects to places outside.",
            ],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


def placebo_transport(
    model: Any,
    images: Any,
    y: Any,
    *,
    treatment: Any,
    regions: Any,
    X: Any = None,
    covariates: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    propensity: Any = None,
    strata: Any = None,
) -> PlaceboTransport:
    """Predict the average effect of each region from the others, and compare with its own.

    That effects outside the trial are as inside, given images, cannot be tested outside. Inside it
    can: a region is left out, the model learned from the others is carried to it as
    :meth:`ImageSequenceCATE.transport` would, and the region's own doubly robust average, from the
    randomisation, says whether that came true.

    Parameters
    ----------
    model : ImageSequenceCATE
        Cloned and fitted; the argument stays as it is.
    images, y, treatment : object
        As for :meth:`ImageSequenceCATE.fit`.
    regions : array of shape (n_units,)
        Region of each unit, such as a province; few, and far enough apart to be different.
    X, covariates, cluster, sample_weight, propensity, strata : object
        As for :meth:`ImageSequenceCATE.fit`.

    Returns
    -------
    PlaceboTransport
        Table of the regions and a joint test.

    Raises
    ------
    DataError
        Fewer than two regions, or a region with fewer than 20 units.

    Notes
    -----
    The statistic is the difference over the root of the sum of both squared standard errors. The
    trial outside a region serves several regions, so the statistics are only nearly independent and
    the joint test is approximate.

    Examples
    --------
    >>> import numpy as np
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import (
    ...     ImageSequenceCATE, SequenceFeatures, SpectralFeatures, placebo_transport)
    >>> frame, truth = make_image_sequence_trial(160, n_frames=3, size=8, random_state=0)
    >>> model = ImageSequenceCATE(
    ...     SequenceFeatures(SpectralFeatures()), CausalForest(50), random_state=1)
    >>> check = placebo_transport(
    ...     model, truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5,
    ...     regions=np.repeat(["north", "south"], 80))
    >>> check.to_frame()["region"].tolist()
    ['north', 'south']
    """
    sequence = as_sequence(images, owner=OWNER)
    labels, code = np.unique(np.asarray(regions), return_inverse=True)
    _check_regions(labels, code, sequence.n_units)
    roles = {
        "treatment": treatment, "X": X, "covariates": covariates, "cluster": cluster,
        "sample_weight": sample_weight, "propensity": propensity, "strata": strata,
    }  # fmt: skip
    whole = clone(model).set_params(scheme="oob").fit(sequence, y, **roles)
    rows = []
    for region, label in enumerate(progress(labels, "regions")):
        inside, outside = np.flatnonzero(code == region), np.flatnonzero(code != region)
        learned = clone(model).set_params(scheme="oob").fit(
            sequence.subset(outside), take_role(y, outside),
            **{name: take_role(value, outside) for name, value in roles.items()},
        )  # fmt: skip
        table = take_role(X, inside) if learned._tabular_names else None
        carried = learned.transport(sequence.subset(inside), table, unsupported="ignore")
        own = whole.average_effect(subset=inside)
        rows.append(_row(label, inside.size, carried, own))
    return _result(rows)


def _check_regions(labels: Any, code: Any, n_units: int) -> None:
    if code.size != n_units:
        raise DataError(f"{OWNER}: regions has {code.size} values for {n_units} units.")
    size = np.bincount(code)
    if labels.size < 2 or size.min() < LEAST_UNITS:
        raise DataError(
            f"{OWNER}: {labels.size} region(s), the smallest with {size.min()} units; give two or "
            f"more with at least {LEAST_UNITS} units each."
        )


def _row(label: Any, n: int, carried: Any, own: Any) -> dict[str, Any]:
    predicted, error = float(carried.estimates_.estimate[0]), float(carried.estimates_.std_error[0])
    observed, own_error = float(own.estimate[0]), float(own.std_error[0])
    spread = float(np.hypot(error, own_error))
    z = (predicted - observed) / spread
    return {
        "region": label, "n": n, "predicted": predicted, "predicted_std_error": error,
        "observed": observed, "observed_std_error": own_error, "difference": predicted - observed,
        "std_error": spread, "statistic": z, "p_value": float(2 * ndtr(-abs(z))),
        "supported": float(carried.support.supported.mean()),
    }  # fmt: skip


def _result(rows: list[dict[str, Any]]) -> PlaceboTransport:
    import pandas as pd

    table = pd.DataFrame(rows)
    total, df = float((table["statistic"] ** 2).sum()), len(table)
    null = "each region's effect is as predicted from the others"
    test = HypothesisTest("placebo transport", null, total, float(chdtrc(df, total)), df, "chi2")
    return PlaceboTransport(table, test)
