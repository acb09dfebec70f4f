"""From image features and tabular covariates to the table a learner sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_no_missing
from causalfair.exceptions import CausalFairWarning, DataError, IdentificationError, ParameterError
from causalfair.imagery._compress import BlockCompressor, Compressor

__all__ = [
    "SOURCES",
    "AnyCompressor",
    "Design",
    "assignment_probability",
    "guard_clusters",
    "refuse_copies",
    "resolve_source",
    "take_role",
]

SOURCES = ("tabular", "image", "sequence", "tabular+image", "tabular+sequence")
WIDE = 10
AnyCompressor = Compressor | BlockCompressor


@dataclass(frozen=True)
class Design:
    """Features of the units of a trial.

    Attributes
    ----------
    raw : ndarray of shape (R, D) or None
        Pooled features of places; None without images.
    raw_names : list of str
        Their names.
    row_of_unit : ndarray of shape (n,) or None
        Place of each unit.
    tabular : pandas.DataFrame of shape (n, p)
        Covariates.
    n_components : int, "auto" or None
        How features are compressed.
    blocks : ndarray of shape (D,) or None
        Block of each feature; blocks are compressed one by one.
    """

    raw: FloatArray | None
    raw_names: list[str]
    row_of_unit: IntArray | None
    tabular: Any
    n_components: Any
    blocks: Any = None

    def compressor(self, units: Any = slice(None)) -> AnyCompressor | None:
        """Compressor learned from the places of some units."""
        if self.raw is None or self.row_of_unit is None:
            return None
        places = np.unique(self.row_of_unit[units])
        fresh = (
            Compressor(self.n_components)
            if self.blocks is None
            else BlockCompressor(self.n_components, self.blocks)
        )
        return fresh.fit(self.raw[places])

    def frame(self, compressor: AnyCompressor | None, units: Any = slice(None)) -> Any:
        """Table of some units, image features first."""
        tabular = self.tabular.iloc[units]
        if compressor is None or self.raw is None or self.row_of_unit is None:
            return tabular.reset_index(drop=True)
        values = compressor.transform(self.raw)[self.row_of_unit[units]]
        return join(values, compressor.names(self.raw_names), tabular)


def join(values: FloatArray, names: list[str], tabular: Any) -> Any:
    """Image features and covariates side by side; a constant column where nothing varies."""
    import pandas as pd

    left = pd.DataFrame(np.ascontiguousarray(values), columns=names)
    if tabular is None or not tabular.shape[1]:
        if not names:
            return pd.DataFrame({"constant": np.zeros(len(values))})
        return left
    return pd.concat([left, tabular.reset_index(drop=True)], axis=1)


def resolve_source(source: str, images: Any, X: Any, owner: str) -> str:
    """The data source meant by ``"auto"``, and what was given must suffice for it."""
    if source == "auto":
        parts = [
            *(["tabular"] if X is not None else []),
            *(["sequence"] if images is not None else []),
        ]
        if not parts:
            raise DataError(f"{owner} got neither images nor X; give one or both.")
        return "+".join(parts)
    if source not in SOURCES:
        raise ParameterError(
            f"{owner}: data_source={source!r} is not 'auto' or one of "
            f"{', '.join(map(repr, SOURCES))}."
        )
    if "tabular" in source and X is None:
        raise DataError(f"{owner}: data_source={source!r} needs X.")
    if source != "tabular" and images is None:
        raise DataError(f"{owner}: data_source={source!r} needs images.")
    return source


def guard_clusters(
    cluster: Any, individual: bool, image_of_unit: IntArray | None, w: FloatArray, owner: str
) -> Any:
    """Clusters to use: those given, else the shared images; refuse where W never varies within."""
    if image_of_unit is None or cluster is not None:
        return cluster
    counts = np.bincount(image_of_unit)
    if counts.max() <= 1:
        return None
    if individual:
        warn(
            f"{owner}: individual=True: errors ignore that {w.size} units share "
            f"{int((counts > 0).sum())} images, and are too small if units of a place resemble "
            "each other.",
            CausalFairWarning,
        )
        return None
    low, high = np.full(counts.size, np.inf), np.full(counts.size, -np.inf)
    np.minimum.at(low, image_of_unit, w)
    np.maximum.at(high, image_of_unit, w)
    shared = counts > 1
    if (low == high)[shared].all():
        raise IdentificationError(
            f"{owner}: the treatment is constant within each of the {int(shared.sum())} images "
            "that several units share, so it was assigned to groups. Give cluster= (the groups), "
            "or individual=True if units were assigned one by one."
        )
    return image_of_unit


def assignment_probability(
    propensity: Any, strata: Any, w: FloatArray, owner: str
) -> tuple[FloatArray | None, str]:
    """Probability of treatment of each unit (None: estimate it), and a sentence on its origin."""
    n = w.size
    if isinstance(propensity, str):
        if propensity != "estimate":
            raise ParameterError(
                f"{owner} got propensity={propensity!r}; give the probability of treatment (a "
                "number or one a unit), 'estimate' for observational data, or None for the "
                "observed share."
            )
        return None, "probability of treatment estimated: not a trial by design"
    if propensity is not None:
        e = (
            np.full(n, propensity, float)
            if np.ndim(propensity) == 0
            else np.asarray(propensity, float)
        )
        return _checked(e, w, owner), "probability of treatment given"
    if strata is None:
        what = "the observed share" if _is_binary(w) else "dose, its observed mean"
        return np.full(n, w.mean()), f"probability of treatment: {what}, {w.mean():.3f}"
    values = np.asarray(strata)
    if values.shape != (n,):
        raise DataError(f"{owner}: strata has shape {values.shape} for {n} units.")
    check_no_missing(values, "strata", owner=owner)
    labels, codes = np.unique(values, return_inverse=True)
    share = np.bincount(codes, weights=w) / np.bincount(codes)
    low, high = np.full(labels.size, np.inf), np.full(labels.size, -np.inf)
    np.minimum.at(low, codes, w)
    np.maximum.at(high, codes, w)
    one_arm = low == high
    if one_arm.any():
        raise IdentificationError(
            f"{owner}: {int(one_arm.sum())} of {labels.size} strata have one arm only, the first "
            f"being {str(labels[one_arm][0])!r}; leave those units out or merge strata."
        )
    return share[codes], f"probability of treatment: observed shares in {labels.size} strata"


def _is_binary(w: FloatArray) -> bool:
    return bool(np.isin(w, (0, 1)).all())


def _checked(e: FloatArray, w: FloatArray, owner: str) -> FloatArray:
    """Given probabilities of treatment: one a unit, strictly between 0 and 1."""
    n = w.size
    check_no_missing(e, "propensity", owner=owner)
    if e.shape != (n,):
        raise DataError(
            f"{owner}: propensity has shape {e.shape} for {n} units; give one number, or one a "
            "unit."
        )
    outside = int(((e <= 0) | (e >= 1)).sum())
    if outside and _is_binary(w):
        raise IdentificationError(
            f"{owner}: propensity must lie strictly between 0 and 1; {outside} of {n} value(s) do "
            f"not (range {e.min():.4g} to {e.max():.4g}). Units that are always or never treated "
            "have no comparison: leave them out."
        )
    return e


def refuse_copies(tabular: Any, w: FloatArray, owner: str) -> None:
    """Refuse covariates that are the treatment under another name."""
    for name in tabular.columns:
        values = np.asarray(tabular[name])
        if values.dtype.kind not in "fiub":
            continue
        seen = np.isfinite(values)
        if seen.sum() > 2 and np.ptp(values[seen]) > 0 and np.ptp(w[seen]) > 0:
            r = np.corrcoef(values[seen], w[seen])[0, 1]
            if abs(r) > 1 - 1e-9:
                raise DataError(
                    f"{owner}: the covariate {name!r} is the treatment itself (correlation "
                    f"{r:.3f}); with it no comparison is left. Take it out of covariates."
                )


def take_role(value: Any, keep: Any) -> Any:
    """Rows of a role; names, numbers and switches stay as they are."""
    from sklearn.utils import _safe_indexing

    plain = value is None or isinstance(value, str) or np.ndim(value) == 0
    if plain or (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)):
        return value
    return _safe_indexing(value, keep)


def warn_if_wide(design: Design, owner: str) -> None:
    """Raw features far more numerous than places."""
    if design.raw is None or design.n_components is not None:
        return
    R, D = design.raw.shape
    if D > WIDE * R:
        warn(
            f"{owner}: {D} image features for {R} places; consider n_components='auto'.",
            CausalFairWarning,
        )


def acquisition_check(valid: FloatArray, w: FloatArray, owner: str) -> float:
    """Standardised difference between arms of the share of frames that could be used."""
    sd = valid.std()
    if sd < 1e-12:
        return 0.0
    much = w > w.mean()  # the treated; of a dose, those who got more
    difference = float((valid[much].mean() - valid[~much].mean()) / sd)
    # A chance difference has standard deviation sqrt(1/n1 + 1/n0): flag what exceeds both.
    chance = 3 * np.sqrt(1 / much.sum() + 1 / (~much).sum())
    if abs(difference) > max(0.1, chance):
        warn(
            f"{owner}: the share of usable frames differs between arms by {difference:.2f} "
            "standard deviations; images may have been acquired differently for treated places.",
            CausalFairWarning,
        )
    return difference
