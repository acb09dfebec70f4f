"""High-dimensional fixed effects: plan once, residualise many columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import ConvergenceError, DataError, ParameterError

__all__ = ["Absorber", "factorize"]

CHUNKS = 4  # fixed, so that sums do not depend on the number of threads
PATIENCE = 60  # conjugate-gradient steps before a factorisation is tried
SOLVERS = ("auto", "cg", "direct", "map")


def factorize(values: Any) -> tuple[IntArray, Any]:
    """Codes 0, ..., L - 1 as int32, and the L levels; missing values are a level of their own."""
    array = np.asarray(values)
    if array.dtype.kind in "iub" and array.size:
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high <= 4 * len(array) + 1024:
            present = np.bincount(array.astype(np.intp, copy=False), minlength=high + 1) > 0
            levels = np.flatnonzero(present)
            if len(levels) == high + 1:
                return array.astype(np.int32, copy=False), levels
            return (np.cumsum(present, dtype=np.int32) - np.int32(1))[array], levels
    import pandas as pd

    codes, levels = pd.factorize(array, sort=False, use_na_sentinel=True)
    if (codes < 0).any():
        codes = np.where(codes < 0, len(levels), codes)
        levels = np.append(np.asarray(levels, dtype=object), None)
    return codes.astype(np.int32), levels


@dataclass(frozen=True, slots=True)
class _Plan:
    """Rows sorted by the eliminated factor.

    Attributes
    ----------
    order : (m,) rows of the user's array, sorted by the eliminated factor.
    pointer : (L + 1,) where each of its levels starts.
    codes : (m, F - 1) levels of the other factors, shifted into one vector of ``size`` levels.
    weight : (m,) weights; group_weight : (L,) their sums.
    chunks : boundaries of the fixed work chunks, in levels of the eliminated factor.
    """

    order: IntArray
    pointer: IntArray
    codes: Any
    weight: FloatArray
    group_weight: FloatArray
    chunks: IntArray
    size: int


class Absorber(BaseEstimator):
    """Residualise columns on factors with very many levels.

    The factor with most levels is eliminated exactly. The coefficients of the others solve the
    Schur complement that is left: in one pass when there is nothing left, by preconditioned
    conjugate gradients on blocks of eight columns, or by a sparse factorisation when the factors
    are weakly linked and the iterations stall. The result is verified.

    Parameters
    ----------
    solver : {"auto", "cg", "direct", "map"}, default "auto"
        ``"auto"`` starts with conjugate gradients and changes to the factorisation after 60 steps
        without convergence. ``"map"`` is the classical method of alternating projections, kept as
        a cross-check.
    tol : float, default 1e-8
        Stop when the preconditioned residual norm falls below ``tol`` of its start.
    max_iter : int, default 1000
        Steps of conjugate gradients, or sweeps of alternating projections.

    Attributes
    ----------
    n_levels_ : tuple of int
        Levels of each factor among the rows that carry information.
    n_singletons_ : int
        Rows dropped because they are alone in a level; their residual is exactly zero.
    n_components_ : int
        Connected components of the first two factors.
    df_absorbed_ : int
        Degrees of freedom the factors take.
    solver_used_ : str
        How the last call was solved: ``"means"``, ``"cg"``, ``"direct"`` or ``"map"``.
    n_iter_ : int
        Steps of the last call.

    Raises
    ------
    DataError
        Lengths that differ, weights that are not positive, or a factor with one level a row.

    Notes
    -----
    With ``P`` the weighted projection on the eliminated factor and ``D`` the dummies of the others,
    ``(D'W(I - P)D) v = D'W(I - P) a`` and the residual is ``(I - P)(a - D v)``. One step costs one
    pass over the rows and serves eight columns.

    References
    ----------
    .. [1] S. Gaure (2013). OLS with multiple high dimensional category variables. Computational
       Statistics & Data Analysis 66, 8-18. doi:10.1016/j.csda.2013.03.024
    .. [2] P. Guimaraes and P. Portugal (2010). A simple feasible procedure to fit models with
       high-dimensional fixed effects. Stata Journal 10, 628-649. doi:10.1177/1536867X1101000406

    Examples
    --------
    >>> import numpy as np
    >>> firm, year = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> Absorber().fit([firm, year]).residualize(np.array([1.0, 2.0, 3.0, 5.0]))
    array([ 0.25, -0.25, -0.25,  0.25])
    """

    def __init__(self, solver: str = "auto", *, tol: float = 1e-8, max_iter: int = 1000) -> None:
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, factors: Any, weights: Any = None) -> Absorber:
        """Plan the absorption.

        Parameters
        ----------
        factors : array of shape (n,) or (n, F), sequence of arrays, mapping or frame
            One column a factor, of any type.
        weights : array of shape (n,), optional
            Positive weights.

        Returns
        -------
        Absorber
            Itself.
        """
        if self.solver not in SOLVERS:
            raise ParameterError(f"solver={self.solver!r} must be one of {', '.join(SOLVERS)}.")
        named = _named_factors(factors)
        coded = [factorize(column)[0] for column in named.values()]
        n = len(coded[0])
        _check_factors(named, coded)
        weight = _check_weights(weights, n)
        keep, stacked = _informative_rows(coded)
        kept = [c if keep.all() else factorize(c[keep])[0] for c in coded]
        del stacked
        self.names_ = tuple(named)
        self.n_rows_, self.keep_ = n, keep
        self.n_singletons_ = int(n - keep.sum())
        self.n_levels_ = tuple(int(c.max()) + 1 if c.size else 0 for c in kept)
        self._unit_weight = weights is None
        self._plan = _make_plan(kept, np.flatnonzero(keep), weight[keep], self.n_levels_)
        self._codes = kept
        self._factored: Any = None
        self._diagonal: Any = None
        self._components: int | None = None
        self._stalled = False
        return self

    # What was absorbed ------------------------------------------------------------------------

    @property
    def n_components_(self) -> int:
        """Connected components of the first two factors."""
        if self._components is None:
            self._components = _count_components(self._codes, self.n_levels_)
        return self._components

    @property
    def df_absorbed_(self) -> int:
        """Degrees of freedom: ``L``, ``L1 + L2 - C``, and ``Lj - 1`` for further factors."""
        return self.degrees_of_freedom()

    def degrees_of_freedom(self, cluster: Any = None) -> int:
        """Absorbed degrees of freedom, factors nested in ``cluster`` not counted.

        Parameters
        ----------
        cluster : array of shape (n,), optional
            Clusters of the standard errors.

        Returns
        -------
        int
            Degrees of freedom.
        """
        levels, codes = list(self.n_levels_), list(self._codes)
        if cluster is not None:
            labels = factorize(np.asarray(cluster).reshape(len(self.keep_), -1)[:, 0])[0]
            labels = labels[self.keep_]
            free = [j for j, c in enumerate(codes) if not _is_nested(c, labels)]
            levels, codes = [levels[j] for j in free], [codes[j] for j in free]
        if len(levels) < 2:
            return int(sum(levels))
        linked = _count_components(codes, tuple(levels))
        return int(levels[0] + levels[1] - linked + sum(level - 1 for level in levels[2:]))

    # Residuals --------------------------------------------------------------------------------

    def residualize(self, A: Any) -> FloatArray:
        """Residuals of columns on all factors.

        Parameters
        ----------
        A : array of shape (n,) or (n, d)
            Columns, without missing values.

        Returns
        -------
        numpy.ndarray of the shape of A
            Residuals; rows that are alone in a level are exactly zero.

        Raises
        ------
        ConvergenceError
            A weighted group mean of the result exceeds 1e-6 standard deviations.
        """
        check_is_fitted(self, "_plan")
        columns, flat = _columns(A, self.n_rows_)
        out = np.zeros_like(columns)
        if self.keep_.any():
            if self.solver == "map":
                self._project(columns, out)
            else:
                self._solve(columns, out)
            self._verify(columns, out)
        return out[:, 0] if flat else out

    def effects(self, a: Any) -> dict[str, FloatArray]:
        """Coefficients of the levels of every factor for one column.

        Parameters
        ----------
        a : array of shape (n,)
            The column.

        Returns
        -------
        dict of str to numpy.ndarray
            Factor -> coefficients of its levels, in the order of the codes among informative rows.
            Every factor but the eliminated one has mean zero inside a connected component; with
            two factors or more they are identified only within components.
        """
        check_is_fitted(self, "_plan")
        columns, _ = _columns(a, self.n_rows_)
        plan = self._plan
        block = np.ascontiguousarray(columns[plan.order, :1])
        fitted = block[:, 0].copy()
        main, others = _split(self.n_levels_)
        coefficient: dict[str, FloatArray] = {}
        if plan.size:
            from causalfair.reward import _kernels

            _kernels.centre_groups(plan.chunks, plan.pointer, plan.weight, plan.group_weight, block)
            v = self._coefficients(block)[:, 0]
            labels = _component_labels(self._codes, self.n_levels_)
            start = 0
            for j in others:
                part = v[start : start + self.n_levels_[j]]
                where = labels[j] if j in labels else np.zeros(len(part), dtype=np.intp)
                part = part - (np.bincount(where, part) / np.bincount(where))[where]
                coefficient[self.names_[j]] = part
                fitted -= part[plan.codes[:, others.index(j)] - start]
                start += self.n_levels_[j]
        sums = np.add.reduceat(plan.weight * fitted, plan.pointer[:-1])
        coefficient[self.names_[main]] = sums / plan.group_weight
        return {name: coefficient[name] for name in self.names_}

    def _solve(self, columns: FloatArray, out: FloatArray) -> None:
        from causalfair.reward import _kernels

        plan = self._plan
        self.solver_used_, self.n_iter_ = ("means" if not plan.size else "cg"), 0
        for start, stop in _blocks(columns.shape[1]):
            block = columns[plan.order, start:stop]
            block = np.ascontiguousarray(block)
            layout = (plan.chunks, plan.pointer)
            _kernels.centre_groups(*layout, plan.weight, plan.group_weight, block)
            if plan.size:
                v = self._coefficients(block)
                _kernels.subtract_fit(*layout, plan.codes, plan.weight, plan.group_weight, v, block)
            out[plan.order, start:stop] = block

    def _coefficients(self, centred: FloatArray) -> FloatArray:
        """Solve ``S v = D'W a`` for centred columns (m, B)."""
        from causalfair.reward import _kernels

        plan = self._plan
        parts = np.empty((len(plan.chunks) - 1, plan.size, centred.shape[1]))
        _kernels.scatter(plan.chunks, plan.pointer, plan.codes, plan.weight, centred, parts)
        rhs = _add(parts)
        if self.solver == "direct" or self._stalled:
            return self._direct(rhs)
        patience = PATIENCE if self.solver == "auto" else self.max_iter
        v, converged = self._conjugate_gradients(rhs, patience)
        if converged or self.solver == "cg":
            return v
        self._stalled = True
        return self._direct(rhs)

    def _operator(self, width: int) -> Any:
        from causalfair.reward import _kernels

        plan = self._plan
        shape = (len(plan.chunks) - 1, plan.size)
        layout = (plan.chunks, plan.pointer, plan.codes, plan.weight, plan.group_weight)
        if width == 1:
            single = np.empty(shape)

            def apply_one(v: FloatArray) -> FloatArray:
                _kernels.schur_apply1(*layout, np.ascontiguousarray(v[:, 0]), single)
                return _add(single)[:, None]

            return apply_one
        parts = np.empty((*shape, _kernels.WIDTH))
        padded = np.zeros((plan.size, _kernels.WIDTH))

        def apply_block(v: FloatArray) -> FloatArray:
            padded[:, : v.shape[1]] = v
            _kernels.schur_apply8(*layout, padded, parts)
            return _add(parts)[:, : v.shape[1]]

        return apply_block

    def _conjugate_gradients(self, rhs: FloatArray, steps: int) -> tuple[FloatArray, bool]:
        """Jacobi-preconditioned conjugate gradients, all columns of a block in step."""
        from causalfair.reward import _kernels

        plan = self._plan
        if self._diagonal is None:
            diagonal = _kernels.schur_diagonal(
                plan.pointer, plan.codes, plan.weight, plan.group_weight, plan.size
            )
            floor = 1e-12 * max(float(diagonal.max(initial=0.0)), np.finfo(float).tiny)
            self._diagonal = np.where(diagonal > floor, diagonal, np.inf)
        scale = self._diagonal[:, None]
        apply = self._operator(rhs.shape[1])
        v, residual = np.zeros_like(rhs), rhs.copy()
        preconditioned = residual / scale
        direction = preconditioned.copy()
        norm = (residual * preconditioned).sum(axis=0)
        goal = norm * self.tol**2
        for step in range(steps):
            if (norm <= goal).all():
                self.n_iter_ = max(self.n_iter_, step) if hasattr(self, "n_iter_") else step
                return v, True
            moved = apply(direction)
            curvature = (direction * moved).sum(axis=0)
            live = (norm > goal) & (curvature > 0)
            alpha = np.where(live, norm / np.where(curvature > 0, curvature, 1.0), 0.0)
            v += alpha * direction
            residual -= alpha * moved
            preconditioned = residual / scale
            new = (residual * preconditioned).sum(axis=0)
            beta = np.where(live, new / np.where(norm > 0, norm, 1.0), 0.0)
            direction = preconditioned + beta * direction
            norm = np.where(live, new, norm)
        self.n_iter_ = steps
        return v, bool((norm <= goal).all())

    def _direct(self, rhs: FloatArray) -> FloatArray:
        """Sparse factorisation of the grounded Schur complement, with two refinements."""
        self.solver_used_ = "direct"
        if self._factored is None:
            self._factored = _factor(self._plan)
        matrix, solve = self._factored
        v = solve(rhs)
        for _ in range(2):
            v = v + solve(rhs - matrix @ v)
        return np.ascontiguousarray(v)

    def _project(self, columns: FloatArray, out: FloatArray) -> None:
        """Classical alternating projections, one column at a time."""
        from causalfair.reward import _kernels

        codes = np.ascontiguousarray(np.column_stack(self._codes))
        offsets = np.concatenate([[0], np.cumsum(self.n_levels_)]).astype(np.int64)
        weight = np.empty(len(codes))
        weight[np.argsort(self._plan.order)] = self._plan.weight
        weight = self._plan.weight[np.argsort(self._plan.order)]
        mass = np.concatenate(
            [np.bincount(c, weight, L) for c, L in zip(self._codes, self.n_levels_, strict=True)]
        )
        self.solver_used_, self.n_iter_ = "map", 0
        for j in range(columns.shape[1]):
            values = columns[self.keep_, j].copy()
            tol = self.tol * max(float(values.std()), np.finfo(float).tiny)
            sweeps = _kernels.map_sweeps(codes, weight, mass, offsets, values, tol, self.max_iter)
            self.n_iter_ = max(self.n_iter_, int(sweeps))
            out[self.keep_, j] = values

    def _verify(self, columns: FloatArray, out: FloatArray) -> None:
        """Every weighted group mean is zero to 1e-6 standard deviations of its column."""
        from causalfair.reward import _kernels

        plan = self._plan
        spread = columns.std(axis=0)
        allowed = 1e-6 * np.where(spread > 0, spread, 1.0)
        worst = 0.0
        for start, stop in _blocks(out.shape[1]):
            block = np.ascontiguousarray(out[plan.order, start:stop])
            sums = _group_sums(plan, block)
            ratios = [np.abs(sums / plan.group_weight[:, None]).max(axis=0)]
            if plan.size:
                parts = np.empty((len(plan.chunks) - 1, plan.size, block.shape[1]))
                _kernels.scatter(plan.chunks, plan.pointer, plan.codes, plan.weight, block, parts)
                mass = self._level_weight()[:, None]
                ratios.append(np.abs(_add(parts) / mass).max(axis=0))
            worst = max(worst, float((np.max(ratios, axis=0) / allowed[start:stop]).max()))
        if worst > 1:
            raise ConvergenceError(
                f"Absorber: the largest group mean left is {worst * 1e-6:.2g} standard deviations "
                f"after {self.n_iter_} steps of solver={self.solver!r}; 1e-6 is allowed. Use "
                'solver="direct" for weakly linked factors, or raise max_iter.'
            )

    def _level_weight(self) -> FloatArray:
        plan = self._plan
        mass = np.zeros(plan.size)
        for column in plan.codes.T:
            mass += np.bincount(column, plan.weight, plan.size)
        return np.where(mass > 0, mass, 1.0)


def _named_factors(factors: Any) -> dict[str, Any]:
    if isinstance(factors, Mapping):
        return {str(k): np.asarray(v) for k, v in factors.items()}
    if hasattr(factors, "columns"):
        return {str(k): np.asarray(factors[k]) for k in factors.columns}
    if isinstance(factors, np.ndarray):
        columns = [factors] if factors.ndim == 1 else list(factors.T)
    elif isinstance(factors, Sequence) and len(factors) and np.ndim(factors[0]) == 1:
        columns = list(factors)
    else:
        raise DataError(
            "Absorber.fit needs factors as an (n, F) array, a list of (n,) arrays, a mapping or a "
            f"frame; got {type(factors).__name__}."
        )
    return {f"factor{j}": np.asarray(column) for j, column in enumerate(columns)}


def _check_factors(named: Mapping[str, Any], coded: list[IntArray]) -> None:
    lengths = {name: len(c) for name, c in zip(named, coded, strict=True)}
    if not lengths or len(set(lengths.values())) > 1 or not len(coded[0]):
        shown = ", ".join(f"{k} {v}" for k, v in lengths.items()) or "no factor"
        raise DataError(f"Absorber.fit: factors need one common, positive length; got {shown}.")
    n = len(coded[0])
    for name, codes in zip(named, coded, strict=True):
        if n > 1 and int(codes.max()) + 1 == n:
            raise DataError(
                f"Absorber.fit: factor {name!r} has as many levels as rows ({n}), so it explains "
                "everything. It looks like a row identifier; leave it out."
            )


def _check_weights(weights: Any, n: int) -> FloatArray:
    if weights is None:
        return np.ones(n)
    array = np.array(weights, dtype=np.float64)
    if array.shape != (n,):
        raise DataError(f"Absorber.fit: weights has shape {array.shape}; it needs ({n},).")
    bad = int((~(array > 0) | ~np.isfinite(array)).sum())
    if bad:
        raise DataError(
            f"Absorber.fit: {bad} of {n} weights are not positive and finite; drop those rows."
        )
    return array


def _columns(A: Any, n: int) -> tuple[FloatArray, bool]:
    array = np.asarray(A, dtype=np.float64)
    flat = array.ndim == 1
    array = array[:, None] if flat else array
    if array.ndim != 2 or len(array) != n:
        raise DataError(
            f"Absorber.residualize: A has shape {np.shape(A)}; fit saw {n} rows, so it needs ({n},) "
            f"or ({n}, d)."
        )
    missing = int((~np.isfinite(array)).sum())
    if missing:
        raise DataError(
            f"Absorber.residualize: A has {missing} missing or infinite value(s); drop those rows."
        )
    return array, flat


def _informative_rows(coded: list[IntArray]) -> tuple[BoolArray, Any]:
    from causalfair.reward import _kernels

    sizes = [int(c.max()) + 1 for c in coded]
    counts = [np.bincount(c, minlength=size) for c, size in zip(coded, sizes, strict=True)]
    if all(int(c.min()) > 1 for c in counts):
        return np.ones(len(coded[0]), dtype=bool), None
    stacked = np.ascontiguousarray(np.column_stack(coded))
    offsets = np.concatenate([[0], np.cumsum(sizes)])[:-1].astype(np.int64)
    keep = _kernels.drop_singletons(stacked, np.concatenate(counts).astype(np.int64), offsets)
    return keep, stacked


def _split(levels: tuple[int, ...]) -> tuple[int, list[int]]:
    """The eliminated factor, and the others with more than one level."""
    main = int(np.argmax(levels))
    others = [j for j in range(len(levels)) if j != main]
    return main, sorted(others, key=lambda j: -levels[j])


def _make_plan(
    codes: list[IntArray], rows: IntArray, weight: FloatArray, levels: tuple[int, ...]
) -> _Plan:
    from causalfair.reward import _kernels

    main, others = _split(levels)
    size = int(sum(levels[j] for j in others))
    if not len(rows):
        empty = np.zeros(1, dtype=np.int64)
        return _Plan(rows, empty, np.zeros((0, len(others)), np.int32), weight, weight, empty, size)
    order, pointer = _kernels.counting_sort(np.ascontiguousarray(codes[main]), levels[main])
    shifted = np.empty((len(rows), len(others)), dtype=np.int32)
    start = 0
    for column, j in enumerate(others):
        shifted[:, column] = codes[j][order]
        shifted[:, column] += start
        start += levels[j]
    sorted_weight = weight[order]
    total = np.add.reduceat(sorted_weight, pointer[:-1])
    wanted = 1 if size * CHUNKS > len(rows) else CHUNKS
    goals = np.linspace(0, len(rows), wanted + 1)[1:-1]
    inner = np.searchsorted(pointer, goals)
    chunks = np.concatenate([[0], inner, [len(pointer) - 1]]).astype(np.int64)
    source = order if len(rows) == rows[-1] + 1 else rows[order]
    return _Plan(source, pointer, shifted, sorted_weight, total, chunks, size)


def _group_sums(plan: _Plan, block: FloatArray) -> FloatArray:
    return np.asarray(np.add.reduceat(plan.weight[:, None] * block, plan.pointer[:-1], axis=0))


def _add(parts: FloatArray) -> FloatArray:
    """Sum of the chunks, in order."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def _blocks(d: int) -> list[tuple[int, int]]:
    """Blocks of eight columns; one or two left over go alone."""
    from causalfair.reward._kernels import WIDTH

    full = d - d % WIDTH
    blocks = [(start, start + WIDTH) for start in range(0, full, WIDTH)]
    if d - full > 2:
        return [*blocks, (full, d)]
    return [*blocks, *((j, j + 1) for j in range(full, d))]


def _factor(plan: _Plan) -> Any:
    """The Schur complement as a sparse matrix, and a solver for it."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    m, groups = len(plan.order), len(plan.pointer) - 1
    rows = np.repeat(np.arange(m), plan.codes.shape[1])
    dummies = sparse.csr_matrix(
        (np.ones(rows.size), (rows, plan.codes.ravel())), shape=(m, plan.size)
    )
    group = np.repeat(np.arange(groups), np.diff(plan.pointer))
    main = sparse.csr_matrix((plan.weight, (group, np.arange(m))), shape=(groups, m))
    cells = (main @ dummies).tocsr()
    within = dummies.T @ sparse.diags(plan.weight) @ dummies
    matrix = (within - cells.T @ sparse.diags(1 / plan.group_weight) @ cells).tocsc()
    ground = 1e-11 * float(matrix.diagonal().mean())
    grounded = (matrix + ground * sparse.eye(plan.size)).tocsc()
    factored = splu(
        grounded, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return matrix, factored.solve


def _component_labels(codes: list[IntArray], levels: tuple[int, ...]) -> dict[int, IntArray]:
    """Component of every level of the first two factors."""
    if len(codes) < 2:
        return {}
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    size = levels[0] + levels[1]
    links = sparse.coo_matrix(
        (np.ones(len(codes[0]), dtype=np.int8), (codes[0], codes[1] + levels[0])),
        shape=(size, size),
    )
    labels = connected_components(links, directed=False)[1]
    return {0: labels[: levels[0]], 1: labels[levels[0] :]}


def _count_components(codes: list[IntArray], levels: tuple[int, ...]) -> int:
    if len(codes) < 2:
        return levels[0] if codes else 0
    labels = _component_labels(codes, levels)
    return int(max(labels[0].max(), labels[1].max())) + 1


def _is_nested(codes: IntArray, cluster: IntArray) -> bool:
    """Whether every level lies in one cluster."""
    first = np.empty(int(codes.max()) + 1, dtype=cluster.dtype)
    first[codes] = cluster
    return bool((first[codes] == cluster).all())
