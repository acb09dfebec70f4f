"""Randomised headline tests, and the selection that is put back in on purpose."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from causalfair.datasets import fetch_upworthy, make_confounded_headlines
from causalfair.exceptions import DataError
from causalfair.reward import DeconfoundedReward

MARKS = {
    "question": r"\?",
    "digit": r"\d",
    "you": r"\b[Yy]ou",
    "this": r"\b[Tt]his\b",
    "quote": r"['\"]",
    "she or he": r"\b(?:[Ss]he|[Hh]e|[Hh]is|[Hh]er)\b",
}


@pytest.fixture(scope="module")
def packages(shared_data):
    return fetch_upworthy(shared_data / "upworthy_development_half.parquet")


def test_packages(packages, shared_data, monkeypatch):
    assert list(packages.columns) == [
        "test", "experiment", "week", "headline", "impressions", "clicks",
    ]  # fmt: skip
    assert packages.shape == (9381, 6)
    assert not packages["week"].between(201325, 201401).any()
    pairs = packages[["experiment", "test"]].drop_duplicates()
    assert pairs["experiment"].is_unique
    monkeypatch.setenv("CAUSALFAIR_DATA", str(shared_data))
    assert fetch_upworthy().equals(packages)
    assert len(fetch_upworthy(faulty_weeks=True)) == 11571


def slope(frame, **options):
    reward = DeconfoundedReward(
        penalty=0.0, method="orthogonal" if "categorical" in options else "naive"
    ).fit(frame, "clicks", trials="impressions", embedding=["marker"], **options)
    return reward.estimates_.estimate[0], reward.estimates_.std_error[0]


def test_selection_is_undone(packages):
    """Randomised tests tell the truth; the raw log misses it, the deconfounded reward does not."""
    missed = []
    for name, pattern in MARKS.items():
        mark = packages["headline"].str.contains(pattern).astype(float)
        truth, se_truth = slope(packages.assign(marker=mark), categorical=["test"], cluster="test")
        log, _ = make_confounded_headlines(packages, mark, random_state=0)
        assert (log["test"].value_counts() == 1).all()
        raw, se_raw = slope(log)
        ours, se = slope(log, categorical=["popularity"])
        assert abs(ours - truth) < 3 * np.hypot(se, se_truth), name
        missed.append((raw - truth) / np.hypot(se_raw, se_truth))
        if name == "question":
            assert ours < 0 < raw  # readers click less on questions; the raw log says more
    assert (np.array(missed) > 2).all()
    assert np.mean(missed) > 3


def csv(folder, **changes):
    frame = pd.DataFrame(
        {
            "clickability_test_id": list("aaab"), "eyecatcher_id": list("xxyz"),
            "test_week": [201410, 201410, 201410, 201330], "headline": list("hijk"),
            "impressions": [10, 20, 0, 40], "clicks": [1, 2, 0, 4],
        }
    ).assign(**changes)  # fmt: skip
    place = folder / "packages.csv"
    frame.to_csv(place, index=False)
    return place


def test_a_file_of_the_archive(tmp_path):
    place = csv(tmp_path)
    frame = fetch_upworthy(place)
    assert frame["headline"].tolist() == ["h", "i"]
    assert frame["experiment"].tolist() == [0, 0]
    assert len(fetch_upworthy(place, faulty_weeks=True)) == 3
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    assert fetch_upworthy(place, sha256=digest.upper()).equals(frame)


def test_files_that_will_not_do(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="found no file .*osf.io/jd64p"):
        fetch_upworthy(tmp_path / "none.csv")
    monkeypatch.setenv("CAUSALFAIR_DATA", str(tmp_path))
    with pytest.raises(DataError, match="upworthy_development_half.parquet"):
        fetch_upworthy()
    (tmp_path / "upworthy_development_half.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="another file or damaged"):
        fetch_upworthy()
    with pytest.raises(DataError, match="has SHA-256"):
        fetch_upworthy(csv(tmp_path), sha256="0" * 64)
    with pytest.raises(DataError, match="needs sha256="):
        fetch_upworthy(url="https://example.org/a.csv")
    place = tmp_path / "short.csv"
    pd.DataFrame({"headline": ["a"]}).to_csv(place)
    with pytest.raises(DataError, match="lacks the column"):
        fetch_upworthy(place)


def test_a_download_is_checked(tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    place = csv(tmp_path)
    monkeypatch.setenv("CAUSALFAIR_DATA", str(tmp_path))
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    frame = fetch_upworthy(url="https://example.org/packages.csv", sha256=digest)
    assert frame.equals(fetch_upworthy(place))


def test_selection_follows_the_recorded_circumstance_alone():
    rng = np.random.default_rng(0)
    tests = pd.DataFrame(
        {"test": np.repeat(np.arange(600), 4), "headline": "h", "impressions": 1000,
         "clicks": rng.integers(1, 100, 2400)}
    )  # fmt: skip
    mark = rng.integers(0, 2, 2400).astype(float)
    log, truth = make_confounded_headlines(tests, mark, strength=3.0, random_state=1)
    share = list(truth["selection"].values())
    assert share == sorted(share)
    assert share[0] < 0.25 < 0.75 < share[4]
    np.testing.assert_array_equal(mark[truth["row"]], log["marker"])
    np.testing.assert_array_equal(tests["clicks"].to_numpy()[truth["row"]], log["clicks"])
    assert log["popularity"].value_counts().tolist() == [120] * 5
    again, _ = make_confounded_headlines(tests, mark, strength=3.0, random_state=1)
    assert again.equals(log)
    even, _ = make_confounded_headlines(tests, mark, strength=0.0, random_state=1)
    assert even.groupby("popularity")["marker"].mean().between(0.3, 0.7).all()
    with pytest.raises(DataError, match=r"marker must lie in \[0, 1\]"):
        make_confounded_headlines(tests, 3 * mark)
    with pytest.raises(DataError, match="no test has three arms"):
        make_confounded_headlines(tests.iloc[:2], mark[:2])
    with pytest.raises(DataError, match="lengths differ"):
        make_confounded_headlines(tests, mark[:5])
