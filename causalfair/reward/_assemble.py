"""Steps of the estimator: the problem from the data, named estimates, new texts, summaries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from causalfair._core.random import child_seed
from causalfair._core.typing import FloatArray
from causalfair._core.validation import check_matrix
from causalfair.exceptions import DataError, ParameterError
from causalfair.reward._confounders import build_confounders
from causalfair.reward._data import (
    RewardData,
    fold_groups,
    hold_strata_together,
    read_outcome,
)
from causalfair.reward._encoders import make_featurizer
from causalfair.reward._features import as_texts
from causalfair.reward._methods import MethodFit, Problem, Stacked
from causalfair.reward._ridge import PENALTIES, make_gram, penalty_path
from causalfair.reward._score import pairwise_accuracy

__all__ = ["make_problem"]

MOST_TERMS = 60
TRUST_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def make_problem(
    estimator: Any, data: RewardData, root: np.random.SeedSequence, owner: str
) -> Problem:
    """Features, outcome and confounders as one least-squares problem."""
    X, blocks, names = _features(estimator, data, root)
    precision = _precision(data)
    confounders = _confounders(estimator, data, precision, owner)
    y, weight, notes = read_outcome(
        data, estimator.outcome, confounders.residualize, confounders.degrees_of_freedom(), owner
    )
    if weight is not precision and not np.array_equal(weight, precision):
        confounders = _confounders(estimator, data, weight, owner)
    estimator._notes = [*confounders.notes, *notes]
    estimator._confounder_names = ", ".join(confounders.names) or "none"
    if confounders.n_singletons:
        share = confounders.n_singletons / data.n
        estimator._notes.append(
            f"{confounders.n_singletons:,} row(s) ({share:.1%}) are alone in a level and say "
            "nothing about the text."
        )
    groups = fold_groups(data)
    split = hold_strata_together(groups, confounders.finest(), data.n, estimator.n_folds)
    problem = Problem(
        X, y, weight, confounders, blocks, names, None if estimator.penalty == "gcv" else groups,
        data.roles.cluster, estimator.n_folds, child_seed(root, 1), split,
    )  # fmt: skip
    return _trusting(estimator, data, problem)


def _precision(data: RewardData) -> FloatArray:
    """Weights to plan with: sampling precisions for rates, else the given weights."""
    if data.trials is None:
        return data.weight
    hits, trials = data.y, data.trials
    inside = (hits >= 0) & (hits <= trials) & (trials > 0)
    safe_hits, safe_trials = np.where(inside, hits, 0.0), np.where(inside, trials, 1.0)
    return 1 / (1 / (safe_hits + 0.5) + 1 / (safe_trials - safe_hits + 0.5))


def _features(
    estimator: Any, data: RewardData, root: np.random.SeedSequence
) -> tuple[FloatArray, Any, tuple[str, ...]]:
    if data.embedding is not None:
        estimator.featurizer_ = None
        blocks = np.array(["embedding"] * data.embedding.shape[1], dtype=object)
        return data.embedding, blocks, data.embedding_names
    featurizer = make_featurizer(estimator.features, child_seed(root, 0))
    assert data.texts is not None
    X = np.asarray(featurizer.fit_transform(data.texts), dtype=np.float64)
    estimator.featurizer_ = featurizer
    names = tuple(map(str, featurizer.get_feature_names_out()))
    blocks = getattr(featurizer, "blocks_", np.array(["text"] * X.shape[1], dtype=object))
    return X, blocks, names


def _confounders(estimator: Any, data: RewardData, weight: FloatArray, owner: str) -> Any:
    def build(rows: Any) -> Any:
        return build_confounders(
            *({k: np.asarray(v)[rows] for k, v in group.items()}
              for group in (data.categorical, data.numeric, data.time)),
            n=len(rows), weight=weight[rows], basis=estimator.numeric_basis, owner=owner,
            solver=estimator.solver,
        )  # fmt: skip

    if data.experiment is None:
        return build(np.arange(data.n))
    tested = np.flatnonzero(data.experiment >= 0)
    logged = np.flatnonzero(data.experiment < 0)
    parts = []
    if len(logged):
        parts.append((logged, build(logged)))
    if len(tested):
        ids = {"experiment": data.experiment[tested]}
        own = build_confounders(
            ids, {}, {}, n=len(tested), weight=weight[tested], owner=owner, solver=estimator.solver
        )
        parts.append((tested, own))
    return Stacked(parts, data.n)


def _trusting(estimator: Any, data: RewardData, problem: Problem) -> Problem:
    """Multiply the weight of randomised rows by ``trust``, chosen on held-out experiments."""
    if data.experiment is None or not (data.experiment >= 0).any():
        return problem
    tested = data.experiment >= 0
    if tested.all():
        estimator.trust_ = 1.0
        return problem
    if not isinstance(estimator.trust, str):
        estimator.trust_ = float(estimator.trust)
        return _scaled(problem, tested, estimator.trust_)
    losses = [_held_out_experiments(_scaled(problem, tested, k), tested) for k in TRUST_GRID]
    estimator.trust_path_ = np.column_stack([TRUST_GRID, losses])
    estimator.trust_ = float(TRUST_GRID[int(np.argmin(losses))])
    estimator._notes.append(
        f"randomised rows count {estimator.trust_:g} times, chosen on held-out experiments."
    )
    return _scaled(problem, tested, estimator.trust_)


def _scaled(problem: Problem, tested: Any, trust: float) -> Problem:
    weight = np.where(tested, trust, 1.0) * problem.weight
    weight = weight * (len(weight) / weight.sum())
    return replace(problem, weight=weight, _cache={})


def _held_out_experiments(problem: Problem, tested: Any) -> float:
    """Loss within experiments that were held out, at the best penalty of the path."""
    total = np.zeros(len(PENALTIES))
    for train, test, rows in problem.parts():
        gram = make_gram(
            train.within, train.y_within, train.weight, kept=train.share > 0, blocks=train.blocks
        )
        coef = penalty_path(gram)
        inside = tested[rows]
        gap = test.y_within[inside, None] - test.within[inside] @ coef
        total += (gap**2).sum(axis=0)
    return float(total.min() / tested.sum())


def held_out_accuracy(problem: Problem, scores: FloatArray) -> tuple[float, int]:
    """Accuracy of out-of-fold scores on pairs inside a stratum and a fold, and their number.

    Where numeric confounders vary inside strata, outcomes and scores are compared net of them.
    """
    pure = problem.confounders.is_pure
    cells = problem.confounders.strata() * problem.n_folds + problem.folds
    return pairwise_accuracy(
        scores if pure else problem.held_out(scores),
        problem.y if pure else problem.held_out(problem.y),
        cells,
        child_seed(problem.seed, 5),
    )


def named_estimates(fit: Any, problem: Problem, slope: Any, sample_id: str) -> Any:
    """Unpenalised effects of named features with their influence; else the calibration slope."""
    from causalfair.inference import InfluenceEstimates

    named = np.flatnonzero(problem.blocks != "text")
    if not isinstance(fit, MethodFit) or not len(named) or len(named) > MOST_TERMS:
        if slope is not None:
            return slope
        zeros = np.zeros((len(problem.y), 1))
        return InfluenceEstimates([0.0], zeros, ["calibration slope"], sample_id=sample_id)
    width = problem.X.shape[1]
    coef, psi = influence(fit, problem, np.eye(width)[named])
    return InfluenceEstimates(
        coef, psi - psi.mean(axis=0), [problem.names[j] for j in named],
        cluster=problem.cluster, sample_id=sample_id,
    )  # fmt: skip


def least_squares(fit: MethodFit, problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Design and target of the regression that inference rests on."""
    if fit.method == "subtract":  # the joint regression, which knows that g was estimated
        return problem.within, problem.y_within
    return fit.design, fit.target


def influence(fit: MethodFit, problem: Problem, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unpenalised ``rows @ beta`` (m,) and its influence (n, m), small-sample factor inside."""
    table = fit.inference
    design, target = least_squares(fit, problem)
    joint = fit.method == "subtract" or fit.project is None
    mapped = rows if joint else rows @ np.asarray(fit.project)
    psi = (problem.weight * (target - design @ table.coef))[:, None]
    psi = psi * (design @ (mapped @ table.inverse).T)
    psi *= np.sqrt(table.factor) * len(target) / problem.weight.sum()
    return mapped @ table.coef, psi


def new_features(estimator: Any, values: Any, owner: str) -> FloatArray:
    """Features (m, d) of new texts, a table, or an embedding."""
    width = estimator._n_features
    if estimator.featurizer_ is not None:
        name = estimator._text_name
        if hasattr(values, "columns"):
            if name not in values.columns:
                raise DataError(
                    f"{owner}: the table has no column {name!r}, which held the text in fit. "
                    f"Columns: {', '.join(map(str, list(values.columns)[:12]))}."
                )
            values = values[name]
        return np.asarray(estimator.featurizer_.transform(as_texts(values, owner=owner)))
    if hasattr(values, "columns"):
        lacking = [c for c in estimator._embedding_names if c not in values.columns]
        if lacking:
            raise DataError(
                f"{owner}: the table lacks embedding column(s) {', '.join(lacking[:8])}."
            )
        values = values[list(estimator._embedding_names)]
    elif isinstance(values, str) or (len(values) and isinstance(values[0], str)):
        raise DataError(
            f"{owner} got text, but the reward was fitted on an embedding; give an array (n, "
            f"{width}) made by the same encoder."
        )
    array = np.asarray(values, dtype=np.float64)
    matrix = check_matrix(array[None, :] if array.ndim == 1 else array, "X", owner=owner)
    if matrix.shape[1] != width:
        raise DataError(f"{owner}: X has {matrix.shape[1]} features; the reward has {width}.")
    return matrix


def contrast(estimator: Any, a: Any, b: Any) -> Any:
    """Unpenalised difference in reward between two texts."""
    from causalfair.inference import CovarianceEstimates

    owner = "DeconfoundedReward.contrast"
    if not hasattr(estimator, "coef_"):
        raise ParameterError(
            f'{owner} needs learner="ridge"; for other learners use rank(), whose spread comes '
            "from refits."
        )
    one = [x if not isinstance(x, str) else [x] for x in (a, b)]
    gap = np.subtract(*(estimator._matrix(x, owner)[0] for x in one))
    table = estimator._inference
    row = gap @ estimator._project_rows()
    names = (
        ["a - b"]
        if not (isinstance(a, str) and isinstance(b, str))
        else [f"{_short(a)} - {_short(b)}"]
    )
    df = None if estimator._n_clusters is None else float(estimator._n_clusters - 1)
    variance = float(row @ table.vcov @ row)
    return CovarianceEstimates([float(row @ table.coef)], [[max(variance, 0.0)]], names, df=df)


def _short(text: str, width: int = 24) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def explain(estimator: Any, text: Any, top: int) -> Any:
    """Contributions of n-grams and named features, largest first."""
    import pandas as pd

    if not hasattr(estimator, "coef_"):
        raise ParameterError('explain needs learner="ridge": other learners have no coefficients.')
    row = estimator._matrix([text] if isinstance(text, str) else text, "explain")[0]
    parts: list[tuple[str, str, float]] = []
    featurizer = estimator.featurizer_
    if featurizer is not None and hasattr(featurizer, "ngram_contributions"):
        words = featurizer.ngram_contributions(text, estimator.coef_)
        parts += [(word, "n-gram", value) for word, value in words.items()]
    for j, (name, block) in enumerate(zip(estimator._names, estimator._blocks, strict=True)):
        if block != "text":
            parts.append((name, "feature", float(row[j] * estimator.coef_[j])))
    parts.sort(key=lambda part: -abs(part[2]))
    return pd.DataFrame(parts[:top], columns=["part", "kind", "contribution"])


def summary_tables(estimator: Any) -> list[Any]:
    """How the reward was learnt and how it does on rows it did not see."""
    from causalfair.reporting import Table
    from causalfair.reporting.format import format_number

    rows = []
    if hasattr(estimator, "penalty_"):
        rows.append(["penalty (per sample)", f"{estimator.penalty_:.3g}"])
    if hasattr(estimator, "trust_"):
        rows.append(["trust in randomised rows", f"{estimator.trust_:g}"])
    slope = estimator.calibration_
    if slope is not None:
        low, high = slope.conf_int()[0]
        rows.append(
            ["calibration slope (1 = calibrated)",
             f"{slope.estimate[0]:.2f} [{low:.2f}, {high:.2f}]"]
        )  # fmt: skip
    rows.append(["reward variance within confounders", f"{estimator.overlap_:.1%}"])
    if estimator.n_pairs_:
        rows.append(
            ["held-out pairs in strata ordered right",
             f"{estimator.accuracy_:.1%} of {format_number(estimator.n_pairs_, 0)}"]
        )  # fmt: skip
    rows.append(["features", f"{estimator._n_features}"])
    return [Table(["reward", ""], rows, align="lr")]
