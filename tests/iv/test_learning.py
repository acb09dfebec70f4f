"""Nuisances of one fold: twin, no leakage, one-sided mode, rules for the effect, seeds."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from naive import iv_ml as naive
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalfair._core.crossfit import CrossFitter, FoldTask, make_folds
from causalfair._core.random import child_seed, root_seed
from causalfair.exceptions import DataError
from causalfair.iv._combinations import combination_nuisances
from causalfair.iv._effect import EffectProblem, constant_effect, linear_effect
from causalfair.iv._learning import _key, learn_fold
from causalfair.iv._plan import IVData, LearningPlan, gather
from causalfair.iv._simulate import make_invalid_iv

SLOTS = ("instrument", "treatment", "effect", "outcome", "confounding")


def simulated(n=600, *, seed=0, weight=False, **kwargs):
    frame, truth = make_invalid_iv(n, random_state=seed, **kwargs)
    rng = np.random.default_rng(seed)
    data = IVData(
        X=frame[["x1", "x2"]],
        z=frame["instrument"].to_numpy(float),
        a=frame["treatment"].to_numpy(float),
        y=frame["y"].to_numpy(float),
        weight=rng.uniform(0.5, 1.5, n) if weight else None,
        binary=kwargs.get("treatment") != "continuous",
        constant_arm=0 if kwargs.get("one_sided") else None,
    )
    return data, truth


def plan_of(classifier, regressor, *, binary=True, **kwargs):
    learners = {slot: {"only": regressor} for slot in SLOTS}
    learners["instrument"] = {"only": classifier}
    if binary:
        learners["treatment"] = {"only": classifier}
    return LearningPlan(learners, **kwargs)


def task_of(data, *, fold=0, seed=3):
    fitter = CrossFitter(5, 1, stratify=data.cells, random_state=seed)
    return fitter.tasks(fitter.folds(data.n))[fold]


@pytest.mark.parametrize("treatment", ["binary", "continuous"])
@pytest.mark.parametrize("inner_folds", [2, 3])
def test_fold_equals_naive(treatment, inner_folds):
    data, _ = simulated(800, treatment=treatment, weight=True)
    plan = plan_of(
        LogisticRegression(),
        LinearRegression(),
        binary=treatment == "binary",
        inner_folds=inner_folds,
    )
    task = task_of(data)
    fast = learn_fold(task, data=data, plan=plan)
    inner = make_folds(
        len(task.train),
        inner_folds,
        seed=child_seed(task.seed, _key("inner folds")),
        stratify=data.cells[task.train],
    )
    arrays = {"X": data.X.to_numpy(), "z": data.z, "a": data.a, "y": data.y, "w": data.weight}
    slow = naive.learned_fold(
        arrays, task.train, task.test, inner, LogisticRegression, LinearRegression
    )
    for name in ("pi", "lam", "beta", "m"):
        np.testing.assert_allclose(getattr(fast, name)[0], slow[name], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(fast.omega[0, 0], slow["omega"], rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(fast.mu[0, 0], slow["mu"], rtol=1e-8, atol=1e-9)
    if treatment == "continuous":
        np.testing.assert_allclose(fast.V[0], slow["V"], rtol=1e-8, atol=1e-9)


class Spy(BaseEstimator):
    """Remembers which rows it was fitted on and asked about; the row number is the covariate."""

    log: ClassVar[list[tuple[frozenset[int], frozenset[int]]]] = []

    def fit(self, X, y, sample_weight=None):
        self.rows_ = frozenset(X["row"].astype(int))
        self.value_ = float(np.mean(y))
        return self

    def _predict(self, X):
        Spy.log.append((self.rows_, frozenset(X["row"].astype(int))))
        return np.full(len(X), self.value_)


class SpyRegressor(RegressorMixin, Spy):
    def predict(self, X):
        return self._predict(X)


class SpyClassifier(ClassifierMixin, Spy):
    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.array([0, 1])
        return super().fit(X, y)

    def predict_proba(self, X):
        p = self._predict(X)
        return np.column_stack([1 - p, p])


@pytest.mark.parametrize("kwargs", [{}, {"treatment": "continuous"}, {"one_sided": True}])
def test_scored_rows_are_never_learned_from(kwargs):
    data, _ = simulated(800, **kwargs)
    data = IVData(
        X=pd.DataFrame({"row": np.arange(800.0)}),
        z=data.z,
        a=data.a,
        y=data.y,
        binary=data.binary,
        constant_arm=data.constant_arm,
    )
    plan = plan_of(SpyClassifier(), SpyRegressor(), binary=data.binary)
    task = task_of(data)
    Spy.log.clear()
    learn_fold(task, data=data, plan=plan)
    test, train = frozenset(task.test.tolist()), frozenset(task.train.tolist())
    assert Spy.log
    scored = [(fitted, asked) for fitted, asked in Spy.log if asked & test]
    assert scored
    assert all(not fitted & test for fitted, _ in Spy.log)
    # Residuals of the training rows come from models that did not see them, except where the
    # effect model is evaluated on its own training rows to define Y - beta A.
    inside = [(f, a) for f, a in Spy.log if a <= train]
    assert inside
    assert all(not f & a for f, a in inside)


def test_memorising_learners_do_not_leak():
    """Trees grown to single rows reproduce the training outcome; held-out rows must not see it."""
    data, _ = simulated(600)
    noise = np.random.default_rng(0).normal(size=600) * 100
    data = IVData(X=data.X, z=data.z, a=data.a, y=noise, binary=True)
    plan = plan_of(
        RandomForestClassifier(20, min_samples_leaf=20, random_state=0),
        RandomForestRegressor(20, bootstrap=False, max_features=1.0, random_state=0),
    )
    cross = CrossFitter(5, 1, stratify=data.cells, random_state=0)
    folds = cross.map(partial(learn_fold, data=data, plan=plan), data.n)[0]
    candidates, _ = gather(folds, data, plan)
    own = np.where(data.z == 1, candidates.m[0, 1], candidates.m[0, 0])
    assert abs(np.corrcoef(own, noise)[0, 1]) < 0.15


def test_one_sided_mode():
    data, _ = simulated(600, one_sided=True)
    plan = plan_of(LogisticRegression(), LinearRegression())
    fold = learn_fold(task_of(data), data=data, plan=plan)
    assert np.all(fold.lam[0, 0] == 0.0)
    assert np.all(fold.omega == 0.0)
    # The effect is the plain weighted regression of r_Y/r_A inside the other arm.
    known = LearningPlan({**plan.learners, "effect": {"only": "linear"}})
    np.testing.assert_allclose(
        learn_fold(task_of(data), data=data, plan=known).beta, fold.beta, rtol=1e-8
    )


def test_one_sided_score_is_augmented_weighting_of_the_treatment():
    data, _ = simulated(600, one_sided=True)
    plan = plan_of(LogisticRegression(), LinearRegression(), floor=1e-9)
    cross = CrossFitter(5, 1, stratify=data.cells, random_state=0)
    candidates, _ = gather(
        cross.map(partial(learn_fold, data=data, plan=plan), data.n)[0], data, plan
    )
    nu = combination_nuisances(candidates, (0, 0, 0, 0, 0))
    from causalfair.iv._scores import influence_scores

    phi = influence_scores(data.z, data.a, data.y, nu)
    m1, m0 = nu.mu1 + nu.beta, nu.mu1
    z, a, y = data.z, data.a, data.y
    aipw = z / nu.pi * (a * (y - m1) / nu.lam1 - (1 - a) * (y - m0) / (1 - nu.lam1)) + m1 - m0
    np.testing.assert_allclose(phi, aipw, atol=1e-9)


@pytest.mark.parametrize("rule", ["const", "linear", "t"])
@pytest.mark.parametrize("kwargs", [{}, {"treatment": "continuous"}, {"one_sided": True}])
def test_effect_rules(rule, kwargs):
    data, truth = simulated(6000, heterogeneity=0.0 if rule == "const" else 1.0, **kwargs)
    plan = plan_of(LogisticRegression(), LinearRegression(), binary=data.binary)
    learners = {**plan.learners, "effect": {"only": rule}}
    fold = learn_fold(task_of(data), data=data, plan=LearningPlan(learners))
    if rule == "const":
        assert np.ptp(fold.beta) == 0.0
    error = fold.beta[0] - truth["effect"][fold.test]
    assert abs(error.mean()) < 0.9
    assert np.std(fold.beta[0]) == pytest.approx(np.std(truth["effect"][fold.test]), abs=0.6)


def test_effect_least_squares():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2)) * [1.0, 100.0]
    design = rng.normal(size=50)
    beta = 2.0 + X @ [1.0, -0.03]
    rows = np.arange(50) < 40
    target = np.where(rows, beta * design, 1e6)
    problem = EffectProblem(target, design, rows, np.ones(50))
    np.testing.assert_allclose(linear_effect(problem, X, X), beta, rtol=1e-9)
    flat = EffectProblem(3.0 * design, design, rows, rng.uniform(1, 2, 50))
    assert constant_effect(flat) == pytest.approx(3.0)
    assert np.allclose(flat.ratio[rows], 3.0)
    assert np.all(flat.ratio[~rows] == 0.0)
    none = EffectProblem(np.ones(2), np.array([0.0, 1.0]), np.ones(2, dtype=bool), np.ones(2))
    assert none.usable.tolist() == [False, True]


def test_adding_a_candidate_changes_no_other():
    data, _ = simulated(600)
    forest = RandomForestRegressor(5), RandomForestClassifier(5, min_samples_leaf=10)
    one = LearningPlan({
        slot: {"forest": forest[slot in ("instrument", "treatment")]} for slot in SLOTS
    })  # fmt: skip
    line = LinearRegression(), LogisticRegression()
    two = LearningPlan({
        slot: {"line": line[slot in ("instrument", "treatment")], **one.learners[slot]}
        for slot in SLOTS
    })  # fmt: skip
    task = task_of(data)
    alone, beside = (learn_fold(task, data=data, plan=plan) for plan in (one, two))
    for name in ("pi", "lam", "beta"):
        assert np.array_equal(getattr(alone, name)[0], getattr(beside, name)[1])
    assert np.array_equal(alone.mu[0, 0], beside.mu[0, 1])
    assert np.array_equal(alone.omega[0, 0], beside.omega[0, 1])


def test_outcome_learned_for_every_effect():
    data, _ = simulated(500)
    learners = {
        slot: {
            "a": LogisticRegression() if slot in SLOTS[:2] else LinearRegression(),
            "b": LogisticRegression(C=0.01) if slot in SLOTS[:2]
            else RandomForestRegressor(5, min_samples_leaf=20, random_state=0),
        }
        for slot in SLOTS
    }  # fmt: skip
    task = task_of(data)
    family = learn_fold(task, data=data, plan=LearningPlan(learners))
    nested = learn_fold(task, data=data, plan=LearningPlan(learners, outcome_given="effect"))
    assert family.mu.shape == (1, 2, 2, len(task.test))
    assert nested.mu.shape == (2, 2, 2, len(task.test))
    assert nested.omega.shape == (2, 2, len(task.test))
    for k in (0, 1):  # the own-family entries are the diagonal
        assert np.array_equal(nested.mu[k, k], family.mu[0, k])
        assert np.array_equal(nested.omega[k, k], family.omega[0, k])


def test_too_few_rows_in_an_arm():
    data, _ = simulated(100)
    with pytest.raises(DataError, match=r"Fold 1: .* treated rows with instrument = 0; 20 are"):
        learn_fold(task_of(data), data=data, plan=plan_of(LogisticRegression(), LinearRegression()))


def test_known_values_are_used_as_given():
    data, truth = simulated(500)
    known = {
        "instrument": truth["instrument"],
        "treatment": np.stack([truth["treatment0"], truth["treatment1"]]),
        "effect": truth["effect"],
        "outcome": np.stack([truth["outcome0"], truth["outcome1"]]),
        "confounding": truth["confounding"],
    }
    learners = {slot: {"supplied": None} for slot in SLOTS}
    task = FoldTask(0, 0, np.arange(400), np.arange(400, 500), root_seed(0))
    fold = learn_fold(task, data=data, plan=LearningPlan(learners, known=known))
    assert np.array_equal(fold.pi[0], truth["instrument"][400:])
    assert np.array_equal(fold.beta[0], truth["effect"][400:])
    assert np.array_equal(fold.omega[0, 0], truth["confounding"][400:])
    assert fold.m is None
