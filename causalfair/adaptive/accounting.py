"""Power functions of private mechanisms, and the generalisation gap they imply.

The power function ``F(a)`` of a mechanism is the largest probability an event can have on one data
set when it has probability at most `a` on a data set that differs in one record. It is concave and
at least `a`. Every function here takes the *composed* mechanism.

References
----------
.. [1] Dong, Roth and Su (2022), Gaussian differential privacy, JRSS-B 84(1):3-37.
.. [2] Kairouz, Oh and Viswanath (2015), The composition theorem for differential privacy, ICML.
.. [3] Bun and Steinke (2016), Concentrated differential privacy, TCC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from scipy import optimize, special

from causalfair.exceptions import ParameterError

__all__ = [
    "ApproxF",
    "GaussianF",
    "PowerFunction",
    "PureCompositionF",
    "ZcdpF",
    "corrected_level",
    "delta_gaussian",
    "epsilon_gaussian",
    "epsilon_zcdp",
    "gap",
    "gap_pointwise",
    "max_information",
]


class PowerFunction(Protocol):
    """What :func:`gap` needs: values, and up to where ``F(a) - a`` does not decrease."""

    def __call__(self, a: float) -> float:
        """Evaluate F at `a` in [0, 1]."""
        ...

    @property
    def rising_until(self) -> float:
        """Largest a such that ``F(a) - a`` is non-decreasing on [0, a]."""
        ...


def _positive(value: float, name: str, *, zero: bool = False) -> None:
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        low = "at least 0" if zero else "above 0"
        raise ParameterError(f"{name} must be a finite number {low}. Got {value!r} instead.")


@dataclass(frozen=True, slots=True)
class GaussianF:
    """Gaussian differential privacy: ``F(a) = Phi(Phi^{-1}(a) + mu)``; exact for Gaussian noise.

    Parameters
    ----------
    mu : float
        Composed signal-to-noise ratio; ``sqrt(k) / (n sigma)`` for k means with noise sigma.

    Examples
    --------
    >>> from causalfair.adaptive.accounting import GaussianF, gap
    >>> round(gap(GaussianF(0.1), 0.05), 6)
    0.068209
    """

    mu: float

    def __post_init__(self) -> None:
        _positive(self.mu, "mu", zero=True)

    def __call__(self, a: float) -> float:
        """Evaluate F at `a`."""
        return float(special.ndtr(special.ndtri(a) + self.mu))

    @property
    def rising_until(self) -> float:
        """The point where the slope of F passes one, ``Phi(-mu/2)``."""
        return float(special.ndtr(-self.mu / 2))


@dataclass(frozen=True, slots=True)
class PureCompositionF:
    """Exact adaptive composition of `n_releases` mechanisms that are each `epsilon`-private.

    The extremal test is Neyman-Pearson between ``Bin(N, e^eps/(1+e^eps))`` and
    ``Bin(N, 1/(1+e^eps))``; F interpolates linearly between the binomial tails.

    Examples
    --------
    >>> from causalfair.adaptive.accounting import PureCompositionF, gap
    >>> f = PureCompositionF(0.5, 1)
    >>> round(f(0.01), 12), round(gap(f, 0.05), 12)
    (0.016487212707, 0.139548325857)
    """

    epsilon: float
    n_releases: int = 1

    def __post_init__(self) -> None:
        _positive(self.epsilon, "epsilon", zero=True)
        if self.n_releases < 1:
            raise ParameterError(f"n_releases must be at least 1. Got {self.n_releases} instead.")

    def tails(self, j: int) -> tuple[float, float]:
        """P(X >= j) under the rarer and under the likelier binomial."""
        if j > self.n_releases:
            return 0.0, 0.0
        if j <= 0:
            return 1.0, 1.0
        likely = float(special.expit(self.epsilon))
        rest = self.n_releases - j + 1
        return (
            float(special.betainc(j, rest, special.expit(-self.epsilon))),
            float(special.betainc(j, rest, likely)),
        )

    def segment(self, weight: float, target: float) -> tuple[float, float]:
        """The point (a, F(a)) at which ``weight * a + F(a) = target`` (weight may be 0 or more)."""
        low, high = 0, self.n_releases + 1  # value at low >= target > value at high
        while high - low > 1:
            middle = (low + high) // 2
            a, f = self.tails(middle)
            if weight * a + f >= target:
                low = middle
            else:
                high = middle
        (a0, f0), (a1, f1) = self.tails(high), self.tails(low)
        rise = weight * (a1 - a0) + f1 - f0
        share = min(1.0, max(0.0, (target - weight * a0 - f0) / rise)) if rise > 0 else 0.0
        return a0 + share * (a1 - a0), f0 + share * (f1 - f0)

    def __call__(self, a: float) -> float:
        """Evaluate F at `a`."""
        low, high = 0, self.n_releases + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.tails(middle)[0] >= a else (low, middle)
        (a0, f0), (a1, f1) = self.tails(high), self.tails(low)
        return f0 if a1 == a0 else f0 + (a - a0) / (a1 - a0) * (f1 - f0)

    @property
    def rising_until(self) -> float:
        """Likelihood ratios exceed one for outcomes above N/2."""
        return self.tails(self.n_releases // 2 + 1)[0]


@dataclass(frozen=True, slots=True)
class ZcdpF:
    """Zero-concentrated privacy: ``F(a) = a exp(2 sqrt(rho ln(1/a)) - rho)`` for ln(1/a) > rho."""

    rho: float

    def __post_init__(self) -> None:
        _positive(self.rho, "rho", zero=True)

    def __call__(self, a: float) -> float:
        """Evaluate F at `a`."""
        if a <= 0:
            return 0.0
        log_inverse = -math.log(a)
        if log_inverse <= self.rho:
            return 1.0
        return a * math.exp(2 * math.sqrt(self.rho * log_inverse) - self.rho)

    @property
    def rising_until(self) -> float:
        """Point where the slope ``(F/a)(1 - sqrt(rho/ln(1/a)))`` passes one."""
        if self.rho == 0:
            return 1.0

        def log_slope(x: float) -> float:  # x = ln(1/a) > rho
            return 2 * math.sqrt(self.rho * x) - self.rho + math.log1p(-math.sqrt(self.rho / x))

        high = 4 * self.rho + 8.0
        while log_slope(high) < 0:
            high *= 2
        low = self.rho * (1 + 1e-12) + 1e-300
        if log_slope(low) >= 0:
            return math.exp(-self.rho)
        return math.exp(-optimize.brentq(log_slope, low, high, xtol=1e-14))


@dataclass(frozen=True, slots=True)
class ApproxF:
    """Approximate privacy: ``F(a) = min(1, e^eps a + delta)``."""

    epsilon: float
    delta: float = 0.0

    def __post_init__(self) -> None:
        _positive(self.epsilon, "epsilon", zero=True)
        if not 0 <= self.delta < 1:
            raise ParameterError(f"delta must lie in [0, 1). Got {self.delta!r} instead.")

    def __call__(self, a: float) -> float:
        """Evaluate F at `a`."""
        return min(1.0, math.exp(self.epsilon) * a + self.delta)

    @property
    def rising_until(self) -> float:
        """The point where F reaches one."""
        return (1 - self.delta) * math.exp(-self.epsilon)


def _check_beta(beta: float) -> None:
    if not 0 < beta < 1:
        raise ParameterError(f"beta must lie strictly between 0 and 1. Got {beta!r} instead.")


def gap(power: PowerFunction, beta: float) -> float:
    """Generalisation gap ``G = (F(a) - a)/beta`` where a solves ``3a + F(a) = beta``.

    With probability at least ``1 - beta`` every answer of a mechanism with power function F is
    within ``CVaR_beta(noise) + G`` of its population value (queries with range one).

    Parameters
    ----------
    power : PowerFunction
        Power function of the whole transcript with respect to one record.
    beta : float
        Allowed probability of any miss.

    Returns
    -------
    float
        The gap, or ``inf`` where ``F(a) - a`` is not monotone on [0, beta/4] (no guarantee).

    Raises
    ------
    ParameterError
        If `beta` is outside (0, 1).

    Examples
    --------
    >>> from causalfair.adaptive.accounting import ApproxF, gap
    >>> round(gap(ApproxF(0.1), 0.05), 10)  # (e^eps - 1)/(e^eps + 3)
    0.0256191326
    """
    _check_beta(beta)
    if power.rising_until < beta / 4:
        return math.inf
    if isinstance(power, PureCompositionF):
        a, f = power.segment(3.0, beta)
        return (f - a) / beta
    if power(0.0) >= beta:
        return math.inf
    a = optimize.brentq(
        lambda x: 3 * x + power(x) - beta, 0.0, beta / 3, xtol=1e-16 * beta, rtol=8.9e-16
    )
    return float((power(a) - a) / beta)


def gap_pointwise(power: PowerFunction, beta: float) -> float:
    """Gap that bounds each violated query by itself: root of ``b(1+t)^2/4 = F(b(1-t)^2/4)``.

    Parameters
    ----------
    power : PowerFunction
        Power function of the whole transcript with respect to one record.
    beta : float
        Allowed probability of any miss.

    Returns
    -------
    float
        The root in [0, 1], or ``inf`` where F does not satisfy the monotonicity condition.

    Examples
    --------
    >>> import math
    >>> from causalfair.adaptive.accounting import ApproxF, gap_pointwise
    >>> abs(gap_pointwise(ApproxF(0.4), 0.05) - math.tanh(0.1)) < 1e-12
    True
    """
    _check_beta(beta)
    if power.rising_until < beta / 4:
        return math.inf

    def excess(t: float) -> float:
        return beta * (1 + t) ** 2 / 4 - power(beta * (1 - t) ** 2 / 4)

    if excess(0.0) >= 0:
        return 0.0
    if excess(1.0) <= 0:
        return math.inf
    return float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-15, rtol=8.9e-16))


def delta_gaussian(mu: float, epsilon: float) -> float:
    """Exact delta of a mu-Gaussian-private mechanism at a given epsilon.

    Parameters
    ----------
    mu : float
        Composed signal-to-noise ratio.
    epsilon : float
        Privacy loss allowed.

    Returns
    -------
    float
        Smallest delta such that the mechanism is (epsilon, delta)-private.

    Examples
    --------
    >>> from causalfair.adaptive.accounting import delta_gaussian
    >>> round(delta_gaussian(1.0, 1.0), 12)
    0.126936737507
    """
    if mu == 0:
        return 0.0
    second = math.exp(epsilon + float(special.log_ndtr(-mu / 2 - epsilon / mu)))
    return max(0.0, float(special.ndtr(mu / 2 - epsilon / mu)) - second)


def epsilon_gaussian(mu: float, delta: float) -> float:
    """Smallest epsilon with ``delta_gaussian(mu, epsilon) <= delta``.

    Parameters
    ----------
    mu : float
        Composed signal-to-noise ratio.
    delta : float
        Probability that the privacy loss may exceed epsilon, in a sense.

    Returns
    -------
    float
        Epsilon.
    """
    if delta_gaussian(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1e-9
    return float(optimize.brentq(lambda e: delta_gaussian(mu, e) - delta, 0.0, high, xtol=1e-13))


def epsilon_zcdp(rho: float, delta: float, *, sharpened: bool = True) -> float:
    """Convert concentrated to approximate privacy (Bun and Steinke 2016, lemmas 3.5 and 3.6).

    Parameters
    ----------
    rho : float
        Zero-concentrated privacy.
    delta : float
        Allowed delta.
    sharpened : bool, default True
        Use lemma 3.6, which gains a little.

    Returns
    -------
    float
        Epsilon such that the mechanism is (epsilon, delta)-private.
    """
    inverse = 1 / delta
    if sharpened and math.sqrt(math.pi * rho) / delta >= math.e:
        inverse = min(inverse, math.sqrt(math.pi * rho) / delta)
    return rho + 2 * math.sqrt(rho * math.log(inverse))


def max_information(n: int, epsilon: float, beta: float) -> float:
    """Max-information of an epsilon-private mechanism on n independent records.

    It bounds how much more likely any outcome becomes by choosing the question from the data, and
    adds up over mechanisms (and so do the slacks).

    Parameters
    ----------
    n : int
        Records.
    epsilon : float
        Pure privacy of the whole transcript.
    beta : float
        Slack: probability left out.

    Returns
    -------
    float
        Max-information in nats.

    References
    ----------
    .. [1] Dwork et al. (2015), Generalization in adaptive data analysis and holdout reuse, NeurIPS.
       arXiv:1506.02629

    Examples
    --------
    >>> from causalfair.adaptive.accounting import corrected_level, max_information
    >>> information = max_information(1_000, 0.01, 0.005)
    >>> round(information, 4), round(corrected_level(0.05, information, 0.005), 4)
    (0.5973, 0.0248)
    """
    _check_beta(beta)
    _positive(epsilon, "epsilon", zero=True)
    return epsilon**2 * n / 2 + epsilon * math.sqrt(n * math.log(2 / beta) / 2)


def corrected_level(alpha: float, information: float, slack: float) -> float:
    """Level at which to test a hypothesis that was chosen from the data.

    Parameters
    ----------
    alpha : float
        Error level wanted.
    information : float
        Max-information in nats between the sample and everything the choice was based on.
    slack : float
        Slack at which that max-information holds; below `alpha`.

    Returns
    -------
    float
        ``(alpha - slack) exp(-information)``: reject where an ordinary p-value is at most this.

    Raises
    ------
    ParameterError
        The slack leaves nothing of `alpha`.
    """
    _check_beta(alpha)
    _positive(information, "information", zero=True)
    if not 0 <= slack < alpha:
        raise ParameterError(f"slack must lie in [0, alpha={alpha:g}). Got {slack!r} instead.")
    return (alpha - slack) * math.exp(-information)
