"""Effects given image sequences: recovery, clusters, evaluation, support, transport."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeCV

from causalfair.datasets import (
    fetch_uganda_youth_programme,
    load_uganda_youth_programme,
    make_image_sequence_trial,
)
from causalfair.exceptions import (
    CausalFairWarning,
    DataError,
    IdentificationError,
    OverlapWarning,
    ParameterError,
)
from causalfair.forest import CausalForest, RLearner
from causalfair.imagery import (
    ImageSequence,
    ImageSequenceCATE,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
    compare_representations,
)
from causalfair.imagery._ranking import RankingEvaluation, combine_folds, evaluate_priorities
from causalfair.imagery._spatial import overlap_components, spatial_groups


def explained(truth, held_out, pooling):
    """Share of the effect's variance on held-out places that features explain."""
    features = SequenceFeatures(
        RandomConvolutionFeatures(128, random_state=0), pooling=pooling, n_components="auto"
    )
    regression = RidgeCV(np.logspace(-3, 4, 15)).fit(
        features.fit_transform(truth["images"]), truth["cate"]
    )
    error = held_out["cate"] - regression.predict(features.transform(held_out["images"]))
    return 1 - error.var() / held_out["cate"].var()


def test_a_trend_is_seen_over_time_and_not_in_the_last_frame():
    _, truth = make_image_sequence_trial(400, random_state=0)
    _, held_out = make_image_sequence_trial(300, random_state=1)
    assert explained(truth, held_out, ("mean", "trend")) >= 0.75
    assert explained(truth, held_out, "last") <= 0.42
    assert explained(truth, held_out, "mean") <= 0.10


def test_simulated_trial_has_the_stated_variances():
    frame, truth = make_image_sequence_trial(8_000, n_frames=1, size=1, random_state=0)
    level, trend = 16 * 0.4**2 / 12, 400 * 0.1**2 / 12
    assert truth["cate"].var() == pytest.approx(level + trend, rel=0.03)
    assert np.corrcoef(truth["a"], truth["g"])[0, 1] == pytest.approx(0, abs=0.02)
    assert np.corrcoef(4 * truth["a"], truth["cate"])[0, 1] ** 2 == pytest.approx(
        level / (level + trend), abs=0.02
    )
    assert frame["treatment"].mean() == 0.5
    same = make_image_sequence_trial(8_000, n_frames=1, size=1, trend_share=0.0, random_state=0)[1]
    assert same["cate"].var() == pytest.approx(level + trend, rel=0.03)
    assert (
        make_image_sequence_trial(5, size=4, heterogeneity=0, random_state=0)[1]["cate"] == 1
    ).all()


def test_estimator_recovers_effects_from_outcomes(trial, fitted):
    frame, truth = trial
    ate, error = fitted.estimates_.estimate[0], fitted.estimates_.std_error[0]
    assert abs(ate - truth["ate"]) < 3 * error
    _, new = make_image_sequence_trial(200, size=16, random_state=9)
    assert np.corrcoef(fitted.predict(new["images"]), new["cate"])[0, 1] > 0.7
    assert np.corrcoef(fitted.predict(), truth["cate"])[0, 1] > 0.6
    ends = fitted.predict_interval(new["images"])
    assert (ends[:, 0] < ends[:, 1]).all()
    ranking = fitted.evaluate()
    assert ranking.p_values()["qini"] < 0.01
    assert ranking.n == (fitted._folds >= 0).sum() < len(frame)
    assert fitted.calibration_test().p_value[1] < 0.05


def test_same_bits_for_any_number_of_threads_and_other_bits_for_other_seeds(trial, spectral):
    frame, truth = trial

    def run(**options):
        model = ImageSequenceCATE(spectral, CausalForest(50), **{"random_state": 1} | options)
        return model.fit(truth["images"], frame["y"], treatment=frame["treatment"])

    first, second, other = run(), run(n_jobs=2), run(random_state=2)
    np.testing.assert_array_equal(first.predict(), second.predict())
    np.testing.assert_array_equal(first._priority, second._priority)
    assert first.evaluate().ratio == second.evaluate().ratio
    assert not np.array_equal(first.predict(), other.predict())


def test_clone_pickle_summary_and_citations(trial, fitted):
    assert clone(fitted).get_params()["n_folds"] == 5
    blob = pickle.dumps(fitted)
    again = pickle.loads(blob)
    images = trial[1]["images"]
    np.testing.assert_array_equal(again.predict(images), fitted.predict(images))
    assert len(blob) < 0.5 * images.nbytes
    text = str(fitted.summary())
    assert "probability of treatment given" in text.lower()
    assert max(map(len, text.splitlines())) <= 88
    assert "<table" in fitted._repr_html_()
    assert "Jerzak" in str(fitted.cite())
    assert "QINI" in str(fitted.evaluate())
    assert {"term", "estimate", "p_value", "scheme"} <= set(fitted.evaluate().to_frame().columns)


@pytest.mark.parametrize(
    "source", ["tabular", "image", "sequence", "tabular+image", "tabular+sequence"]
)
def test_every_data_source(trial, spectral, source):
    frame, truth = trial
    model = ImageSequenceCATE(
        spectral, CausalForest(50), data_source=source, scheme="split", random_state=0
    )
    model.fit(truth["images"], "y", treatment="treatment", X=frame, covariates=["x"])
    uses_x, uses_images = "tabular" in source, source != "tabular"
    got = model.predict(truth["images"] if uses_images else None, frame[["x"]] if uses_x else None)
    assert got.shape == (400,)
    assert ("x" in model.effect_model_.feature_names_in_) == uses_x
    assert (model.representation_ is not None) == uses_images
    if source == "image":
        last = ImageSequence(
            truth["images"].read(np.arange(400), slice(5, 6)).pixels, bands=("red", "green", "nir")
        )
        np.testing.assert_allclose(model.predict(last), got, atol=1e-9)


def test_other_learners_and_representations(trial):
    frame, truth = trial

    class Brightness:
        def fit(self, images):
            return self

        def fit_transform(self, images):
            return self.transform(images)

        def transform(self, images):
            pixels = images.read(np.arange(images.n_images)).pixels
            return pixels.mean(axis=(2, 3)).reshape(len(pixels), -1)

        def get_params(self, deep=True):
            return {}

    learner = RLearner(outcome_learner=RidgeCV(), effect_learner=RidgeCV())
    model = ImageSequenceCATE(Brightness(), learner, scheme="split", random_state=0)
    model.fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
    assert np.corrcoef(model.predict(), truth["cate"])[0, 1] > 0.5
    with pytest.raises(ParameterError, match="no pointwise intervals"):
        model.predict_interval(truth["images"])


@pytest.fixture(scope="module")
def shared():
    """Four people to a village."""
    return make_image_sequence_trial(
        150, size=12, units_per_place=4, noise=0.7, site_sd=0.5, random_state=5
    )


def test_units_that_share_images_are_clustered_by_them(shared, spectral):
    frame, truth = shared
    roles = {"treatment": frame["treatment"], "propensity": 0.5}
    base = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob", random_state=0)
    by_image = clone(base).fit(truth["images"], frame["y"], **roles)
    given = clone(base).fit(truth["images"], frame["y"], cluster=frame["place"], **roles)
    np.testing.assert_array_equal(by_image.predict(), given.predict())
    assert by_image.estimates_.n_clusters == 150
    assert "share an image" in str(by_image.summary())
    with pytest.warns(CausalFairWarning, match="errors ignore that 600 units share 150 images"):
        alone = clone(base).fit(truth["images"], frame["y"], individual=True, **roles)
    assert alone.estimates_.n_clusters is None
    assert "errors ignore" in str(alone.summary())


def test_group_assignment_without_clusters_is_refused(spectral):
    frame, truth = make_image_sequence_trial(
        60, size=8, units_per_place=3, cluster_randomised=True, random_state=0
    )
    model = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob", random_state=0)
    with pytest.raises(IdentificationError, match="constant within each of the 60 images"):
        model.fit(truth["images"], frame["y"], treatment=frame["treatment"])
    fitted = model.fit(
        truth["images"], frame["y"], treatment=frame["treatment"], cluster=frame["place"]
    )
    assert fitted.estimates_.n_clusters == 60


def test_folds_never_split_a_cluster(shared, spectral):
    frame, truth = shared
    model = ImageSequenceCATE(spectral, CausalForest(50), n_folds=3, random_state=0)
    model.fit(truth["images"], frame["y"], treatment=frame["treatment"])
    pairs = pd.DataFrame({"place": frame["place"], "fold": model._folds}).drop_duplicates()
    assert pairs["place"].is_unique


def test_propensity_from_strata(trial, spectral):
    frame, truth = trial
    strata = np.arange(400) % 2
    model = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob", random_state=0)
    model.fit(truth["images"], frame["y"], treatment=frame["treatment"], strata=strata)
    want = frame.groupby(strata)["treatment"].transform("mean")
    np.testing.assert_allclose(model.effect_model_.sample_.propensity, want)
    assert "2 strata" in str(model.summary())
    estimated = clone(model).fit(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity="estimate"
    )
    assert "not a trial by design" in str(estimated.summary())
    with pytest.raises(IdentificationError, match="1 of 2 strata have one arm only"):
        model.fit(
            truth["images"],
            frame["y"],
            treatment=frame["treatment"],
            strata=np.where(frame["treatment"], 1, strata * 0 + (np.arange(400) < 200)),
        )


def test_bad_input(trial, spectral):
    frame, truth = trial
    images, y, w = truth["images"], frame["y"], frame["treatment"]
    model = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob", random_state=0)
    with pytest.raises(DataError, match="the images have 400 units, y has 399"):
        model.fit(images, y[:-1], treatment=w[:-1])
    with pytest.raises(DataError, match="neither images nor X"):
        model.fit(None, y, treatment=w)
    with pytest.raises(DataError, match="there is no X"):
        model.fit(images, "y", treatment="treatment")
    with pytest.raises(DataError, match="the covariate 'copy' is the treatment itself"):
        model.fit(images, y, treatment=w, X=pd.DataFrame({"copy": 1 - w}))
    with pytest.raises(IdentificationError, match="takes one value"):
        model.fit(images, y, treatment=w * 0)
    with pytest.raises(ParameterError, match="propensity='known'"):
        model.fit(images, y, treatment=w, propensity="known")
    with pytest.raises(IdentificationError, match="strictly between 0 and 1"):
        model.fit(images, y, treatment=w, propensity=1.0)
    with pytest.raises(ParameterError, match="data_source='pictures'"):
        clone(model).set_params(data_source="pictures").fit(images, y, treatment=w)
    with pytest.raises(DataError, match="needs X"):
        clone(model).set_params(data_source="tabular").fit(images, y, treatment=w)
    with pytest.raises(DataError, match="missing value"):
        model.fit(images, y.mask(y.index == 3), treatment=w)
    some = np.arange(30)
    few = clone(model).set_params(scheme="sequential", n_folds=5)
    few.fit(images.subset(some), y[some], treatment=w[some])
    with pytest.raises(IdentificationError, match="10 are needed"):
        few.evaluate()
    with pytest.raises(DataError, match="values in X|missing|NaN"):
        ImageSequenceCATE(
            spectral, RLearner(outcome_learner=RidgeCV(), effect_learner=RidgeCV()), scheme="oob"
        ).fit(images, y, treatment=w, X=pd.DataFrame({"x": frame["x"].mask(frame["x"] > 0.4)}))


def test_predict_asks_for_what_the_model_uses(trial, fitted):
    frame, truth = trial
    with pytest.raises(DataError, match="images only"):
        fitted.predict(truth["images"], frame[["x"]])
    with pytest.raises(DataError, match="needs images|images only"):
        fitted.predict(None, frame[["x"]])
    with pytest.raises(DataError, match="fitted on 3"):
        fitted.predict(np.zeros((2, 6, 16, 16, 2), np.float32))


def test_the_latest_frame_that_is_not_clouded_stands_for_the_place(trial, spectral):
    frame, truth = trial
    pixels = truth["images"].read(np.arange(400)).pixels
    mask = np.ones(pixels.shape[:-1], bool)
    mask[::3, 5] = False
    clouded = ImageSequence(pixels, mask=mask, times=np.arange(2001, 2007))
    model = ImageSequenceCATE(
        spectral, CausalForest(50), data_source="image", scheme="oob", random_state=0
    ).fit(clouded, frame["y"], treatment=frame["treatment"])
    alone = np.where(
        mask[:, 5:6].all(axis=(2, 3))[..., None, None, None], pixels[:, 5:], pixels[:, 4:5]
    )
    np.testing.assert_allclose(model.predict(alone), model.predict(clouded), atol=1e-9)


def test_target_of_another_time_or_sensor_is_flagged(trial, fitted):
    _, truth = trial
    pixels = truth["images"].read(np.arange(400)).pixels
    bands = ("red", "green", "nir")
    later = ImageSequence(pixels, times=np.arange(2016, 2022), bands=bands)
    with pytest.warns(CausalFairWarning, match=r"run to 2021.0, the trial's to 2015.5"):
        fitted.support(later)
    coarse = ImageSequence(pixels, bands=bands, gsd=10.0)
    with pytest.warns(CausalFairWarning, match="pixels are 10 m in the target and 30 m"):
        fitted.transport(coarse)


def test_target_of_another_season_is_flagged(trial, spectral):
    frame, truth = trial
    pixels = truth["images"].read(np.arange(400)).pixels
    june, december, all_year = (
        ImageSequence(pixels, times=np.arange(2010, 2016) + part)
        for part in (0.45, 0.95, np.linspace(0, 0.9, 6))
    )
    model = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob").fit(
        june, frame["y"], treatment=frame["treatment"]
    )
    with pytest.warns(CausalFairWarning, match=r"another season: 18[23] days"):
        model.support(december)
    model.support(all_year)
    model.support(june)


def test_small_folds_and_wide_features_are_named(trial, spectral):
    frame, truth = trial
    some = np.arange(40)
    treated = np.r_[np.ones(7), np.zeros(33)]
    few = ImageSequenceCATE(spectral, CausalForest(50), n_folds=5, random_state=0)
    with pytest.raises(IdentificationError, match="treated and .* untreated units; each needs two"):
        few.fit(truth["images"].subset(some), frame["y"][some], treatment=treated)
    wide = ImageSequenceCATE(
        SequenceFeatures(SpectralFeatures(), pooling="concat"), CausalForest(50),
        n_components=None, scheme="oob", random_state=0,
    )  # fmt: skip
    few_places = np.arange(10)
    with pytest.warns(CausalFairWarning, match="120 image features for 10 places"):
        wide.fit(
            truth["images"].subset(few_places), frame["y"][few_places],
            treatment=few_places % 2,
        )  # fmt: skip


def test_frames_acquired_differently_by_arm_are_flagged(trial, spectral):
    frame, truth = trial
    pixels = truth["images"].read(np.arange(400)).pixels
    years = np.tile(np.arange(6.0), (400, 1))
    years[frame["treatment"] == 1, 0] = np.nan
    model = ImageSequenceCATE(spectral, CausalForest(50), scheme="oob", random_state=0)
    with pytest.warns(CausalFairWarning, match="differs between arms"):
        model.fit(ImageSequence(pixels, times=years), frame["y"], treatment=frame["treatment"])


def test_sequential_folds_sum_the_ratios():
    rng = np.random.default_rng(0)
    values, error = rng.normal(size=(4, 2)), rng.random((4, 2)) + 0.5
    vcov = np.array([np.diag(e**2) for e in error])
    got = combine_folds(values, vcov, ["a", "b"])
    np.testing.assert_allclose(got.statistic(), (values / error).sum(axis=0) / 2, rtol=1e-12)


def test_rankings_without_differences_count_for_nothing():
    """A fold whose model gave everybody the same effect: RATE is rounding error there."""
    rng = np.random.default_rng(0)
    scores, priority = rng.normal(size=90), rng.normal(size=90)
    folds = np.repeat([0, 1, 2], 30)
    options = {"metric": "qini", "scheme": "sequential", "cluster": None, "sample_weight": None,
               "seed": np.random.SeedSequence(1)}  # fmt: skip
    priority[folds == 0] = 0.3
    got, _ = evaluate_priorities({"": priority}, scores, folds, **options)
    folds_ = np.where(folds == 0, -1, folds)
    want, _ = evaluate_priorities({"": priority}, scores, folds_, **options)
    np.testing.assert_allclose(got.estimate, want.estimate, rtol=1e-12)
    np.testing.assert_allclose(got.std_error, want.std_error, rtol=1e-12)
    flat, curve = evaluate_priorities({"": priority * 0 + 1}, scores, folds, **options)
    assert (flat.estimate[0], flat.std_error[0]) == (0, 0)
    report = RankingEvaluation({"qini": flat}, "sequential", {"qini": curve}, 90, 3, 3)
    assert report.ratio == {"qini": 0.0}
    assert report.p_values() == {"qini": 1.0}
    assert "In 3 of 3 folds the model gave all units the same effect" in str(report)


def test_forests_on_small_folds_keep_the_level():
    """Sixty units are too few to split on, so first folds are flat; of 30 tests 99 % reject 0-5."""
    rejected, flat = 0, 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        w = rng.permutation(np.arange(240) % 2)
        X = rng.normal(size=(240, 4))
        y = X[:, 0] + w + rng.normal(size=240)
        ranking = (
            ImageSequenceCATE(None, CausalForest(50), n_folds=4, random_state=seed)
            .fit(None, y, treatment=w, X=X, propensity=0.5)
            .evaluate("qini")
        )
        rejected += ranking.p_values()["qini"] < 0.05
        flat += ranking.n_flat
    assert flat > 10
    assert rejected <= 5


def test_no_heterogeneity_is_not_found_too_often():
    """Sequential QINI under a constant effect: of 40 tests at 5 %, 99 % of samples reject 0 to 6."""
    rejected = 0
    features = SequenceFeatures(SpectralFeatures())
    _, truth = make_image_sequence_trial(150, n_frames=2, size=6, random_state=0)
    raw = features.fit_transform(truth["images"])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        w = rng.permutation(np.arange(150) % 2)
        y = 2 * truth["a"] + w + rng.normal(size=150)
        model = ImageSequenceCATE(
            data_source="tabular",
            learner=RLearner(effect_learner=RidgeCV(), outcome_learner=RidgeCV(), n_folds=2),
            n_folds=3,
            random_state=seed,
        ).fit(None, y, treatment=w, X=raw[:, :6], propensity=0.5)
        rejected += model.evaluate("qini").p_values()["qini"] < 0.05
    assert rejected <= 6


# ------------------------------------------------------------------- support and transport


def test_target_like_the_trial_is_supported_and_gets_the_trial_effect(trial, fitted):
    _, same = make_image_sequence_trial(250, size=16, random_state=11)
    report = fitted.support(same["images"])
    assert report.supported.mean() > 0.85
    assert abs(report.auc - 0.5) < 0.12
    got = fitted.transport(same["images"])
    assert abs(got.estimates_.estimate[0] - same["ate"]) < 3 * got.estimates_.std_error[0]
    assert "target ATE" in str(got)
    assert got.tipping_point() == pytest.approx(max(0, got.estimates_.conf_int()[0, 0]))
    finite = fitted.transport(same["images"], finite_target=True)
    assert finite.estimates_.std_error[0] < got.estimates_.std_error[0]


def test_target_unlike_the_trial_is_not_supported(fitted):
    _, far = make_image_sequence_trial(120, size=16, shift=(0.45, 0.0), random_state=12)
    report = fitted.support(far["images"])
    assert report.supported.mean() < 0.2
    assert report.auc > 0.9
    assert "share failing" in str(report)
    strange = ImageSequence(
        far["images"].read(np.arange(120)).pixels[..., ::-1] * 3, bands=("red", "green", "nir")
    )
    with pytest.raises(IdentificationError, match="none of the 120 places is supported"):
        fitted.transport(strange)
    assert fitted.support(strange).weight_total < 0.01
    with pytest.warns(OverlapWarning, match="hardly overlap"):
        got = fitted.transport(strange, unsupported="ignore")
    assert "in 120 of them it is extrapolated" in str(got)
    assert got.estimates_.estimate[0] == pytest.approx(got.plug_in, abs=0.01)


def test_few_units_that_carry_the_answer_are_flagged(trial):
    """An odds of a thousand at one unit in a hundred: the others are worth nothing."""
    from dataclasses import replace

    from causalfair.imagery._transport import _warn_of_overlap

    frame, truth = trial
    model = ImageSequenceCATE(
        SequenceFeatures(SpectralFeatures()), CausalForest(50), scheme="oob", random_state=0
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
    report = model.support(truth["images"])
    assert report.weight_total == pytest.approx(1, abs=0.1)
    _warn_of_overlap(report)
    with pytest.warns(OverlapWarning, match="worth 5.0% of its size"):
        _warn_of_overlap(replace(report, effective_share=0.05))


def test_transport_corrects_towards_a_shifted_target(trial, spectral):
    """Effects rise with growth: a growing region has the larger average."""
    frame, truth = make_image_sequence_trial(900, size=12, noise=0.5, random_state=21)
    model = ImageSequenceCATE(spectral, CausalForest(300), scheme="oob", random_state=0)
    model.fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
    _, target = make_image_sequence_trial(300, size=12, shift=(0.0, 0.015), random_state=22)
    got = model.transport(target["images"], unsupported="ignore")
    assert abs(got.estimates_.estimate[0] - target["ate"]) < 3 * got.estimates_.std_error[0]
    assert got.estimates_.estimate[0] > truth["ate"] + 0.1


# ------------------------------------------------------------------- folds in space


def test_overlapping_images_form_components():
    step = 1000 / 111_320  # about one kilometre of longitude at the equator
    coords = np.array([[0, 0], [step, 0], [2 * step, 0], [10, 0], [10 + step / 2, 0]])
    assert overlap_components(coords, 1100).tolist() == [0, 0, 0, 1, 1]
    assert len(set(overlap_components(coords, 900).tolist())) == 4


def test_spatial_groups_join_clusters_and_components():
    step = 500 / 111_320
    coords = np.array([[0, 0], [step, 0], [5, 5], [9, 9], [12, 3], [14, 2]])
    images = np.zeros((6, 1, 30, 30, 1), np.float32)
    sequence = ImageSequence(images, coords=coords, gsd=30.0, image_of_unit=[0, 1, 2, 3, 4, 5])
    groups = spatial_groups(sequence, np.array([0, 1, 1, 2, 3, 4]), 6)
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 4
    chain = ImageSequence(
        images, coords=np.column_stack([np.arange(6) * step, np.zeros(6)]), gsd=30.0
    )
    with pytest.warns(CausalFairWarning, match="overlap in one chain"):
        spatial_groups(chain, None, 6)


# ------------------------------------------------------------------- comparison


def test_comparison_ranks_sequence_over_image(trial):
    frame, truth = trial
    ridge = RLearner(outcome_learner=RidgeCV(), effect_learner=RidgeCV(), n_folds=2)
    table = compare_representations(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5, X=frame[["x"]],
        representations={"spectral": SequenceFeatures(SpectralFeatures())},
        learners={"ridge": ridge, "forest": CausalForest(50)}, spaces=("pc", "raw"),
        data_sources=("tabular", "image", "sequence"), n_folds=3, n_bootstrap=50, random_state=0,
    )  # fmt: skip
    frame = table.to_frame()
    assert len(frame) == 2 * 2 * (1 + 2 * 2)
    by_source = frame.groupby("data_source")["ratio"].mean()
    assert by_source["sequence"] > by_source["image"]
    first = frame.iloc[0]
    assert (first["data_source"], first["difference"]) == ("tabular", 0)
    qini = frame[frame["metric"] == "qini"].reset_index(drop=True)
    assert (qini["p_adjusted"] >= qini["p_value"] - 0.02).all()
    assert "data_source_sequence" in set(table.factor_analysis()["term"])
    told = table.factor_analysis({"spectral": {"log_parameters": 0.0, "pretrained": "no"}})
    assert not told["term"].str.startswith("representation").any()
    with pytest.raises(DataError, match=r"attributes must say the same"):
        table.factor_analysis({"other": {"size": 3}})
    best = frame.groupby("data_source")["r_squared"].max()
    assert best["sequence"] > best["image"] > 0
    ax = table.plot_spaces(metric="autoc")
    assert [line.get_label() for line in ax.lines if line.get_marker() == "o"] == [
        "image", "sequence"
    ]  # fmt: skip
    assert max(map(len, str(table).splitlines())) <= 88
    assert table.plot().get_xlabel()
    with pytest.raises(DataError, match="both spaces"):
        table.plot_spaces(metric="auc")
    with pytest.raises(ParameterError, match="'pixels'"):
        compare_representations(truth["images"], [0], treatment=[0], spaces=("pixels",))


# ------------------------------------------------------------------- the Uganda programme


def test_uganda_effects_are_found_and_stable_over_seeds(shared_data):
    frame, images = load_uganda_youth_programme(shared_data / "uganda_youth_programme.npz")
    for seed in range(3):
        model = ImageSequenceCATE(learner=CausalForest(1000), scheme="oob", random_state=seed)
        model.fit(images, frame["y"], treatment=frame["treatment"])
        assert model.estimates_.n_clusters == 327
        ate, error = model.estimates_.estimate[0], model.estimates_.std_error[0]
        assert (ate, error) == (pytest.approx(0.75, abs=0.03), pytest.approx(0.076, abs=0.005))
        calibration = model.calibration_test()
        assert (calibration.p_value < 0.02).all()
        assert calibration.estimate[0] == pytest.approx(1, abs=0.1)
        assert model.evaluate("qini").p_values()["qini"] < 0.02
    with pytest.warns(CausalFairWarning, match="2082 units share 327 images"):
        alone = clone(model).fit(images, frame["y"], treatment=frame["treatment"], individual=True)
    # Ignoring places understates the error as it does for the plain difference in means.
    w, place = frame["treatment"].to_numpy(), frame["place"].to_numpy()
    y = frame["y"].to_numpy()
    influence = np.where(w == 1, (y - y[w == 1].mean()) / w.mean(),
                         -(y - y[w == 0].mean()) / (1 - w.mean()))  # fmt: skip
    clustered = np.sqrt((np.bincount(place, weights=influence) ** 2).sum())
    ratio = np.sqrt((influence**2).sum()) / clustered
    assert ratio < 0.9
    assert alone.estimates_.std_error[0] / error == pytest.approx(ratio, abs=0.07)


@pytest.mark.slow
def test_uganda_sequential_ranking_is_significant_over_seeds(shared_data):
    frame, images = load_uganda_youth_programme(shared_data / "uganda_youth_programme.npz")
    p = []
    for seed in range(7):
        model = ImageSequenceCATE(learner=CausalForest(1000), random_state=seed)
        model.fit(images, frame["y"], treatment=frame["treatment"])
        p.append(model.evaluate("qini").p_values()["qini"])
    assert np.median(p) < 0.05


def test_uganda_is_fetched_from_the_cache_without_network(shared_data, tmp_path):
    import shutil

    shutil.copy(shared_data / "uganda_youth_programme.npz", tmp_path)
    url = "https://data.invalid/uganda_youth_programme.npz"
    frame, images = fetch_uganda_youth_programme(url, cache_dir=tmp_path)
    assert images.shape == (327, 1, 35, 35, 3)
    assert len(frame) == images.n_units == 2082
    assert frame.groupby("place")["treatment"].nunique().max() == 2
    assert not {"X1", "X3", "X7"} & set(frame.columns)


def test_uganda_file_is_checked(tmp_path):
    (tmp_path / "uganda_youth_programme.npz").write_bytes(b"not it")
    with pytest.raises(DataError, match="SHA-256"):
        load_uganda_youth_programme(tmp_path / "uganda_youth_programme.npz")
