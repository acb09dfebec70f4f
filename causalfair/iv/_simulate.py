"""Simulated studies with an instrument that acts on the outcome directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import FloatArray, RandomState
from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["make_invalid_instruments", "make_invalid_iv"]

# Largest shift for which P(A=1|Z,X,U) stays inside [0, 1] for every X and U.
MAX_BINARY_SHIFT = 1.9


@dataclass(frozen=True, slots=True)
class _Truth:
    """The nuisance functions of the simulated law; every method maps ``(n, 2)`` to ``(n,)``."""

    direct: float
    confounding: float
    heterogeneity: float
    variance_shift: float
    binary: bool
    one_sided: bool

    def instrument(self, X: FloatArray) -> FloatArray:
        return np.asarray(expit(0.2 + X[:, 0] - X[:, 1]))

    def treatment(self, z: int, X: FloatArray) -> FloatArray:
        if not self.binary:
            return 0.3 + 0.8 * z + 0.5 * X[:, 0]
        if self.one_sided and z == 0:
            return np.zeros(X.shape[0])
        shift = self.variance_shift * z
        return np.asarray(expit(-2.1 + 1.6 * shift + (0.7 * shift - 0.2) * X[:, 0]))

    def noise_variance(self, z: int, X: FloatArray) -> FloatArray:
        """Variance of the idiosyncratic part of a continuous treatment."""
        return 1.0 + self.variance_shift * z * (1.2 + 0.4 * X[:, 0])

    def variance(self, z: int, X: FloatArray) -> FloatArray:
        if self.binary:
            p = self.treatment(z, X)
            return p * (1.0 - p)
        return self.noise_variance(z, X) + self.loading**2

    def shift(self, X: FloatArray) -> FloatArray:
        return self.variance(1, X) - self.variance(0, X)

    def effect(self, X: FloatArray) -> FloatArray:
        return 1.0 + self.heterogeneity * (X[:, 0] - X[:, 1])

    def outcome(self, z: int, X: FloatArray) -> FloatArray:
        """``mu(z, X) = E[Y - beta(X) A|Z=z, X]``."""
        return 0.5 + self.direct * z + 2.0 * X[:, 0] - X[:, 1]

    def cause(self, X: FloatArray) -> FloatArray:
        """Factor of the unmeasured cause U in the outcome."""
        return self.confounding * (2.5 + 2.0 * X[:, 0])

    @property
    def loading(self) -> float:
        """Factor of U in the treatment."""
        if self.one_sided:
            return 0.0
        return 0.08 if self.binary else 0.7

    def omega(self, X: FloatArray) -> FloatArray:
        variance_u = 1.0 / 3.0 if self.binary else 1.0
        return self.loading * variance_u * self.cause(X)

    def att(self) -> float:
        """``E[A beta]/E[A]`` by Gauss-Legendre quadrature over the square."""
        nodes, weights = np.polynomial.legendre.leggauss(60)
        x1, x2 = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
        X = np.column_stack([x1, x2])
        mass = np.outer(weights, weights).ravel() / 4.0
        pi = self.instrument(X)
        mass = mass * (pi * self.treatment(1, X) + (1.0 - pi) * self.treatment(0, X))
        return float(mass @ self.effect(X) / mass.sum())


def make_invalid_iv(
    n: int = 4000,
    *,
    direct: float = 1.0,
    confounding: float = 1.0,
    heterogeneity: float = 1.5,
    variance_shift: float = 1.0,
    treatment: str = "binary",
    one_sided: bool = False,
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate a study whose instrument may act on the outcome directly.

    Two covariates are uniform on (-1, 1); U is an unmeasured cause of treatment and outcome. With
    the defaults two-stage least squares is off by about +4 when the truth is 1.

    Parameters
    ----------
    n : int, default=4000
        Rows.
    direct : float, default=1.0
        Direct effect of the instrument on the outcome; 0 makes the instrument valid.
    confounding : float, default=1.0
        Multiplies the unmeasured cause in the outcome; 0 removes confounding.
    heterogeneity : float, default=1.5
        The effect is ``1 + heterogeneity (x1 - x2)``.
    variance_shift : float, default=1.0
        Strength of the instrument's action on the variance of the treatment; 0 removes
        identification. At most 1.9 for a binary treatment.
    treatment : {"binary", "continuous"}, default="binary"
        Kind of treatment. The continuous treatment is
        ``0.3 + 0.8 Z + 0.5 x1 + 0.7 U + N(0, 1 + variance_shift Z (1.2 + 0.4 x1))``.
    one_sided : bool, default=False
        Nobody with ``Z = 0`` takes the (binary) treatment, and U acts on the outcome alone.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y, treatment, instrument, x1, x2``.
    truth : Mapping
        ``"ate"``, ``"att"`` (binary treatment) and ``"direct effect"``; for every row
        ``"instrument"`` (P(Z=1|X)), ``"treatment0"``, ``"treatment1"``, ``"variance0"``,
        ``"variance1"``, ``"shift"``, ``"effect"``, ``"outcome0"``, ``"outcome1"``
        (E[Y - beta A|Z=z,X]), ``"confounding"`` (omega) and ``"unmeasured"`` (U); and
        ``"functions"``, which maps the same names but the last to functions of an ``(m, 2)`` array
        of covariates.

    Raises
    ------
    ParameterError
        If a parameter has no meaning.

    References
    ----------
    .. [1] Sun, B., Cui, Y. and Tchetgen Tchetgen, E. (2022). Selective machine learning of the
       average treatment effect with an invalid instrumental variable. JMLR 23. arXiv:1907.11882.

    Examples
    --------
    >>> from causalfair.datasets import make_invalid_iv
    >>> frame, truth = make_invalid_iv(1000, random_state=0)
    >>> list(frame.columns), truth["ate"]
    (['y', 'treatment', 'instrument', 'x1', 'x2'], 1.0)
    """
    _check(n, treatment, variance_shift, one_sided)
    law = _Truth(
        direct, confounding, heterogeneity, variance_shift, treatment == "binary", one_sided
    )
    rng = generator(root_seed(random_state), 0)
    X = rng.uniform(-1.0, 1.0, size=(n, 2))
    z = (rng.uniform(size=n) < law.instrument(X)).astype(np.float64)

    def at_z(function: Callable[[int, FloatArray], FloatArray]) -> FloatArray:
        return np.where(z > 0.5, function(1, X), function(0, X))

    if law.binary:
        u = rng.uniform(-1.0, 1.0, size=n)
        a = (rng.uniform(size=n) < at_z(law.treatment) + law.loading * u).astype(np.float64)
        if one_sided:
            a = a * z
    else:
        u = rng.normal(size=n)
        spread = np.sqrt(at_z(law.noise_variance))
        a = at_z(law.treatment) + law.loading * u + spread * rng.normal(size=n)
    y = law.effect(X) * a + at_z(law.outcome) + law.cause(X) * u + rng.normal(size=n)
    return _frame(y, a, z, X), _truth_mapping(law, X, u)


def _check(n: int, treatment: str, variance_shift: float, one_sided: bool) -> None:
    if n < 1:
        raise ParameterError(f"make_invalid_iv got n={n}; it must be at least 1.")
    if treatment not in ("binary", "continuous"):
        raise ParameterError(
            f"make_invalid_iv got treatment={treatment!r}; it must be 'binary' or 'continuous'."
        )
    top = MAX_BINARY_SHIFT if treatment == "binary" else np.inf
    if not 0.0 <= variance_shift <= top:
        raise ParameterError(
            f"make_invalid_iv got variance_shift={variance_shift}; for a {treatment} treatment it "
            f"must be between 0 and {top}."
        )
    if one_sided and treatment != "binary":
        raise ParameterError(
            "make_invalid_iv got one_sided=True with a continuous treatment; one-sided "
            "non-compliance needs treatment='binary'."
        )


def _frame(y: FloatArray, a: FloatArray, z: FloatArray, X: FloatArray) -> pd.DataFrame:
    import pandas as pd

    columns = {"y": y, "treatment": a, "instrument": z, "x1": X[:, 0], "x2": X[:, 1]}
    return pd.DataFrame(columns)


def _truth_mapping(law: _Truth, X: FloatArray, u: FloatArray) -> dict[str, Any]:
    functions: dict[str, Callable[[FloatArray], FloatArray]] = {
        "instrument": law.instrument,
        "treatment0": lambda X: law.treatment(0, X),
        "treatment1": lambda X: law.treatment(1, X),
        "variance0": lambda X: law.variance(0, X),
        "variance1": lambda X: law.variance(1, X),
        "shift": law.shift,
        "effect": law.effect,
        "outcome0": lambda X: law.outcome(0, X),
        "outcome1": lambda X: law.outcome(1, X),
        "confounding": law.omega,
    }
    truth: dict[str, Any] = {"ate": 1.0, "direct effect": law.direct}
    if law.binary:
        truth["att"] = law.att()
    truth |= {name: function(X) for name, function in functions.items()}
    truth["unmeasured"] = u
    truth["functions"] = functions
    return truth


def make_invalid_instruments(
    n: int = 5000,
    *,
    n_instruments: int = 10,
    effect: float = 1.0,
    direct: float = 0.3,
    variance_shift: float = 0.4,
    disagreement: float = 0.0,
    outcome: str = "additive",
    random_state: RandomState = None,
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Simulate a study with many instruments that all act on the outcome directly.

    Instruments are genotypes (0, 1 or 2 copies of an allele with frequency between 0.2 and 0.4),
    independent of each other and of the unmeasured cause U of treatment and outcome.

    Parameters
    ----------
    n : int, default=5000
        Rows.
    n_instruments : int, default=10
        Instruments, columns ``g1, g2, ...``.
    effect : float, default=1.0
        Constant effect of the treatment: a difference, or a log ratio.
    direct : float, default=0.3
        Direct effect of each copy of each instrument.
    variance_shift : float, default=0.4
        Each copy adds this much to the variance of the treatment; 0 removes identification.
    disagreement : float, default=0.0
        Interaction of the first instrument with U in the outcome, which breaks its moment.
    outcome : {"additive", "multiplicative"}, default="additive"
        ``Y = effect A + direct sum(G) + U + noise``, or a Poisson count with mean
        ``exp(effect A) (1 + direct sum(G) + 0.8 U)``.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y, treatment, g1, ...``.
    truth : Mapping
        ``"ate"`` (the effect), ``"direct effect"`` and ``"unmeasured"`` (U of every row).

    References
    ----------
    .. [1] Tchetgen Tchetgen, E., Sun, B. and Walter, S. (2021). The GENIUS approach to robust
       Mendelian randomization inference. Statistical Science 36(3), 443-464.

    Examples
    --------
    >>> from causalfair.datasets import make_invalid_instruments
    >>> frame, truth = make_invalid_instruments(100, n_instruments=2, random_state=0)
    >>> list(frame.columns)
    ['y', 'treatment', 'g1', 'g2']
    """
    import pandas as pd

    if outcome not in ("additive", "multiplicative"):
        raise ParameterError(
            f"make_invalid_instruments got outcome={outcome!r}; use 'additive' or 'multiplicative'."
        )
    if n < 1 or n_instruments < 1 or variance_shift < 0:
        raise ParameterError(
            f"make_invalid_instruments got n={n}, n_instruments={n_instruments}, "
            f"variance_shift={variance_shift}; the first two must be at least 1, the last "
            "non-negative."
        )
    rng = generator(root_seed(random_state), 0)
    frequency = rng.uniform(0.2, 0.4, size=n_instruments)
    G = rng.binomial(2, frequency, size=(n, n_instruments)).astype(np.float64)
    count = G.sum(axis=1)
    spread = np.sqrt(1.0 + variance_shift * count)
    if outcome == "additive":
        u = rng.normal(size=n)
        a = 0.3 * count + u + spread * rng.normal(size=n)
        y = effect * a + direct * count + (1.0 + disagreement * G[:, 0]) * u + rng.normal(size=n)
    else:
        u = rng.uniform(-1.0, 1.0, size=n)
        a = 0.05 * count + 0.3 * u + 0.3 * spread * rng.normal(size=n)
        rest = 1.0 + direct * count + 0.8 * u * (1.0 + disagreement * G[:, 0])
        y = rng.poisson(np.exp(effect * a) * np.maximum(rest, 0.0)).astype(np.float64)
    columns = {"y": y, "treatment": a, **{f"g{k + 1}": G[:, k] for k in range(n_instruments)}}
    return pd.DataFrame(columns), {"ate": effect, "direct effect": direct, "unmeasured": u}
