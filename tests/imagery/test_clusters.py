"""Types of places: the EM algorithm, the Bayesian model, and their agreement."""

from __future__ import annotations

import numpy as np
import pytest

from causalfair.datasets import make_image_types_trial
from causalfair.exceptions import CausalFairWarning, DataError, ParameterError
from causalfair.imagery import (
    ImageClusterEffects,
    ImageSequence,
    SequenceFeatures,
    SpectralFeatures,
)
from causalfair.imagery._clusters import build_model
from causalfair.imagery._types import (
    Pull,
    Types,
    choose_types,
    fit_types,
    log_likelihood,
    type_probabilities,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    n = 600
    phi = rng.normal(size=(n, 2))
    kind = rng.random(n) < 1 / (1 + np.exp(-3 * phi[:, 0]))
    w = rng.permutation(np.arange(n) % 2).astype(float)
    y = 0.5 * phi[:, 1] + w * (2.0 * kind) + 0.5 * rng.normal(size=n)
    return phi, y, w


def test_objective_never_decreases_and_effects_are_found(data):
    types = fit_types(*data, 2, np.random.default_rng(1), n_starts=6)
    assert (np.diff(types.objective) > -1e-8 * np.abs(types.objective[:-1])).all()
    np.testing.assert_allclose(types.effect, [0, 2], atol=0.2)
    p = type_probabilities(types.logits, data[0])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert np.corrcoef(p[:, 1], data[0][:, 0])[0, 1] > 0.8


def test_one_type_is_a_weighted_regression(data):
    """With one type: feasible weighted least squares of y on [1, phi, w] at its own variances."""
    phi, y, w = data
    types = fit_types(phi, y, w, 1, np.random.default_rng(0))
    X = np.column_stack([np.ones(len(y)), phi, w])
    s2 = types.variance[w.astype(int), 0]
    ridge = np.diag([0, 1e-3, 1e-3, 0])
    beta = np.linalg.solve((X / s2[:, None]).T @ X + ridge, (X / s2[:, None]).T @ y)
    np.testing.assert_allclose(types.effect[0], beta[3], atol=1e-4)
    np.testing.assert_allclose(types.outcome, beta[:3], atol=1e-4)


def test_likelihood_is_the_mixture(data):
    from scipy.stats import norm

    phi, y, w = (a[:7] for a in data)
    rng = np.random.default_rng(2)
    logits = np.column_stack([np.zeros(3), rng.normal(size=3)])
    types = Types(
        np.array([0.1, 1.0]),
        logits,
        rng.normal(size=3),
        np.array([[0.5, 0.7], [0.3, 0.9]]),
        np.zeros(0),
    )
    total = 0.0
    for i in range(7):
        z = np.r_[1, phi[i]]
        p = np.exp(z @ logits) / np.exp(z @ logits).sum()
        s = np.sqrt(types.variance[int(w[i])])
        total += np.log((p * norm.pdf(y[i], z @ types.outcome + w[i] * types.effect, s)).sum())
    assert log_likelihood(types, phi, y, w) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("n_types", [1, 2])
def test_pymc_model_has_the_same_likelihood(data, n_types):
    """The PyMC potential less its dropped constant equals the plain likelihood."""
    import pytensor

    phi, y, w = (a[:40] for a in data)
    model = build_model(phi, y, w, n_types)
    potential = model.potentials[0]
    point = model.initial_point()
    rng = np.random.default_rng(0)
    point = {k: np.asarray(v + 0.1 * rng.normal(size=np.shape(v))) for k, v in point.items()}
    inputs = model.value_vars
    (value,) = model.replace_rvs_by_values([potential])
    with pytensor.config.change_flags(cxx=""):
        got = float(pytensor.function(inputs, value, mode="FAST_COMPILE", on_unused_input="ignore")(
            **{v.name: point[v.name] for v in inputs}
        ))  # fmt: skip
    effect, logits = point.get("effect"), np.zeros((3, 1))
    if n_types == 2:
        first = point["effect_ordered__"]
        effect = np.array([first[0], first[0] + np.exp(first[1])])
        logits = np.column_stack([np.zeros(3), point["logits"]])
    types = Types(
        effect, logits, point["outcome"],
        np.exp(point["noise_log__"]) ** 2, np.zeros(0),
    )  # fmt: skip
    constant = -0.5 * len(y) * np.log(2 * np.pi)
    assert got + constant == pytest.approx(log_likelihood(types, phi, y, w), rel=1e-9)


@pytest.fixture(scope="module")
def places():
    return make_image_types_trial(300, size=8, random_state=4)


def test_em_on_images(places):
    frame, truth = places
    model = ImageClusterEffects(
        representation=SequenceFeatures(SpectralFeatures()),
        sampler="em",
        draws=30,
        n_components=2,
        random_state=0,
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"])
    # Against effects with the types known, on the same data: the truth may be two errors away.
    low, high = model.estimates_.conf_int()[:2].T
    y, w, kind = frame["y"].to_numpy(), frame["treatment"].to_numpy(), truth["type"]
    built = truth["images"].read(np.arange(300)).pixels[..., 0].mean(axis=(1, 2, 3))
    design = np.column_stack([np.ones(300), built, w * (kind == 0), w * (kind == 1)])
    known = np.linalg.lstsq(design, y, rcond=None)[0][2:]
    assert (low < known).all()
    assert (known < high).all()
    error = model.estimates_.std_error[:2]
    assert (np.abs(model.estimates_.estimate[:2] - truth["effects"]) < 3 * error).all()
    assert np.corrcoef(model.predict(truth["images"]), truth["cate"])[0, 1] > 0.8
    assert "bootstrap samples" in str(model.summary())
    p = model.predict_proba(truth["images"])
    entropy = -(p * np.log(p)).sum(axis=1).mean() / np.log(2)
    assert model.uncertainty_ == pytest.approx(entropy)
    assert f"{entropy:.0%}" in str(model.summary())
    rng = np.random.default_rng(0)
    there = ImageSequence(
        truth["images"].read(np.arange(300)).pixels, coords=rng.uniform(29, 31, (300, 2)),
        bands=truth["images"].bands,
    )  # fmt: skip
    ax = model.plot_map(there)
    np.testing.assert_allclose(ax.collections[0].get_array(), p[:, 1])
    with pytest.raises(ParameterError, match="type_number=3; there are 2"):
        model.plot_map(there, type_number=3)
    with pytest.raises(DataError, match="coords"):
        model.plot_map(truth["images"])
    with pytest.raises(DataError, match="300 units, y has 299"):
        model.fit(truth["images"], frame["y"][:-1], treatment=frame["treatment"][:-1])


def test_a_type_without_members_is_named():
    model = ImageClusterEffects()
    phi = np.random.default_rng(0).normal(size=(100, 2))
    logits = np.array([[0.0, -20.0], [0, 0], [0, 0]])
    model.types_ = Types(np.zeros(2), logits, np.zeros(3), np.ones((2, 2)), np.zeros(0))
    with pytest.warns(CausalFairWarning, match="degenerate type: type 2 has 0.0 members"):
        model._judge_types(phi)
    assert model.uncertainty_ < 1e-6


def test_a_pull_towards_the_difference_in_means(data):
    phi, y, w = (a[:300] for a in data)
    shift = 1.0  # towards a value that the data do not support
    target = y[w == 1].mean() - y[w == 0].mean() + shift
    implied = []
    for strength in (1e-9, 50.0, 1e5):
        types = fit_types(
            phi, y, w, 2, np.random.default_rng(0), n_starts=3, pull=Pull(strength, target)
        )
        assert (np.diff(types.objective) > -1e-7 * abs(types.objective[-1])).all()
        implied.append((type_probabilities(types.logits, phi) @ types.effect).mean())
    free = fit_types(phi, y, w, 2, np.random.default_rng(0), n_starts=3)
    assert implied[0] == pytest.approx(
        (type_probabilities(free.logits, phi) @ free.effect).mean(), abs=0.02
    )
    assert implied[0] < implied[1] < implied[2]
    assert implied[2] == pytest.approx(target, abs=0.01)


def test_the_average_of_the_types_can_be_pinned(places):
    frame, images = places[0][:120], places[1]["images"].subset(np.arange(120))
    roles = {"treatment": frame["treatment"]}
    model = ImageClusterEffects(
        representation=SequenceFeatures(SpectralFeatures()), sampler="em", draws=2, n_components=2,
        causal_penalty=1e5, random_state=0,
    ).fit(images, frame["y"], **roles)  # fmt: skip
    arms = frame.groupby("treatment")["y"].mean()
    assert model.predict(images).mean() == pytest.approx(arms[1] - arms[0], abs=0.01)
    with pytest.raises(ParameterError, match="causal_penalty=1.0 with sampler='nutpie'"):
        ImageClusterEffects(causal_penalty=1.0).fit(images, frame["y"], **roles)


def test_the_number_of_types_is_chosen(data):
    """Two types as simulated; one where the effect is the same for all."""
    phi, y, w = (a[:300] for a in data)
    folds = np.arange(len(y)) % 2
    seed = np.random.SeedSequence(0)
    assert choose_types(phi, y, w, folds, seed).argmax() == 1
    rng = np.random.default_rng(5)
    plain = 0.5 * phi[:, 1] + w + 0.5 * rng.normal(size=len(y))
    assert choose_types(phi, plain, w, folds, seed).argmax() == 0


def test_no_types_are_reported_as_such():
    frame, truth = make_image_types_trial(120, size=6, effects=(1.0, 1.0), random_state=3)
    model = ImageClusterEffects(
        "auto", representation=SequenceFeatures(SpectralFeatures()), sampler="em", draws=20,
        n_components=2, random_state=0,
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"])  # fmt: skip
    assert model.n_types_ == 1
    assert len(model.cv_log_likelihood_) == 3
    assert "No image-based types were found" in str(model.summary())
    np.testing.assert_allclose(
        model.predict(truth["images"]), model.estimates_["ATE"].estimate[0], atol=0.05
    )


@pytest.mark.slow
def test_posterior_agrees_with_the_truth(places):
    frame, truth = places
    model = ImageClusterEffects(
        representation=SequenceFeatures(SpectralFeatures()),
        draws=500,
        tune=500,
        chains=2,
        n_components=2,
        random_state=0,
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"])
    ends = model.estimates_.conf_int()
    for k, effect in enumerate(truth["effects"]):
        assert ends[k, 0] < effect < ends[k, 1]
    assert ends[-1, 0] < truth["ate"] < ends[-1, 1]
    assert model.convergence_.rhat < 1.02
