"""Coordinates in which the posterior of a threshold test is nearly standard normal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from causalfair._core.typing import FloatArray
from causalfair.risk._nuts import Posterior
from causalfair.risk._threshold_model import ThresholdModel

__all__ = ["CELL_NAMES", "Whitening", "posterior_mode", "whiten", "whitened_posterior"]

CELL_NAMES = ("cell_threshold", "search_rate", "hit_rate")
EFFECTS = ("guilt", "signal")
Gradient = Callable[[FloatArray], FloatArray]
STEP = 1e-4
N_PAIRS, MAX_ROUNDS, MAX_STEP, CLOSE = 2, 15, 2.0, 0.15
# Coordinates have a prior of unit precision or data: less is an artefact of the mode's search.
LEAST_PRECISION = 0.25


def posterior_mode(model: ThresholdModel) -> FloatArray:
    """Coordinates with the largest marginal density."""

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(all="ignore"):
            value, gradient = model.marginal(x)
        return (-value, -gradient) if np.isfinite(value) else (1e15, np.zeros_like(x))

    options = {"maxiter": 5000, "maxfun": 20000, "maxcor": 30, "ftol": 1e-13}
    found = minimize(loss, model.start(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x)


@dataclass(frozen=True, slots=True)
class Whitening:
    """Linear map from standard coordinates, ``x = centre + L z``.

    Given what groups and regions share, places are independent: the precision at the mode is a
    block arrow, and so is its inverse root L.

    Attributes
    ----------
    centre : (n_dim,) array
        The mode.
    root : (n_shared, n_shared) array
        Root of the covariance of what is shared.
    gain : (n_places, n_common + 2, m) array
        Shift of a place's coordinates by what it shares: with all places, and with its region
        (no such columns without regions).
    factor : (n_places, m, m) array
        Cholesky factors of the places' conditional covariances.
    """

    centre: FloatArray
    root: FloatArray
    gain: FloatArray
    factor: FloatArray

    @property
    def arrays(self) -> tuple[FloatArray, ...]:
        """In the order of the kernels' arguments."""
        return self.centre, self.root, self.gain, self.factor


def _inverse_root(precision: FloatArray) -> FloatArray:
    """Lower-triangular root of the inverse of a symmetric matrix, made positive definite."""
    values, vectors = np.linalg.eigh(0.5 * (precision + precision.T))
    covariance = (vectors / np.maximum(values, LEAST_PRECISION)) @ vectors.T
    return np.asarray(np.linalg.cholesky(covariance))


def _blocks(model: ThresholdModel) -> list[slice]:
    """Coordinates of every place."""
    starts = model.n_shared + 2 * np.arange(len(model.first)) + model.first
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(starts)]


def _curvature(gradient: Gradient, model: ThresholdModel, x: FloatArray) -> FloatArray:
    """Minus second derivatives by what is shared, then by the j-th coordinate of all places.

    Places do not meet in the likelihood, so that one difference of gradients serves one coordinate
    of every place: (n_shared + m, n_dim).
    """
    blocks, k = _blocks(model), model.n_shared
    directions = list(np.eye(k, model.n_dim))
    for j in range(max(block.stop - block.start for block in blocks)):
        direction = np.zeros(model.n_dim)
        direction[[b.start + j for b in blocks if b.start + j < b.stop]] = 1.0
        directions.append(direction)
    changes = [gradient(x - STEP * v) - gradient(x + STEP * v) for v in directions]
    return np.array(changes) / (2.0 * STEP)


def _arrow(model: ThresholdModel, centre: FloatArray, curvature: FloatArray) -> Whitening:
    """Whitening by a block-arrow precision."""
    k, common, g = model.n_shared, model.n_common, len(model.cells.regions)
    blocks, m = _blocks(model), len(curvature) - k
    gain = np.zeros((len(blocks), common + (2 if g else 0), m))
    factor = np.zeros((len(blocks), m, m))
    left = curvature[:k, :k].copy()
    for d, block in enumerate(blocks):
        columns = np.arange(common)
        if model.cells.region is not None:
            at = common + model.cells.region[d]
            columns = np.append(columns, [at, at + g])
        size = block.stop - block.start
        root = _inverse_root(curvature[k : k + size, block])
        pull = curvature[columns, block] @ root
        factor[d, :size, :size] = root
        gain[d, :, :size] = -pull @ root.T
        left[np.ix_(columns, columns)] -= pull @ pull.T
    return Whitening(centre, _inverse_root(left), gain, factor)


def _convex(model: ThresholdModel, curvature: FloatArray) -> bool:
    """Whether every place has a precision; beyond the reach of a normal law it may not."""
    k = model.n_shared
    return bool(np.isfinite(curvature).all()) and all(
        np.linalg.eigvalsh(curvature[k : k + block.stop - block.start, block])[0] > 0
        for block in _blocks(model)
    )


def whiten(model: ThresholdModel, mode: FloatArray) -> Whitening:
    """Normal approximation of the posterior.

    It starts from the curvature of the marginal density at its mode, which lies several standard
    deviations from the mass where places differ much. Centre and precision then become expectations
    of gradient and curvature under the approximation itself (the normal law of least
    Kullback-Leibler divergence), over a few fixed points, as long as there is one.
    """
    from causalfair.risk._kernels_threshold import threshold_coordinates, threshold_whitened

    *_, first, _, region = model.layout
    half = np.random.default_rng(0).standard_normal((N_PAIRS, model.n_dim))
    points = np.concatenate([half, -half])
    found = _arrow(model, mode, _curvature(lambda x: model.marginal(x)[1], model, mode))
    for _ in range(MAX_ROUNDS):
        linear = found.arrays
        steps = [threshold_whitened(z, *linear, model.beta, *model.arrays)[1] for z in points]
        # Newton's step, since the precision is one; the first ones start far from the mass.
        step = np.clip(np.mean(steps, axis=0), -MAX_STEP, MAX_STEP)
        places = [
            threshold_coordinates(z, *linear, model.n_common, first, region)
            for z in [step, *(step + points)]
        ]
        curvature = np.mean(
            [_curvature(lambda x: model.density(x)[1], model, x) for x in places[1:]], axis=0
        )
        if not _convex(model, curvature):
            break
        found = _arrow(model, places[0], curvature)
        if np.abs(step[: model.n_shared]).max() < CLOSE:
            break
    return found


def whitened_posterior(model: ThresholdModel, whitening: Whitening) -> Posterior:
    """Density of the whitened coordinates, and group thresholds with all else that is reported.

    One call of a kernel that lets go of the interpreter: chains run side by side.
    """
    from causalfair.risk._kernels_threshold import threshold_coordinates, threshold_whitened

    beta, data, linear = model.beta, model.arrays, whitening.arrays
    *_, first, _, region = model.layout
    weights, cells = model.cells.place_weights(), model.cells

    def density(z: FloatArray) -> tuple[float, FloatArray]:
        found: tuple[float, FloatArray] = threshold_whitened(z, *linear, beta, *data)
        return found

    def report(z: FloatArray) -> dict[str, FloatArray]:
        found = model.report(threshold_coordinates(z, *linear, model.n_common, first, region))
        return {"threshold": weights @ found["cell_threshold"], **found}

    names = report(np.zeros(model.n_dim))
    dims = {name: ("cell",) if name in CELL_NAMES else ("group",) for name in names}
    if "place_sd" in names:
        dims["place_sd"] = ("effect",)
    labels = [
        f"{cells.groups[g]}, {cells.places[p]}"
        for g, p in zip(cells.group, cells.place, strict=True)
    ]
    return Posterior(
        density, report, dims, {"group": cells.groups, "cell": labels, "effect": EFFECTS}
    )
