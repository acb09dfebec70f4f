"""From the arguments of ``ReusableHoldout.create`` to a plan and a mechanism."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray, IntArray
from causalfair.adaptive import _checks, _leaders, _mechanisms, _private
from causalfair.adaptive._mechanisms import Mechanism, Plan
from causalfair.adaptive._noise import KeyedNoise
from causalfair.adaptive._queries import Rows, rows_of
from causalfair.adaptive._sealed import Sealed, partition, take
from causalfair.adaptive._theorem import Profile
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError

MECHANISMS: dict[str, type[Mechanism]] = {
    "naive": _mechanisms.Naive,
    "split_rounds": _checks.SplitRounds,
    "gaussian": _mechanisms.Gaussian,
    "laplace": _mechanisms.Laplace,
    "thresholdout": _private.Thresholdout,
    "sparse_validate": _checks.SparseValidate,
    "guess_and_check": _checks.GuessAndCheck,
    "ladder": _leaders.Ladder,
    "ladder_free": _leaders.ParameterFreeLadder,
    "multiplicative_weights": _leaders.MultiplicativeWeights,
    "winner_only": _leaders.WinnerOnly,
    "voting": _private.Voting,
    "calibrated_variance": _private.CalibratedVariance,
    "noisy_argmin": _private.NoisyArgmin,
    "stable_quantile": _private.StableQuantile,
}


def check_arguments(mechanism: str, max_queries: int, beta: float) -> type[Mechanism]:
    """Mechanism class; errors name the parameter and its range."""
    if mechanism not in MECHANISMS:
        from causalfair._core.validation import suggest

        raise ParameterError(
            f"mechanism={mechanism!r} is unknown.{suggest(str(mechanism), MECHANISMS)} "
            f"Known: {', '.join(MECHANISMS)}."
        )
    if (
        isinstance(max_queries, bool)
        or not isinstance(max_queries, (int, np.integer))
        or (max_queries < 1)
    ):
        raise ParameterError(f"max_queries must be an integer of at least 1. Got {max_queries!r}.")
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 < beta < 1:
        raise ParameterError(f"beta must lie strictly between 0 and 1. Got {beta!r}.")
    return MECHANISMS[mechanism]


def check_params(
    cls: type[Mechanism], params: Mapping[str, Any], extra: tuple[str, ...] = ()
) -> None:
    """Unknown parameters are named together with those the mechanism takes."""
    known = [
        name
        for name in inspect.signature(cls.__init__).parameters
        if name not in ("self", "plan", "n_cells")
    ]
    known += extra
    unknown = sorted(set(params) - set(known))
    if unknown:
        takes = ", ".join(known) or "none"
        raise ParameterError(
            f"mechanism={cls.name!r} does not take {', '.join(unknown)}; its parameters: {takes}."
        )


def sealed_data(X: Any, y: Any, groups: Any, weights: Any) -> Sealed:
    """Holdout rows with the same length everywhere."""
    X = _frame_or_array(X)
    if not hasattr(X, "columns") and (X.ndim == 0 or X.dtype == object):
        raise DataError(
            "X must be a table or a numeric array with one row a record; got "
            f"shape {X.shape} of dtype {X.dtype}."
        )
    n = len(X)
    if n < 2:
        raise ParameterError(f"n_holdout must be at least 2 records. Got {n}.")
    target = None if y is None else np.asarray(y)
    for name, values in (("y", target), ("groups", groups), ("sample_weight", weights)):
        if values is not None and np.shape(values) != (n,):
            raise DataError(
                f"{name} must have shape ({n},), one value a row of X. "
                f"Got shape {np.shape(values)}."
            )
    codes = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if codes is not None and codes.max() < 1:
        raise ParameterError("groups must name at least 2 records. Got one.")
    public = None if weights is None else np.asarray(weights, dtype=float)
    if public is not None and (
        not np.all(np.isfinite(public)) or public.min() < 0 or public.sum() <= 0
    ):
        raise DataError("sample_weight must be finite, not negative, and not all zero.")
    return Sealed(X, target, codes, public)


def _frame_or_array(X: Any) -> Any:
    """A pandas or polars frame as it is, another library's as pandas, anything else as an array."""
    import narwhals.stable.v2 as nw

    frame = nw.from_native(X, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise DataError("X is a lazy frame; a holdout keeps its rows, so call .collect() first.")
    if not isinstance(frame, nw.DataFrame):
        return np.asarray(X)
    keep = frame.implementation.is_pandas() or frame.implementation.is_polars()
    return X if keep else frame.to_pandas()


def warn_about_rows(sealed: Sealed, train: tuple[Any, Any] | None) -> None:
    """Repeated ids without groups, and holdout rows that are in the training data."""
    import pandas as pd

    if sealed.groups is None and hasattr(sealed.X, "columns"):
        repeated = [
            str(c)
            for c in sealed.X.columns
            if re.search(r"(^|_)(id|uuid)$", str(c), re.IGNORECASE)
            and len(set(np.asarray(sealed.X[c]).tolist())) < len(sealed)
        ]
        index = getattr(sealed.X, "index", None)
        if index is not None and not index.is_unique:
            repeated.append("the row index")
        if repeated:
            warn(
                f"{', '.join(repeated)} repeats across rows, so rows may not be independent; "
                "pass groups= so that a record is one person or unit.",
                CausalFairWarning,
            )
    if train is None:
        return
    hashes = [
        pd.util.hash_pandas_object(_flat(X), index=False).to_numpy() for X in (sealed.X, train[0])
    ]
    unique = np.unique(hashes[0])
    common = int(np.isin(hashes[0], hashes[1]).sum())
    if common and len(unique) > 0.95 * len(sealed):
        warn(
            f"{common} of {len(sealed)} holdout rows have the same features as a training row. "
            "If the model was trained on holdout rows, no interval here is valid; draw a clean "
            "holdout.",
            CausalFairWarning,
        )


def _flat(X: Any) -> Any:
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    if hasattr(X, "columns"):
        import narwhals.stable.v2 as nw

        return nw.from_native(X, eager_only=True).to_pandas()
    array = np.asarray(X)
    return pd.DataFrame(array.reshape(len(array), -1))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Row sets by name: ``all``, ``check``, ``guess``, ``block:<t>``."""

    sealed: Sealed
    parts: dict[str, IntArray | None]

    def rows(self, name: str) -> Rows:
        """Rows of a named part."""
        return rows_of(self.sealed, self.parts[name])

    def records(self, name: str) -> int:
        """Number of independent records in a named part."""
        index = self.parts[name]
        if self.sealed.groups is None:
            return len(self.sealed) if index is None else len(index)
        return len(np.unique(take(self.sealed.groups, index)))


def cut(sealed: Sealed, noise: KeyedNoise, *, rounds: int | None, check_fraction: float) -> Blocks:
    """Random parts of the holdout, by record, fixed by the key."""
    parts: dict[str, IntArray | None] = {"all": None}
    n_records = len(sealed) if sealed.groups is None else int(sealed.groups.max()) + 1
    order = noise.permutation("partition", n_records).astype(np.intp)
    if rounds is not None:
        if n_records // rounds < 1:
            raise ParameterError(
                f"rounds={rounds} needs at least as many records; there are {n_records}."
            )
        blocks = partition(len(sealed), sealed.groups, order, rounds)
        parts |= {f"block:{t}": block for t, block in enumerate(blocks)}
    if check_fraction < 1:
        size = max(2, round(check_fraction * n_records))
        if n_records - size < 1:
            raise ParameterError(f"check_fraction={check_fraction} leaves no record to guess with.")
        chosen, rest = order[:size], order[size:]
        if sealed.groups is None:
            parts |= {"check": np.sort(chosen), "guess": np.sort(rest)}
        else:
            inside = np.isin(sealed.groups, chosen)
            parts |= {"check": np.flatnonzero(inside), "guess": np.flatnonzero(~inside)}
    return Blocks(sealed, parts)


def reference_influence(blocks: Blocks, options: Mapping[str, Any]) -> FloatArray | None:
    """Influence of each record on the declared statistic; ``None`` when all are ``1/n``."""
    from causalfair.adaptive._metrics import conditional_influence

    rows = blocks.rows("all")
    statistic = options.get("statistic", "mean")
    if statistic == "mean":
        return None if rows.equal else rows.mean_influence
    return rows.record_influence(conditional_influence(statistic, rows.X, rows.y, options))


def statistic_span(options: Mapping[str, Any]) -> float:
    """Range of the declared statistic: two for differences between groups."""
    from causalfair.adaptive._metrics import find_metric

    statistic = options.get("statistic", "mean")
    return 2.0 if statistic != "mean" and find_metric(statistic)[1].needs_groups else 1.0


def profile_of(influence: FloatArray) -> Profile:
    """How many records have which influence."""
    values, counts = np.unique(influence[influence > 0], return_counts=True)
    return tuple(zip(values.tolist(), counts.tolist(), strict=True))


def decoy_maker(
    train: tuple[Any, Any] | None, classes: tuple[Any, ...] | None
) -> Callable[[Rows], Rows]:
    """Rows of the same shape that hold no holdout value: training rows, else zeros."""

    def make(rows: Rows) -> Rows:
        if train is not None:
            pick = np.arange(rows.n_rows) % len(train[0])
            return Rows(
                take(train[0], pick), take(train[1], pick), rows.index, None, None, rows.n_rows
            )
        y = rows.y
        if y is not None and classes is not None:
            y = np.asarray(classes)[np.arange(rows.n_rows) % len(classes)].astype(y.dtype)
        elif y is not None:
            y = np.zeros_like(y)
        return Rows(blank(rows.X), y, rows.index, None, None, rows.n_rows)

    return make


def blank(X: Any) -> Any:
    """Table with the columns and dtypes of X and no information."""
    if not hasattr(X, "columns"):
        return np.zeros_like(X)
    if hasattr(X, "clear"):  # polars
        return X.clear(len(X))
    import pandas as pd

    def column(dtype: Any) -> Any:
        if isinstance(dtype, pd.CategoricalDtype):
            return pd.Categorical([dtype.categories[0]] * len(X), dtype=dtype)
        if pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
            return pd.Series(np.zeros(len(X)), index=X.index).astype(dtype)
        if pd.api.types.is_datetime64_any_dtype(dtype):
            return pd.Series(pd.to_datetime(np.zeros(len(X)), unit="s"), index=X.index)
        return pd.Series([""] * len(X), index=X.index, dtype=dtype)

    return pd.DataFrame({name: column(dtype) for name, dtype in X.dtypes.items()}, index=X.index)


def make_plan(n: int, max_queries: int, beta: float, width: float | None, **rest: Any) -> Plan:
    """Plan with a checked width."""
    if width is not None and not (isinstance(width, (int, float)) and 0 < width < math.inf):
        raise ParameterError(f"width must be a number above 0. Got {width!r}.")
    return Plan(n, int(max_queries), float(beta), None if width is None else float(width), **rest)


def log_transcripts(
    mechanism: Mechanism, k_used: int, failures: int, log_desc: float
) -> float | None:
    """Log number of transcripts a finished ledger can have produced; None when not discrete."""
    from causalfair.adaptive import _description as description

    if isinstance(mechanism, _leaders.WinnerOnly):
        return log_desc - math.log(description.weight(k_used))
    if isinstance(mechanism, _leaders.Ladder):
        return description.ladder_log_transcripts(mechanism.plan.k, mechanism.eta)
    if isinstance(mechanism, _checks.SparseValidate):
        return description.sparse_log_strings(mechanism.plan.k + 1, mechanism.budget + 1)
    if isinstance(mechanism, _checks.GuessAndCheck):
        return (
            float(description.log_binomial(k_used, failures))
            + log_desc
            - math.log(description.weight(k_used))
            - math.log(description.weight(failures))
        )
    return None


def null_guesses(count: int) -> FloatArray:
    """No guess for any query."""
    return np.full(count, math.nan)
