"""Creating and opening holdouts, and evaluating questions on their rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.adaptive import _build
from causalfair.adaptive._build import Blocks, check_arguments, check_params, make_plan
from causalfair.adaptive._ledger import SCHEMA_VERSION, Ledger, siblings
from causalfair.adaptive._mechanisms import Mechanism
from causalfair.adaptive._noise import KeyedNoise, commitment, key_from_seed, new_key
from causalfair.adaptive._queries import (
    Rows,
)
from causalfair.adaptive._sealed import Sealed, load
from causalfair.adaptive._session import Session
from causalfair.exceptions import (
    DataError,
    HoldoutChangedError,
    LedgerConflictError,
    ParameterError,
    UncertifiedWarning,
)

_SETUP = ("sample_weight", "seal", "parent", "force", "random_state", "insecure_seed")
_EXTRA: dict[str, tuple[str, ...]] = {
    "gaussian": ("statistic", "positive", "sensitive_features", "levels"),
    "guess_and_check": ("check_fraction", "guess_sigma"),
    "multiplicative_weights": ("levels",),
    "stable_quantile": ("records_per_group",),
}


@dataclass(slots=True)
class Parts:
    """What a holdout object is made of."""

    session: Session
    blocks: Blocks
    meta: dict[str, Any]
    train: tuple[Any, Any] | None
    n_records: int
    n_answers: int  # length an array query must have
    sealed_file: bool
    classes: tuple[Any, ...] | None
    decoy: Callable[[Rows], Rows]
    cells: Any = None  # cell of each row, and codes of every cell
    histogram: FloatArray | None = None
    reference: FloatArray | None = None  # record influences the Gaussian noise is made for
    warned: bool = field(default=False)


def create(
    path: Path | None,
    X: Any,
    y: Any,
    *,
    mechanism: str,
    max_queries: int,
    beta: float,
    width: float | None,
    groups: Any,
    train: tuple[Any, Any] | None,
    params: Mapping[str, Any],
) -> Parts:
    """Check everything, then write the ledger and the sealed file."""
    cls = check_arguments(mechanism, max_queries, beta)
    check_params(cls, params, (*_SETUP, *_EXTRA.get(mechanism, ())))
    sealed = _build.sealed_data(X, y, groups, params.get("sample_weight"))
    train = _check_train(train)
    key, insecure = _key(params)
    digest = sealed.digest()
    inherited = _inherit(params.get("parent"), digest, mechanism, beta)
    if path is not None:
        _refuse_second(path, digest, params.get("parent"))
    own = {name: value for name, value in params.items() if name not in _SETUP}
    meta: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "holdout_sha256": digest,
        "n_rows": len(sealed),
        "mechanism": mechanism,
        "params": _jsonable(own),
        "max_queries": int(max_queries),
        "beta": float(beta),
        "width": width,
        "n_train": None if train is None else len(train[0]),
        "key_commitment": commitment(key),
        "created": time.time(),
        "insecure": insecure,
        "force": bool(params.get("force", False)),
        "grouped": sealed.groups is not None,
        "weighted": sealed.weights is not None,
        **inherited,
    }
    parts = assemble(sealed, meta, key, train, ledger=None)
    _build.warn_about_rows(sealed, train)
    seal = params.get("seal", True) and path is not None
    engine = parts.session.mechanism
    ledger = Ledger.create(path, meta, engine.start(), key, engine.initial_vault())
    if seal and path is not None:
        try:
            sealed.save(sealed_path(path))
        except BaseException:
            ledger.close()
            path.unlink()
            raise
    parts.sealed_file = bool(seal)
    parts.session = _with_ledger(parts.session, ledger)
    _close_parent(params.get("parent"), path)
    _warn_uncertified(parts, insecure)
    return parts


def reopen(
    path: Path, X: Any, y: Any, train: tuple[Any, Any] | None, groups: Any, weights: Any
) -> Parts:
    """Open a ledger, check that the rows are the ones it was created for."""
    ledger = Ledger.open(path)
    meta = ledger.meta()
    sealed = load(sealed_path(path)) if X is None else _build.sealed_data(X, y, groups, weights)
    if sealed.digest() != meta["holdout_sha256"]:
        raise HoldoutChangedError(
            f"The holdout rows are not those {path} was created for: their SHA-256 differs. Rows, "
            "order, columns, dtypes, groups and weights must be the same."
        )
    parts = assemble(sealed, meta, ledger.key(), _check_train(train), ledger=ledger)
    parts.sealed_file = sealed_path(path).exists()
    return parts


def sealed_path(path: Path) -> Path:
    """File with the rows, beside the ledger."""
    return path.with_name(path.name + ".holdout.npz")


def assemble(
    sealed: Sealed,
    meta: Mapping[str, Any],
    key: bytes,
    train: tuple[Any, Any] | None,
    *,
    ledger: Ledger | None,
) -> Parts:
    """Mechanism, blocks and session from what the ledger fixes."""
    name = meta["mechanism"]
    cls = _build.MECHANISMS[name]
    noise = KeyedNoise(key)
    params = dict(meta["params"])
    setup = {extra: params.pop(extra) for extra in _EXTRA.get(name, ()) if extra in params}
    rounds = (params.get("rounds") or meta["max_queries"]) if name == "split_rounds" else None
    fraction = 1.0
    if name == "guess_and_check":
        fraction = setup.get("check_fraction") or (1.0 if meta["n_train"] else 0.5)
        if not 0 < fraction <= 1:
            raise ParameterError(f"check_fraction must lie in (0, 1]. Got {fraction!r}.")
    elif name == "stable_quantile":
        rounds = _groups_of(sealed, setup.get("records_per_group"))
    blocks = _build.cut(sealed, noise, rounds=rounds, check_fraction=fraction)
    n = blocks.records("check" if "check" in blocks.parts else "all")
    if name == "stable_quantile":
        n = int(rounds or 0)
    cells, histogram, n_cells = _cells(sealed, setup.get("levels"), name)
    if n_cells:
        params["n_cells"] = n_cells
    reference = _build.reference_influence(blocks, setup) if name == "gaussian" else None
    plan = make_plan(
        n,
        meta["max_queries"],
        meta["beta"] * math.exp(-meta["parent_log_desc"]),
        meta["width"],
        n_train=meta["n_train"],
        profile=None if reference is None else _build.profile_of(reference),
        statistic=setup.get("statistic", "mean"),
        span=_build.statistic_span(setup),
        spent_mu2=meta["parent_mu2"],
        force=meta["force"],
    )
    engine = cls(plan, **params)
    certified = engine.certified and not meta["insecure"] and engine.radius < math.inf
    classes = _classes(sealed)
    sigma = _guess_sigma(engine, setup.get("guess_sigma")) if "guess" in blocks.parts else None
    session = Session(ledger, engine, noise, certified, sigma)  # type: ignore[arg-type]
    return Parts(
        session,
        blocks,
        dict(meta),
        train,
        blocks.records("all"),
        n_cells or len(sealed),
        False,
        classes,
        _build.decoy_maker(train, classes),
        cells,
        histogram,
        reference,
    )


def _with_ledger(session: Session, ledger: Ledger) -> Session:
    return Session(ledger, session.mechanism, session.noise, session.certified, session.guess_sigma)


def _check_train(train: Any) -> tuple[Any, Any] | None:
    if train is None:
        return None
    if not isinstance(train, tuple) or len(train) != 2 or not len(train[0]):
        raise ParameterError("train must be a pair (X, y) with at least 1 row.")
    X = train[0] if hasattr(train[0], "columns") else np.asarray(train[0])
    return X, None if train[1] is None else np.asarray(train[1])


def _key(params: Mapping[str, Any]) -> tuple[bytes, bool]:
    seed = params.get("random_state")
    if seed is None:
        return new_key(), False
    if not params.get("insecure_seed", False):
        raise ParameterError(
            "random_state makes the noise predictable: whoever knows it can subtract the noise. "
            "Leave it out (reveal_key lets others verify later), or pass insecure_seed=True for a "
            "simulation, whose answers are then not certified."
        )
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ParameterError(f"random_state must be an integer here. Got {seed!r}.")
    return key_from_seed(int(seed)), True


def _jsonable(params: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list, range)):
            return [plain(one) for one in value]
        return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value

    return {name: plain(value) for name, value in params.items()}


def _parent_path(parent: Any) -> Path:
    ledger = getattr(getattr(parent, "_parts", None), "session", None)
    if ledger is not None:
        if ledger.ledger.path is None:
            raise ParameterError("parent lives in memory; only ledger files can be continued.")
        return Path(ledger.ledger.path)
    return Path(parent)


def _refuse_second(path: Path, digest: str, parent: Any) -> None:
    allowed = None if parent is None else _parent_path(parent).resolve()
    for other, found in siblings(path):
        if found == digest and other.resolve() != allowed and not _closed(other):
            raise LedgerConflictError(
                f"{other} is already a ledger for these rows; a second one would refund its "
                "budget. Continue with ReusableHoldout.open, or pass parent= so that the budgets "
                "add and the old one is closed."
            )


def _closed(path: Path) -> bool:
    return Ledger.open(path).head()[2].startswith("continued in")


def _inherit(parent: Any, digest: str, mechanism: str, beta: float) -> dict[str, Any]:
    """Budget that an earlier ledger of the same rows has already spent."""
    if parent is None:
        return {"parent": None, "parent_mu2": 0.0, "parent_log_desc": 0.0}
    path = _parent_path(parent)
    ledger = Ledger.open(path)
    meta, state = ledger.meta(), ledger.state()
    if meta["holdout_sha256"] != digest:
        raise LedgerConflictError(f"parent={path} belongs to other rows.")
    mu2 = meta["parent_mu2"] + state.mu2_used
    log_desc = meta["parent_log_desc"]
    if meta["mechanism"] not in ("gaussian", "stable_quantile") and state.k_used:
        held = getattr(parent, "_parts", None)
        old = (held or reopen(path, None, None, None, None, None)).session.mechanism
        added = _build.log_transcripts(old, state.k_used, state.failures, state.log_desc)
        if added is None:
            raise LedgerConflictError(
                f"The budget of a {meta['mechanism']!r} ledger cannot be carried over; collect "
                "fresh data."
            )
        log_desc += added
    if mu2 > 0 and mechanism not in ("gaussian", "stable_quantile"):
        raise LedgerConflictError(
            f"Gaussian answers were given on these rows; continue with mechanism='gaussian', not "
            f"{mechanism!r}."
        )
    del beta
    return {"parent": str(path.resolve()), "parent_mu2": mu2, "parent_log_desc": log_desc}


def _close_parent(parent: Any, path: Path | None) -> None:
    if parent is not None:
        with Ledger.open(_parent_path(parent)).transaction() as transaction:
            transaction.close(f"continued in {path}")


def _warn_uncertified(parts: Parts, insecure: bool) -> None:
    engine = parts.session.mechanism
    if engine.name == "naive":
        return  # warns at the second question
    if insecure:
        warn(
            "insecure_seed=True: the noise is predictable, so answers are not certified. Use it "
            "for simulations only.",
            UncertifiedWarning,
        )
    elif not engine.certified:
        warn(
            f"mechanism={engine.name!r} with these parameters has no verified guarantee; its "
            "answers are not certified.",
            UncertifiedWarning,
        )


def _classes(sealed: Sealed) -> tuple[Any, ...] | None:
    """Public list of class labels, when the outcome looks like a class."""
    if sealed.y is None or sealed.y.ndim != 1:
        return None
    values = np.unique(sealed.y)
    return tuple(values.tolist()) if len(values) <= 50 else None


def _guess_sigma(engine: Mechanism, given: float | None) -> float:
    tau = float(getattr(engine, "tau", 0.1))
    if given is None:
        return min(0.01, tau / 8)
    if not given >= 0:
        raise ParameterError(f"guess_sigma must be at least 0. Got {given!r}.")
    if given > tau / 6:
        from causalfair.exceptions import CausalFairWarning

        warn(
            f"guess_sigma={given:g} is above tau/6={tau / 6:.3g}: noisy guesses will fail the "
            "check at once. Lower it.",
            CausalFairWarning,
        )
    return float(given)


def _groups_of(sealed: Sealed, size: Any) -> int:
    """Number of disjoint groups of records for the stable quantile."""
    if size is None:
        raise ParameterError(
            "mechanism='stable_quantile' needs records_per_group, the sample size "
            "at which the estimator is to be used."
        )
    n = len(sealed) if sealed.groups is None else int(sealed.groups.max()) + 1
    if size < 1 or n // size < 2:
        raise ParameterError(f"records_per_group must lie between 1 and {n // 2}. Got {size!r}.")
    return int(n // size)


def _cells(sealed: Sealed, levels: Any, name: str) -> tuple[Any, FloatArray | None, int]:
    """Cell of each row, histogram and number of cells of a finite universe."""
    if name != "multiplicative_weights":
        return None, None, 0
    from causalfair.adaptive._weights import encode_cells

    codes = np.asarray(sealed.X)
    if (
        codes.ndim != 2
        or codes.dtype.kind not in "biu"
        or sealed.groups is not None
        or (sealed.weights is not None)
    ):
        raise DataError(
            "mechanism='multiplicative_weights' needs X of shape (n, p) with integer "
            "codes 0, 1, ..., and neither groups nor sample_weight."
        )
    sizes = tuple(int(s) for s in (levels if levels is not None else [2] * codes.shape[1]))
    if len(sizes) != codes.shape[1] or min(sizes) < 2:
        raise ParameterError(
            f"levels must give at least 2 levels for each of {codes.shape[1]} "
            f"columns. Got {list(sizes)}."
        )
    n_cells = math.prod(sizes)
    if n_cells > 2**24:
        raise ParameterError(f"levels give {n_cells} cells; at most 2**24 are supported.")
    if codes.min() < 0 or np.any(codes.max(axis=0) >= sizes):
        raise DataError("A column of X has codes outside 0, ..., levels - 1.")
    cells = encode_cells(codes.astype(np.intp), sizes)
    histogram = np.bincount(cells, minlength=n_cells) / len(codes)
    return sizes, histogram, n_cells
