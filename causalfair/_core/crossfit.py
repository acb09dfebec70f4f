"""Cross-fitting: rows used to learn a nuisance are never scored with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from causalfair._core.learners import (
    Method,
    check_learner,
    describe_learner,
    fit_learner,
    predict_learner,
)
from causalfair._core.parallel import map_tasks
from causalfair._core.random import child_seed, int_seed, root_seed
from causalfair._core.typing import BoolArray, FloatArray, IntArray, RandomState
from causalfair._core.validation import clip_probability
from causalfair.exceptions import DataError, ParameterError

__all__ = [
    "CrossFitter",
    "FoldTask",
    "NuisanceSpec",
    "NuisanceTable",
    "make_folds",
    "out_of_fold",
    "take_rows",
]

Result = TypeVar("Result")
Key = str | tuple[str, str]


def take_rows(features: Any, rows: Any) -> Any:
    """Rows of a frame or an array, by position."""
    return features.iloc[rows] if hasattr(features, "iloc") else features[rows]


def make_folds(
    n: int,
    n_folds: int,
    *,
    seed: np.random.SeedSequence,
    stratify: Any = None,
    groups: IntArray | None = None,
) -> IntArray:
    """Random fold numbers 0, ..., n_folds - 1.

    Parameters
    ----------
    n : int
        Number of rows.
    n_folds : int
        Number of folds.
    seed : numpy.random.SeedSequence
        Seed of the split.
    stratify : array of shape (n,), optional
        Labels kept in proportion in every fold.
    groups : numpy.ndarray of shape (n,) or (n, c), optional
        Clusters that stay together. With several ways of clustering, those of the first way do.

    Returns
    -------
    numpy.ndarray of shape (n,)
        Fold numbers.

    Raises
    ------
    DataError
        More folds than rows or clusters, or a training set in which a stratum is missing.
    """
    if groups is not None:
        groups = groups if groups.ndim == 1 else groups[:, 0]
    units = n if groups is None else len(np.unique(groups))
    if units < n_folds:
        what = "rows" if groups is None else "clusters"
        raise DataError(f"n_folds={n_folds} needs at least as many {what}; there are {units}.")
    folds = np.empty(n, dtype=np.intp)
    splitter = _splitter(n_folds, int_seed(seed), stratify is not None, groups is not None)
    labels = np.zeros(n) if stratify is None else _codes(stratify, n_folds, groups is not None)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(n), labels, groups)):
        folds[test] = fold
    if stratify is not None:
        _check_strata(folds, np.asarray(stratify), n_folds)
    return folds


def _splitter(n_folds: int, seed: int, stratified: bool, grouped: bool) -> Any:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    kinds = {
        (False, False): KFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (True, True): StratifiedGroupKFold,
    }
    return kinds[stratified, grouped](n_splits=n_folds, shuffle=True, random_state=seed)


def _codes(stratify: Any, n_folds: int, grouped: bool) -> IntArray:
    labels, codes, counts = np.unique(np.asarray(stratify), return_inverse=True, return_counts=True)
    if not grouped and counts.min() < n_folds:
        rare = int(counts.argmin())
        raise DataError(
            f"only {counts[rare]} row(s) with {labels[rare]}, too few for n_folds={n_folds}: some "
            f"fold would have none. Use n_folds={max(2, counts[rare])} or fewer, or more data."
        )
    return np.asarray(codes).reshape(-1)


def _check_strata(folds: IntArray, labels: Any, n_folds: int) -> None:
    for label in np.unique(labels):
        member = labels == label
        for fold in range(n_folds):
            if not (member & (folds != fold)).any():
                raise DataError(
                    f"all {int(member.sum())} row(s) with {label} fall in fold {fold}, so its "
                    "training rows have none. Use fewer folds, or more data."
                )


@dataclass(frozen=True, slots=True)
class FoldTask:
    """One fold of one repeat.

    Attributes
    ----------
    repeat, fold : int
        Which one.
    train, test : numpy.ndarray of int
        Row numbers to learn from and to score.
    seed : numpy.random.SeedSequence
        Seed keyed by repeat and fold.
    """

    repeat: int
    fold: int
    train: IntArray
    test: IntArray
    seed: np.random.SeedSequence


@dataclass(frozen=True)
class NuisanceSpec:
    """One nuisance function to learn out of fold.

    Attributes
    ----------
    name : str
        Name of the nuisance.
    learner : estimator or mapping of str to estimator
        A learner, or several candidates kept apart.
    target : array of shape (n,) or callable
        What to predict. A callable gets the out-of-fold predictions of ``depends_on`` as a mapping
        and returns the array.
    features : pandas.DataFrame or array of shape (n, p)
        Predictors.
    rows : bool array of shape (n,), optional
        Rows to learn from; all rows are predicted.
    method : {"predict", "predict_proba"}
        Regression, or the probability of class 1.
    sample_weight : array of shape (n,) or callable, optional
        Weights of the fit.
    depends_on : tuple of str
        Nuisances whose predictions the target or the weights need.
    """

    name: str
    learner: Any
    target: Any
    features: Any
    rows: BoolArray | None = None
    method: Method = "predict"
    sample_weight: Any = None
    depends_on: tuple[str, ...] = ()

    def candidates(self) -> dict[str, Any]:
        """Learners by name; a single learner has the empty name."""
        return dict(self.learner) if isinstance(self.learner, Mapping) else {"": self.learner}


@dataclass
class NuisanceTable:
    """Out-of-fold predictions.

    Attributes
    ----------
    folds : numpy.ndarray of shape (n, n_repeats)
        Fold numbers.
    predictions : dict
        (name, candidate) -> array (n, n_repeats).
    losses : dict
        (name, candidate) -> out-of-fold RMSE, or log-loss for probabilities.
    clipped : dict
        (name, candidate) -> number of probabilities clipped.
    learners : dict
        (name, candidate) -> description; ``fitted`` holds models where they are kept.
    """

    folds: IntArray
    predictions: dict[tuple[str, str], FloatArray] = field(default_factory=dict)
    losses: dict[tuple[str, str], float] = field(default_factory=dict)
    methods: dict[tuple[str, str], Method] = field(default_factory=dict)
    clipped: dict[tuple[str, str], int] = field(default_factory=dict)
    learners: dict[tuple[str, str], str] = field(default_factory=dict)
    fitted: dict[tuple[str, str], list[list[Any]]] = field(default_factory=dict)

    def __getitem__(self, key: Key) -> FloatArray:
        return self.predictions[(key, "") if isinstance(key, str) else key]

    def fold_hash(self) -> str:
        """Digest of the split, for provenance."""
        return fold_hash(self.folds)

    def rows(self) -> list[list[str]]:
        """Rows ``nuisance, learner, out-of-fold loss`` for the summary."""
        out = []
        for (name, candidate), loss in self.losses.items():
            kind = "log-loss" if self.methods[name, candidate] == "predict_proba" else "RMSE"
            shown = self.learners[name, candidate]
            label = f"{candidate} ({shown})" if candidate else shown
            out.append([name, label, f"{kind} {loss:.3g}"])
        return out


def fold_hash(folds: IntArray) -> str:
    """Digest of fold numbers."""
    return hashlib.blake2b(folds.astype(np.int64).tobytes(), digest_size=8).hexdigest()


@dataclass
class CrossFitter:
    """Split, learn on the training part, predict the rest; repeated and in parallel.

    Parameters
    ----------
    n_folds, n_repeats : int
        Folds of a split, and number of random splits.
    stratify : array of shape (n,), optional
        Labels kept in proportion.
    groups : array of shape (n,) or (n, c), optional
        Clusters, which never straddle folds.
    n_jobs : int, optional
        Workers.
    random_state : int, SeedSequence, Generator, RandomState or None
        Root of all seeds. A task's seed depends on (repeat, fold, nuisance, candidate) only.
    clip : float, default 0.01
        Probabilities are clipped to ``[clip, 1 - clip]``, and counted.
    keep_learners : bool, default False
        Keep fitted models.
    """

    n_folds: int = 5
    n_repeats: int = 1
    stratify: Any = None
    groups: IntArray | None = None
    n_jobs: int | None = None
    random_state: RandomState = None
    clip: float = 0.01
    keep_learners: bool = False

    def __post_init__(self) -> None:
        for name in ("n_folds", "n_repeats"):
            value, least = getattr(self, name), 2 if name == "n_folds" else 1
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ParameterError(f"{name}={value!r} must be an integer of at least {least}.")
        self._root = root_seed(self.random_state)

    def folds(self, n: int) -> IntArray:
        """Fold numbers (n, n_repeats)."""
        # Children 0 and 1 of a repeat: its split, and its tasks.
        return np.column_stack(
            [
                make_folds(
                    n,
                    self.n_folds,
                    seed=child_seed(self._root, repeat, 0),
                    stratify=self.stratify,
                    groups=self.groups,
                )
                for repeat in range(self.n_repeats)
            ]
        )

    def tasks(self, folds: IntArray) -> list[FoldTask]:
        """All (repeat, fold) pairs, in order."""
        return [
            FoldTask(
                repeat,
                fold,
                np.flatnonzero(folds[:, repeat] != fold),
                np.flatnonzero(folds[:, repeat] == fold),
                child_seed(self._root, repeat, 1, fold),
            )
            for repeat in range(folds.shape[1])
            for fold in range(self.n_folds)
        ]

    def map(
        self, fn: Callable[[FoldTask], Result], n: int, *, desc: str | None = "cross-fitting"
    ) -> list[list[Result]]:
        """Apply any function to every fold: ``result[repeat][fold]``.

        For work that the specifications of :meth:`run` cannot express, such as an inner cross-fit.
        ``fn`` is module-level, or a partial of one.
        """
        flat = map_tasks(fn, self.tasks(self.folds(n)), n_jobs=self.n_jobs, desc=desc)
        return [flat[r * self.n_folds : (r + 1) * self.n_folds] for r in range(self.n_repeats)]

    def run(self, specs: Sequence[NuisanceSpec], n: int, *, owner: str = "fit") -> NuisanceTable:
        """Out-of-fold predictions of every nuisance.

        Parameters
        ----------
        specs : sequence of NuisanceSpec
            What to learn; a nuisance comes after those it depends on.
        n : int
            Number of rows.
        owner : str
            Who asks, for messages.

        Returns
        -------
        NuisanceTable
            Predictions, losses, clip counts.
        """
        table = NuisanceTable(self.folds(n))
        tasks = self.tasks(table.folds)
        for index, spec in enumerate(specs):
            absent = [d for d in spec.depends_on if (d, "") not in table.predictions]
            if absent:
                raise ParameterError(
                    f"nuisance {spec.name!r} depends on {absent[0]!r}, which is not learned before "
                    "it by a single learner."
                )
            self._run_spec(index, spec, tasks, table, owner)
        return table

    def _run_spec(
        self,
        index: int,
        spec: NuisanceSpec,
        tasks: list[FoldTask],
        table: NuisanceTable,
        owner: str,
    ) -> None:
        targets = [_resolved(spec.target, spec, table, r) for r in range(self.n_repeats)]
        weights = [_resolved(spec.sample_weight, spec, table, r) for r in range(self.n_repeats)]
        for number, (candidate, learner) in enumerate(spec.candidates().items()):
            check_learner(learner, slot=f"{spec.name} learner", method=spec.method)
            work = partial(
                _fit_fold, spec, learner, (index, number), targets, weights, self.keep_learners
            )
            desc = f"{spec.name}{' ' + candidate if candidate else ''}"
            results = map_tasks(work, tasks, n_jobs=self.n_jobs, desc=desc)
            key = (spec.name, candidate)
            predictions = np.empty(table.folds.shape)
            for task, (values, _) in zip(tasks, results, strict=True):
                predictions[task.test, task.repeat] = values
            if self.keep_learners:
                models = [model for _, model in results]
                table.fitted[key] = [
                    models[r * self.n_folds : (r + 1) * self.n_folds] for r in range(self.n_repeats)
                ]
            if spec.method == "predict_proba":
                predictions, table.clipped[key] = clip_probability(
                    predictions, self.clip, owner=owner, what=spec.name
                )
            table.predictions[key] = predictions
            table.methods[key], table.learners[key] = spec.method, describe_learner(learner)
            table.losses[key] = _loss(predictions, targets, spec)


def _resolved(value: Any, spec: NuisanceSpec, table: NuisanceTable, repeat: int) -> Any:
    if not callable(value):
        return value
    return value({name: table[name][:, repeat] for name in spec.depends_on})


def _fit_fold(
    spec: NuisanceSpec,
    learner: Any,
    key: tuple[int, int],
    targets: list[FloatArray],
    weights: list[FloatArray | None],
    keep: bool,
    task: FoldTask,
) -> tuple[FloatArray, Any]:
    """Learn on the training rows of one fold and predict its test rows."""
    train = task.train if spec.rows is None else task.train[spec.rows[task.train]]
    if not len(train):
        raise DataError(
            f"fold {task.fold} has no rows to learn {spec.name!r} from; use fewer folds or more "
            "data."
        )
    weight = weights[task.repeat]
    model = fit_learner(
        learner,
        take_rows(spec.features, train),
        targets[task.repeat][train],
        seed=child_seed(task.seed, *key),
        sample_weight=None if weight is None else weight[train],
        slot=f"{spec.name} learner",
    )
    values = predict_learner(model, take_rows(spec.features, task.test), spec.method)
    return values, model if keep else None


def _loss(predictions: FloatArray, targets: list[FloatArray], spec: NuisanceSpec) -> float:
    """Out-of-fold RMSE or log-loss over the rows of the nuisance, averaged over repeats."""
    rows = slice(None) if spec.rows is None else spec.rows
    losses = []
    for repeat, target in enumerate(targets):
        p, t = predictions[rows, repeat], target[rows]
        if spec.method == "predict_proba":
            safe = np.clip(p, 1e-12, 1 - 1e-12)
            losses.append(-np.mean(t * np.log(safe) + (1 - t) * np.log1p(-safe)))
        else:
            losses.append(np.sqrt(np.mean((t - p) ** 2)))
    return float(np.mean(losses))


def out_of_fold(
    learner: Any,
    X: Any,
    y: FloatArray,
    *,
    n_folds: int,
    seed: np.random.SeedSequence,
    method: Method = "predict",
    groups: IntArray | None = None,
    stratify: Any = None,
    sample_weight: FloatArray | None = None,
    slot: str = "learner",
) -> FloatArray:
    """Out-of-fold predictions (n,) of one learner: the inner cross-fit.

    Parameters
    ----------
    learner : estimator
        Fitted anew in every fold.
    X : pandas.DataFrame or array of shape (n, p)
        Features.
    y : numpy.ndarray of shape (n,)
        Target.
    n_folds : int
        Folds.
    seed : numpy.random.SeedSequence
        Seed of the split and of the learners.
    method : {"predict", "predict_proba"}
        Kind of prediction.
    groups, stratify : arrays, optional
        As for :func:`make_folds`.
    sample_weight : numpy.ndarray of shape (n,), optional
        Weights.
    slot : str
        Name of the slot, for messages.

    Returns
    -------
    numpy.ndarray of shape (n,)
        Predictions by models that did not see the row.
    """
    folds = make_folds(len(y), n_folds, seed=child_seed(seed, 0), stratify=stratify, groups=groups)
    out = np.empty(len(y))
    for fold in range(n_folds):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        model = fit_learner(
            learner,
            take_rows(X, train),
            y[train],
            seed=child_seed(seed, 1, fold),
            sample_weight=None if sample_weight is None else sample_weight[train],
            slot=slot,
        )
        out[test] = predict_learner(model, take_rows(X, test), method)
    return out
