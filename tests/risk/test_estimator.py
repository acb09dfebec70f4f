"""The estimator: exact cases, agreement of its samplers, invariances, constraints, reports."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import expit, log_expit

from causalfair.datasets import make_selective_labels
from causalfair.exceptions import (
    CausalFairWarning,
    ConvergenceWarning,
    DataError,
    IdentificationError,
    ParameterError,
    WeakIdentificationWarning,
)
from causalfair.risk import DomainConstrainedRisk, compare_risk_models, prevalence_sensitivity
from causalfair.risk._simulate import row_probabilities

COLUMNS = ["x1", "x2"]


def fit(frame, *, covariates=("x1", "x2"), roles=None, **parameters):
    settings = {"sampler": "map", "draws": 200, "random_state": 0, **parameters}
    model = DomainConstrainedRisk(**settings)
    return model.fit(frame, "y", tested="tested", covariates=list(covariates), **(roles or {}))


def cells(p0: int, p10: int, p11: int, times: int = 1, **columns) -> pd.DataFrame:
    tested = np.repeat([0, 1, 1], [p0 * times, p10 * times, p11 * times])
    y = np.repeat([np.nan, 0, 1], [p0 * times, p10 * times, p11 * times])
    return pd.DataFrame({"tested": tested, "y": y, **columns})


# ---------------------------------------------------------------------------- exact cases


def test_cells_and_a_prevalence_held_exactly_are_solved_exactly():
    """P0 = .5, P10 = .3, P11 = .2 and p = .26: the untested have risk .12, the odds shift is 5."""
    frame = cells(500, 300, 200)
    model = fit(frame, covariates=[], sampler="ml", prevalence=0.26, prevalence_sd=0.0)
    terms = dict(zip(model.estimates_.names, model.estimates_.estimate, strict=True))
    assert terms["testing:intercept"] == pytest.approx(np.log(5), abs=1e-5)
    assert terms["risk:intercept"] == pytest.approx(-4.455320928954198, abs=1e-4)
    assert terms["sigma"] == pytest.approx(5.691766033040196, abs=1e-4)
    assert terms["prevalence"] == pytest.approx(0.26, abs=1e-8)
    assert model.loglik_ == pytest.approx(
        500 * np.log(0.5) + 300 * np.log(0.3) + 200 * np.log(0.2), abs=1e-6
    )


def logistic(X, y):
    """Coefficients by Newton's method."""
    beta = np.zeros(X.shape[1])
    for _ in range(50):
        p = expit(X @ beta)
        beta += np.linalg.solve((X * (p * (1 - p))[:, None]).T @ X, X.T @ (y - p))
    return beta


@pytest.mark.parametrize("sigma", [None, 1e-8])
def test_without_an_unobservable_it_is_two_logistic_regressions(labels, sigma):
    frame, _ = labels
    law = {"unobservables": "none"} if sigma is None else {"sigma": sigma}
    model = fit(frame, sampler="ml", **law)
    X = np.column_stack([np.ones(len(frame)), frame[COLUMNS]])
    seen = frame["tested"].to_numpy() == 1
    risk = logistic(X[seen], frame["y"].to_numpy()[seen])
    testing = logistic(X, seen.astype(float))
    est = dict(zip(model.estimates_.names, model.estimates_.estimate, strict=True))
    got = [est[f"risk:{name}"] for name in ("intercept", *COLUMNS)]
    np.testing.assert_allclose(got, risk, atol=1e-5)
    got = np.array([est[f"testing:{name}"] for name in ("intercept", *COLUMNS)]) + got
    np.testing.assert_allclose(got, testing, atol=1e-5)


def test_likelihood_adds_up_over_equal_rows():
    rng = np.random.default_rng(0)
    frame, _ = make_selective_labels(600, n_features=2, random_state=2)
    frame["x1"], frame["x2"] = rng.integers(0, 2, 600), rng.integers(0, 3, 600)
    merged = fit(frame)
    apart = fit(frame, roles={"cluster": np.arange(600)})
    assert merged.loglik_ == pytest.approx(apart.loglik_, rel=1e-10)
    np.testing.assert_allclose(merged.estimates_.estimate, apart.estimates_.estimate, atol=1e-5)


# ---------------------------------------------------------------------------- samplers


def test_nuts_and_the_quick_path_draw_the_same_posterior(quick, sampled):
    assert sampled.convergence_.ess_bulk > 200
    left, right = quick.coefficients(), sampled.coefficients()
    assert left.names == right.names
    spread = right.std_error
    moving = spread > 0
    gap = np.abs(left.estimate - right.estimate)[moving] / spread[moving]
    # Four Monte-Carlo errors: of the chains, and of 1,000 draws resampled from about 1,500.
    error = np.sqrt(1 / sampled.convergence_.ess_bulk + 1 / 1000 + 1 / 1500)
    assert gap.max() < 4 * error
    np.testing.assert_allclose(left.std_error[moving] / spread[moving], 1, atol=0.15)


def test_nuts_repeats_itself_bit_for_bit(labels, constrained):
    frame, _ = labels

    def draws():
        model = DomainConstrainedRisk(draws=30, tune=60, chains=2, **constrained)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalFairWarning)
            return model.fit(frame, "y", tested="tested", covariates=COLUMNS)

    first = draws()
    assert draws().estimates_ == first.estimates_
    assert not first.convergence_.ok


def test_no_convergence_is_said_in_warning_summary_and_check(labels, constrained):
    frame, _ = labels
    model = DomainConstrainedRisk(draws=30, tune=60, chains=2, **constrained)
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        model.fit(frame, "y", tested="tested", covariates=COLUMNS)
    assert "did not converge" in str(model.summary())
    assert not model.check().ok
    row = model.check().to_frame().set_index("check").loc["sampler"]
    assert "Do not report" in row["meaning"]


def test_native_posterior(sampled):
    posterior = sampled.posterior_["posterior"]
    assert posterior["beta_Y"].shape == (4, 500, 3)
    assert list(posterior["beta_Y"]["feature"].values) == ["intercept", "x1", "x2"]
    assert list(posterior["beta_Delta"]["free_feature"].values) == ["intercept", "x1"]
    assert "diverging" in sampled.posterior_["sample_stats"]
    assert sampled.posterior_["log_likelihood"]["cell"].shape == (4, 500, 1500)


def test_log_likelihood_of_the_native_posterior_is_that_of_the_rows(quick, labels):
    frame, _ = labels
    native = quick.posterior_
    value = native["log_likelihood"]["cell"].values[0]
    draw = dict(zip(quick.estimates_.names, quick.estimates_.draws[7], strict=True))
    X = np.column_stack([np.ones(len(frame)), frame[COLUMNS]])
    a = X @ [draw[f"risk:{name}"] for name in ("intercept", *COLUMNS)]
    d = draw["testing:intercept"] + draw["testing:x1"] * frame["x1"].to_numpy()
    p0, p10, p11 = row_probabilities((0, 1, 2), a, d, 1.0, draw["sigma"], "uniform")
    p = np.where(frame["tested"] == 0, p0, np.where(frame["y"] == 1, p11, p10))
    np.testing.assert_allclose(value[7], np.log(p), atol=1e-8)
    counts = native["posterior_predictive"]["count"].values[0]
    np.testing.assert_array_equal(counts.sum(axis=1), len(frame))
    seen = native["observed_data"]["count"].values
    np.testing.assert_array_equal(seen, [
        (frame["tested"] == 0).sum(), (frame["y"] == 0).sum(), (frame["y"] == 1).sum()
    ])  # fmt: skip
    assert (np.abs(counts.mean(axis=0) - seen) < 3 * counts.std(axis=0)).all()
    assert quick.posterior_ is native
    assert "log_likelihood" not in pickle.loads(pickle.dumps(quick)).posterior_


def test_cells_of_the_native_posterior_hold_their_weight():
    frame = cells(50, 30, 20, x=(np.arange(100) % 3 == 0).astype(float))
    options = {"covariates": ["x"], "unobservables": "none", "sampler": "ml", "draws": 50}
    model = fit(frame, **options)
    native = model.posterior_
    weight = native["constant_data"]["weight"].values
    assert len(weight) == 6
    assert weight.sum() == 100
    total = native["log_likelihood"]["cell"].values.sum(axis=-1)[0]
    assert model.loglik_ - 15 < total.min()
    assert total.max() <= model.loglik_
    apart = fit(frame, **options, roles={"cluster": np.arange(100)})
    rows = apart.posterior_["log_likelihood"]["cell"].values[0]
    assert rows.shape == (50, 100)
    draw = dict(zip(apart.estimates_.names, apart.estimates_.draws.T, strict=True))
    x, tested, y = (frame[name].to_numpy() for name in ("x", "tested", "y"))
    risk = draw["risk:intercept"][:, None] + draw["risk:x"][:, None] * x
    score = risk + draw["testing:intercept"][:, None] + draw["testing:x"][:, None] * x
    decision = log_expit(np.where(tested == 1, score, -score))
    outcome = np.where(tested == 1, log_expit(np.where(y == 1, risk, -risk)), 0.0)
    np.testing.assert_allclose(rows, decision + outcome, atol=1e-8)


@pytest.mark.slow
def test_pymc_samples_the_same_posterior(labels, constrained, sampled):
    frame, _ = labels
    model = DomainConstrainedRisk(sampler="pymc", draws=500, tune=500, chains=2, **constrained)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        model.fit(frame, "y", tested="tested", covariates=COLUMNS)
    left, right = model.coefficients(), sampled.coefficients()
    moving = right.std_error > 0
    gap = np.abs(left.estimate - right.estimate)[moving] / right.std_error[moving]
    assert gap.max() < 4 / np.sqrt(min(model.convergence_.ess_bulk, sampled.convergence_.ess_bulk))


# ---------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("law", ["uniform", "normal"])
def test_parameters_are_recovered(law):
    frame, truth = make_selective_labels(
        2500, n_features=2, unobservables=law, jitter=0.0, random_state=5
    )
    model = fit(
        frame, unobservables=law, prevalence=truth["prevalence"], prevalence_sd=0.01,
        expertise=["x1"], sampler="laplace", draws=400,
    )  # fmt: skip
    est = model.estimates_
    known = {f"risk:{k}": v for k, v in truth["risk"].items()}
    known |= {f"testing:{k}": truth["testing"][k] for k in ("intercept", "x1")}
    known |= {"sigma": truth["sigma"], "prevalence": truth["expected_prevalence"]}
    for name, value in known.items():
        k = est.names.index(name)
        assert abs(est.estimate[k] - value) < 3 * est.std_error[k], name
    assert np.abs(model.predict_proba(frame) - truth["risk_proba"]).mean() < 0.03
    gap = model.predict_proba(frame, given="untested") - truth["risk_untested"]
    assert np.abs(gap).mean() < 0.05
    assert np.abs(model.predict_tested(frame) - truth["testing_proba"]).mean() < 0.03


def test_each_constraint_narrows_the_intervals(labels):
    frame, truth = labels
    known = {"prevalence": truth["prevalence"], "prevalence_sd": 0.005}

    def widths(**constraints):
        model = fit(frame, sampler="laplace", draws=600, **constraints)
        spread = dict(zip(model.estimates_.names, model.estimates_.std_error, strict=True))
        return np.array([spread["risk:intercept"], spread["testing:intercept"], spread["sigma"]])

    free = widths()
    assert (widths(**known) < 0.9 * free).all()
    assert (widths(**known, expertise=["x1"]) < 0.9 * free).all()


def test_a_prevalence_is_one_more_observation(labels):
    """Weighting draws made without it by the density of the prevalence gives the same posterior."""
    frame, truth = labels
    value, sd = truth["prevalence"], 0.02
    free = fit(frame, sampler="laplace", draws=4000)
    known = fit(frame, sampler="laplace", draws=4000, prevalence=value, prevalence_sd=sd)
    gap = (free.estimates_["prevalence"].draws[:, 0] - value) / sd
    weight = np.exp(-0.5 * gap**2)
    weight /= weight.sum()
    size = 1 / (weight**2).sum()
    assert size > 500
    left, right = free.estimates_.draws, known.estimates_
    mean = weight @ left
    spread = np.sqrt(weight @ (left - mean) ** 2)
    moving = right.std_error > 0
    distance = np.abs(mean - right.estimate)[moving] / right.std_error[moving]
    # Resampled draws are worth about half their number.
    assert distance.max() < 4 * np.sqrt(2 / size + 2 / 4000)
    np.testing.assert_allclose(spread[moving] / right.std_error[moving], 1, atol=0.12)


def test_a_wrong_prevalence_is_reported(labels):
    frame, truth = labels
    with (
        pytest.warns(WeakIdentificationWarning, match="conflicts with"),
        pytest.warns(CausalFairWarning, match="recode the outcome"),
    ):
        model = fit(
            frame, sampler="laplace", expertise=["x1"],
            prevalence=1.5 * truth["prevalence"], prevalence_sd=0.002,
        )  # fmt: skip
    finding = model.check().to_frame().set_index("check").loc["prevalence"]
    assert not finding["ok"]
    assert finding["meaning"].startswith("conflict")
    assert "the data alone imply" in " ".join(str(model.summary()).split())
    tight = fit(frame, prevalence=truth["prevalence"], prevalence_sd=1e-4)
    assert "held so tightly" in " ".join(str(tight.summary()).split())


def test_audited_rows_pin_the_risk_down(labels):
    """At least as well as the mean of the audited outcomes alone would, which needs no model."""
    frame, truth = labels
    audited = np.arange(1500) < 500
    more = frame.assign(tested=np.where(audited, 1, frame["tested"]))
    more["y"] = np.where(audited, truth["y"], frame["y"])
    more["kind"] = np.where(audited, "by_design", "usual")
    plain, audit = (
        fit(frame, sampler="laplace"),
        fit(more, sampler="laplace", roles={"row_kind": "kind"}),
    )
    error = audit.estimates_["prevalence"].std_error[0]
    assert error < truth["y"][audited].std() / np.sqrt(500)
    assert error < plain.estimates_["prevalence"].std_error[0]
    assert audit.predict_proba(frame).mean() == pytest.approx(truth["prevalence"], abs=0.04)


# ---------------------------------------------------------------------------- invariances


def test_units_of_a_feature_and_order_of_rows_do_not_matter(labels):
    frame, truth = labels
    known = {"prevalence": truth["prevalence"], "prevalence_sd": 0.02, "expertise": ["x1"]}
    base = fit(frame, **known)
    scaled = fit(frame.assign(x1=10 * frame["x1"] + 3), **known)
    for name in ("risk:x1", "testing:x1"):
        assert 10 * scaled.estimates_[name].estimate[0] == pytest.approx(
            base.estimates_[name].estimate[0], abs=1e-4
        )
    np.testing.assert_allclose(
        base.predict_proba(frame), scaled.predict_proba(frame.assign(x1=10 * frame["x1"] + 3)),
        atol=1e-5,
    )  # fmt: skip
    shuffled = fit(frame.sample(frac=1, random_state=0), **known)
    np.testing.assert_allclose(
        shuffled.estimates_.estimate, base.estimates_.estimate, atol=1e-4, rtol=1e-4
    )


def test_lazy_frames_give_the_same_fit():
    frame, _ = make_selective_labels(800, n_features=2, random_state=2)
    frame["x1"] = np.round(frame["x1"]).clip(-2, 2)
    frame["x2"] = np.round(frame["x2"]).clip(-2, 2)
    eager = fit(frame)
    lazy = fit(pl.from_pandas(frame).lazy())
    assert lazy.n_obs_ == 800
    np.testing.assert_allclose(eager.estimates_.estimate, lazy.estimates_.estimate, atol=1e-6)


def test_doubled_rows_in_clusters_are_no_news(labels):
    frame, _ = labels
    small = frame.iloc[:700]
    single = fit(small, unobservables="none", draws=2000)
    double = pd.concat([small, small], ignore_index=True)
    cluster = np.tile(np.arange(700), 2)
    plain = fit(double, unobservables="none", draws=2000)
    robust = fit(double, unobservables="none", draws=2000, roles={"cluster": cluster})
    k = [single.estimates_.names.index(f"risk:{c}") for c in COLUMNS]
    ratio = single.estimates_.std_error[k] / plain.estimates_.std_error[k]
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=0.05)
    np.testing.assert_allclose(
        robust.estimates_.std_error[k], single.estimates_.std_error[k], rtol=0.1
    )


def newton_logit(X, y, cluster):
    """Coefficients and their clustered sandwich covariance."""
    beta = logistic(X, y)
    p = expit(X @ beta)
    bread = np.linalg.inv((X * (p * (1 - p))[:, None]).T @ X)
    scores = np.array([np.bincount(cluster, x * (y - p)) for x in X.T])
    return beta, bread @ scores @ scores.T @ bread


def test_clusters_widen_maximum_likelihood_to_the_sandwich(labels):
    """Without an unobservable the risk is the logistic regression of the tested."""
    frame, _ = labels
    cluster = np.repeat(np.arange(300), 5)
    settings = {"sampler": "ml", "unobservables": "none", "draws": 20000}
    est = fit(frame, **settings, roles={"cluster": cluster}).estimates_
    seen = frame["tested"].to_numpy() == 1
    X = np.column_stack([np.ones(len(frame)), frame[COLUMNS]])[seen]
    _, vcov = newton_logit(X, frame["y"].to_numpy()[seen], cluster[seen])
    names = [f"risk:{name}" for name in ("intercept", *COLUMNS)]
    # 20,000 draws know a standard error to half a percent.
    np.testing.assert_allclose(est[names].std_error, np.sqrt(np.diag(vcov)), rtol=0.02)


def test_clusters_and_a_prevalence_held_exactly(labels):
    frame, truth = labels
    known = {"prevalence": truth["prevalence"], "prevalence_sd": 0.0, "sampler": "ml"}
    double = pd.concat([frame, frame], ignore_index=True)
    cluster = np.tile(np.arange(len(frame)), 2)
    k = [f"risk:{name}" for name in COLUMNS]
    robust = fit(double, **known, draws=4000, roles={"cluster": cluster}).estimates_
    plain = fit(double, **known, draws=4000).estimates_
    ratio = robust[k].std_error / plain[k].std_error
    np.testing.assert_allclose(ratio, np.sqrt(2), rtol=0.1)
    assert robust["prevalence"].std_error[0] < 1e-3


def test_whole_weights_are_repeated_rows_in_the_point_estimate(labels):
    frame, _ = labels
    part = frame.iloc[:600]
    weight = np.tile([1.0, 2.0], 300)
    repeated = part.loc[part.index.repeat(weight.astype(int))]
    left = fit(part, sampler="ml", unobservables="none", roles={"sample_weight": weight})
    right = fit(repeated, sampler="ml", unobservables="none")
    np.testing.assert_allclose(
        left.estimates_.estimate[:6], right.estimates_.estimate[:6], atol=1e-4
    )


# ---------------------------------------------------------------------------- use and reports


def test_policies_are_compared_at_the_same_number_of_tests(quick, labels):
    frame, truth = labels
    table = quick.suboptimality(frame)
    decided = table["as decided"].estimate[0]
    expected = (truth["risk_tested"] * truth["testing_proba"]).sum() / truth["testing_proba"].sum()
    assert decided == pytest.approx(expected, abs=0.03)
    gain = table["without deviations"].estimate[0] - decided
    assert gain == pytest.approx(table["gain without deviations"].estimate[0])
    assert table["gain without deviations"].estimate[0] > -0.005
    missed = 1 - (truth["risk_tested"] * truth["testing_proba"]).sum() / truth["risk_proba"].sum()
    assert table["share of positives missed"].estimate[0] == pytest.approx(missed, abs=0.05)


def test_intervals_of_rows_hold_their_risk(quick, labels):
    frame, truth = labels
    interval = quick.predict_interval(frame, 0.95)
    inside = (interval[:, 0] <= truth["risk_proba"]) & (truth["risk_proba"] <= interval[:, 1])
    assert inside.mean() > 0.7
    given = [quick.predict_proba(frame, given=g) for g in ("untested", None, "tested")]
    assert (given[0] <= given[1]).all()
    assert (given[1] <= given[2]).all()
    narrow = quick.predict_interval(frame, 0.5, given="tested")
    assert (narrow[:, 0] <= narrow[:, 1]).all()
    with pytest.raises(ParameterError, match="given='treated'"):
        quick.predict_proba(frame, given="treated")


def test_comparison_table(labels, constrained):
    frame, truth = labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        result = compare_risk_models(
            DomainConstrainedRisk(**constrained), frame, "y", tested="tested", covariates=COLUMNS,
            truth=truth["risk_untested"],
        )  # fmt: skip
    table = result.to_frame().set_index("method")
    assert list(table.index) == [
        "tested only", "untested as negative", "inverse probability weights", "no constraint",
        "prevalence", "expertise", "both", "prevalence 10% too high",
    ]  # fmt: skip
    true = table["untested_truth"].iloc[0]
    assert table.loc["untested as negative", "untested_risk"] < true
    assert table.loc["tested only", "untested_risk"] > true
    assert table.loc["both", "error"] < table.loc["tested only", "error"]
    assert table.loc["both", "untested_risk_low"] < true < table.loc["both", "untested_risk_high"]
    assert "Risk by method" in str(result)
    with pytest.raises(DataError, match="truth has 3"):
        compare_risk_models(
            DomainConstrainedRisk(),
            frame,
            "y",
            tested="tested",
            covariates=COLUMNS,
            truth=[0, 1, 0],
        )


def test_sensitivity_to_the_prevalence(labels, constrained):
    frame, truth = labels
    model = DomainConstrainedRisk(sampler="map", draws=200, **constrained)
    p = truth["prevalence"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CausalFairWarning)
        result = prevalence_sensitivity(
            model, frame, "y", values=[0.9 * p, p, 1.1 * p], tested="tested", covariates=COLUMNS
        )
    table = result.to_frame()
    risk = table[table["term"] == "risk of the untested"]["estimate"].to_numpy()
    assert (np.diff(risk) > 0).all()
    assert table["loglik_loss"].min() == 0
    assert "Sensitivity" in str(result)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert result.plot() is not None
    pyplot.close("all")
    with pytest.raises(ParameterError, match="prevalence_sd"):
        prevalence_sensitivity(
            DomainConstrainedRisk(), frame, "y", values=[0.2], tested="tested", covariates=COLUMNS
        )


def test_summary_states_what_was_assumed(quick):
    text = str(quick.summary())
    assert "only along the intercept, x1" in text
    assert "Z uniform, alpha = 1" in text
    fixed = next(line for line in text.splitlines() if line.startswith(" alpha "))
    assert fixed.rstrip().endswith("]")  # no p-value of what is held fixed
    assert max(map(len, text.splitlines())) <= 88
    assert {"checks of the fit", "risk with selectively observed outcomes"} <= {
        str(quick.check()).splitlines()[0].lower(), text.splitlines()[0].lower()
    }  # fmt: skip
    assert "<table" in quick.check()._repr_html_()
    pyplot = pytest.importorskip("matplotlib.pyplot")
    assert quick.plot_checks() is not None
    pyplot.close("all")


# ---------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"prevalence": 0.3}, ParameterError, "without prevalence_sd"),
        ({"prevalence_sd": 0.3}, ParameterError, "without a prevalence"),
        ({"prevalence": 0.3, "prevalence_sd": 0.0}, ParameterError, "held exactly"),
        ({"prevalence": 1.3, "prevalence_sd": 0.1}, ParameterError, "strictly between"),
        ({"prevalence": 0.01, "prevalence_sd": 0.001}, IdentificationError, "impossible"),
        ({"prevalence": {"a": 0.3}, "prevalence_sd": 0.1}, ParameterError, "has no group="),
        ({"expertise": ["x11"]}, ParameterError, "Did you mean 'x1'"),
        ({"expertise": {"x1": -1.0}}, ParameterError, "must be positive"),
        ({"alpha": None, "sigma": None}, ParameterError, "allow_weak"),
        ({"sigma": 0.0}, ParameterError, "unobservables"),
        ({"priors": {"beta": 2}}, ParameterError, "positive scales"),
        ({"sampler": "stan"}, ValueError, "sampler"),
    ],
)
def test_parameters_that_make_no_sense(labels, parameters, error, match):
    with pytest.raises(error, match=match):
        fit(labels[0], **parameters)


def test_testing_of_low_risks_is_suspected(labels):
    frame, _ = labels
    with pytest.warns(CausalFairWarning, match="recode the outcome"):
        fit(frame.assign(y=1 - frame["y"]), prevalence=0.72, prevalence_sd=0.05)


def test_a_covariate_that_separates_decisions_is_named(labels):
    frame, _ = labels
    with pytest.warns(WeakIdentificationWarning, match="letter separate the tested"):
        fit(frame.assign(letter=frame["tested"]), covariates=["x1", "letter"])
    # Everybody with the letter was tested, and some without it.
    some = frame["tested"] * (np.arange(len(frame)) % 2)
    with pytest.warns(WeakIdentificationWarning, match="letter separate the tested"):
        fit(frame.assign(letter=some), covariates=["x1", "letter"])


def test_prior_of_sigma_is_varied_by_weighting(labels, quick, constrained):
    frame, _ = labels
    row = quick.check().to_frame().set_index("check").loc["prior of sigma"]
    found = [float(part) for part in row["value"].split() if part.startswith("0.")]
    for value, scale in zip(found, (1.5, 6.0), strict=True):
        other = DomainConstrainedRisk(
            sampler="laplace", draws=2000, priors={"sigma": scale}, **constrained
        ).fit(frame, "y", tested="tested", covariates=COLUMNS)
        again = other.estimates_["prevalence"]
        # Weighted and fresh draws, about 500 and 1,000 effective ones; three printed digits.
        error = again.std_error[0] * np.sqrt(1 / 500 + 1 / 1000)
        assert abs(value - again.estimate[0]) < 4 * error + 5e-4


def test_soft_expertise_lies_between_free_and_tied(labels):
    frame, _ = labels
    spread = {}
    for name, expertise in {"free": ["x1", "x2"], "soft": {"x1": 3.0, "x2": 0.05}}.items():
        model = fit(frame, expertise=expertise)
        spread[name] = model.estimates_["testing:x2"].std_error[0]
    assert spread["soft"] < 0.06 < spread["free"]
