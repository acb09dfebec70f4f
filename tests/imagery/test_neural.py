"""Networks of image sequences, small ones; needs torch."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.base import clone

torch = pytest.importorskip("torch")

from causalfair.datasets import make_image_sequence_trial  # noqa: E402
from causalfair.exceptions import (  # noqa: E402
    CausalFairWarning,
    ConvergenceError,
    DataError,
    IdentificationError,
)
from causalfair.forest import effect_losses, rank_average_treatment_effect  # noqa: E402
from causalfair.imagery import (  # noqa: E402
    ImageSequence,
    NeuralSequenceEffects,
    RandomConvolutionFeatures,
    SequenceFeatures,
)
from causalfair.imagery._neural_net import (  # noqa: E402
    Settings,
    build_network,
    train_network,
)

TINY = {"width": 4, "heads": 2, "n_repeats": 1, "epochs": 3, "random_state": 0}


@pytest.fixture(scope="module")
def world():
    return make_image_sequence_trial(400, size=8, noise=0.5, random_state=0)


@pytest.fixture(scope="module")
def fitted(world):
    frame, truth = world
    return NeuralSequenceEffects(random_state=0).fit(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5
    )


@pytest.fixture(scope="module")
def small():
    return make_image_sequence_trial(60, n_frames=3, size=6, random_state=1)


def tiny(small, **roles):
    frame, truth = small
    options = {k: roles.pop(k) for k in list(roles) if k in TINY or k in ("n_folds", "noise")}
    given = {"treatment": frame["treatment"], "propensity": 0.5, "force": True}
    return NeuralSequenceEffects(**TINY | options).fit(
        roles.pop("images", truth["images"]), roles.pop("y", frame["y"]), **given | roles
    )


def test_network_is_attention_and_two_heads():
    torch.manual_seed(0)
    network = build_network(5, 3, 2).eval()
    torch.nn.init.normal_(network.effect.weight)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6, 5)).astype(np.float32)
    seen = rng.random((4, 6)) > 0.3
    seen[:, 0] = True
    with torch.no_grad():
        got = network(torch.from_numpy(x), torch.from_numpy(seen)).numpy()
    p = {k: v.numpy().astype(float) for k, v in network.state_dict().items()}
    for i in range(4):
        own = x[i, seen[i]].astype(float)
        logits = own @ p["key.weight"].T + p["key.bias"]
        weight = np.exp(logits) / np.exp(logits).sum(axis=0)
        values = (own @ p["value.weight"].T + p["value.bias"]).reshape(-1, 2, 3)
        pooled = np.einsum("th,thd->hd", weight, values).ravel()
        z = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-5)
        z = z * p["shared.0.weight"] + p["shared.0.bias"]
        h = z @ p["shared.1.weight"].T + p["shared.1.bias"]
        h = h * ndtr(h)
        want = [h @ p[f"{head}.weight"][0] + p[f"{head}.bias"][0] for head in ("outcome", "effect")]
        np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


def test_an_effect_that_only_the_trend_moves_is_found(world, fitted):
    _, truth = world
    held_out = make_image_sequence_trial(200, size=8, random_state=9)[1]
    assert np.corrcoef(fitted.predict(), truth["cate"])[0, 1] > 0.8
    assert np.corrcoef(fitted.predict(held_out["images"]), held_out["cate"])[0, 1] > 0.85
    only = make_image_sequence_trial(400, size=8, noise=0.5, trend_share=1.0, random_state=2)
    by_trend = NeuralSequenceEffects(n_repeats=1, random_state=0)
    over_time = by_trend.fit(
        only[1]["images"], only[0]["y"], treatment=only[0]["treatment"], propensity=0.5
    ).predict()
    last = by_trend.fit(
        only[1]["images"].latest(), only[0]["y"], treatment=only[0]["treatment"], propensity=0.5
    ).predict()
    assert np.corrcoef(over_time, only[1]["g"])[0, 1] > 0.75
    assert abs(np.corrcoef(last, only[1]["g"])[0, 1]) < 0.3


def test_what_rests_on_scores_is_honest(world, fitted):
    frame, truth = world
    low, high = fitted.estimates_.conf_int()[0]
    assert low < truth["ate"] < high
    assert fitted.calibration_test().p_value[1] < 1e-6
    w = frame["treatment"].to_numpy()
    np.testing.assert_allclose(
        fitted.scores_, fitted.predict() + (w - 0.5) / 0.25 * fitted.sample_.error
    )
    losses = effect_losses({"network": fitted.predict()}, fitted)
    assert losses.r_squared_.estimate[0] > 0
    with pytest.raises(Exception, match="come from the same model and rows"):
        rank_average_treatment_effect(fitted.predict(), fitted.scores_)
    text = str(fitted.summary())
    assert "6 networks of" in text
    assert max(map(len, text.splitlines())) <= 88
    assert "Shalit" in str(fitted.cite())


def test_units_are_predicted_by_networks_that_did_not_see_them(small):
    frame, truth = small
    model = tiny(small)
    y = frame["y"].to_numpy().copy()
    mine = np.flatnonzero(model._folds == 1)
    y[mine] += 100.0  # outcomes of fold 1 play no role in the predictions for fold 1
    again = tiny(small, y=y)
    np.testing.assert_array_equal(again.predict()[mine], model.predict()[mine])
    assert not np.array_equal(np.delete(again.predict(), mine), np.delete(model.predict(), mine))
    frames = model._frames(truth["images"])
    np.testing.assert_allclose(
        model.networks_[1].predict(frames)[mine, 1], model.predict()[mine], rtol=1e-5
    )


def test_same_seed_same_bits_for_any_number_of_threads(small):
    _, truth = small
    first = tiny(small).predict()
    before = torch.get_num_threads()
    state = torch.random.get_rng_state()
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(tiny(small).predict(), first)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.random.get_rng_state(), state)  # torch's own numbers are left alone
    assert not np.array_equal(tiny(small, random_state=1).predict(), first)
    model = tiny(small)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(truth["images"]), model.predict(truth["images"]))
    assert clone(model).get_params()["width"] == 4
    assert len(pickle.dumps(model)) < 200_000


def test_the_epoch_with_the_least_r_loss_is_kept(small):
    frame, truth = small
    frames = tiny(small)._frames(truth["images"])
    y, w = frame["y"].to_numpy(), frame["treatment"].to_numpy(float)
    held = np.arange(60) % 5 == 0
    settings = Settings(4, 2, 40, 5, 0.05, 0.0, 0.0)
    trained = train_network(
        frames, np.arange(60), y, w, np.full(60, 0.5), np.ones(60), held, settings, 0
    )
    best = int(trained.losses.argmin())
    assert len(trained.losses) == 40 or len(trained.losses) == best + 6
    shorter = Settings(4, 2, best + 1, 50, 0.05, 0.0, 0.0)
    again = train_network(
        frames, np.arange(60), y, w, np.full(60, 0.5), np.ones(60), held, shorter, 0
    )
    np.testing.assert_array_equal(again.predict(frames), trained.predict(frames))


def test_units_with_weight_zero_teach_nothing(small):
    frame, truth = small
    frames = tiny(small)._frames(truth["images"])
    y, w = frame["y"].to_numpy(), frame["treatment"].to_numpy(float)
    held = np.arange(60) % 5 == 0
    settings = Settings(4, 2, 3, 5, 0.05, 0.0, 0.0)
    mute = np.flatnonzero(~held)[:10]
    weight = np.ones(60)
    weight[mute] = 0.0
    one = train_network(frames, np.arange(60), y, w, np.full(60, 0.5), weight, held, settings, 0)
    flipped = w.copy()
    flipped[mute] = 1 - flipped[mute]
    shifted = y.copy()
    shifted[mute] += 100.0
    two = train_network(
        frames, np.arange(60), shifted, flipped, np.full(60, 0.5), weight, held, settings, 0
    )
    np.testing.assert_array_equal(one.predict(frames), two.predict(frames))


def test_missing_frames_and_shared_images(small):
    _, truth = small
    pixels = truth["images"].read(np.arange(60)).pixels
    mask = np.ones(pixels.shape[:-1], bool)
    mask[4, 1] = False
    changed = pixels.copy()
    changed[4, 1] = 7.0
    times = [2001.0, 2003.0, 2004.5]
    one, two = (ImageSequence(p, mask=mask, times=times) for p in (pixels, changed))
    first = tiny(small, images=one)
    np.testing.assert_array_equal(first.predict(), tiny(small, images=two).predict())
    mask[7] = False
    with pytest.raises(DataError, match=r"1 place\(s\) have no usable frame"):
        tiny(small, images=ImageSequence(pixels, mask=mask, times=times))
    shared = ImageSequence(pixels[:30], image_of_unit=np.arange(60) // 2)
    pairs = tiny(small, images=shared, treatment=np.arange(60) % 2)
    folds = pairs._folds.reshape(30, 2)
    assert (folds[:, 0] == folds[:, 1]).all()
    assert (pairs.predict().reshape(30, 2) == pairs.predict()[::2, None]).all()
    assert pairs.estimates_.cluster is not None
    with pytest.warns(CausalFairWarning, match="60 units share 30 images"):
        apart = tiny(small, images=shared, treatment=np.arange(60) % 2, individual=True)
    folds = apart._folds.reshape(30, 2)
    assert (folds[:, 0] == folds[:, 1]).all()
    assert apart.estimates_.cluster is None


def test_other_encoders(small):
    encoder = RandomConvolutionFeatures(8, n_patches=200)
    frame, truth = small
    model = NeuralSequenceEffects(encoder, **TINY).fit(
        truth["images"], frame["y"], treatment=frame["treatment"], force=True
    )
    assert model.frame_features_.random_state is not None
    assert "observed share" in str(model.summary())
    with pytest.raises(DataError, match="band"):
        model.predict(truth["images"].read(np.arange(60)).pixels[..., :2])


def test_bad_input(small):
    frame, truth = small
    with pytest.raises(DataError, match="60 places are few for a network.*force=True"):
        tiny(small, force=False)
    with pytest.raises(ConvergenceError, match="lower learning_rate=1e"):
        NeuralSequenceEffects(**TINY, learning_rate=1e36).fit(
            truth["images"], frame["y"], treatment=frame["treatment"], force=True
        )
    with pytest.raises(DataError, match="60 units, y has 59"):
        tiny(small, y=frame["y"][:-1], treatment=frame["treatment"][:-1])
    with pytest.raises(IdentificationError, match="takes one value"):
        tiny(small, treatment=np.zeros(60))
    with pytest.raises(DataError, match="two values"):
        tiny(small, treatment=np.arange(60.0))
    with pytest.raises(IdentificationError, match="propensity='estimate'"):
        tiny(small, propensity="estimate")
    place = np.arange(60) // 2
    shared = ImageSequence(truth["images"].read(np.arange(30)).pixels, image_of_unit=place)
    with pytest.raises(IdentificationError, match="constant within each of the 30 images"):
        tiny(small, images=shared, treatment=place % 2)
    pooled = NeuralSequenceEffects(SequenceFeatures(), **TINY)
    with pytest.raises(DataError, match="SequenceFeatures, which does not encode frames"):
        pooled.fit(truth["images"], frame["y"], treatment=frame["treatment"], force=True)
