"""Columns or arrays in, one plain :class:`RoleData` out.

Everything an estimator needs of the user's table is resolved here once: which column plays which
role, what is adjusted for, clusters and weights. Frames of any library narwhals knows give the same
bits, because covariates always leave as a pandas frame over C-ordered float64 data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causalfair._core.frames import (
    CovariateEncoder,
    Table,
    as_table,
    check_index,
    fit_encoder,
    role_column,
)
from causalfair._core.typing import FloatArray, IntArray
from causalfair._core.validation import (
    check_lengths,
    check_no_missing,
    check_numeric,
    missing_mask,
    suggest,
)
from causalfair.exceptions import DataError, RoleError

__all__ = ["RoleData", "resolve_roles"]


@dataclass(frozen=True)
class RoleData:
    """What an estimator needs of the user's data.

    Attributes
    ----------
    n : int
        Number of rows.
    y : numpy.ndarray of shape (n,) or None
        Outcome as float64.
    roles : dict of str to numpy.ndarray of shape (n,)
        Role arrays in their own dtype, without missing values.
    names : dict of str to str
        What to call the outcome and each role in tables.
    covariates : pandas.DataFrame of shape (n, p)
        Adjustment covariates: float64 columns in C order, and categoricals.
    encoder : CovariateEncoder
        Makes the same columns of new data.
    modifiers : tuple of str
        Covariates that may modify the effect.
    cluster : numpy.ndarray of shape (n, c) or None
        Cluster codes, one column a way of clustering.
    sample_weight : numpy.ndarray of shape (n,) or None
        Weights, normalised to sum to n.
    backend : str
        ``"pandas"``, ``"polars"``, ``"pyarrow"`` or ``"numpy"``: what output frames follow.
    """

    n: int
    y: FloatArray | None
    roles: dict[str, Any]
    names: dict[str, str]
    covariates: Any
    encoder: CovariateEncoder
    modifiers: tuple[str, ...]
    cluster: IntArray | None
    sample_weight: FloatArray | None
    backend: str
    owner: str = field(default="fit")

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """Names of the covariate columns."""
        return tuple(map(str, self.covariates.columns))

    def matrix(self, columns: Sequence[str] | None = None) -> FloatArray:
        """Numeric covariates as an (n, p) C-ordered float64 array."""
        return self.encoder.matrix(self.covariates, owner=self.owner, columns=columns)

    def sample_id(self) -> str:
        """Identity of the rows, whatever is adjusted for: digest of the outcome and clusters."""
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.y, self.cluster, self.sample_weight):
            digest.update(b"-" if array is None else _stable_bytes(array))
        return f"{self.n}:{digest.hexdigest()}"

    def fingerprint(self) -> str:
        """BLAKE2b digest of every value that enters the fit."""
        digest = hashlib.blake2b(digest_size=16)
        for name, array in [("y", self.y), *sorted(self.roles.items())]:
            if array is not None:
                digest.update(name.encode())
                digest.update(_stable_bytes(array))
        for name in self.covariates.columns:
            digest.update(str(name).encode())
            digest.update(_stable_bytes(np.asarray(self.covariates[name])))
        for extra in (self.cluster, self.sample_weight):
            if extra is not None:
                digest.update(_stable_bytes(extra))
        return digest.hexdigest()


def _stable_bytes(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.kind in "OSU":
        return "\x1f".join(map(str, array.tolist())).encode()
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    return np.ascontiguousarray(array).tobytes()


def resolve_roles(
    X: Any,
    y: Any = None,
    *,
    owner: str,
    covariates: Any = None,
    roles: Mapping[str, Any] | None = None,
    cluster: Any = None,
    sample_weight: Any = None,
    effect_modifiers: Sequence[str] | None = None,
    need_covariates: bool = True,
    allow_nan: bool = False,
    missing_y: bool = False,
) -> RoleData:
    """Resolve columns and arrays into roles.

    Parameters
    ----------
    X : frame or array of shape (n, p)
        The table. Where a role is a column name, X is a whole table and ``covariates`` is required.
    y : array, str or None
        Outcome, or the name of its column.
    owner : str
        Who asks, for messages: ``"DebiasedATE.fit"``.
    covariates : "all", list of str, formula or None
        What to adjust for. A string that starts with ``~`` is a formula.
    roles : mapping of str to array, str or None
        The estimator's roles; those that are None are left out.
    cluster : array of shape (n,) or (n, c), str, list of str or None
        Cluster labels.
    sample_weight : array, str or None
        Non-negative weights.
    effect_modifiers : list of str, optional
        Covariates that may modify the effect; all when None.
    need_covariates : bool, default True
        Whether the estimator adjusts for covariates at all.
    allow_nan : bool, default False
        Whether covariates may have missing values.
    missing_y : bool, default False
        Whether the outcome may be missing in some rows (NaN in ``RoleData.y``): for outcomes seen
        only where somebody looked. The caller says which rows may lack it.

    Returns
    -------
    RoleData
        Plain arrays and one covariate frame.

    Raises
    ------
    RoleError
        A column is unknown, in two roles, or ``covariates`` is missing.
    DataError
        Missing or infinite values, lengths that differ, indexes that differ, a lazy frame.
    """
    table = as_table(X, owner=owner)
    given = {"y": y, **(roles or {})}
    named = _named_columns(given, cluster, sample_weight)
    _check_columns(table, named, owner)
    values: dict[str, Any] = {}
    names: dict[str, str] = {}
    for role, value in given.items():
        if value is not None:
            values[role], names[role] = role_column(table, value, role, owner)
            if not (role == "y" and missing_y):
                check_no_missing(values[role], f"{role} ({names[role]!r})", owner=owner)
    check_lengths(owner=owner, X=table, **values)
    outcome = values.pop("y", None)
    if outcome is not None:
        outcome = _numeric_outcome(outcome, f"y ({names['y']!r})", owner)
    chosen = _choose_covariates(table, covariates, named, owner, need_covariates)
    encoder, frame = fit_encoder(table, chosen, owner=owner, taken=named, allow_nan=allow_nan)
    return RoleData(
        n=len(table),
        y=outcome,
        roles=values,
        names=names,
        covariates=frame,
        encoder=encoder,
        modifiers=_check_modifiers(effect_modifiers, tuple(frame.columns), owner),
        cluster=_cluster_codes(table, cluster, owner),
        sample_weight=_weights(table, sample_weight, owner),
        backend=table.backend,
        owner=owner,
    )


def _numeric_outcome(values: Any, name: str, owner: str) -> FloatArray:
    """Outcome as float64, NaN where it is missing."""
    out = np.full(len(values), np.nan)
    seen = ~missing_mask(values)
    if seen.any():
        out[seen] = check_numeric(values[seen], name, owner=owner)
    return out


def _named_columns(given: Mapping[str, Any], cluster: Any, sample_weight: Any) -> dict[str, str]:
    """Role -> column, for the roles given by name."""
    named = {role: value for role, value in given.items() if isinstance(value, str)}
    if isinstance(sample_weight, str):
        named["sample_weight"] = sample_weight
    ways = [cluster] if isinstance(cluster, str) else cluster
    if _is_name_list(ways):
        named |= {f"cluster[{i}]" if i else "cluster": name for i, name in enumerate(ways)}
    return named


def _is_name_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _check_columns(table: Table, named: Mapping[str, str], owner: str) -> None:
    for role, column in named.items():
        if column not in table.columns:
            argument = "y" if role == "y" else role
            raise RoleError(
                f"{owner} got {argument}={column!r}, but X has no such column."
                f"{suggest(column, table.columns)} Columns: {_listed(table.columns)}."
            )
    roles_of: dict[str, list[str]] = {}
    for role, column in named.items():
        roles_of.setdefault(column, []).append(role)
    for column, shared in roles_of.items():
        if len(shared) > 1:
            raise RoleError(
                f"{owner}: column {column!r} is given as {' and as '.join(shared)}; "
                "a column plays one role."
            )


def _listed(columns: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(map(str, columns[:most]))
    return shown + (f", ... ({len(columns)} in all)" if len(columns) > most else "")


def _choose_covariates(
    table: Table, covariates: Any, named: Mapping[str, str], owner: str, needed: bool
) -> list[str] | str:
    """Column names, or the formula."""
    rest = [c for c in table.columns if c not in named.values()]
    if covariates is None:
        if named and needed:
            raise RoleError(
                f"{owner}: a role is given by column name, so covariates= is required. Give a list "
                'of columns, a "~ formula", "all" for every remaining column, or [] for none. '
                f"Remaining columns: {_listed(rest) or 'none'}."
            )
        return [] if named else list(table.columns)
    if isinstance(covariates, str):
        if covariates == "all":
            return rest
        if covariates.lstrip().startswith("~"):
            return covariates.strip()
        raise RoleError(
            f'{owner} got covariates={covariates!r}; give a list of columns, "all", or a formula '
            'that starts with "~".'
        )
    chosen = _name_list(covariates, owner)
    for column in chosen:
        if column not in table.columns:
            raise RoleError(
                f"{owner}: covariates names {column!r}, but X has no such column."
                f"{suggest(str(column), table.columns)} Columns: {_listed(table.columns)}."
            )
        if column in named.values():
            role = next(r for r, c in named.items() if c == column)
            raise RoleError(
                f"{owner}: column {column!r} is given as {role} and in covariates; "
                "a column plays one role."
            )
    if len(set(chosen)) < len(chosen):
        twice = next(c for c in chosen if chosen.count(c) > 1)
        raise RoleError(f"{owner}: covariates names {twice!r} twice; name each column once.")
    return chosen


def _name_list(covariates: Any, owner: str) -> list[str]:
    """Column names of ``covariates``: an ordered collection of names, not of values."""
    unordered = isinstance(covariates, (set, frozenset, Mapping))
    plain = np.ndim(covariates) == 1 if not unordered else False
    if not plain:
        kind = type(covariates).__name__
        shape = f" of shape {np.shape(covariates)}" if np.ndim(covariates) else ""
        raise RoleError(
            f"{owner} got covariates of type {kind}{shape}; give a list of column names of X, "
            '"all", or a formula that starts with "~". Values belong into X.'
        )
    # Names of columns that are numbers read as text, as the columns of X do.
    return [str(name) for name in covariates]


def _check_modifiers(
    modifiers: Sequence[str] | None, columns: tuple[str, ...], owner: str
) -> tuple[str, ...]:
    if modifiers is None:
        return columns
    chosen = (modifiers,) if isinstance(modifiers, str) else tuple(modifiers)
    for name in chosen:
        if name not in columns:
            raise RoleError(
                f"{owner}: effect_modifiers names {name!r}, which is not a covariate."
                f"{suggest(name, columns)} Covariates: {_listed(columns)}."
            )
    return chosen


def _cluster_codes(table: Table, cluster: Any, owner: str) -> IntArray | None:
    if cluster is None:
        return None
    columns = _cluster_columns(table, cluster, owner)
    codes = np.empty((len(table), len(columns)), dtype=np.intp)
    for j, column in enumerate(columns):
        check_lengths(owner=owner, X=table, cluster=column)
        check_no_missing(column, "cluster", owner=owner)
        codes[:, j] = _factor(column)
        if codes[:, j].max(initial=0) == 0:
            raise DataError(
                f"{owner}: cluster takes one value in all {len(table)} rows; "
                "a clustered error needs at least two clusters."
            )
    return codes


def _cluster_columns(table: Table, cluster: Any, owner: str) -> list[Any]:
    """One array of labels a way of clustering."""
    if isinstance(cluster, str) or (_is_name_list(cluster) and len(cluster)):
        ways = [cluster] if isinstance(cluster, str) else list(cluster)
        return [role_column(table, way, "cluster", owner)[0] for way in ways]
    check_index(table, cluster, "cluster", owner)
    array = np.asarray(cluster)
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise DataError(
            f"{owner}: cluster has shape {array.shape}; give labels of shape (n_samples,), or "
            "(n_samples, n_ways) for several ways of clustering."
        )
    return [array] if array.ndim == 1 else list(array.T)


def _factor(labels: Any) -> IntArray:
    """Codes 0, 1, ... of labels in sort order; labels that cannot be compared sort as text."""
    if labels.dtype.kind == "O" and len({type(label) for label in labels}) > 1:
        labels = np.array([str(label) for label in labels])
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.intp).reshape(-1)


def _weights(table: Table, sample_weight: Any, owner: str) -> FloatArray | None:
    if sample_weight is None:
        return None
    values, _ = role_column(table, sample_weight, "sample_weight", owner)
    weights = check_numeric(values, "sample_weight", owner=owner)
    check_lengths(owner=owner, X=table, sample_weight=weights)
    negative = int((weights < 0).sum())
    if negative or weights.sum() <= 0:
        raise DataError(
            f"{owner}: sample_weight has {negative} negative value(s) and sums to "
            f"{weights.sum():.4g}; weights must be non-negative with a positive sum."
        )
    return np.asarray(weights * (len(weights) / weights.sum()))
