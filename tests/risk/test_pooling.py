"""Groups and decision makers, whose effects are pooled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from causalfair.datasets import make_selective_labels
from causalfair.exceptions import DataError, ParameterError
from causalfair.risk import DomainConstrainedRisk


def fit(frame, *, covariates=("x1", "x2"), roles=None, **parameters):
    settings = {"sampler": "map", "draws": 200, "random_state": 0, **parameters}
    model = DomainConstrainedRisk(**settings)
    return model.fit(frame, "y", tested="tested", covariates=list(covariates), **(roles or {}))


# Two groups say little of their spread, whose posterior is then far from normal.
@pytest.mark.filterwarnings("ignore:.*quick approximation is poor")
def test_groups_each_with_a_prevalence():
    rng = np.random.default_rng(1)
    frame, truth = make_selective_labels(3000, n_features=1, deviates=(), random_state=3)
    frame["town"] = rng.choice(["a", "b"], 3000)
    known = {g: float(truth["y"][frame["town"] == g].mean()) for g in ("a", "b")}
    model = fit(
        frame, covariates=["x1"], roles={"group": "town"}, expertise=[], prevalence=known,
        prevalence_sd={"a": 0.01, "b": 0.02}, sampler="laplace",
    )  # fmt: skip
    assert {"risk:town=a", "testing:town=b", "sd of testing, town"} <= set(model.estimates_.names)
    risk = model.predict_proba(frame)
    for g, value in known.items():
        assert risk[frame["town"] == g].mean() == pytest.approx(value, abs=0.03)
    table = model.compare_groups(frame, "town")
    assert table["risk, a"].estimate[0] == pytest.approx(risk[frame["town"] == "a"].mean())
    with pytest.raises(DataError, match="town.*no such column"):
        model.predict_proba(frame[["x1"]])
    np.testing.assert_allclose(model.predict_proba(frame[["x1"]], group=frame["town"]), risk)
    with pytest.raises(DataError, match="'c' was not seen"):
        model.predict_proba(frame.assign(town="c"))


def towns(n=1500, n_towns=10, seed=1):
    """Towns with their own level of risk (sd 0.5) and of testing (sd 0.7)."""
    rng = np.random.default_rng(seed)
    x, z, town = rng.normal(size=n), rng.uniform(0, 2, n), rng.integers(0, n_towns, n)
    level, zeal = rng.normal(0, 0.5, n_towns), rng.normal(0, 0.7, n_towns)
    risk = -2 + x + level[town] + z
    tested = rng.random(n) < expit(risk + 1 + zeal[town])
    y = rng.random(n) < expit(risk)
    frame = pd.DataFrame({"x1": x, "town": town, "tested": tested.astype(int)})
    frame["y"] = np.where(tested, y, np.nan)
    known = {"prevalence": y.mean(), "prevalence_sd": 0.02, "expertise": []}
    return frame, level, zeal, known


# Pareto k is 0.76 here, just beyond what is called good; the draws are those of NUTS, see below.
@pytest.mark.filterwarnings("ignore:.*quick approximation is poor")
def test_towns_are_recovered_by_the_quick_path():
    frame, level, zeal, known = towns()
    model = fit(
        frame, covariates=["x1"], roles={"group": "town"}, sampler="laplace", draws=500, **known
    )
    assert abs(model.conflicts_[0].z) < 2
    est = model.estimates_
    for part, true in (("risk", level), ("testing", zeal)):
        terms = [f"{part}:town={j}" for j in range(10)]
        draws = est[terms].draws - est[terms].draws.mean(axis=1, keepdims=True)
        gap = (draws.mean(axis=0) - (true - true.mean())) / draws.std(axis=0)
        assert np.abs(gap).max() < 3.5
        assert 0.3 < np.sqrt((gap**2).mean()) < 1.7
        spread = est[f"sd of {part}, town"]
        assert abs(spread.estimate[0] - true.std()) < 3 * spread.std_error[0]


def test_pooled_effects_need_a_prior():
    frame, _, _, known = towns(n=300)
    with pytest.raises(ParameterError, match="pooled by one"):
        fit(frame, covariates=["x1"], roles={"group": "town"}, sampler="ml", **known)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*quick approximation is poor")
def test_nuts_and_the_quick_path_agree_on_towns():
    frame, _, _, known = towns()
    both = {}
    for sampler in ("laplace", "nutpie"):
        model = fit(
            frame, covariates=["x1"], roles={"group": "town"}, sampler=sampler, draws=1000,
            chains=2, **known,
        )  # fmt: skip
        both[sampler] = model.coefficients()
    assert model.convergence_.ess_bulk > 400
    assert model.convergence_.divergences == 0
    left, right = both["laplace"], both["nutpie"]
    moving = right.std_error > 0
    gap = np.abs(left.estimate - right.estimate)[moving] / right.std_error[moving]
    # Draws of the quick path are worth about a quarter of their number here.
    assert gap.max() < 4 * np.sqrt(1 / model.convergence_.ess_bulk + 1 / 250)
    np.testing.assert_allclose(left.std_error[moving] / right.std_error[moving], 1, atol=0.25)


def test_decision_makers_differ_in_leniency():
    rng = np.random.default_rng(2)
    n = 3000
    x, z, maker = rng.normal(size=n), rng.uniform(0, 2, n), rng.integers(0, 4, n)
    leniency = np.array([-1.5, -0.5, 0.5, 1.5])
    risk = -1.5 + x + z
    tested = rng.random(n) < expit(risk + 0.5 + leniency[maker])
    frame = pd.DataFrame({"x1": x, "judge": maker, "tested": tested.astype(int)})
    frame["y"] = np.where(tested, rng.random(n) < expit(risk), np.nan)
    model = fit(
        frame, covariates=["x1"], roles={"decision_maker": "judge"}, expertise=[],
        sampler="laplace",
    )  # fmt: skip
    names = [f"testing:judge={j}" for j in range(4)]
    got = np.array([model.estimates_[name].estimate[0] for name in names])
    error = np.array([model.estimates_[name].std_error[0] for name in names])
    assert (np.abs((got - got.mean()) - leniency) < 3 * error).all()


def judges_who_weigh(n=6000, n_judges=12, seed=0):
    """Judges of different leniency, and with weights of their own on what they see."""
    rng = np.random.default_rng(seed)
    x, judge = rng.integers(-1, 2, size=(n, 2)), rng.integers(0, n_judges, n)
    risk = -1.5 + x[:, 0] - 0.5 * x[:, 1] + rng.uniform(0, 2, n)
    log_alpha, leniency = rng.normal(0, 0.4, n_judges), rng.normal(0, 0.7, n_judges)
    index = np.exp(log_alpha[judge]) * risk + 0.5 + leniency[judge]
    tested, y = rng.random(n) < expit(index), rng.random(n) < expit(risk)
    columns = {"x1": x[:, 0], "x2": x[:, 1], "judge": judge, "tested": tested.astype(int)}
    frame = pd.DataFrame({**columns, "y": np.where(tested, y, np.nan)})
    settings = {
        "vary_alpha": True, "expertise": [], "prevalence": y.mean(), "prevalence_sd": 0.02,
        "roles": {"decision_maker": "judge"},
    }  # fmt: skip
    return frame, log_alpha, leniency, y, settings


def test_decision_makers_weigh_risk_each_in_their_own_way():
    frame, log_alpha, leniency, y, settings = judges_who_weigh()
    model = fit(frame, sampler="laplace", draws=500, **settings)
    est = model.estimates_
    for part, true in (("log alpha", log_alpha), ("testing", leniency)):
        terms = est[[f"{part}:judge={j}" for j in range(12)]]
        gap = (terms.estimate - true) / terms.std_error
        assert np.abs(gap).max() < 3.5
        assert np.corrcoef(terms.estimate, true)[0, 1] > 0.8
    spread = est["sd of log alpha, judge"]
    assert abs(spread.estimate[0] - log_alpha.std()) < 3 * spread.std_error[0]
    # A judge who weighs risk more tests the risky more often than one who weighs it less.
    many, few = (frame.assign(judge=j) for j in (log_alpha.argmax(), log_alpha.argmin()))
    steep, flat = (np.ptp(model.predict_tested(part)) for part in (many, few))
    assert steep > flat
    np.testing.assert_allclose(model.predict_proba(many), model.predict_proba(few))
    untested = frame["tested"].to_numpy() == 0
    risk = model.predict_proba(frame, given="untested")[untested]
    assert risk.mean() == pytest.approx(y[untested].mean(), abs=0.04)
    assert "alpha varies by judge" in " ".join(str(model.summary()).split())
    posterior = model.posterior_
    assert posterior["posterior"]["log_alpha"].dims[-1] == "decision_maker"
    assert posterior["posterior"]["beta_Delta"].shape[-1] == 1 + 12
    total = posterior["log_likelihood"]["cell"].values.sum(axis=-1)
    assert np.abs(total - model.loglik_).max() < 60
    gain = model.suboptimality(frame)["gain by predicted risk"].conf_int()[0]
    assert gain[1] > 0


def test_weights_of_risk_need_decision_makers(labels):
    with pytest.raises(ParameterError, match="there are 0; give decision_maker="):
        fit(labels[0], vary_alpha=True)
    frame = labels[0].assign(judge=np.arange(1500) % 3)
    with pytest.raises(ParameterError, match="pooled by one"):
        fit(frame, vary_alpha=True, sampler="ml", roles={"decision_maker": "judge"})


@pytest.mark.slow
def test_nuts_and_the_quick_path_agree_on_weights_of_risk():
    frame, _, _, _, settings = judges_who_weigh()
    left = fit(frame, sampler="laplace", draws=1000, **settings).coefficients()
    model = fit(frame, sampler="nutpie", draws=1000, tune=500, chains=2, **settings)
    assert model.convergence_.ess_bulk > 400
    assert model.convergence_.divergences == 0
    right = model.coefficients()
    moving = right.std_error > 0
    gap = np.abs(left.estimate - right.estimate)[moving] / right.std_error[moving]
    # Draws of the quick path are worth about a quarter of their number here.
    assert gap.max() < 4 * np.sqrt(1 / model.convergence_.ess_bulk + 1 / 250)
