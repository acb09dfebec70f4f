"""Coordinates in which the posterior of a threshold test is nearly standard normal."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from causalfair._core.typing import FloatArray, IntArray
from causalfair.risk._nuts import Posterior
from causalfair.risk._threshold_model import ThresholdModel

__all__ = ["CELL_NAMES", "Whitening", "evidence", "posterior_mode", "whiten", "whitened_posterior"]

CELL_NAMES = ("cell_threshold", "search_rate", "hit_rate")
EFFECTS = ("guilt", "signal")
Gradient = Callable[[FloatArray], FloatArray]
STEP = 1e-4
N_PAIRS, MAX_ROUNDS, MAX_STEP, CLOSE = 2, 15, 2.0, 0.15
# Coordinates have a prior of unit precision or data: less is an artefact of the mode's search.
LEAST_PRECISION = 0.25
HOLD = 1e8
# Standard deviations of places' effects from which modes are sought.
FIRST_SDS = (0.1, 0.25, 0.6)
N_EVIDENCE, SAME, FAR = 16, 0.05, 50.0
# Of the log of a standard deviation: a standard error of a fifth.
ENOUGH = 25.0
OVER_RELAX, MAX_MOVE, MAX_EM_STEPS = 1.5, 0.4, 20


def posterior_mode(model: ThresholdModel, start: FloatArray | None = None) -> FloatArray:
    """Coordinates with the largest marginal density near a start.

    Standard deviations of places stay: a joint mode overstates them, since it counts no uncertainty
    of the effects that they scale.
    """

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        with np.errstate(all="ignore"):
            value, gradient = model.marginal(x)
        gradient[model.scales] = 0.0
        return (-value, -gradient) if np.isfinite(value) else (1e15, np.zeros_like(x))

    options = {"maxiter": 5000, "maxfun": 20000, "maxcor": 30, "ftol": 1e-13}
    first = model.start() if start is None else start
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x)


def _modes(model: ThresholdModel) -> list[FloatArray]:
    """Modes reached from where places differ as they may, and from where they differ more.

    How much of the differences is laid to places, and how much to groups, decides which way groups
    go: the density has several modes.
    """
    q, out = model.priors, []
    for sd in FIRST_SDS if q.learn_places else (q.place_guilt, *FIRST_SDS):
        guilt, signal = (sd, sd) if q.learn_places else (sd, sd * q.place_signal / q.place_guilt)
        freer = replace(q, place_guilt=guilt, place_signal=signal, learn_places=False)
        other = ThresholdModel(model.cells, freer, "beta" if model.beta else "discriminant")
        x = posterior_mode(other)
        if q.learn_places:
            scales = np.array([guilt / q.place_guilt, signal / q.place_signal])
            out.append(np.insert(x, model.scales.start, scales))
            continue
        x[_effects(model)] *= sd / q.place_guilt
        mode = posterior_mode(model, x)
        if all(np.abs(mode - known)[: model.n_shared].max() > SAME for known in out):
            out.append(mode)
    return out


def _effects(model: ThresholdModel) -> IntArray:
    """Coordinates of the places' effects."""
    starts = model.n_shared + 2 * np.arange(len(model.first) - 1) + model.first[:-1]
    return np.concatenate([starts, starts + 1])


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


@np.errstate(over="ignore", invalid="ignore")  # far out; looked for afterwards
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


def _pinned(model: ThresholdModel, curvature: FloatArray, precision: float) -> FloatArray:
    """Curvature with additional precision of the places' standard deviations."""
    out = curvature.copy()
    at = np.arange(model.n_dim)[model.scales]
    out[at, at] += precision
    return out


def _rescaled(
    model: ThresholdModel, centre: FloatArray, points: list[FloatArray]
) -> tuple[FloatArray, float]:
    """Centre after an EM step of the places' standard deviations, and the largest move of a log.

    The effects themselves stay; ``points`` stand for the approximation.
    """
    out, most = centre.copy(), 0.0
    for at, k in zip(_effects(model).reshape(2, -1), range(model.n_dim)[model.scales], strict=True):
        square = centre[k] ** 2 * np.mean([np.sum(x[at] ** 2) for x in points])
        # Maximum over v = sd^2 of -n log(v) / 2 - square / (2 v) - v / 2.
        best = 0.5 * (np.sqrt(len(at) ** 2 + 4.0 * square) - len(at))
        ahead = OVER_RELAX * 0.5 * np.log(best / centre[k] ** 2)
        move = float(np.clip(ahead, -MAX_MOVE, MAX_MOVE))
        out[k] *= np.exp(move)
        out[at] *= np.exp(-move)
        most = max(most, abs(move))
    return out, most


@dataclass(frozen=True, slots=True)
class _Settled:
    """A normal approximation, points that stand for it, and the curvature expected over them."""

    whitening: Whitening
    points: list[FloatArray]
    curvature: FloatArray


@np.errstate(over="ignore", invalid="ignore")  # far out; looked for afterwards
def _expected_curvature(model: ThresholdModel, points: list[FloatArray]) -> FloatArray:
    curvatures = [_curvature(lambda x: model.density(x)[1], model, x) for x in points]
    return np.asarray(np.mean(curvatures, axis=0))


@np.errstate(over="ignore", invalid="ignore")  # far out; looked for afterwards
def _settle(model: ThresholdModel, start: Whitening, pin: float) -> _Settled:
    """Make centre and precision the expectations of gradient and curvature under themselves.

    That is the normal law of least Kullback-Leibler divergence, over a few fixed points, but for
    the precision ``pin`` added to the places' standard deviations. Rounds end where there is none
    so far from the mode.
    """
    from causalfair.risk._kernels_threshold import threshold_coordinates, threshold_whitened

    *_, first, _, region = model.layout
    half = np.random.default_rng(0).standard_normal((N_PAIRS, model.n_dim))
    spread = np.concatenate([half, -half])
    found, points, curvature, reach = start, [start.centre], np.empty(0), 1.0
    for _ in range(MAX_ROUNDS):
        linear, near = found.arrays, reach * spread
        steps = [threshold_whitened(z, *linear, model.beta, *model.arrays)[1] for z in near]
        # Newton's step, since the precision is one; the first ones start far from the mass.
        step = reach * np.clip(np.mean(steps, axis=0), -MAX_STEP, MAX_STEP)
        centre, *moved = [
            threshold_coordinates(z, *linear, model.n_common, first, region)
            for z in [step, *(step + near)]
        ]
        expected = _expected_curvature(model, moved)
        if not _convex(model, expected):
            reach *= 0.5
            continue
        points, curvature = moved, expected
        found = _arrow(model, centre, _pinned(model, expected, pin))
        if reach == 1.0 and np.abs(step[: model.n_shared]).max() < CLOSE:
            break
        reach = min(2.0 * reach, 1.0)
    return _Settled(found, points, curvature)


def _at_mode(model: ThresholdModel, mode: FloatArray, pin: float) -> Whitening:
    curvature = _curvature(lambda x: model.marginal(x)[1], model, mode)
    return _arrow(model, mode, _pinned(model, curvature, pin))


def _approximation(model: ThresholdModel, mode: FloatArray) -> Whitening:
    """Normal approximation near a mode.

    It starts from the curvature of the marginal density there, which is several standard deviations
    from the mass where places differ much. Standard deviations of places, where they are learnt,
    take EM steps, each with a new mode, and are free at last. What does not raise the evidence is
    left out.
    """
    if not model.priors.learn_places:
        first = _at_mode(model, mode, 0.0)
        return _better(model, first, _settle(model, first, 0.0).whitening)
    model.held[:-1] = 0.0
    best, most = None, -np.inf
    for _ in range(MAX_EM_STEPS):
        settled = _settle(model, _at_mode(model, mode, HOLD), HOLD)
        bound = evidence(model, settled.whitening)
        if best is None or bound > most:
            best, most = settled, bound
        centre, move = _rescaled(model, settled.whitening.centre, settled.points)
        if move < CLOSE or not settled.curvature.size:
            break
        mode = posterior_mode(model, centre)
    assert best is not None
    start = best.whitening
    if best.curvature.size:
        _hold_effects(model, start)
        start = _arrow(model, start.centre, _expected_curvature(model, best.points))
    return _better(model, start, _settle(model, start, 0.0).whitening)


def _better(model: ThresholdModel, first: Whitening, second: Whitening) -> Whitening:
    return second if evidence(model, second) >= evidence(model, first) else first


def _hold_effects(model: ThresholdModel, found: Whitening) -> None:
    """Choose coordinates of the places' effects that hardly depend on their standard deviations.

    Each is held by the share of its prior variance that the data take away (Papaspiliopoulos,
    Roberts and Skold 2007), provided that all together keep the standard deviation from zero.
    """
    shared = np.arange(model.n_common)
    spread = found.gain[:, : model.n_common].transpose(0, 2, 1)[:, :2] @ found.root[shared]
    variance = (spread**2).sum(axis=2) + (found.factor[:, :2] ** 2).sum(axis=2)
    held = np.clip(1.0 - variance, 0.0, 1.0)
    for k in range(2):
        # Information of the effects about the log of their standard deviation.
        known = 2.0 * float(np.sum(held[:, k] ** 2))
        model.held[:-1, k] = held[:, k] if known > ENOUGH else 0.0
    model.held[-1] = found.centre[model.scales]


@np.errstate(over="ignore", invalid="ignore")  # far out; looked for afterwards
def evidence(model: ThresholdModel, found: Whitening) -> float:
    """Lower bound of the log of the density's integral: what is near a normal approximation.

    Minus infinity where the approximation reaches so far out that densities overflow.
    """
    from causalfair.risk._kernels_threshold import threshold_whitened

    half = np.random.default_rng(1).standard_normal((N_EVIDENCE, model.n_dim))
    points = np.concatenate([np.zeros((1, model.n_dim)), half, -half])
    value = [
        threshold_whitened(z, *found.arrays, model.beta, *model.arrays)[0] + 0.5 * float(z @ z)
        for z in points
    ]
    centre, around = value[0], np.array(value[1:])
    # Of a normal density all are equal.
    if not np.isfinite(value).all() or (around > centre + model.n_dim + FAR).any():
        return -np.inf
    diagonals = np.concatenate(
        [np.diag(found.root), np.diagonal(found.factor, axis1=1, axis2=2).ravel()]
    )
    return float(np.mean(around) + np.log(diagonals[diagonals > 0]).sum())


def whiten(model: ThresholdModel) -> Whitening:
    """Normal approximation of the posterior: of those near several modes the one of most mass."""
    best, held, most = None, model.held, -np.inf
    for mode in _modes(model):
        model.anchor_at(mode)
        found = _approximation(model, mode)
        bound = evidence(model, found)
        if best is None or bound > most:
            best, held, most = found, model.held.copy(), bound
    assert best is not None
    model.held = held
    model.anchor_at(best.centre)
    return best


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
