from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from causalfair.exceptions import MissingDependencyError, ParameterError
from causalfair.reporting import forest_plot, overlap_plot


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_forest_plot_draws_points_and_intervals(estimates):
    ax = forest_plot(estimates, level=0.9)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ATE", "direct effect"]
    points = ax.lines[1]
    np.testing.assert_array_equal(points.get_xdata(), estimates.estimate)
    ends = [segment[:, 0] for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, estimates.conf_int(0.9))
    assert ax.get_xlabel() == "estimate and 90% interval"
    assert ax.yaxis_inverted()


def test_forest_plot_shows_open_ends_as_arrows(estimates):
    estimates.conf_int = lambda level: np.array([[-np.inf, np.inf], [-0.6, -0.4]])
    ax = forest_plot(estimates, null=None)
    arrows = {line.get_marker(): line for line in ax.lines if len(line.get_xdata())}
    assert {"<", ">"} <= set(arrows)
    assert arrows["<"].get_ydata().tolist() == [0]
    assert np.isfinite(ax.get_xlim()).all()


def test_plots_use_the_axes_they_are_given_and_change_no_style(estimates):
    before = dict(mpl.rcParams)
    _, ax = plt.subplots(1, 2)
    assert forest_plot(estimates, ax=ax[0]) is ax[0]
    assert overlap_plot([0.2, 0.7], [0, 1], ax=ax[1]) is ax[1]
    assert plt.get_fignums() == [1]
    assert dict(mpl.rcParams) == before


def test_all_missing_estimates_still_draw(estimates):
    estimates.estimate = np.full(2, np.nan)
    ax = forest_plot(estimates, null=None)
    assert np.isfinite(ax.get_xlim()).all()


def test_overlap_shares_of_each_arm_sum_to_one():
    rng = np.random.default_rng(0)
    propensity = rng.beta(2, 3, 500)
    treated = rng.random(500) < propensity
    ax = overlap_plot(propensity, treated)
    heights = np.array([bar.get_height() for bar in ax.patches])
    assert heights[:40].sum() == pytest.approx(1.0)
    assert heights[40:].sum() == pytest.approx(-1.0)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"treated (n = {treated.sum()})", f"untreated (n = {(~treated).sum()})"]


@pytest.mark.parametrize(
    ("propensity", "treatment", "message"),
    [
        ([0.5, 0.5], [1], r"shape \(2,\) and treatment of shape \(1,\)"),
        ([0.5, 1.5], [0, 1], r"1 value\(s\) outside \[0, 1\], the first 1.5"),
        ([0.5, np.nan], [0, 1], r"1 value\(s\) outside"),
        ([0.5, 0.5], [0, 2], r"values \[0.0, 2.0\]; code it as zero and one"),
    ],
)
def test_overlap_refuses_what_is_not_a_propensity(propensity, treatment, message):
    with pytest.raises(ParameterError, match=message):
        overlap_plot(propensity, treatment)


def test_missing_matplotlib_names_the_extra(estimates, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(MissingDependencyError, match=r'pip install "causalfair\[plot\]"'):
        forest_plot(estimates)
