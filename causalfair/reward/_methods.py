"""The methods as least-squares problems: the orthogonal default, the paper's, and the baselines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.reward._confounders import Confounders
from causalfair.reward._ridge import (
    UNIDENTIFIED,
    Gram,
    RidgeFit,
    Sandwich,
    make_gram,
    ridge,
    sandwich,
    within_share,
)

__all__ = ["METHODS", "Problem", "Stacked", "fit_method", "fold_coefficients", "out_of_fold_scores"]

METHODS = ("orthogonal", "subtract", "naive", "as_feature", "residual_y", "invariant")
MOST_DUMMIES = 2_000


@dataclass
class Stacked:
    """Observational rows absorb the confounders, randomised rows their experiment."""

    parts: list[tuple[IntArray, Confounders]]
    n: int

    def residualize(self, A: FloatArray) -> FloatArray:
        """Residuals of every part within itself."""
        out = np.empty(A.shape)
        for rows, confounders in self.parts:
            out[rows] = confounders.residualize(A[rows])
        return out

    def fitted(self, a: FloatArray) -> FloatArray:
        """What the confounders, or experiments, explain of a column."""
        return a - self.residualize(a)

    def degrees_of_freedom(self, cluster: Any = None) -> int:
        """Degrees of freedom absorbed by all parts."""
        return sum(
            part.degrees_of_freedom(None if cluster is None else cluster[rows])
            for rows, part in self.parts
        )

    def subset(self, rows: IntArray) -> Stacked:
        """The same parts on some of the rows."""
        place = np.full(self.n, -1, dtype=np.intp)
        place[rows] = np.arange(len(rows))
        parts = []
        for own, confounders in self.parts:
            inside = np.flatnonzero(place[own] >= 0)
            if len(inside):
                parts.append((place[own[inside]], confounders.subset(inside)))
        return Stacked(parts, len(rows))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all confounders."""
        return tuple(dict.fromkeys(name for _, part in self.parts for name in part.names))

    @property
    def notes(self) -> list[str]:
        """Notes of all parts."""
        return [note for _, part in self.parts for note in part.notes]

    @property
    def n_singletons(self) -> int:
        """Rows alone in a level."""
        return sum(part.n_singletons for _, part in self.parts)

    def strata(self) -> IntArray:
        """Cells of all factors; cells of different parts differ."""
        out, start = np.empty(self.n, dtype=np.intp), 0
        for rows, part in self.parts:
            codes = part.strata()
            out[rows] = codes + start
            start += int(codes.max()) + 1
        return out

    def design(self) -> Any:
        """Sparse block-diagonal design of all parts."""
        from scipy import sparse

        order = np.concatenate([rows for rows, _ in self.parts])
        blocks = sparse.block_diag([part.design() for _, part in self.parts]).tocsr()
        return blocks[np.argsort(order)]

    def frame(self) -> FloatArray:
        """Columns for tree learners: which part, and the cell inside it."""
        return np.column_stack([self.strata().astype(float)])


@dataclass
class Problem:
    """One reward to learn: features, outcome, weights, confounders, groups of rows.

    Attributes
    ----------
    X : (n, d) features; y : (n,); weight : (n,), mean one.
    confounders : residual-maker; blocks : (d,) ``"text"``, ``"style"`` or ``"embedding"``.
    groups : (n,) rows that share a fold, or None; cluster : (n, c) or None.
    """

    X: FloatArray
    y: FloatArray
    weight: FloatArray
    confounders: Any
    blocks: Any
    names: tuple[str, ...]
    groups: IntArray | None
    cluster: IntArray | None
    n_folds: int
    seed: np.random.SeedSequence
    _cache: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mean = np.average(self.X, axis=0, weights=self.weight)
        self.y_mean = float(np.average(self.y, weights=self.weight))

    def resplit(self, repeat: int) -> Problem:
        """The same problem with other folds; repeat 0 is the problem itself."""
        if repeat == 0:
            return self
        other = replace(self, seed=child_seed(self.seed, 7, repeat), _cache={})
        other._cache.update(
            {k: v for k, v in self._cache.items() if k in ("centred", "within", "share", "y")}
        )
        return other

    def _cached(self, key: str, make: Any) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    @property
    def centred(self) -> FloatArray:
        """``X`` less its weighted mean."""
        return self._cached("centred", lambda: self.X - self.mean)  # type: ignore[no-any-return]

    @property
    def within(self) -> FloatArray:
        """``X`` residualised; columns that do not vary within strata are exactly zero."""

        def make() -> FloatArray:
            out = self.confounders.residualize(self.centred)
            self._cache["share"] = within_share(out, self.X, self.weight)
            out[:, self._cache["share"] < UNIDENTIFIED] = 0.0
            return out  # type: ignore[no-any-return]

        return self._cached("within", make)  # type: ignore[no-any-return]

    @property
    def share(self) -> FloatArray:
        """Share (d,) of each feature's variance left within the confounders."""
        _ = self.within
        return self._cache["share"]  # type: ignore[no-any-return]

    @property
    def y_within(self) -> FloatArray:
        """Residualised outcome."""
        return self._cached("y", lambda: self.confounders.residualize(self.y))  # type: ignore[no-any-return]

    @property
    def folds(self) -> IntArray:
        """Fold of each row; clusters, duplicate texts and experiments stay together."""
        return self._cached(  # type: ignore[no-any-return]
            "folds",
            lambda: make_folds(
                len(self.y), self.n_folds, seed=child_seed(self.seed, 0), groups=self.groups
            ),
        )

    def residual_folds(self) -> list[Gram]:
        """Cross products of every fold, residualised on the fold's own strata."""

        def make() -> list[Gram]:
            out = []
            for fold in range(self.n_folds):
                rows = np.flatnonzero(self.folds == fold)
                own = self.confounders.subset(rows)
                X, y = own.residualize(self.centred[rows]), own.residualize(self.y[rows])
                out.append(make_gram(X, y, self.weight[rows], kept=np.ones(X.shape[1], bool)))
            return out

        return self._cached("held out", make)  # type: ignore[no-any-return]


@dataclass
class MethodFit:
    """What one method learnt.

    Attributes
    ----------
    coef : (d,) reward per unit of each feature.
    ridge : penalty, path and effective size.
    inference : unpenalised (where the method has one) coefficients and covariance.
    design, target : (n, p), (n,) the least-squares problem behind it.
    gram : its cross products; project : (d, p) from its coefficients to ``coef``.
    confounder_effect : (n,) estimate of g(W), centred; zero for ``naive``.
    """

    method: str
    coef: FloatArray
    ridge: RidgeFit
    inference: Sandwich
    design: FloatArray
    target: FloatArray
    gram: Gram
    project: FloatArray | None
    confounder_effect: FloatArray


def fit_method(problem: Problem, method: str, penalty: float | None) -> MethodFit:
    """Fit one method to a problem.

    Parameters
    ----------
    problem : Problem
        The data.
    method : str
        One of ``METHODS``.
    penalty : float or None
        Per-sample penalty relative to the variances of the columns; None chooses it.

    Returns
    -------
    MethodFit
        Coefficients and what inference needs.

    Raises
    ------
    IdentificationError
        No feature varies within the strata of the confounders.
    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r} must be one of {', '.join(METHODS)}.")
    kept = problem.share >= UNIDENTIFIED
    if not kept.any():
        raise IdentificationError(
            "text does not vary within the confounder strata: none of the "
            f"{problem.X.shape[1]} text features has variance left once "
            f"{', '.join(problem.confounders.names) or 'nothing'} is held fixed, so no effect of "
            "the text is identified. Use coarser confounders, or data in which texts vary."
        )
    joint = _least_squares(problem, problem.within, problem.y_within, penalty, kept, within=True)
    effect = _confounder_effect(problem, joint[1].coef)
    if method == "orthogonal":
        return _finish(problem, method, problem.within, problem.y_within, joint, None, effect)
    if method == "subtract":
        target = problem.y - effect - problem.y_mean
        solved = _least_squares(problem, problem.centred, target, penalty, _varies(problem))
        fit = _finish(problem, method, problem.centred, target, solved, None, effect)
        # The standard error must know that g was estimated: that of the joint regression does.
        reference = _finish(
            problem, "orthogonal", problem.within, problem.y_within, joint, None, effect
        )
        fit.inference = reference.inference
        return fit
    if method == "residual_y":
        target = problem.y_within
        solved = _least_squares(problem, problem.centred, target, penalty, _varies(problem))
        outcome_only = problem.y - target - problem.y_mean
        return _finish(problem, method, problem.centred, target, solved, None, outcome_only)
    centred_y = problem.y - problem.y_mean
    none = np.zeros_like(problem.y)
    if method == "as_feature":
        design = np.hstack([problem.centred, _dummies(problem)])
        solved = _least_squares(problem, design, centred_y, penalty, design.var(axis=0) > 0)
        project = np.eye(problem.X.shape[1], design.shape[1])
        d = problem.X.shape[1]
        shown = design[:, d:] @ solved[1].coef[d:]
        return _finish(problem, method, design, centred_y, solved, project, shown)
    solved = _least_squares(problem, problem.centred, centred_y, penalty, _varies(problem))
    project = _invariance(problem, solved[0]) if method == "invariant" else None
    return _finish(problem, method, problem.centred, centred_y, solved, project, none)


def _varies(problem: Problem) -> BoolArray:
    spread = np.einsum("i,ij,ij->j", problem.weight, problem.centred, problem.centred)
    return np.asarray(
        spread > 1e-20 * np.einsum("i,ij,ij->j", problem.weight, problem.X, problem.X)
    )


def _dummies(problem: Problem) -> FloatArray:
    design = problem.confounders.design()
    if design.shape[1] > MOST_DUMMIES:
        raise ParameterError(
            f'method="as_feature" writes every level of the confounders as a column; there are '
            f"{design.shape[1]:,} and at most {MOST_DUMMIES:,} are supported. Use a method that "
            'absorbs them, such as "orthogonal".'
        )
    dense = design.toarray()
    return np.asarray(dense - np.average(dense, axis=0, weights=problem.weight))


def _least_squares(
    problem: Problem,
    X: FloatArray,
    y: FloatArray,
    penalty: float | None,
    kept: BoolArray,
    *,
    within: bool = False,
) -> tuple[Gram, RidgeFit]:
    blocks = np.concatenate([problem.blocks, ["confounder"] * (X.shape[1] - len(problem.blocks))])
    gram = make_gram(X, y, problem.weight, kept=kept, blocks=blocks)
    df = problem.confounders.degrees_of_freedom() if within else 1
    held_out = None
    if problem.groups is not None:
        scored = problem.residual_folds() if within else None
        held_out = _grouped_loss(problem, X, y, gram, scored)
    return gram, ridge(gram, penalty, df_absorbed=df, held_out=held_out)


def _fold_grams(problem: Problem, X: FloatArray, y: FloatArray) -> list[Gram]:
    out = []
    for fold in range(problem.n_folds):
        rows = problem.folds == fold
        kept = np.ones(X.shape[1], bool)
        out.append(make_gram(X[rows], y[rows], problem.weight[rows], kept=kept))
    return out


def _training(gram: Gram, part: Gram) -> tuple[FloatArray, FloatArray]:
    rest = gram.n - part.n
    return (gram.n * gram.xx - part.n * part.xx) / rest, (
        gram.n * gram.xy - part.n * part.xy
    ) / rest


def _grouped_loss(
    problem: Problem, X: FloatArray, y: FloatArray, gram: Gram, scored: list[Gram] | None
) -> Any:
    parts = _fold_grams(problem, X, y)

    def losses(path: Any) -> FloatArray:
        total = 0.0
        for part, test in zip(parts, scored or parts, strict=True):
            b = path(*_training(gram, part))
            quadratic = np.einsum("jm,jk,km->m", b, test.xx, b)
            total = total + test.n * (test.yy - 2 * b.T @ test.xy + quadratic)
        return np.asarray(total / gram.n)

    return losses


def _confounder_effect(problem: Problem, coef: FloatArray) -> FloatArray:
    """ĝ(W): what the confounders explain of the outcome once the text's part is taken out."""
    explained = problem.confounders.fitted(problem.y - problem.centred @ coef)
    return np.asarray(explained - np.average(explained, weights=problem.weight))


def _invariance(problem: Problem, gram: Gram) -> FloatArray:
    """Projection (d, d) of coefficients on those whose reward is uncorrelated with W.

    ``b - S^-1 C (C'S^-1 C)^-1 C' b`` with ``C`` spanning the covariances of X with functions of W.
    """
    between = problem.centred - problem.within
    shared = (problem.weight[:, None] * between).T @ between / gram.n
    root = np.sqrt(gram.scale)
    values, vectors = np.linalg.eigh(shared / np.outer(root, root))
    live = values > 1e-10  # of features with unit variance
    C = root[:, None] * vectors[:, live]
    solved = np.linalg.pinv(gram.xx, hermitian=True) @ C
    return np.asarray(np.eye(len(root)) - solved @ np.linalg.pinv(C.T @ solved) @ C.T)


def _finish(
    problem: Problem,
    method: str,
    design: FloatArray,
    target: FloatArray,
    solved: tuple[Gram, RidgeFit],
    project: FloatArray | None,
    effect: FloatArray,
) -> MethodFit:
    gram, fitted = solved
    cluster = problem.cluster
    own = method in ("orthogonal", "residual_y")
    nested = None if cluster is None or cluster.shape[1] > 1 else cluster[:, 0]
    df = problem.confounders.degrees_of_freedom(nested) if own else 1
    used = gram
    if method == "as_feature":  # without its penalty it would be the joint regression
        used = Gram(
            gram.xx + fitted.penalty * np.diag(gram.scale), gram.xy, gram.yy, gram.scale,
            gram.kept, gram.n,
        )  # fmt: skip
    n_used = len(problem.y) - problem.confounders.n_singletons
    table = sandwich(
        used, design, target, problem.weight, cluster=cluster, n_used=n_used, df_absorbed=df
    )
    coef = fitted.coef if project is None else project @ fitted.coef
    return MethodFit(method, coef, fitted, table, design, target, gram, project, effect)


def fold_coefficients(problem: Problem, fit: MethodFit) -> list[FloatArray]:
    """Reward coefficients (d,) learnt without each fold, at the chosen penalty."""
    out = []
    for part in _fold_grams(problem, fit.design, fit.target):
        xx, xy = _training(fit.gram, part)
        held = Gram(xx, xy, 0.0, fit.gram.scale, fit.gram.kept, fit.gram.n - part.n)
        coef = ridge(held, fit.ridge.penalty).coef
        out.append(coef if fit.project is None else fit.project @ coef)
    return out


def out_of_fold_scores(problem: Problem, fit: MethodFit) -> FloatArray:
    """Reward (n,) of each row by coefficients learnt without its fold, at the chosen penalty."""
    scores = np.empty(len(problem.y))
    for fold, coef in enumerate(fold_coefficients(problem, fit)):
        rows = problem.folds == fold
        scores[rows] = problem.centred[rows] @ coef
    return scores
