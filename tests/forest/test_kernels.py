"""Trees and predictions against recursive twins, exact cases and reference numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import forest as naive

from causalfair.forest import _engine
from causalfair.forest._engine import ForestSpec, grow_forest
from causalfair.forest._kernels_split import _sort_keys

pytestmark = pytest.mark.kernel

TWIN = 1e-9  # the twin sums in another order


def make_seeds(n_groups: int, seed: int = 0) -> np.ndarray:
    return np.random.SeedSequence(seed).generate_state(n_groups, np.uint64)


def small_data(seed=0, n=120, p=4, missing=0.0, binary=True, ties=False):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    if ties:
        X = np.round(X)
    if missing:
        X[rng.random((n, p)) < missing] = np.nan
    v = (rng.random(n) < 0.5) - 0.5 if binary else rng.normal(size=n)
    y = v * np.nan_to_num(X[:, 0]) + rng.normal(size=n)
    return X, y, v


def twin_spec(spec: ForestSpec, p: int) -> dict:
    return {
        "causal": spec.causal,
        "stabilize": spec.stabilize and spec.causal,
        "honesty": spec.honesty,
        "honesty_fraction": spec.honesty_fraction,
        "sample_fraction": spec.sample_fraction,
        "min_leaf_size": spec.min_leaf_size,
        "alpha": spec.alpha,
        "imbalance_penalty": spec.imbalance_penalty,
        "group_size": spec.group_size,
        "max_features": spec.max_features or _engine.default_max_features(p),
    }


SPECS = {
    "default": ForestSpec(n_trees=12, min_leaf_size=2),
    "no stabilizing": ForestSpec(n_trees=8, stabilize=False, min_leaf_size=3),
    "adaptive": ForestSpec(n_trees=8, honesty=False, min_leaf_size=2),
    "regression": ForestSpec(n_trees=8, causal=False),
    "penalty": ForestSpec(n_trees=8, min_leaf_size=1, imbalance_penalty=0.5, alpha=0.15),
    "few variables": ForestSpec(n_trees=16, min_leaf_size=1, max_features=1, honesty_fraction=0.7),
    "large groups": ForestSpec(n_trees=8, group_size=4, sample_fraction=0.35, min_leaf_size=1),
}


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("weighted", [False, True])
def test_forest_equals_the_recursive_twin(kind, missing, weighted):
    spec = SPECS[kind]
    X, y, v = small_data(seed=3, missing=missing, binary=kind != "penalty")
    rng = np.random.default_rng(4)
    w = rng.uniform(0.5, 2, len(y)) if weighted else np.ones(len(y))
    cluster = np.arange(len(y))
    seeds = make_seeds(spec.n_trees // spec.group_size)
    grown = grow_forest(X, np.column_stack([y, v, w]), spec, seeds=seeds)
    trees = naive.forest(X, y, v, w, cluster, seeds, twin_spec(spec, X.shape[1]))
    new = rng.normal(size=(15, X.shape[1]))
    new[0, 0] = np.nan
    got = grown.predict(new)
    want = [naive.predict(trees, x, spec.group_size) for x in new]
    np.testing.assert_allclose(got.value, [value for value, _, _ in want], rtol=TWIN, atol=TWIN)
    positive = np.array([value + se * mills(value / se) for _, value, se in want])
    np.testing.assert_allclose(got.variance, positive, rtol=1e-7)
    out_of_bag = grown.predict(X, out_of_bag=cluster)
    silent = out_of_bag.n_trees == 0
    assert np.isnan(out_of_bag.value[silent]).all()
    for i in np.flatnonzero(~silent)[:20]:
        stats = [s for s in naive.leaf_stats(trees, X[i], i) if s is not None]
        assert out_of_bag.n_trees[i] == len(stats)
        np.testing.assert_allclose(out_of_bag.mean[i], np.mean(stats, axis=0), rtol=TWIN, atol=TWIN)


def mills(ratio: float) -> float:
    from scipy.stats import norm

    return float(np.exp(norm.logpdf(ratio) - norm.logcdf(ratio)))


def test_ties_and_clusters_equal_the_twin():
    X, y, v = small_data(seed=5, n=150, ties=True, missing=0.1)
    cluster = np.random.default_rng(1).integers(0, 30, 150)
    cluster[:30] = np.arange(30)
    spec = ForestSpec(n_trees=10, min_leaf_size=1)
    seeds = make_seeds(5)
    w = np.ones(150)
    grown = grow_forest(X, np.column_stack([y, v, w]), spec, seeds=seeds, cluster=cluster)
    trees = naive.forest(X, y, v, w, cluster, seeds, twin_spec(spec, 4))
    for i in range(150):
        stats = [s for s in naive.leaf_stats(trees, X[i], cluster[i]) if s is not None]
        got = grown.predict(X[i : i + 1], out_of_bag=cluster[i : i + 1])
        assert got.n_trees[0] == len(stats)
        if stats:
            np.testing.assert_allclose(got.mean[0], np.mean(stats, axis=0), rtol=TWIN, atol=TWIN)


@pytest.mark.parametrize(("n", "trees"), [(200, 10), (12_000, 4)])  # one digit of a key, two digits
def test_sorting_at_each_node_grows_the_same_trees(monkeypatch, n, trees):
    X, y, v = small_data(seed=6, n=n, p=6, missing=0.1)
    targets = np.column_stack([y, v, np.ones(n)])
    spec = ForestSpec(n_trees=trees, min_leaf_size=1, max_features=3)
    lists = grow_forest(X, targets, spec, seeds=make_seeds(trees // 2))
    monkeypatch.setattr(_engine, "WIDE", 0)
    sorts = grow_forest(X, targets, spec, seeds=make_seeds(trees // 2))
    np.testing.assert_array_equal(lists.flat.nodes, sorts.flat.nodes)


@pytest.mark.parametrize("largest", [-1, 0, 1, 2046, 2047, 2048, 1_000_000])
def test_keys_are_sorted_by_code_and_ties_by_position(largest):
    codes = np.random.default_rng(largest + 1).integers(-1, largest + 1, 5_000)
    codes[0] = largest
    keys = (codes << 32) | np.arange(len(codes))
    got = keys.copy()
    _sort_keys(got, np.empty_like(keys))
    np.testing.assert_array_equal(got, np.sort(keys))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_threads(dtype):
    X, y, v = small_data(seed=1, n=1500, p=5, missing=0.05)
    X = X.astype(dtype)
    targets = np.column_stack([y, v, np.ones(len(y))])
    spec = ForestSpec(n_trees=100, store_members=True)
    one, two = (grow_forest(X, targets, spec, seeds=make_seeds(50), n_jobs=t) for t in (1, 2))
    for a, b in zip(one.flat, two.flat, strict=True):
        np.testing.assert_array_equal(a, b)
    a, b = (f.predict(X, out_of_bag=np.arange(len(y)), n_jobs=t) for f, t in ((one, 1), (two, 2)))
    np.testing.assert_array_equal(a.value, b.value)
    np.testing.assert_array_equal(a.variance, b.variance)


def test_float32_data_grow_the_same_trees_as_their_float64_copy():
    X, y, v = small_data(seed=1, n=600)
    X = X.astype(np.float32)
    targets = np.column_stack([y, v, np.ones(len(y))])
    a = grow_forest(X, targets, ForestSpec(n_trees=20), seeds=make_seeds(10))
    b = grow_forest(X.astype(float), targets, ForestSpec(n_trees=20), seeds=make_seeds(10))
    np.testing.assert_array_equal(a.predict(X).value, b.predict(X.astype(float)).value)


def test_neighbouring_seeds_share_no_trees():
    X, y, v = small_data(n=400)
    targets = np.column_stack([y, v, np.ones(400)])
    spec = ForestSpec(n_trees=200)
    predictions = [
        grow_forest(X, targets, spec, seeds=make_seeds(100, s)) for s in (1, 2, 1_000_003)
    ]
    drawn = [{row.tobytes() for row in f.drawn} for f in predictions]
    assert not drawn[0] & drawn[1]
    values = [f.predict(X).value for f in predictions]
    near = np.sqrt(np.mean((values[0] - values[1]) ** 2))
    far = np.sqrt(np.mean((values[0] - values[2]) ** 2))
    assert 0.7 < near / far < 1.4


def test_without_a_split_the_forest_is_ordinary_least_squares():
    X, y, v = small_data(n=60, binary=False)
    spec = ForestSpec(n_trees=1, group_size=1, honesty=False, sample_fraction=1.0, min_leaf_size=60)
    grown = grow_forest(X, np.column_stack([y, v, np.ones(60)]), spec, seeds=make_seeds(1))
    slope = np.cov(y, v)[0, 1] / np.var(v, ddof=1)
    np.testing.assert_allclose(grown.predict(X).value, slope, rtol=1e-12)


def test_proportional_outcome_and_constant_outcome_have_no_error():
    X, _, v = small_data(n=300)
    ones = np.ones(300)
    exact = grow_forest(
        X, np.column_stack([3 * v, v, ones]), ForestSpec(200), seeds=make_seeds(100)
    )
    got = exact.predict(X, out_of_bag=np.arange(300))
    np.testing.assert_allclose(got.value, 3, rtol=1e-10)
    np.testing.assert_array_equal(got.variance, 0)
    flat = grow_forest(X, np.column_stack([0 * v, v, ones]), ForestSpec(200), seeds=make_seeds(100))
    got = flat.predict(X)
    np.testing.assert_array_equal(got.value, 0)
    np.testing.assert_array_equal(got.variance, 0)


def test_balanced_arms_give_a_difference_in_means():
    X = np.ones((80, 2))
    v = np.tile([-0.5, 0.5], 40)
    y = np.random.default_rng(0).normal(size=80)
    spec = ForestSpec(n_trees=2, group_size=1, honesty=False, sample_fraction=1.0)
    grown = grow_forest(X, np.column_stack([y, v, np.ones(80)]), spec, seeds=make_seeds(2))
    np.testing.assert_allclose(
        grown.predict(X).value, y[v > 0].mean() - y[v < 0].mean(), rtol=1e-12
    )


@settings(max_examples=15)
@given(scale=st.floats(-50, 50).filter(lambda a: abs(a) > 0.01), seed=st.integers(0, 50))
def test_scaling_the_outcome_scales_the_effect(scale, seed):
    X, y, v = small_data(seed=seed, n=200)
    ones = np.ones(200)
    a, b = (
        grow_forest(X, np.column_stack([c * y, v, ones]), ForestSpec(40), seeds=make_seeds(20))
        for c in (1.0, scale)
    )
    one, scaled = a.predict(X), b.predict(X)
    np.testing.assert_allclose(scaled.value, scale * one.value, rtol=1e-6, atol=1e-9 * abs(scale))
    np.testing.assert_allclose(scaled.variance, scale**2 * one.variance, rtol=1e-5)


def test_monotone_transforms_leave_the_partition():
    X, y, v = small_data(n=500)
    targets = np.column_stack([y, v, np.ones(500)])
    a = grow_forest(X, targets, ForestSpec(40), seeds=make_seeds(20))
    b = grow_forest(np.exp(X), targets, ForestSpec(40), seeds=make_seeds(20))
    np.testing.assert_array_equal(a.flat.nodes["split"], b.flat.nodes["split"])
    oob = np.arange(500)
    np.testing.assert_array_equal(
        a.predict(X, out_of_bag=oob).value, b.predict(np.exp(X), out_of_bag=oob).value
    )


def test_row_order_does_not_matter_without_sampling():
    X, y, v = small_data(n=200)
    spec = ForestSpec(20, group_size=1, sample_fraction=1.0, honesty=False, max_features=400)
    shuffle = np.random.default_rng(0).permutation(200)
    targets = np.column_stack([y, v, np.ones(200)])
    a = grow_forest(X, targets, spec, seeds=make_seeds(20))
    b = grow_forest(X[shuffle], targets[shuffle], spec, seeds=make_seeds(20))
    np.testing.assert_allclose(a.predict(X).value, b.predict(X).value, rtol=1e-10)


def test_weights_are_those_of_the_prediction():
    X, y, v = small_data(n=300, binary=False)
    w = np.random.default_rng(2).uniform(0.5, 2, 300)
    spec = ForestSpec(30, store_members=True, min_leaf_size=2)
    seeds = make_seeds(15)
    grown = grow_forest(X, np.column_stack([y, v, w]), spec, seeds=seeds)
    alpha = grown.weights(X[:20]).toarray()
    np.testing.assert_allclose(alpha.sum(axis=1), 1, rtol=1e-12)
    trees = naive.forest(X, y, v, w, np.arange(300), seeds, twin_spec(spec, 4))
    np.testing.assert_allclose(alpha[3], naive.weights(trees, X[3], 300), atol=1e-14)
    value = grown.predict(X[:20]).value
    for a, tau in zip(alpha, value, strict=True):
        slope, _, _ = naive.least_squares(y, v, a * w)
        np.testing.assert_allclose(tau, slope, rtol=1e-9)


def test_out_of_bag_error_is_the_jackknife():
    X, y, v = small_data(n=80)
    spec = ForestSpec(24, group_size=1, min_leaf_size=2)
    seeds = make_seeds(24)
    cluster = np.arange(80)
    targets = np.column_stack([y, v, np.ones(80)])
    grown = grow_forest(X, targets, spec, seeds=seeds)
    trees = naive.forest(X, y, v, np.ones(80), cluster, seeds, twin_spec(spec, 4))
    got = grown.errors(X, targets, out_of_bag=cluster)
    want = [naive.debiased_error(trees, X[i], i, y[i], v[i]) for i in range(80)]
    np.testing.assert_allclose(got, want, rtol=1e-8)
    few = grow_forest(X, targets, ForestSpec(4, group_size=1), seeds=seeds[:4])
    assert np.isnan(few.errors(X, targets, out_of_bag=cluster)).all()


def test_equal_numbers_from_each_cluster():
    X, y, v = small_data(n=300)
    cluster = np.concatenate([np.repeat(np.arange(20), 5), np.repeat(np.arange(20, 30), 20)])
    spec = ForestSpec(10, equalize=True, store_members=True, min_leaf_size=1)
    grown = grow_forest(
        X, np.column_stack([y, v, np.ones(300)]), spec, seeds=make_seeds(5), cluster=cluster
    )
    leaf_of_tree = np.searchsorted(
        grown.flat.leaf_start, np.arange(len(grown.member_start) - 1), "right"
    )
    sizes = np.diff(grown.member_start)
    for t in range(10):
        members = np.concatenate(
            [grown.members[grown.member_start[k] : grown.member_start[k + 1]]
             for k in np.flatnonzero(leaf_of_tree == t + 1)]
        )  # fmt: skip
        counts = np.bincount(cluster[members], minlength=30)
        assert set(counts) == {0, 5}
    assert sizes.min() >= 1


@pytest.mark.parametrize("setup", ["B", "D"])
def test_agrees_with_the_reference_implementation(setup, shared_data):
    with np.load(shared_data / "causal_forest_reference.npz") as file:
        data = {k[2:]: file[k] for k in file.files if k.startswith(setup)}
    targets = np.column_stack(
        [data["Y"] - data["m"], data["W"] - data["e"], np.ones(len(data["Y"]))]
    )
    grown = grow_forest(data["X"], targets, ForestSpec(n_trees=4000), seeds=make_seeds(2000, 11))
    got = grown.predict(data["X_test"])
    reference, truth = data["reference_prediction"], data["tau_test"]
    rms = lambda a, b: np.sqrt(np.mean((a - b) ** 2))  # noqa: E731
    assert np.corrcoef(got.value, reference)[0, 1] >= 0.999
    assert rms(got.value, reference) <= 0.025
    assert 0.97 <= rms(got.value, truth) / rms(reference, truth) <= 1.03
    ratio = np.sqrt(got.variance).mean() / np.sqrt(data["reference_variance"]).mean()
    assert 0.94 <= ratio <= 1.06
