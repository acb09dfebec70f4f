"""What the learners of one fit are given, and what they return for one fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.iv._combinations import CandidateNuisances
from causalfair.iv._data import InstrumentData
from causalfair.iv._parametric import default_floor
from causalfair.iv._scores import floor_variance_shift

__all__ = ["FoldNuisances", "IVData", "LearningPlan", "candidate_losses", "gather", "own_arm"]


@dataclass(frozen=True, slots=True)
class IVData:
    """Data of one fit.

    Attributes
    ----------
    X : pandas.DataFrame of shape (n, p)
        Covariates.
    z, a, y : (n,)
        Instrument (0/1), treatment, outcome.
    weight : (n,) or None
        Sample weights that sum to n.
    groups : (n,) or None
        Cluster codes; a cluster never straddles two folds.
    binary : bool
        Whether the treatment takes two values.
    constant_arm : {0, 1} or None
        Arm of the instrument in which the treatment does not vary.
    """

    X: Any
    z: FloatArray
    a: FloatArray
    y: FloatArray
    weight: FloatArray | None = None
    groups: IntArray | None = None
    binary: bool = True
    constant_arm: int | None = None

    @classmethod
    def of(cls, X: Any, data: InstrumentData) -> IVData:
        """Bundle covariates with the checked arrays; folds follow the first way of clustering."""
        return cls(
            X=X,
            z=data.z,
            a=data.a,
            y=data.y,
            weight=data.weight,
            groups=None if data.cluster is None else data.cluster[:, 0],
            binary=data.binary,
            constant_arm=data.constant_arm,
        )

    def take(self, rows: IntArray) -> IVData:
        """Part of the rows."""
        return replace(
            self,
            X=self.X.iloc[rows],
            z=self.z[rows],
            a=self.a[rows],
            y=self.y[rows],
            weight=None if self.weight is None else self.weight[rows],
            groups=None if self.groups is None else self.groups[rows],
        )

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.y.shape[0])

    @property
    def constant(self) -> float | None:
        """Treatment in the arm in which it does not vary."""
        if self.constant_arm is None:
            return None
        return float(self.a[np.argmax(self.z == self.constant_arm)])

    @property
    def cells(self) -> IntArray:
        """Stratum of every row: instrument, and treatment where it is binary."""
        code = 2 * self.z + self.a if self.binary else self.z
        return np.unique(code, return_inverse=True)[1].astype(np.intp)


@dataclass(frozen=True, slots=True)
class LearningPlan:
    """Learners and settings of one fit.

    Attributes
    ----------
    learners : mapping of slot to mapping of name to learner
        Candidates of every slot. An effect candidate may also be one of ``EFFECT_RULES``.
    inner_folds : int
        Folds of the inner cross-fit.
    clip : float
        Bound of ``P(Z=1|X)``.
    floor : float or None
        Smallest ``|D|``; None means 0.02 for a binary treatment, and 5 % of the median ``|D|`` for
        a continuous one.
    outcome_given : {"family", "effect"}
        Whether outcome and confounding candidates are learned for the effect of their own family,
        or once for every effect candidate.
    known : mapping of slot to ndarray
        Nuisance values supplied by the user: ``(n,)``, or ``(2, n)`` by arm for ``"treatment"``,
        ``"variance"`` and ``"outcome"``.
    """

    learners: Mapping[str, Mapping[str, Any]]
    inner_folds: int = 2
    clip: float = 0.01
    floor: float | None = None
    outcome_given: str = "family"
    known: Mapping[str, FloatArray] = field(default_factory=dict)

    def to_learn(self, data: IVData) -> tuple[str, ...]:
        """Slots that the user did not supply and that the data do not settle."""
        needed = ["instrument", "treatment", "effect", "outcome"]
        needed += [] if data.binary else ["variance"]
        needed += [] if data.constant_arm is not None else ["confounding"]
        return tuple(slot for slot in needed if slot not in self.known)

    def names(self, slot: str) -> tuple[str, ...]:
        """Candidates of a slot."""
        return tuple(self.learners[slot])

    def relative(self, slot: str, name: str) -> str:
        """Candidate of ``slot`` from the family of ``name``, else the first of the slot."""
        return name if name in self.learners[slot] else self.names(slot)[0]

    def pairs(self, slot: str) -> list[list[tuple[str, str]]]:
        """Pairs (effect candidate, candidate of ``slot``) to learn, one row an effect."""
        if self.outcome_given == "effect":
            return [[(b, k) for k in self.names(slot)] for b in self.names("effect")]
        return [[(self.relative("effect", k), k) for k in self.names(slot)]]

    def variance_floor(self, D: FloatArray, *, binary: bool) -> float:
        """Smallest ``|D|`` allowed."""
        if self.floor is not None:
            return self.floor
        return default_floor(D, binary=binary)


@dataclass(frozen=True, slots=True)
class FoldNuisances:
    """Predictions for the test rows of one fold; axes as in ``CandidateNuisances``.

    Attributes
    ----------
    test : (m,)
        Rows.
    pi, lam, V, beta, mu, omega, m
        Raw predictions, neither clipped nor floored.
    losses : dict of slot to (K,)
        Mean out-of-sample loss of each candidate, see :func:`candidate_losses`.
    """

    test: IntArray
    pi: FloatArray
    lam: FloatArray
    V: FloatArray | None
    beta: FloatArray
    mu: FloatArray
    omega: FloatArray
    m: FloatArray | None
    losses: dict[str, FloatArray]


def gather(
    folds: Sequence[FoldNuisances], data: IVData, plan: LearningPlan
) -> tuple[CandidateNuisances, dict[str, FloatArray]]:
    """Put the folds together; clip and floor all candidates by the same rule.

    Returns
    -------
    candidates : CandidateNuisances
        Held-out values of every row.
    losses : dict of slot to (K,)
        Mean loss of each candidate over the folds, weighted by their rows.
    """

    def together(name: str) -> FloatArray:
        first = getattr(folds[0], name)
        out = np.empty((*first.shape[:-1], data.n))
        for fold in folds:
            out[..., fold.test] = getattr(fold, name)
        return out

    pi, lam = together("pi"), together("lam")
    V = None if data.binary else together("V")
    variances = lam * (1.0 - lam) if V is None else V
    raw = variances[:, 1] - variances[:, 0]
    shifts = [floor_variance_shift(D, plan.variance_floor(D, binary=data.binary)) for D in raw]
    candidates = CandidateNuisances(
        pi=np.clip(pi, plan.clip, 1.0 - plan.clip),
        clipped=(pi < plan.clip) | (pi > 1.0 - plan.clip),
        lam=lam,
        V=V,
        D=np.stack([D for D, _ in shifts]),
        floored=np.stack([floored for _, floored in shifts]),
        beta=together("beta"),
        mu=together("mu"),
        omega=together("omega"),
        m=None if folds[0].m is None else together("m"),
    )
    size = np.array([len(fold.test) for fold in folds], dtype=np.float64)
    losses = {
        slot: np.average([fold.losses[slot] for fold in folds], axis=0, weights=size)
        for slot in folds[0].losses
    }
    return candidates, losses


def candidate_losses(
    held: FoldNuisances, data: IVData, plan: LearningPlan
) -> dict[str, FloatArray]:
    """Mean loss of every candidate on the test rows.

    Log-loss for the instrument and a binary treatment, squared error otherwise. Outcome, effect and
    confounding are judged beside the other nuisances of their family: the outcome by
    ``e = Y - beta A - mu``, the confounding by how well it predicts ``r_A e``, the effect by how
    well ``omega + beta V`` predicts ``r_A r_Y``.
    """
    i = held.test
    z, a = data.z[i], data.a[i]
    w = np.ones(len(i)) if data.weight is None else data.weight[i]
    varying = w if data.constant_arm is None else w * (z != data.constant_arm)
    own = [own_arm(lam, z) for lam in held.lam]
    fit = [_log_loss(lam, a) if data.binary else (a - lam) ** 2 for lam in own]
    losses = {
        "instrument": [_mean(_log_loss(pi, z), w) for pi in held.pi],
        "treatment": [_mean(loss, varying) for loss in fit],
    }

    def place(slot: str, name: str) -> int:
        return plan.names(slot).index(plan.relative(slot, name))

    for slot in ("effect", "outcome", "confounding"):
        losses[slot] = []
        for name in plan.names(slot):
            b, k = place("effect", name), place("treatment", name)
            nested = b if plan.outcome_given == "effect" else 0
            e = data.y[i] - held.beta[b] * a - own_arm(held.mu[nested, place("outcome", name)], z)
            r = a - own[k]
            excess = r * e - held.omega[nested, place("confounding", name)]
            if slot == "effect":  # r_Y = e + beta r_A
                V = own[k] * (1.0 - own[k]) if held.V is None else own_arm(held.V[k], z)
                excess = excess + held.beta[b] * (r**2 - V)
            losses[slot].append(_mean((e if slot == "outcome" else excess) ** 2, w))
    return {slot: np.array(values) for slot, values in losses.items()}


def own_arm(values: FloatArray, z: FloatArray) -> FloatArray:
    """Row-wise ``values[Z]`` of a ``(2, m)`` array."""
    return np.asarray(np.where(z > 0.5, values[1], values[0]))


def _mean(x: FloatArray, w: FloatArray) -> float:
    return float(np.dot(x, w) / w.sum())


def _log_loss(p: FloatArray, outcome: FloatArray) -> FloatArray:
    p = np.clip(p, 1e-12, 1.0 - 1e-12)
    return np.asarray(-np.where(outcome > 0.5, np.log(p), np.log1p(-p)))
