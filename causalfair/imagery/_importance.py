"""Which parts of the data effects rest on, and what the components of the images are."""

from __future__ import annotations

from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.exceptions import DataError, ParameterError
from causalfair.imagery._interpret import as_table

__all__ = ["block_importance", "block_of", "describe_components", "nearest_places"]

TABULAR = "tabular"


def block_of(name: str) -> str:
    """Scale and pooling of a feature called ``32px/conv3+:trend``."""
    scale, slash, rest = name.rpartition("/")
    pooling = rest.rpartition(":")[2] if ":" in rest else "image"
    return f"{scale} {pooling}" if slash else pooling


def block_importance(importance: Any, loadings: FloatArray | None, raw_names: Any) -> Any:
    """Importance of columns added up over blocks; components hand theirs on by squared loadings.

    Parameters
    ----------
    importance : pandas.Series of length m + p
        Of the image columns and, after them, the tabular ones.
    loadings : ndarray of shape (m, D) or None
        Weights of the image features in the image columns; None without images.
    raw_names : sequence of str, of length D
        Names of the image features.

    Returns
    -------
    pandas.Series
        By block, largest first.
    """
    import pandas as pd

    values = importance.to_numpy(dtype=float)
    parts: dict[str, float] = {}
    m = 0
    if loadings is not None:
        m = len(loadings)
        share = loadings**2 / (loadings**2).sum(axis=1, keepdims=True)
        for name, value in zip(raw_names, values[:m] @ share, strict=True):
            parts[block_of(str(name))] = parts.get(block_of(str(name)), 0.0) + float(value)
    if values.size > m:
        parts[TABULAR] = float(values[m:].sum())
    out = pd.Series(parts, name="importance", dtype=float)
    return out.sort_values(ascending=False, kind="stable")


def describe_components(model: Any, shares: Any) -> Any:
    """What principal components of the images have to do with land cover.

    Parameters
    ----------
    model : ImageSequenceCATE
        Fitted model that uses images.
    shares : frame or array of shape (n_units, k)
        Land-cover shares of each unit's place, or other characteristics.

    Returns
    -------
    pandas.DataFrame
        One row a component, at most 20: ``component``, ``explained`` (share of the variance of the
        features), ``r_squared`` of its regression on the shares, and its correlation with each.

    Raises
    ------
    DataError
        The table has another number of rows than the trial has units.
    ParameterError
        The model uses no images, or they do not vary.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalfair.datasets import make_image_sequence_trial
    >>> from causalfair.forest import CausalForest
    >>> from causalfair.imagery import (
    ...     ImageSequenceCATE, SequenceFeatures, SpectralFeatures, describe_components)
    >>> frame, truth = make_image_sequence_trial(150, size=12, random_state=0)
    >>> model = ImageSequenceCATE(
    ...     SequenceFeatures(SpectralFeatures()), CausalForest(50), scheme="oob", random_state=1
    ... ).fit(truth["images"], frame["y"], treatment=frame["treatment"])
    >>> shares = pd.DataFrame({"built": truth["a"], "growth": truth["g"]})
    >>> table = describe_components(model, shares)
    >>> bool(table["r_squared"].iloc[0] > 0.5)
    True
    """
    import pandas as pd

    reference = model._reference("describe_components")
    table = as_table(shares, "describe_components")
    if len(table) != reference.row_of_unit.size:
        raise DataError(
            f"describe_components: shares has {len(table)} rows, the trial "
            f"{reference.row_of_unit.size} units."
        )
    seen, at = np.unique(reference.row_of_unit, return_inverse=True)
    places = table.groupby(at).mean().to_numpy(dtype=float)
    Z = reference.Z[seen]
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    S = places - places.mean(axis=0)
    sd = S.std(axis=0)
    fitted = S @ np.linalg.lstsq(S, Z, rcond=None)[0]  # least norm: shares that sum to one are fine
    correlation = (S.T @ Z) / len(Z) / np.where(sd > 0, sd, np.nan)[:, None]
    out = pd.DataFrame({"component": [f"image_pc{j + 1}" for j in range(Z.shape[1])]})
    out["explained"] = reference.compressor.explained_[: Z.shape[1]]
    out["r_squared"] = (fitted**2).mean(axis=0)
    for name, row in zip(table.columns, correlation, strict=True):
        out[str(name)] = row
    return out


def nearest_places(Z: FloatArray, new: FloatArray, count: int) -> Any:
    """Trial places nearest to each new place in standardised components.

    Parameters
    ----------
    Z : ndarray of shape (R, m)
        Trial places.
    new : ndarray of shape (G, m)
        New places.
    count : int
        Neighbours of each.

    Returns
    -------
    pandas.DataFrame
        Columns ``row``, ``rank``, ``trial_row``, ``distance``.
    """
    import pandas as pd
    from scipy.spatial import cKDTree

    if not 1 <= count <= len(Z):
        raise ParameterError(
            f"ImageSequenceCATE.nearest got k={count!r}; give 1 to {len(Z)}, the trial's places."
        )
    distance, index = cKDTree(Z).query(new, k=np.arange(1, count + 1))
    return pd.DataFrame(
        {
            "row": np.repeat(np.arange(len(new)), count),
            "rank": np.tile(np.arange(1, count + 1), len(new)),
            "trial_row": index.ravel(),
            "distance": distance.ravel(),
        }
    )
