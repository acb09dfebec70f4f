"""From the user's table to plain arrays: texts, embeddings, confounders, outcome and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from causalfair._core.frames import Table, as_table, role_column
from causalfair._core.logging import warn
from causalfair._core.roles import RoleData, resolve_roles
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import check_matrix, check_numeric, suggest
from causalfair.exceptions import DataError, RoleError, SmallSampleWarning
from causalfair.reward._features import as_texts, text_codes

__all__ = [
    "RewardData",
    "fold_groups",
    "hold_strata_together",
    "read_outcome",
    "resolve_reward",
]

FEW_CLUSTERS = 30
SMALL_STRATUM = 25  # rows; smaller strata are held out as a whole


@dataclass(frozen=True)
class RewardData:
    """Everything a reward is learnt from.

    Attributes
    ----------
    roles : RoleData of the outcome, clusters and weights.
    texts : list of n texts, or None; embedding : (n, d) or None.
    categorical, numeric, time : confounders by name, (n,) each.
    trials : (n,) or None; experiment : (n,) ids, -1 for observational rows, or None.
    """

    roles: RoleData
    texts: list[str] | None
    embedding: FloatArray | None
    embedding_names: tuple[str, ...]
    categorical: dict[str, Any]
    numeric: dict[str, Any]
    time: dict[str, Any]
    trials: FloatArray | None
    experiment: IntArray | None

    @property
    def n(self) -> int:
        """Rows."""
        return self.roles.n

    @property
    def y(self) -> FloatArray:
        """Outcome."""
        assert self.roles.y is not None
        return self.roles.y

    @property
    def weight(self) -> FloatArray:
        """Weights with mean one."""
        given = self.roles.sample_weight
        return np.ones(self.n) if given is None else given


def resolve_reward(
    X: Any,
    y: Any,
    *,
    owner: str,
    text: Any = None,
    embedding: Any = None,
    categorical: Any = None,
    numeric: Any = None,
    time: Any = None,
    cluster: Any = None,
    sample_weight: Any = None,
    trials: Any = None,
    experiment: Any = None,
    post_treatment: Any = (),
) -> RewardData:
    """Resolve columns and arrays; raise where a name is unknown, doubled or forbidden."""
    X, text = _bare_texts(X, text)
    table = as_table(X, owner=owner)
    names = _embedding_names(table, y, text, embedding, owner)
    groups = {
        "categorical": _confounders(table, categorical, "categorical", owner),
        "numeric": _confounders(table, numeric, "numeric", owner),
        "time": _confounders(table, time, "time", owner),
    }
    taken = {
        "y": y, "text": text, "trials": trials, "experiment": experiment,
        "sample_weight": sample_weight,
    }  # fmt: skip
    _check_once(taken, names, groups, owner)
    _check_post_treatment(post_treatment, groups, owner)
    whole = table.frame is None or not isinstance(embedding, (str, list, tuple))
    covariates: Any = None if whole and names and embedding is None else list(names)
    roles = resolve_roles(
        X, y, owner=owner, covariates=covariates, need_covariates=False, cluster=cluster,
        sample_weight=sample_weight,
        roles={"text": text, "trials": trials, "experiment": experiment},
    )  # fmt: skip
    _check_weights(roles, owner)
    matrix = _embedding(table, embedding, names, roles, owner)
    width = 0 if matrix is None else matrix.shape[1]
    counts = None
    if trials is not None:
        counts = check_numeric(roles.roles["trials"], "trials", owner=owner)
    return RewardData(
        roles=_without_extra_names(roles),
        texts=None if text is None else as_texts(roles.roles["text"], owner=owner),
        embedding=matrix,
        embedding_names=names or tuple(f"x{j}" for j in range(width)),
        categorical=groups["categorical"],
        numeric=groups["numeric"],
        time=groups["time"],
        trials=counts,
        experiment=_experiment(roles, experiment, owner),
    )  # fmt: skip


def _bare_texts(X: Any, text: Any) -> tuple[Any, Any]:
    """A plain list or column of texts stands for a table with one column ``text``."""
    first = X[0] if isinstance(X, (list, tuple)) and X else None
    series = getattr(X, "ndim", None) == 1 and not hasattr(X, "columns") and len(X)
    if isinstance(first, str) or (series and np.asarray(X).dtype.kind in "OU"):
        import pandas as pd

        return pd.DataFrame({"text": np.asarray(X, dtype=object)}), "text"
    return X, text


def _embedding_names(
    table: Table, y: Any, text: Any, embedding: Any, owner: str
) -> tuple[str, ...]:
    if isinstance(embedding, str):
        return (embedding,)
    if isinstance(embedding, (list, tuple)) and all(isinstance(v, str) for v in embedding):
        return tuple(embedding)
    if embedding is not None:
        return ()
    if text is not None:
        return ()
    if isinstance(y, str):
        raise RoleError(
            f"{owner}: say what represents the text: text= the column of raw text, or embedding= a "
            f"list of columns or an array. Columns: {', '.join(table.columns[:12])}."
        )
    return tuple(table.columns)


def _embedding(
    table: Table, embedding: Any, names: tuple[str, ...], roles: RoleData, owner: str
) -> FloatArray | None:
    if names:
        return roles.matrix()
    if embedding is None:
        return None
    matrix = check_matrix(embedding, "embedding", owner=owner)
    if len(matrix) != len(table):
        raise DataError(
            f"{owner}: embedding has {len(matrix)} rows and X has {len(table)}; "
            "every text needs one row."
        )
    return matrix


def _confounders(table: Table, value: Any, kind: str, owner: str) -> dict[str, Any]:
    """Name -> values, from names, a mapping, or arrays."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        items = {str(k): v for k, v in value.items()}
    elif isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        items = {name: name for name in value}
        if len(items) < len(value):
            raise RoleError(f"{owner}: {kind} names a column twice: {list(value)}.")
    else:
        array = value if hasattr(value, "iloc") else np.asarray(value)
        if array.ndim == 1:
            items = {getattr(array, "name", None) or kind: array}
        else:
            columns = getattr(array, "columns", [f"{kind}{j}" for j in range(array.shape[1])])
            items = {str(c): np.asarray(array)[:, j] for j, c in enumerate(columns)}
    out = {}
    for name, column in items.items():
        if isinstance(column, str) and column not in table.columns:
            raise RoleError(
                f"{owner} got {kind}={column!r}, but X has no such column."
                f"{suggest(column, table.columns)} Columns: {', '.join(table.columns[:12])}."
            )
        values, _ = role_column(table, column, kind, owner)
        if len(values) != len(table):
            raise DataError(
                f"{owner}: {kind} confounder {name!r} has {len(values)} rows and X has "
                f"{len(table)}."
            )
        out[name] = values
    return out


def _check_once(
    taken: Mapping[str, Any], names: tuple[str, ...], groups: Mapping[str, Any], owner: str
) -> None:
    seen: dict[str, str] = {}
    listed = [(role, value) for role, value in taken.items() if isinstance(value, str)]
    listed += [("embedding", name) for name in names]
    listed += [(kind, name) for kind, group in groups.items() for name in group]
    for role, column in listed:
        if column in seen:
            raise RoleError(
                f"{owner}: column {column!r} is given as {seen[column]} and as {role}; "
                "a column plays one role."
            )
        seen[column] = role


def _check_post_treatment(names: Any, groups: Mapping[str, Any], owner: str) -> None:
    forbidden = {names} if isinstance(names, str) else set(names or ())
    for kind, group in groups.items():
        for name in group:
            if name in forbidden:
                raise RoleError(
                    f"{owner}: {name!r} is listed in post_treatment and given as a {kind} "
                    "confounder. A consequence of the text must not be held fixed: it would remove "
                    "part of the text's own effect. Take it out of the confounders."
                )


def _check_weights(roles: RoleData, owner: str) -> None:
    weight = roles.sample_weight
    if weight is None:
        return
    zeros = int((weight == 0).sum())
    if zeros:
        raise DataError(f"{owner}: sample_weight is zero in {zeros} rows; drop those rows first.")
    if (share := float(weight.max() / weight.sum())) > 0.1:
        warn(
            f"{owner}: one row carries {share:.0%} of all weight; the fit is nearly that row.",
            SmallSampleWarning,
        )


def _without_extra_names(roles: RoleData) -> RoleData:
    return replace(roles, roles={k: v for k, v in roles.roles.items() if k != "text"})


def _experiment(roles: RoleData, experiment: Any, owner: str) -> IntArray | None:
    if experiment is None:
        return None
    values = np.asarray(roles.roles["experiment"])
    codes = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.intp)
    if values.dtype.kind in "if":
        codes = np.where(values == -1, -1, codes)
    else:
        codes = np.where(np.isin(values.astype(str), ["-1", ""]), -1, codes)
    if (codes >= 0).any() and np.bincount(codes[codes >= 0]).max() < 2:
        raise DataError(
            f"{owner}: every experiment has one row; an experiment needs at least two texts. Give "
            "the rows of one randomised test the same id, and -1 to observational rows."
        )
    return codes


def fold_groups(data: RewardData) -> IntArray | None:
    """Rows that must share a fold: same cluster, same text or same experiment."""
    labels = []
    if data.roles.cluster is not None:
        labels.append(data.roles.cluster[:, 0])
    if data.texts is not None:
        codes = text_codes(data.texts)
        if int(codes.max()) + 1 < data.n:
            labels.append(codes)
    if data.experiment is not None:
        ids = data.experiment.copy()
        alone = ids < 0
        ids[alone] = ids.max(initial=-1) + 1 + np.arange(int(alone.sum()))
        labels.append(ids)
    if not labels:
        return None
    return _connected(labels, data.n)


def hold_strata_together(
    groups: IntArray | None, strata: IntArray | None, n: int, n_folds: int
) -> IntArray | None:
    """Fold groups joined with the finest factor, where its levels are small and the join is fine.

    A held-out comparison inside a stratum needs both of its rows; with large strata every fold has
    enough, and joining would only make folds uneven.
    """
    if strata is None or n > SMALL_STRATUM * (int(strata.max()) + 1):
        return groups
    joined = _connected([strata] if groups is None else [groups, strata], n)
    largest = int(np.bincount(joined).max())
    return joined if largest * 2 * n_folds <= n else groups


def _connected(labels: list[IntArray], n: int) -> IntArray:
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    rows, columns, start = [], [], n
    for label in labels:
        rows.append(np.arange(n))
        columns.append(label + start)
        start += int(label.max()) + 1
    links = sparse.coo_matrix(
        (np.ones(n * len(labels), np.int8), (np.concatenate(rows), np.concatenate(columns))),
        shape=(start, start),
    )
    found = connected_components(links, directed=False)[1][:n]
    return np.asarray(np.unique(found, return_inverse=True)[1].reshape(-1), dtype=np.intp)


def read_outcome(
    data: RewardData, outcome: str, residualize: Any, df: int, owner: str
) -> tuple[FloatArray, FloatArray, list[str]]:
    """Outcome and weights to regress, and notes: rates become log odds with precision weights."""
    y, weight, notes = data.y, data.weight, []
    if data.trials is not None:
        y, weight, tau2 = _log_odds(data, residualize, df, owner)
        notes.append(
            f"outcome: log odds of {data.roles.names['y']} in {data.roles.names['trials']}, "
            f"weights 1 / (sampling variance + {tau2:.3g})."
        )
    elif outcome == "rank":
        from scipy.stats import rankdata

        y = rankdata(y) / len(y)
        notes.append("outcome: mid-ranks, scaled to (0, 1].")
    elif outcome == "winsorize":
        residual = residualize(y)
        limit = np.quantile(np.abs(residual), 0.995)
        clipped = np.clip(residual, -limit, limit)
        moved = int((clipped != residual).sum())
        y = y - residual + clipped
        notes.append(f"outcome: {moved} within-stratum deviation(s) above {limit:.3g} drawn in.")
    if np.ptp(y) == 0:
        raise DataError(
            f"{owner}: y takes one value ({y[0]:g}) in all {len(y)} rows; it must vary."
        )
    return y, weight, notes


def _log_odds(
    data: RewardData, residualize: Any, df: int, owner: str
) -> tuple[FloatArray, FloatArray, float]:
    trials, hits = data.trials, data.y
    assert trials is not None
    bad = np.flatnonzero((hits < 0) | (hits > trials) | (trials <= 0))
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{owner}: row {row} has {hits[row]:g} successes in {trials[row]:g} trials "
            f"({len(bad)} such row(s)); need 0 <= successes <= trials and trials > 0."
        )
    y = np.log((hits + 0.5) / (trials - hits + 0.5))
    variance = 1 / (hits + 0.5) + 1 / (trials - hits + 0.5)
    # DerSimonian-Laird on the residuals within confounders, with the precisions as weights.
    precision = 1 / variance
    residual = residualize(y)
    spread = float((precision * residual**2).sum())
    share = max(1 - df / len(y), 1 / len(y))
    tau2 = max(0.0, (spread - (len(y) - df)) / (float(precision.sum()) * share))
    weight = data.weight / (variance + tau2)
    return y, weight * (len(y) / weight.sum()), tau2
