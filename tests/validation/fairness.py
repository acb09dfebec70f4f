"""Monte-Carlo tables of the fairness family, stored for the documentation.

``nox -s validation -- fairness`` rewrites ``docs/_data/validation/fairness_*.csv``;
``--quick`` runs fewer replications and compares with the stored tables instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from validation._tables import Table, run

from causalfair.datasets import make_weak_proxies
from causalfair.exceptions import IdentificationError
from causalfair.fairness import ProxyFairness
from causalfair.fairness._simulate import _DESIGNS, population_tensor

PROXIES = ["proxy_1", "proxy_2", "proxy_3"]
GAP = "demographic_parity"
Fit = Callable[[int], ProxyFairness]
# nothing to see: both groups are decided alike, so two proxies do not identify their error rates
EVEN = np.tile(_DESIGNS["heterogeneous"][1][0], (2, 1))


class Tally:
    """Estimates and intervals of one quantity over replications."""

    def __init__(self, design: str, n: int, interval: str, truth: float) -> None:
        self.design, self.n, self.interval, self.truth = design, n, interval, truth
        self.estimates: list[float] = []
        self.errors: list[float] = []
        self.hits: list[bool] = []

    def add(self, estimates: Any, position: int = 0) -> None:
        self.estimates.append(estimates.estimate[position])
        self.errors.append(estimates.std_error[position])
        if self.interval == "profile":  # the interval is what the likelihood ratio does not reject
            self.hits.append(estimates.p_value(self.truth)[position] >= 0.05)
        else:
            low, high = estimates.conf_int()[position]
            self.hits.append(low <= self.truth <= high)

    def row(self, replications: int) -> dict[str, Any]:
        estimate = np.array(self.estimates)
        return {
            "design": self.design,
            "n": self.n,
            "interval": self.interval,
            "replications": replications,
            "bias": np.mean(estimate) - self.truth,
            "SD": np.std(estimate, ddof=1),
            "mean SE": np.mean(self.errors) if self.interval == "delta" else np.nan,
            "coverage": np.mean(self.hits),
            "refused": replications - len(self.hits),
        }


def sample(design: str, n: int, seed: int, **changes: Any) -> np.ndarray:
    """Counts of n rows."""
    p, H, T = _DESIGNS[design]
    H, T = changes.get("outcomes", H), changes.get("transition", T)
    N = population_tensor(p, H, T)
    return np.random.default_rng([n, seed]).multinomial(n, N.ravel()).reshape(N.shape).astype(float)


def group_gap(design: str, b: int = 1, a: int = 0) -> float:
    H = _DESIGNS[design][1]
    return float(H[b, 2:].sum() - H[a, 2:].sum())


def fits(fit: Fit, replications: int) -> Iterator[ProxyFairness]:
    """Fits that were not refused."""
    for seed in range(replications):
        try:
            yield fit(seed)
        except IdentificationError:
            continue


Case = tuple[str, Fit, str, tuple[int, ...]]


def delta_cases(n: int) -> list[Case]:
    """Name, fit, design and pairs of groups of every kind of data."""

    def counts(design: str, **options: Any) -> Fit:
        K = len(_DESIGNS[design][0])

        def fit(seed: int) -> ProxyFairness:
            return ProxyFairness.from_counts(
                sample(design, n, seed), K, random_state=seed, n_starts=0, **options
            )

        return fit

    table = _DESIGNS["heterogeneous"][2][0]

    def rows(seed: int, **options: Any) -> pd.DataFrame:
        return make_weak_proxies(n, random_state=seed, **options)[0]

    def missing(seed: int) -> ProxyFairness:
        frame = rows(seed, missing=0.15)
        return ProxyFairness(random_state=seed).fit(
            frame, "y_pred", y_true="y_true", proxies=PROXIES
        )

    def audited(seed: int) -> ProxyFairness:
        frame = rows(seed)
        seen = np.where(np.arange(n) < n // 10, frame["group"], -1)
        return ProxyFairness(random_state=seed).fit(
            frame[PROXIES[:1]], frame["y_pred"], sensitive_features=seen
        )

    def validated(seed: int) -> ProxyFairness:
        rng = np.random.default_rng([1, seed])
        seen = np.stack(
            [rng.multinomial(size, row) for size, row in zip((300, 200), table, strict=True)]
        )
        return ProxyFairness(transition_counts=[seen], random_state=seed).fit(
            rows(seed)[["proxy_1"]], rows(seed)["y_pred"]
        )

    def clustered(seed: int) -> ProxyFairness:
        few = make_weak_proxies(n // 4, random_state=seed)[0]
        frame = few.loc[few.index.repeat(4)].reset_index(drop=True)
        return ProxyFairness(random_state=seed).fit(
            frame, "y_pred", y_true="y_true", proxies=PROXIES, cluster=np.arange(n) // 4
        )

    def soft(seed: int) -> ProxyFairness:
        frame = rows(seed)
        noise = np.random.default_rng([2, seed]).dirichlet([1.0, 1.0], size=(n, 3))
        hard = frame[PROXIES].to_numpy()[:, :, None] == np.arange(2)
        return ProxyFairness(model="moments", random_state=seed).fit(
            0.9 * hard + 0.1 * noise, frame["y_pred"]
        )

    return [
        ("different error rates", counts("heterogeneous"), "heterogeneous", (0,)),
        ("the same error rates", counts("identical"), "identical", (0,)),
        ("three groups", counts("three_groups"), "three_groups", (0, 1, 2)),
        ("known shares", counts("heterogeneous", prevalence=[0.6, 0.4]), "heterogeneous", (0,)),
        ("local model", counts("identical", model="local"), "identical", (0,)),
        ("closed form", counts("heterogeneous", model="moments"), "heterogeneous", (0,)),
        ("soft proxies, moments", soft, "heterogeneous", (0,)),
        ("15 % of proxies missing", missing, "heterogeneous", (0,)),
        ("one proxy, 10 % audited", audited, "heterogeneous", (0,)),
        ("one proxy, validated on 500", validated, "heterogeneous", (0,)),
        ("four copies of each row, clustered", clustered, "heterogeneous", (0,)),
    ]


def delta_coverage(
    replications: int, cases: Sequence[Case] | None = None
) -> Iterator[dict[str, Any]]:
    """Delta-method intervals of gaps in selection rates; n = 5,000."""
    n = 5000
    pairs = [(1, 0), (2, 0), (2, 1)]
    for name, fit, design, terms in cases or delta_cases(n):
        names = [f"{name}: {b} - {a}" if len(terms) > 1 else name for b, a in pairs]
        tallies = [Tally(names[t], n, "delta", group_gap(design, *pairs[t])) for t in terms]
        for audit in fits(fit, replications):
            gaps = audit.disparity(GAP)
            for t, tally in zip(terms, tallies, strict=True):
                tally.add(gaps, t)
        yield from (tally.row(replications) for tally in tallies)


def small_coverage(replications: int) -> Iterator[dict[str, Any]]:
    """Four kinds of interval at n = 1,000."""
    for design, name in (
        ("identical", "the same error rates"),
        ("heterogeneous", "different error rates"),
    ):
        truth = group_gap(design)
        tallies = [Tally(name, 1000, k, truth) for k in ("delta", "bootstrap", "bca", "profile")]

        def fit(seed: int, design: str = design) -> ProxyFairness:
            return ProxyFairness.from_counts(sample(design, 1000, seed), random_state=seed)

        for audit in fits(fit, replications):
            for tally in tallies:
                tally.add(audit.disparity(GAP, interval=tally.interval))
        yield from (tally.row(replications) for tally in tallies)


def no_disparity_coverage(replications: int) -> Iterator[dict[str, Any]]:
    """Two proxies and no disparity: the error rates are not identified, the gap of 0 is."""
    for n in (1000, 5000):
        tallies = [Tally("two proxies, no disparity", n, k, 0.0) for k in ("delta", "profile")]

        def fit(seed: int, n: int = n) -> ProxyFairness:
            N = sample("heterogeneous", n, seed, outcomes=EVEN).sum(axis=-1)
            return ProxyFairness.from_counts(N, model="two_view", random_state=seed)

        for audit in fits(fit, replications):
            for tally in tallies:
                tally.add(audit.disparity(GAP, interval=tally.interval))
        yield from (tally.row(replications) for tally in tallies)


TABLES = {
    "fairness_delta": Table(delta_coverage, 200, 30),
    "fairness_small": Table(small_coverage, 200, 30),
    "fairness_no_disparity": Table(no_disparity_coverage, 300, 30),
}


if __name__ == "__main__":
    run(__doc__, TABLES)
