"""Monte-Carlo tables of the imagery family, stored for the documentation.

``nox -s validation -- imagery`` rewrites ``docs/_data/validation/imagery_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom
from sklearn.linear_model import RidgeCV
from validation._tables import Table, run

from causalfair.datasets import make_image_sequence_trial
from causalfair.forest import CausalForest, rank_average_treatment_effect
from causalfair.imagery import (
    ImageSequenceCATE,
    RandomConvolutionFeatures,
    SequenceFeatures,
    SpectralFeatures,
)

POOLINGS: dict[str, Any] = {
    "last frame": "last",
    "mean": "mean",
    "attention, random": "attention_random",
    "mean and trend": ("mean", "trend"),
    "all frames side by side": "concat",
}
SMALL: dict[str, Any] = {"n_frames": 4, "size": 12, "noise": 0.7}


def representations(replications: int) -> Iterator[dict]:
    """Variance of the effect that a ridge regression on features explains in 300 new places.

    400 places of six frames; the effect is known, so this is what a representation can see.
    """
    share: dict[str, list[float]] = {name: [] for name in POOLINGS}
    for seed in range(replications):
        _, truth = make_image_sequence_trial(400, random_state=2 * seed)
        _, new = make_image_sequence_trial(300, random_state=2 * seed + 1)
        encoder = RandomConvolutionFeatures(128, random_state=seed)
        for name, pooling in POOLINGS.items():
            features = SequenceFeatures(encoder, pooling=pooling, n_components="auto")
            line = RidgeCV(np.logspace(-3, 4, 15))
            line.fit(features.fit_transform(truth["images"]), truth["cate"])
            error = new["cate"] - line.predict(features.transform(new["images"]))
            share[name].append(1 - error.var() / new["cate"].var())
    for name, values in share.items():
        yield {
            "frames pooled by": name,
            "variance explained": np.mean(values),
            "least": np.min(values),
            "most": np.max(values),
        }


def ranking_tests(replications: int) -> Iterator[dict]:
    """Share of rejections at 5 % without and with effects that differ; 240 places of four frames."""
    features = SequenceFeatures(SpectralFeatures())
    for name, strength in (("no heterogeneity", 0.0), ("heterogeneity", 1.0)):
        hits: dict[tuple[str, str], list[bool]] = {}
        for seed in range(replications):
            frame, truth = make_image_sequence_trial(
                240, heterogeneity=strength, **SMALL, random_state=seed
            )
            for scheme in ("sequential", "split"):
                model = ImageSequenceCATE(
                    features, CausalForest(60), scheme=scheme, n_folds=4, random_state=seed
                ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
                for metric, p in model.evaluate().p_values().items():
                    hits.setdefault((scheme, metric), []).append(p < 0.05)
        low, high = binom.ppf([0.005, 0.995], replications, 0.05) / replications
        for (scheme, metric), rejected in hits.items():
            yield {
                "data": name,
                "test": f"{scheme}, {metric.upper()}",
                "rejections": np.mean(rejected),
                "99% band of 5%": f"{low:.3f} to {high:.3f}" if strength == 0 else "",
            }


def rate_coverage(replications: int) -> Iterator[dict]:
    """RATE of a ranking learned in one trial, evaluated in another; 240 places each.

    The truth is that ranking's RATE over 1,500 other places, whose effects are known.
    """
    _, region = make_image_sequence_trial(1500, **SMALL, random_state=10_000)
    rows: dict[str, list[tuple[float, float, float]]] = {"autoc": [], "qini": []}
    for seed in range(replications):
        ranking, _ = small_model(20_000 + seed)
        judge, images = small_model(30_000 + seed)
        far = np.asarray(ranking.predict(region["images"]))
        near = np.asarray(ranking.predict(images))
        for method, store in rows.items():
            truth = rank_average_treatment_effect(
                far, region["cate"], method=method, n_bootstrap=10, random_state=seed
            ).estimates_.estimate[0]
            got = rank_average_treatment_effect(
                near, judge.effect_model_.scores_, method=method, random_state=seed
            ).estimates_
            store.append((got.estimate[0], got.std_error[0], truth))
    for method, store in rows.items():
        estimate, error, truth = np.array(store).T
        gap = estimate - truth
        yield {
            "estimator": f"{method.upper()}, new trial",
            "bias": gap.mean(),
            "SD": gap.std(ddof=1),
            "mean SE": error.mean(),
            "SE / SD": error.mean() / gap.std(ddof=1),
            "coverage": np.mean(np.abs(gap) < 1.959964 * error),
        }


def small_model(seed: int) -> tuple[ImageSequenceCATE, Any]:
    frame, truth = make_image_sequence_trial(240, **SMALL, random_state=seed)
    model = ImageSequenceCATE(
        SequenceFeatures(SpectralFeatures()), CausalForest(60), scheme="oob", random_state=seed
    ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
    return model, truth["images"]


def transport(replications: int) -> Iterator[dict]:
    """Average effect in a region that has grown faster, from a trial of 400 places."""
    rows: dict[str, list[tuple[float, float, float]]] = {
        "trial ATE": [],
        "plug-in": [],
        "target ATE": [],
    }
    for seed in range(replications):
        frame, truth = make_image_sequence_trial(400, **SMALL, random_state=40_000 + seed)
        _, target = make_image_sequence_trial(
            300, **SMALL, shift=(0.0, 0.015), random_state=50_000 + seed
        )
        model = ImageSequenceCATE(
            SequenceFeatures(SpectralFeatures()), CausalForest(100), scheme="oob", random_state=seed
        ).fit(truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5)
        got = model.transport(target["images"], unsupported="ignore")
        value = 1 + 20 * 0.015
        trial = model.estimates_
        rows["trial ATE"].append((trial.estimate[0], trial.std_error[0], value))
        rows["plug-in"].append((got.plug_in, np.nan, value))
        rows["target ATE"].append((got.estimates_.estimate[0], got.estimates_.std_error[0], value))
    for name, store in rows.items():
        estimate, error, truth = np.array(store).T
        gap = estimate - truth
        yield {
            "estimator": f"{name}, for a growing region",
            "bias": gap.mean(),
            "SD": gap.std(ddof=1),
            "mean SE": error.mean(),
            "SE / SD": error.mean() / gap.std(ddof=1),
            "coverage": np.nan
            if np.isnan(error).all()
            else np.mean(np.abs(gap) < 1.959964 * error),
        }


def same_shares(
    stored: pd.DataFrame, fresh: pd.DataFrame, _n_stored: int, _n_fresh: int
) -> list[str]:
    """Shares of variance explained move little between pairs of regions."""
    gap = (fresh["variance explained"] - stored["variance explained"]).abs()
    return [f"{fresh.iloc[k, 0]}: off by {g:.2f}" for k, g in gap.items() if g > 0.06]


TABLES = {
    "imagery_representations": Table(representations, 10, 2, compare=same_shares),
    "imagery_ranking_tests": Table(ranking_tests, 400, 20),
    "imagery_rate_coverage": Table(rate_coverage, 400, 20),
    "imagery_transport": Table(transport, 60, 15),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
