"""Places near each other, and few clusters."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from causalfair.exceptions import DataError, ParameterError
from causalfair.inference import (
    CovarianceEstimates,
    InfluenceEstimates,
    clustered_vcov,
    conley_vcov,
    spatial_correlation_test,
    spatial_errors,
    wild_cluster_test,
)

pytestmark = pytest.mark.filterwarnings("ignore:Only .* clusters")


def haversine(a, b):
    lon0, lat0, lon1, lat1 = np.radians([*a, *b])
    h = np.sin((lat1 - lat0) / 2) ** 2
    h += np.cos(lat0) * np.cos(lat1) * np.sin((lon1 - lon0) / 2) ** 2
    return 2 * 6371.0 * np.arcsin(np.sqrt(h))


def scattered(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(179.0, 181.0, n), rng.uniform(-61.0, -60.0, n)])


def test_covariance_is_the_double_sum(monkeypatch):
    rng = np.random.default_rng(1)
    coords = scattered(60)
    coords[50:] = coords[:10]  # places with two rows
    psi = rng.normal(size=(60, 2))
    psi -= psi.mean(axis=0)
    want = np.zeros((2, 2))
    for i, j in product(range(60), repeat=2):
        weight = max(1 - haversine(coords[i], coords[j]) / 40.0, 0.0)
        want += weight * np.outer(psi[i], psi[j]) / 60**2
    np.testing.assert_allclose(conley_vcov(psi, coords, 40.0), want, rtol=1e-9, atol=1e-15)
    monkeypatch.setattr("causalfair.inference.spatial.BLOCK", 7)
    np.testing.assert_allclose(conley_vcov(psi, coords, 40.0), want, rtol=1e-9, atol=1e-15)


def test_a_tiny_cutoff_leaves_places_alone():
    rng = np.random.default_rng(2)
    psi = rng.normal(size=(90, 1))
    psi -= psi.mean()
    coords, village = scattered(30), np.arange(90) % 30
    got = conley_vcov(psi, coords[village], 1e-6)
    np.testing.assert_allclose(got, clustered_vcov(psi, village[:, None]) * 29 / 30, rtol=1e-9)


def test_spatial_errors_cover_where_independent_ones_do_not():
    """A mean over 400 places whose noise is shared within cells of about 28 km."""
    rng = np.random.default_rng(3)
    lon, lat = np.meshgrid(np.linspace(30, 35, 20), np.linspace(0, 5, 20))
    coords = np.column_stack([lon.ravel(), lat.ravel()])
    cell = (np.arange(400) // 20 // 2) * 10 + (np.arange(400) % 20) // 2
    hits = {"independent": 0, "spatial": 0}
    for _ in range(200):
        y = rng.normal(size=100)[cell] + rng.normal(size=400)
        mean = InfluenceEstimates(y.mean(), y - y.mean(), ["mean"])
        spatial = spatial_errors(mean, coords, cutoff_km=150)
        for name, est in (("independent", mean), ("spatial", spatial)):
            low, high = est.conf_int()[0]
            hits[name] += low < 0 < high
    assert hits["independent"] < 165
    assert 176 <= hits["spatial"] <= 197


def test_spatial_refusals():
    mean = InfluenceEstimates(0.0, [1.0, -1.0], ["mean"])
    with pytest.raises(DataError, match=r"coords of shape \(3, 2\) for 2 rows"):
        spatial_errors(mean, np.zeros((3, 2)), cutoff_km=1)
    with pytest.raises(DataError, match="swapped, or coordinates projected"):
        spatial_errors(mean, [[0.0, 500_000.0], [0.0, 1.0]], cutoff_km=1)
    with pytest.raises(ParameterError, match="cutoff_km=0"):
        spatial_errors(mean, np.zeros((2, 2)), cutoff_km=0)
    with pytest.raises(DataError, match="CovarianceEstimates has none"):
        spatial_errors(CovarianceEstimates([0.0], [[1.0]], ["a"]), np.zeros((2, 2)), cutoff_km=1)


def clustered_mean(y, site):
    return InfluenceEstimates(y.mean(), y - y.mean(), ["mean"], cluster=site)


def test_all_patterns_of_signs_are_gone_through():
    rng = np.random.default_rng(4)
    site = np.repeat(np.arange(6), [3, 4, 5, 6, 7, 8])
    y = rng.normal(size=33) + rng.normal(size=6)[site] + 0.5
    null = 0.2
    sums = np.bincount(site, y - null)

    def statistic(s):
        return abs(s.sum()) / (np.sqrt(6) * s.std(ddof=1))

    beyond = [
        statistic(np.array(signs) * sums) >= statistic(sums) - 1e-12
        for signs in product((-1, 1), repeat=6)
    ]
    test = wild_cluster_test(clustered_mean(y, site), null)
    assert test.p_value == pytest.approx(np.mean(beyond), abs=1e-12)
    assert "mean = 0.2" in str(test)


def test_few_clusters_keep_the_level():
    """Ten sites, one of them with half of the rows: normal intervals reject too often."""
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(10), [36] + [4] * 9)
    rejected = {"normal": 0, "rademacher": 0, "webb": 0}
    for seed in range(300):
        mean = clustered_mean(rng.normal(size=10)[site] + rng.normal(size=72), site)
        z = abs(mean.estimate[0] / mean.std_error[0])
        rejected["normal"] += z > 1.96
        for kind in ("rademacher", "webb"):
            test = wild_cluster_test(mean, weights=kind, n_draws=499, rng=seed)
            rejected[kind] += test.p_value <= 0.05
    assert rejected["normal"] > 40  # 5% would be 15
    assert 5 <= rejected["rademacher"] <= 25
    assert rejected["webb"] <= 27


def test_draws_are_the_same_for_the_same_seed():
    rng = np.random.default_rng(6)
    site = np.repeat(np.arange(20), 4)
    mean = clustered_mean(rng.normal(size=80) + 0.2, site)
    first, again, other = (wild_cluster_test(mean, rng=seed).p_value for seed in (1, 1, 2))
    assert first == again != other
    assert abs(first - other) < 0.03


def test_wild_refusals():
    y = np.arange(4.0)
    with pytest.raises(DataError, match="needs influence values and clusters"):
        wild_cluster_test(InfluenceEstimates(y.mean(), y - y.mean(), ["mean"]))
    mean = clustered_mean(y, [0, 0, 1, 1])
    with pytest.raises(ParameterError, match="weights='mammen'"):
        wild_cluster_test(mean, weights="mammen")
    two = InfluenceEstimates([0.0, 0.0], np.zeros((4, 2)), ["a", "b"], cluster=[0, 0, 1, 1])
    with pytest.raises(DataError, match="2 terms"):
        wild_cluster_test(two)
    ways = InfluenceEstimates([0.0], y - 1.5, ["a"], cluster=[[0, 0], [0, 1], [1, 0], [1, 1]])
    with pytest.raises(DataError, match="one way of clustering"):
        wild_cluster_test(ways)


def test_moran_is_its_definition():
    rng = np.random.default_rng(0)
    coords = np.column_stack([rng.uniform(30, 31, 40), rng.uniform(0, 1, 40)])
    value = rng.normal(size=40)
    z = value - value.mean()
    distance = np.array([[haversine(p, q) for q in coords] for p in coords])
    near = (distance <= 30) & ~np.eye(40, dtype=bool)
    want = 40 / near.sum() * (z @ near @ z) / (z @ z)
    test = spatial_correlation_test(value, coords, cutoff_km=30, random_state=0)
    assert test.statistic == pytest.approx(want, rel=1e-9)
    doubled = spatial_correlation_test(
        np.repeat(value, 2) + np.tile([0.1, -0.1], 40), np.repeat(coords, 2, axis=0), cutoff_km=30,
        random_state=0,
    )  # fmt: skip
    assert doubled.statistic == pytest.approx(want, rel=1e-9)  # rows of a place are averaged
    assert "I = " in str(test)


def test_moran_holds_its_level_and_sees_a_field():
    rng = np.random.default_rng(1)
    coords = np.column_stack([rng.uniform(30, 31, 80), rng.uniform(0, 1, 80)])
    p = [
        spatial_correlation_test(
            rng.normal(size=80), coords, cutoff_km=25, n_draws=99, random_state=r
        ).p_value
        for r in range(120)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    field = np.sin(6 * coords[:, 0]) + 0.5 * rng.normal(size=80)
    assert spatial_correlation_test(field, coords, cutoff_km=25, random_state=0).p_value < 0.01


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"cutoff_km": 0}, ParameterError, "cutoff_km=0 must be positive"),
        ({"cutoff_km": 1e-6}, DataError, "no two places are closer"),
        ({"values": np.ones(4)}, DataError, "values do not vary"),
        ({"coords": np.ones((3, 2))}, DataError, r"coords of shape \(3, 2\) for 4 rows"),
        ({"n_draws": 5}, ParameterError, "n_draws=5"),
    ],
)
def test_moran_refuses(change, error, match):
    given = {"values": np.arange(4.0), "coords": [[0, 0], [1, 0], [2, 0], [3, 0.0]],
             "cutoff_km": 200.0}  # fmt: skip
    with pytest.raises(error, match=match):
        spatial_correlation_test(**given | change)
