"""The methods as least-squares problems: the orthogonal default, the paper's, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from causalfair._core.crossfit import make_folds
from causalfair._core.random import child_seed
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import IdentificationError, ParameterError
from causalfair.reward._confounders import Confounders
from causalfair.reward._ridge import (
    PENALTIES,
    UNIDENTIFIED,
    Gram,
    RidgeFit,
    Sandwich,
    make_gram,
    ridge,
    sandwich,
    within_share,
)

__all__ = [
    "METHODS",
    "Problem",
    "Stacked",
    "fit_method",
    "fold_coefficients",
    "learn",
    "out_of_fold_scores",
]

METHODS = ("orthogonal", "subtract", "naive", "as_feature", "residual_y", "invariant")
MOST_DUMMIES = 2_000
MOST_HELD = 10_000_000  # entries of the features up to which all folds are held at once


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

    def without(self, name: str) -> Stacked:
        """All confounders but one."""
        parts = [
            (rows, part.without(name) if name in part.names else part) for rows, part in self.parts
        ]
        return Stacked(parts, self.n)

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
    def is_pure(self) -> bool:
        """Whether the confounders of all parts are factors alone."""
        return all(part.is_pure for _, part in self.parts)

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

    def finest(self) -> IntArray:
        """Level of the largest factor of each part; levels of different parts differ."""
        out, start = np.empty(self.n, dtype=np.intp), 0
        for rows, part in self.parts:
            codes = part.finest()
            out[rows] = start + (0 if codes is None else codes)
            start = int(out[rows].max()) + 1
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
    split : (n,) groups joined with small strata, so that a stratum is held out as a whole.
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
    split: IntArray | None = None
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
        if "share" not in self._cache:
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
                len(self.y), self.n_folds, seed=child_seed(self.seed, 0), groups=self.split
            ),
        )

    def take(self, rows: IntArray) -> Problem:
        """The same problem on some of the rows, residualised on these rows alone."""
        return Problem(
            self.X[rows], self.y[rows], self.weight[rows], self.confounders.subset(rows),
            self.blocks, self.names, None, None, self.n_folds, self.seed,
        )  # fmt: skip

    def parts(self) -> Iterator[tuple[Problem, Problem, IntArray]]:
        """Training problem, held-out problem and held-out rows of every fold.

        Each is residualised on its own rows: with small strata, means that straddle folds would
        tell the training rows about the held-out outcomes. The features of large problems are
        held for one fold at a time; what is small (cross products, confounders) is kept.
        """
        kept = self._cached("parts", list)
        for fold in range(self.n_folds):
            rows, others = np.flatnonzero(self.folds == fold), np.flatnonzero(self.folds != fold)
            if fold == len(kept):
                kept.append((self.take(others), self.take(rows)))
            train, test = kept[fold]
            for part, own in ((train, others), (test, rows)):
                if len(part.X) < len(own):
                    part.X = self.X[own]
            yield train, test, rows
            if self.X.size > MOST_HELD:
                train.release()
                test.release()

    def release(self) -> None:
        """Forget the features and what is as large as they are."""
        self.X = np.empty((0, self.X.shape[1]))
        self._cache.pop("centred", None)
        self._cache.pop("within", None)

    def held_out(self, values: FloatArray) -> FloatArray:
        """Values (n,) residualised fold by fold on the fold's own strata."""
        out = np.empty(len(values))
        for _, test, rows in self.parts():
            out[rows] = test.confounders.residualize(values[rows])
        return out


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


@dataclass
class System:
    """The least-squares problem behind a method, and what it says the confounders do.

    Attributes
    ----------
    design, target : (n, p), (n,); project : (d, p) from its coefficients to the text's, or None.
    kept : (p,) columns that vary; within : whether all columns are residualised.
    effect : (n,) estimate of g(W), centred.
    """

    design: FloatArray
    target: FloatArray
    kept: BoolArray
    effect: FloatArray
    project: FloatArray | None = None
    within: bool = False


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
    if not (problem.share >= UNIDENTIFIED).any():
        raise IdentificationError(
            "text does not vary within the confounder strata: none of the "
            f"{problem.X.shape[1]} text features has variance left once "
            f"{', '.join(problem.confounders.names) or 'nothing'} is held fixed, so no effect of "
            "the text is identified. Use coarser confounders, or data in which texts vary."
        )
    if method in ("orthogonal", "subtract"):
        joint = _within_system(problem)
        gram, fitted = _least_squares(problem, joint, penalty)
        joint.effect = _confounder_effect(problem, fitted.coef)
        if method == "orthogonal":
            return _finish(problem, method, joint, gram, fitted)
        system = _system(problem, method, joint.effect)
        fit = _finish(problem, method, system, *_least_squares(problem, system, penalty))
        # The standard error must know that g was estimated: that of the joint regression does.
        fit.inference = _finish(problem, "orthogonal", joint, gram, fitted).inference
        return fit
    system = _system(problem, method, None)
    gram, fitted = _least_squares(problem, system, penalty)
    if method == "invariant":
        system.project = _invariance(problem, gram)
    if method == "as_feature":
        d = problem.X.shape[1]
        system.effect = system.design[:, d:] @ fitted.coef[d:]
    return _finish(problem, method, system, gram, fitted)


def _within_system(problem: Problem) -> System:
    kept = problem.share >= UNIDENTIFIED
    return System(problem.within, problem.y_within, kept, np.zeros(len(problem.y)), within=True)


def _system(problem: Problem, method: str, effect: FloatArray | None) -> System:
    """Design and target of every method but the orthogonal one."""
    centred_y, none = problem.y - problem.y_mean, np.zeros(len(problem.y))
    varies = _varies(problem)
    if method == "subtract":
        assert effect is not None
        return System(problem.centred, centred_y - effect, varies, effect)
    if method == "residual_y":
        return System(problem.centred, problem.y_within, varies, centred_y - problem.y_within)
    if method == "as_feature":
        dummies = _dummies(problem)
        design = np.hstack([problem.centred, dummies])
        project = np.eye(problem.X.shape[1], design.shape[1])
        kept = np.concatenate([varies, dummies.var(axis=0) > 0])
        return System(design, centred_y, kept, none, project)
    return System(problem.centred, centred_y, varies, none)


def learn(problem: Problem, method: str, penalty: float) -> FloatArray:
    """Coefficients (d,) of a method at a given penalty, without inference."""
    if method in ("orthogonal", "subtract"):
        coef = ridge(_within_gram(problem), penalty).coef
        if method == "orthogonal":
            return coef
        system = _system(problem, method, _confounder_effect(problem, coef))
        return ridge(_gram(problem, system), penalty).coef
    system = _system(problem, method, None)
    gram = _gram(problem, system)
    project = _invariance(problem, gram) if method == "invariant" else system.project
    coef = ridge(gram, penalty).coef
    return coef if project is None else np.asarray(project @ coef)


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


def _gram(problem: Problem, system: System) -> Gram:
    extra = system.design.shape[1] - len(problem.blocks)
    blocks = np.concatenate([problem.blocks, ["confounder"] * extra])
    return make_gram(system.design, system.target, problem.weight, kept=system.kept, blocks=blocks)


def _within_gram(problem: Problem) -> Gram:
    """Cross products of the residualised problem, kept with it."""
    return problem._cached("gram", lambda: _gram(problem, _within_system(problem)))  # type: ignore[no-any-return]


def _least_squares(
    problem: Problem, system: System, penalty: float | None
) -> tuple[Gram, RidgeFit]:
    gram = _gram(problem, system)
    df = problem.confounders.degrees_of_freedom() if system.within else 1
    held_out = None
    if problem.groups is not None and penalty is None:
        folds = _fold_grams(problem, system, gram)
        held_out = partial(_grouped_loss, folds)
    return gram, ridge(gram, penalty, df_absorbed=df, held_out=held_out)


def _fold_grams(problem: Problem, system: System, gram: Gram) -> list[tuple[Gram, Gram]]:
    """Cross products of training and held-out rows; each residualised on its own, if at all."""
    if system.within:
        return [(_within_gram(train), _within_gram(test)) for train, test, _ in problem.parts()]
    out = []
    for fold in range(problem.n_folds):
        rows = problem.folds == fold
        X, y, w = system.design[rows], system.target[rows], problem.weight[rows]
        part = make_gram(X, y, w, kept=gram.kept)
        rest = gram.n - part.n
        xx, xy = gram.n * gram.xx - part.n * part.xx, gram.n * gram.xy - part.n * part.xy
        out.append((replace(gram, xx=xx / rest, xy=xy / rest, n=rest), part))
    return out


def _grouped_loss(folds: list[tuple[Gram, Gram]], path: Any) -> FloatArray:
    """Mean held-out loss of every penalty."""
    total, n = np.zeros(len(PENALTIES)), 0.0
    for train, test in folds:
        b = path(train.xx, train.xy)
        quadratic = np.einsum("jm,jk,km->m", b, test.xx, b)
        total += test.n * (test.yy - 2 * b.T @ test.xy + quadratic)
        n += test.n
    return total / n


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
    problem: Problem, method: str, system: System, gram: Gram, fitted: RidgeFit
) -> MethodFit:
    cluster = problem.cluster
    own = method in ("orthogonal", "residual_y")
    nested = None if cluster is None or cluster.shape[1] > 1 else cluster[:, 0]
    df = problem.confounders.degrees_of_freedom(nested) if own else 1
    used = gram
    if method == "as_feature":  # without its penalty it would be the joint regression
        used = replace(gram, xx=gram.xx + fitted.penalty * np.diag(gram.weight))
    table = sandwich(
        used, system.design, system.target, problem.weight, cluster=cluster,
        n_used=len(problem.y) - problem.confounders.n_singletons, df_absorbed=df,
    )  # fmt: skip
    coef = fitted.coef if system.project is None else system.project @ fitted.coef
    return MethodFit(
        method, coef, fitted, table, system.design, system.target, gram, system.project,
        system.effect,
    )  # fmt: skip


def fold_coefficients(problem: Problem, fit: MethodFit) -> list[FloatArray]:
    """Reward coefficients (d,) learnt without each fold, at the chosen penalty."""
    return [learn(train, fit.method, fit.ridge.penalty) for train, _, _ in problem.parts()]


def out_of_fold_scores(problem: Problem, fit: MethodFit) -> FloatArray:
    """Reward (n,) of each row by coefficients learnt without its fold, at the chosen penalty."""
    scores = np.empty(len(problem.y))
    for fold, coef in enumerate(fold_coefficients(problem, fit)):
        rows = problem.folds == fold
        scores[rows] = problem.centred[rows] @ coef
    return scores
