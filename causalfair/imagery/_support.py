"""Where a trial supports a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import BoolArray, FloatArray, IntArray
from causalfair.exceptions import CausalFairWarning
from causalfair.imagery._compress import Compressor

__all__ = ["SupportReference", "SupportReport"]

MOST = 20  # components that distances are taken in
LEAST_DENSITY = 0.05
FOLDS = 5
LATE = 2.0  # years
LATE_IN_YEAR = 60 / 365
ONE_SEASON = 0.7  # mean resultant length of times of the year: a spread of about seven weeks


@dataclass(frozen=True)
class SupportReport:
    """Support of places outside the trial.

    Attributes
    ----------
    density_ratio : ndarray of shape (G,)
        Density of the trial over that of the target at each place; 1 where equal.
    distance : ndarray of shape (G,)
        Distance to the nearest trial place over the 95th percentile of such distances between trial
        clusters.
    reconstruction : ndarray of shape (G,)
        Error of reconstruction from the trial's components over the trial's 99th percentile.
    trial_probability : ndarray of shape (n,)
        Out-of-fold probability of belonging to the trial, of the trial's units.
    auc : float
        Area under the curve of telling trial from target; 0.5 if alike.
    effective_share : float
        Effective sample size of the trial, weighted to the target, over its size.
    weight_total : float
        Sum of those weights over the number of target units. About 1 where trial and target
        overlap; near 0 where they are told apart, for then no weight turns one into the other
        (all weights are small alike, and ``effective_share`` looks deceptively good).
    """

    density_ratio: FloatArray
    distance: FloatArray
    reconstruction: FloatArray
    trial_probability: FloatArray
    auc: float
    effective_share: float
    weight_total: float

    @property
    def supported(self) -> BoolArray:
        """Places inside all three limits."""
        return np.asarray(
            (self.density_ratio >= LEAST_DENSITY)
            & (self.distance <= 1.0)
            & (self.reconstruction <= 1.0)
        )

    def to_frame(self) -> Any:
        """One row a place.

        Returns
        -------
        pandas.DataFrame
            Columns ``density_ratio, distance, reconstruction, supported``.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "density_ratio": self.density_ratio,
                "distance": self.distance,
                "reconstruction": self.reconstruction,
                "supported": self.supported,
            }
        )

    def plot(self, *, ax: Any = None) -> Any:
        """Densities of the trial over the target, at places of both, on a log scale.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            The axes drawn on. Places left of the dashed line lack support.
        """
        from causalfair.reporting.plot import new_axes

        G, n = self.density_ratio.size, self.trial_probability.size
        odds = self.trial_probability / (1 - self.trial_probability)
        ratios = {"trial": np.log10(odds * G / n), "target": np.log10(self.density_ratio)}
        ends = np.concatenate([*ratios.values(), [np.log10(LEAST_DENSITY)]])
        edges = np.linspace(ends.min() - 0.05, ends.max() + 0.05, 41)
        ax = new_axes(ax, height=3.6)
        for (name, values), sign in zip(ratios.items(), (1.0, -1.0), strict=True):
            share = sign * np.histogram(values, edges)[0] / values.size
            ax.bar(edges[:-1], share, width=np.diff(edges), align="edge", alpha=0.75,
                   label=f"{name} ({values.size:,})")  # fmt: skip
        ax.axvline(np.log10(LEAST_DENSITY), color="0.4", linewidth=1, linestyle=(0, (4, 3)))
        ax.axhline(0.0, color="0.3", linewidth=0.8)
        ax.xaxis.set_major_formatter(lambda power, _: f"{10.0**power:.3g}")
        ax.yaxis.set_major_formatter(lambda share, _: f"{abs(share):.0%}")
        ax.set_xlabel("density of the trial over that of the target")
        ax.set_ylabel("share of units")
        ax.set_title(
            f"supported {self.supported.mean():.0%}, AUC {self.auc:.2f}, effective trial size "
            f"{self.effective_share:.0%}", loc="left", fontsize=10,
        )  # fmt: skip
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
        return ax

    def summary(self) -> Any:
        """Printable table.

        Returns
        -------
        causalfair.reporting.Summary
            Prints as text.
        """
        from causalfair.reporting import Summary, Table

        G = self.distance.size
        checks = [
            ("density ratio", f"< {LEAST_DENSITY}", self.density_ratio < LEAST_DENSITY),
            ("distance to the trial", "> 1", self.distance > 1),
            ("reconstruction error", "> 1", self.reconstruction > 1),
        ]
        rows = [[name, limit, f"{fails.mean():.1%}"] for name, limit, fails in checks]
        return Summary(
            "Support of the target places by the trial",
            [
                ("places", f"{G:,}"),
                ("supported", f"{self.supported.mean():.1%}"),
                ("AUC of trial against target", f"{self.auc:.3f}"),
                ("effective trial size", f"{self.effective_share:.1%}"),
                ("weights sum to", f"{self.weight_total:.1%} of the target"),
            ],
            [Table(["check", "fails if", "share failing"], rows, None, "llr")],
            ["Support is about images; that effects are alike given images cannot be tested."],
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return str(self.summary()._repr_html_())


@dataclass(frozen=True)
class Calendar:
    """When and by what the trial's images were taken.

    Attributes
    ----------
    dated : bool
        Whether frames have dates.
    last : float
        Year of the latest frame.
    pixel : float or None
        Size of a pixel in metres.
    season : float or None
        Mean time of year as a fraction of it; None where frames are spread over the year.
    """

    dated: bool
    last: float
    pixel: float | None
    season: float | None = None

    @classmethod
    def of(cls, sequence: Any) -> Calendar:
        """Calendar of a sequence."""
        pixel = None if sequence.gsd is None else float(sequence.gsd * sequence._factor)
        years = sequence.years[np.isfinite(sequence.years)]
        mean = np.exp(2j * np.pi * years).mean()
        known = abs(mean) > ONE_SEASON and (years % 1 != 0).any()  # whole years are not dates
        season = float(np.angle(mean) / (2 * np.pi) % 1) if known else None
        return cls(bool(sequence.dated), float(years.max()), pixel, season)

    def warn_of(self, target: Calendar, owner: str) -> None:
        """Say where the target's images are of another time or sensor."""
        if self.dated and target.dated and target.last > self.last + LATE:
            warn(
                f"{owner}: the target's images run to {target.last:.1f}, the trial's to "
                f"{self.last:.1f}; what images say about effects may have changed since.",
                CausalFairWarning,
            )
        if self.dated and target.dated and self.season is not None and target.season is not None:
            apart = abs((target.season - self.season + 0.5) % 1 - 0.5)
            if apart > LATE_IN_YEAR:
                warn(
                    f"{owner}: the target's images are of another season: {365 * apart:.0f} days "
                    "from the trial's, so that crops and grass look different.",
                    CausalFairWarning,
                )
        if None not in (self.pixel, target.pixel) and not np.isclose(
            self.pixel or 0.0, target.pixel or 0.0, rtol=0.01
        ):
            warn(
                f"{owner}: pixels are {target.pixel:g} m in the target and {self.pixel:g} m in the "
                "trial: another sensor or resampling.",
                CausalFairWarning,
            )


@dataclass(frozen=True)
class SupportReference:
    """What of the trial the diagnostics need.

    Attributes
    ----------
    compressor : Compressor
        Components of the trial's places.
    Z : ndarray of shape (R, m)
        Places in standardised components.
    spread : ndarray of shape (m,)
        Standard deviations of the components.
    row_of_unit : ndarray of shape (n,)
        Place of each unit.
    group_of_row : ndarray of shape (R,)
        Cluster of each place.
    distance_limit, error_limit : float
        Limits learned from the trial.
    """

    compressor: Compressor
    Z: FloatArray
    spread: FloatArray
    row_of_unit: IntArray
    group_of_row: IntArray
    distance_limit: float
    error_limit: float

    @classmethod
    def learn(cls, raw: FloatArray, row_of_unit: IntArray, groups: Any) -> SupportReference | None:
        """Limits from the trial's own places; None where images do not vary."""
        compressor = Compressor("auto").fit(raw)
        if compressor.components_ is None:
            return None
        compressor.components_ = compressor.components_[:MOST]
        Z = compressor.transform(raw)
        sd = Z.std(axis=0)
        group_of_row = np.arange(len(raw))
        if groups is not None:
            group_of_row = np.full(len(raw), -1)
            group_of_row[row_of_unit] = groups
        between = _nearest_outside(Z / sd, group_of_row)
        error = compressor.reconstruction_error(raw)
        return cls(
            compressor,
            Z / sd,
            sd,
            row_of_unit,
            group_of_row,
            float(np.quantile(between, 0.95)),
            max(float(np.quantile(error, 0.99)), 1e-12),
        )

    def components(self, raw: FloatArray) -> FloatArray:
        """Standardised components (G, m) of places given their features."""
        return np.asarray(self.compressor.transform(raw) / self.spread)

    def report(
        self, raw: FloatArray, rows: IntArray, seed: np.random.SeedSequence
    ) -> SupportReport:
        """Support of target units, given raw features of their places."""
        from scipy.spatial import cKDTree

        Z = self.components(raw)
        distance = cKDTree(self.Z).query(Z)[0] / max(self.distance_limit, 1e-12)
        error = self.compressor.reconstruction_error(raw) / self.error_limit
        trial, target = self.Z[self.row_of_unit], Z[rows]
        groups = self.group_of_row[self.row_of_unit]
        p_trial, p_target, auc = membership(trial, target, groups, seed)
        odds = p_target / (1 - p_target) * len(target) / len(trial)
        weight = capped_odds(p_trial)
        share = weight.sum() ** 2 / (weight**2).sum() / weight.size
        total = weight.sum() / len(target)
        return SupportReport(
            odds, distance[rows], error[rows], p_trial, auc, float(share), float(total)
        )


def capped_odds(p_trial: FloatArray) -> FloatArray:
    """Odds of the target against the trial, capped at their 99th percentile."""
    odds = (1 - p_trial) / p_trial
    return np.minimum(odds, np.quantile(odds, 0.99))


def _nearest_outside(Z: FloatArray, groups: IntArray) -> FloatArray:
    """Distance of each row to the nearest row of another group."""
    from scipy.spatial import cKDTree

    out = np.full(len(Z), np.nan)
    tree = cKDTree(Z)
    pending = np.arange(len(Z))
    k = 2
    while pending.size and k <= 2 * len(Z):
        distance, index = tree.query(Z[pending], k=min(k, len(Z)))
        other = groups[index] != groups[pending][:, None]
        found = other.any(axis=1)
        out[pending[found]] = distance[found, other[found].argmax(axis=1)]
        pending = pending[~found]
        k *= 4
    finite: FloatArray = out[np.isfinite(out)]
    return finite


def membership(
    trial: FloatArray, target: FloatArray, groups: IntArray, seed: np.random.SeedSequence
) -> tuple[FloatArray, FloatArray, float]:
    """Out-of-fold probabilities of belonging to the trial, of trial and target units, and AUC."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    from causalfair._core.crossfit import out_of_fold

    n, G = len(trial), len(target)
    X = np.vstack([trial, target])
    s = np.concatenate([np.ones(n), np.zeros(G)])
    codes = np.unique(groups, return_inverse=True)[1]
    everyone = np.concatenate([codes, codes.max() + 1 + np.arange(G)])
    p = out_of_fold(
        LogisticRegression(C=1.0, max_iter=1000), X, s, n_folds=FOLDS, seed=seed,
        method="predict_proba", groups=everyone, stratify=s,
    )  # fmt: skip
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return p[:n], p[n:], float(roc_auc_score(s, p))
