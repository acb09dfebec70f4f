"""High-dimensional fixed effects: plan once, residualise many columns."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalfair._core.typing import FloatArray
from causalfair.exceptions import ConvergenceError, DataError, ParameterError
from causalfair.reward import _absorb_plan as plans
from causalfair.reward._absorb_plan import Factor, Plan, factorize

__all__ = ["Absorber", "factorize"]

WIDTH = 8  # columns solved together: one cache line of float64
PATIENCE = 60  # conjugate-gradient steps before a factorisation is tried
SOLVERS = ("auto", "cg", "direct", "map")
ALLOWED = 1e-6  # largest group mean left, in standard deviations of the column


@dataclass(slots=True)
class _Block:
    """Columns ``start, ..., start + len(lanes) - 1`` on their way through the solver.

    Attributes
    ----------
    shift : (B,) subtracted first, so that sums do not cancel; spread : (B,) standard deviations.
    main : (L, B) sums by level of the eliminated factor, then its coefficients.
    rhs : (size, B) right side of the Schur system; v : (size, B) its solution.
    worst : largest group mean left, in units of what is allowed.
    """

    start: int
    lanes: tuple[float, ...]
    shift: FloatArray
    spread: FloatArray
    main: FloatArray
    rhs: FloatArray
    v: FloatArray
    steps: int = 0
    converged: bool = True
    worst: float = field(default=0.0)


class Absorber(BaseEstimator):
    """Residualise columns on factors with very many levels.

    The factor with most levels is eliminated exactly. The coefficients of the others solve the
    Schur complement that is left: in one pass when there is nothing left, by preconditioned
    conjugate gradients on blocks of up to eight columns, or by a sparse factorisation when the
    factors are weakly linked and the iterations stall. The result is verified.

    Parameters
    ----------
    solver : {"auto", "cg", "direct", "map"}, default "auto"
        ``"auto"`` starts with conjugate gradients and changes to the factorisation after 60 steps
        without convergence, where its size allows. ``"map"`` is the classical method of alternating
        projections, kept as a cross-check.
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
    keep_ : numpy.ndarray of bool of shape (n,)
        The other rows.
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
    pass over the codes and serves eight columns; the columns themselves are read twice, in order.
    Blocks of columns run on Numba's threads and give the same bits for any number of them.

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
        named = plans.named_factors(factors)
        coded = {name: plans.code_factor(column) for name, column in named.items()}
        for name, factor in coded.items():
            n = len(factor.codes)
            if n > 1 and len(factor.counts) == n:
                raise DataError(
                    f"Absorber.fit: factor {name!r} has as many levels as rows ({n}), so it "
                    "explains everything. It looks like a row identifier; leave it out."
                )
        return self._fit_coded(coded, weights)

    def _fit_coded(self, coded: dict[str, Factor], weights: Any) -> Absorber:
        """Plan from coded factors; rows alone in a level are set aside."""
        factors = list(coded.values())
        n = len(factors[0].codes)
        weight = plans.check_weights(weights, n)
        keep = plans.informative_rows(factors)
        whole = bool(keep.all())
        if not whole:
            factors = [plans.recode(factor, keep) for factor in factors]
            weight = None if weight is None else weight[keep]
        self.names_ = tuple(coded)
        self.n_rows_, self.keep_ = n, keep
        self.n_singletons_ = int(n - keep.sum())
        self.n_levels_ = tuple(len(factor.counts) for factor in factors)
        self._factors, self._whole = factors, whole
        self._plan = plans.make_plan(factors, weight)
        self._factored: Any = None
        self._diagonal: FloatArray | None = None
        self._components: int | None = None
        return self

    # What was absorbed ------------------------------------------------------------------------

    @property
    def n_components_(self) -> int:
        """Connected components of the first two factors."""
        if self._components is None:
            self._components = plans.count_components(self._factors)
        return self._components

    @property
    def df_absorbed_(self) -> int:
        """Degrees of freedom: ``L``, ``L1 + L2 - C``, and ``Lj - 1`` for further factors."""
        return self.degrees_of_freedom()

    def degrees_of_freedom(self, cluster: Any = None) -> int:
        """Absorbed degrees of freedom; factors nested in ``cluster`` count only as a constant.

        Parameters
        ----------
        cluster : array of shape (n,), optional
            Clusters of the standard errors.

        Returns
        -------
        int
            Degrees of freedom; exact for one and two factors, an upper bound for more.
        """
        factors = self._factors
        if cluster is not None:
            labels = factorize(np.asarray(cluster).reshape(self.n_rows_, -1)[:, 0])[0][self.keep_]
            factors = [f for f in factors if not plans.is_nested(f.codes, labels)]
        if not factors:
            return 1
        levels = [len(factor.counts) for factor in factors]
        if len(levels) == 1:
            return levels[0]
        linked = plans.count_components(factors)
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
        columns, flat = self._columns(A)
        kept = columns if self._whole else np.ascontiguousarray(columns[self.keep_])
        out = np.empty_like(kept)
        if len(kept):
            self._check(self._map(kept, out) if self.solver == "map" else self._solve(kept, out))
        if not self._whole:
            whole = np.zeros_like(columns)
            whole[self.keep_] = out
            out = whole
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
        columns, _ = self._columns(a)
        kept = np.ascontiguousarray(columns[self.keep_, :1])
        if not len(kept):
            return {name: np.empty(0) for name in self.names_}
        (block,) = self._solve(kept, np.empty_like(kept))
        plan, start = self._plan, 0
        names, v = self.names_, block.v[:, 0]
        if len(self.n_levels_) > 1:
            labels = dict(enumerate(plans.component_labels(self._factors)))
        parts = {}
        fitted = kept[:, 0].copy()
        for j in plan.others:
            part = v[start : start + self.n_levels_[j]]
            where = labels.get(j, np.zeros(len(part), dtype=np.intp))
            part = part - (np.bincount(where, part) / np.bincount(where).clip(1))[where]
            parts[names[j]] = part
            fitted -= part[self._factors[j].codes]
            start += self.n_levels_[j]
        parts[names[plan.eliminated]] = np.bincount(plan.main, plan.weight * fitted) / plan.total
        return {name: parts[name] for name in names}

    def _columns(self, A: Any) -> tuple[FloatArray, bool]:
        array = np.asarray(A, dtype=np.float64)
        flat = array.ndim == 1
        array = np.ascontiguousarray(array[:, None] if flat else array)
        if array.ndim != 2 or len(array) != self.n_rows_:
            raise DataError(
                f"Absorber.residualize: A has shape {np.shape(A)}; fit saw {self.n_rows_} rows, so "
                f"it needs ({self.n_rows_},) or ({self.n_rows_}, d)."
            )
        if not self._whole:  # otherwise the sums of the first pass tell
            _check_finite(array)
        return array, flat

    # Solvers ----------------------------------------------------------------------------------

    def _solve(self, columns: FloatArray, out: FloatArray) -> list[_Block]:
        """Sums by level, coefficients, residuals; each step for all blocks at once."""
        plan = self._plan
        d = columns.shape[1]
        sample = columns[:: max(1, len(columns) // 1024)].mean(axis=0)
        edges = np.linspace(0, d, _n_blocks(d) + 1).astype(int).tolist()
        empty = np.empty(0)
        blocks = [
            _Block(int(a), (0.0,) * int(b - a), sample[a:b], empty, empty, empty, empty)
            for a, b in pairwise(edges)
        ]
        _each(lambda block: _start(plan, columns, block), blocks)
        if not all(np.isfinite(block.spread).all() for block in blocks):
            _check_finite(columns)
        self.solver_used_ = "means"
        if plan.size:
            self.solver_used_ = "direct" if self.solver == "direct" else self._iterate(blocks)
            if self.solver_used_ == "direct":
                self._direct(blocks)
        _each(lambda block: _finish(plan, columns, out, block), blocks)
        self.n_iter_ = max(block.steps for block in blocks) if d else 0
        return blocks

    def _iterate(self, blocks: list[_Block]) -> str:
        """Conjugate gradients for all blocks; ``"direct"`` where any of them stalls."""
        from causalfair.reward import _kernels

        plan = self._plan
        if self._diagonal is None:
            diagonal = _kernels.schur_diagonal(
                plan.pointer, plan.sorted_codes, plan.sorted_weight, plan.total, plan.size
            )
            floor = 1e-12 * max(float(diagonal.max(initial=0.0)), np.finfo(float).tiny)
            self._diagonal = np.where(diagonal > floor, diagonal, np.inf)
        scale = self._diagonal[:, None]
        may_factor = self.solver == "auto" and plans.can_factor(plan)
        steps = min(PATIENCE, self.max_iter) if may_factor else self.max_iter
        stalled: list[bool] = []  # one block that stalls decides for all: no need to wait for it

        def solve(block: _Block) -> None:
            if not stalled:
                _conjugate_gradients(plan, scale, block, self.tol, steps)
                if may_factor and not block.converged:
                    stalled.append(True)

        _each(solve, blocks)
        return "direct" if stalled else "cg"

    def _direct(self, blocks: list[_Block]) -> None:
        """Sparse factorisation of the grounded Schur complement, with two refinements."""
        if self._factored is None:
            self._factored = plans.factor_schur(self._plan)
        matrix, solve = self._factored
        for block in blocks:
            v = solve(block.rhs)
            for _ in range(2):
                v = v + solve(block.rhs - matrix @ v)
            block.v, block.steps, block.converged = np.ascontiguousarray(v), 0, True

    def _map(self, columns: FloatArray, out: FloatArray) -> list[_Block]:
        """Classical alternating projections, one column at a time."""
        from causalfair.reward import _kernels

        _check_finite(columns)
        weight = np.ascontiguousarray(np.broadcast_to(self._plan.weight, len(columns)))
        codes = np.ascontiguousarray(np.column_stack([f.codes for f in self._factors]))
        offsets = np.concatenate([[0], np.cumsum(self.n_levels_)]).astype(np.int64)
        mass = np.concatenate([np.bincount(f.codes, weight, len(f.counts)) for f in self._factors])
        self.solver_used_, self.n_iter_ = "map", 0
        worst = 0.0
        for j in range(columns.shape[1]):
            values = columns[:, j].copy()
            spread = max(float(values.std()), np.finfo(float).tiny)
            sweeps = _kernels.map_sweeps(
                codes, weight, mass, offsets, values, self.tol * spread, self.max_iter
            )
            self.n_iter_ = max(self.n_iter_, int(sweeps))
            out[:, j] = values
            left = [
                np.abs(np.bincount(f.codes, weight * values) / m).max()
                for f, m in zip(self._factors, np.split(mass, offsets[1:-1]), strict=True)
            ]
            worst = max(worst, float(max(left)) / (ALLOWED * spread))
        empty = np.empty(0)
        return [_Block(0, (), empty, empty, empty, empty, empty, worst=worst)]

    def _check(self, blocks: list[_Block]) -> None:
        """Every weighted group mean of the result is zero to 1e-6 standard deviations."""
        worst = max((block.worst for block in blocks), default=0.0)
        if worst > 1:
            raise ConvergenceError(
                f"Absorber: the largest group mean left is {worst * ALLOWED:.2g} standard "
                f"deviations after {self.n_iter_} steps of solver={self.solver!r}; {ALLOWED:g} is "
                'allowed. Use solver="direct" for weakly linked factors, or raise max_iter.'
            )


def _check_finite(array: FloatArray) -> None:
    missing = int((~np.isfinite(array)).sum())
    if missing:
        raise DataError(
            f"Absorber.residualize: A has {missing} missing or infinite value(s); drop those rows."
        )


def _n_blocks(d: int) -> int:
    """Blocks of at most eight columns, two of them from five columns on."""
    return max(-(-d // WIDTH), min(2, -(-d // 4)), 1)


def _each(work: Callable[[_Block], None], blocks: list[_Block]) -> None:
    """Do the work for every block, on as many threads as Numba may use."""
    from causalfair.reward import _kernels

    threads = min(_kernels.get_num_threads(), len(blocks))
    if threads < 2:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, blocks))


def _start(plan: Plan, columns: FloatArray, block: _Block) -> None:
    """Sums by level and the right side of the Schur system."""
    from causalfair.reward import _kernels

    width = len(block.lanes)
    block.main = np.zeros((len(plan.total), width))
    block.rhs = np.zeros((plan.size, width))
    moments = np.zeros((2, width))
    _kernels.sum_levels(
        plan.main, plan.codes, plan.weight, block.lanes, plan.links, columns, block.start,
        block.shift, block.main, block.rhs, moments,
    )  # fmt: skip
    n = len(columns)
    block.spread = np.sqrt(np.maximum(moments[1] / n - (moments[0] / n) ** 2, 0.0))
    block.v = np.zeros_like(block.rhs)
    if plan.size:
        _kernels.subtract_means(
            plan.pointer, plan.sorted_codes, plan.sorted_weight, block.lanes, plan.links,
            block.main / plan.total[:, None], block.rhs,
        )  # fmt: skip


def _finish(plan: Plan, columns: FloatArray, out: FloatArray, block: _Block) -> None:
    """Residuals, and the largest group mean that is left in them."""
    from causalfair.reward import _kernels

    _kernels.main_effects(
        plan.pointer, plan.sorted_codes, plan.sorted_weight, plan.total, block.lanes, plan.links,
        block.v, block.main,
    )  # fmt: skip
    left = np.zeros_like(block.v)
    _kernels.subtract_effects(
        plan.main, plan.codes, plan.weight, block.lanes, plan.links, columns, block.start,
        block.shift, block.main, block.v, out, left,
    )  # fmt: skip
    # Means by level of the eliminated factor vanish by construction; those of the others need not.
    means = np.abs(left / plan.level_total[:, None]).max(axis=0, initial=0.0)
    rounding = 1e-12 * (np.abs(block.shift) + block.spread) + np.finfo(float).tiny
    block.worst = float((means / (ALLOWED * block.spread + rounding)).max(initial=0.0))


def _conjugate_gradients(
    plan: Plan, scale: FloatArray, block: _Block, tol: float, steps: int
) -> None:
    """Jacobi-preconditioned conjugate gradients, all columns of a block in step."""
    from causalfair.reward import _kernels

    v, residual = np.zeros_like(block.rhs), block.rhs.copy()
    preconditioned = residual / scale
    direction = preconditioned.copy()
    norm = (residual * preconditioned).sum(axis=0)
    # A right side that is rounding error counts as zero.
    noise = (np.finfo(float).eps * (np.abs(block.shift) + block.spread)) ** 2 * len(plan.main)
    goal = np.maximum(norm * tol**2, noise)
    moved = np.empty_like(v)
    for step in range(steps + 1):
        live = norm > goal
        block.steps, block.converged = step, not live.any()
        if block.converged or step == steps:
            break
        _kernels.schur_product(
            plan.pointer, plan.sorted_codes, plan.sorted_weight, plan.total, block.lanes,
            plan.links, direction, moved,
        )  # fmt: skip
        curvature = (direction * moved).sum(axis=0)
        live &= curvature > 0
        alpha = np.where(live, norm / np.where(live, curvature, 1.0), 0.0)
        v += alpha * direction
        residual -= alpha * moved
        preconditioned = residual / scale
        new = (residual * preconditioned).sum(axis=0)
        beta = np.where(live, new / np.where(live, norm, 1.0), 0.0)
        direction = preconditioned + beta * direction
        norm = np.where(live, new, norm)
    block.v = v
