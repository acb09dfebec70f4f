"""What may be wrong with a fit, each finding with what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.risk import _data
from causalfair.risk._mode import find_mode
from causalfair.risk._nested import MAX_PARETO_K, resampled_draws
from causalfair.risk._posterior import code_probabilities, mean_risks

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray
    from causalfair.risk._model import Natural, Problem
    from causalfair.risk._posterior import Posterior

N_BINS, CHECK_DRAWS, CONFLICT_DRAWS = 10, 100, 250
CONFLICT, TIGHT, WIDE, OVERLAP = 2.0, 0.1, 0.1, 0.5
LOW_P = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes
    ----------
    check, value : str
        What was looked at, and what was seen.
    ok : bool
        Whether it gives no reason for doubt.
    meaning : str
        What it means for the results.
    """

    check: str
    value: str
    ok: bool
    meaning: str


@dataclass(frozen=True)
class RiskChecks:
    """Findings of :meth:`DomainConstrainedRisk.check`; prints as a table.

    Attributes
    ----------
    findings : tuple of Finding
        In the order checked.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(f.ok for f in self.findings)

    def to_frame(self) -> Any:
        """Table of the findings.

        Returns
        -------
        pandas.DataFrame
            Columns ``check, value, ok, meaning``.
        """
        import pandas as pd

        columns = ["check", "value", "ok", "meaning"]
        return pd.DataFrame([[getattr(f, c) for c in columns] for f in self.findings],
                            columns=columns)  # fmt: skip

    def _summary(self) -> Any:
        from causalfair.reporting import Summary, Table

        rows = [[f.check, f.value, "" if f.ok else "look", f.meaning] for f in self.findings]
        return Summary("Checks of the fit", [], [Table(["check", "seen", "", "meaning"], rows)], [])

    def __str__(self) -> str:
        return str(self._summary())

    def _repr_html_(self) -> str:
        return str(self._summary()._repr_html_())


@dataclass(frozen=True)
class Conflict:
    """What the data say of a prevalence when it is not imposed."""

    name: str
    imposed: float
    imposed_sd: float
    mean: float
    sd: float

    @property
    def z(self) -> float:
        """Distance of the two in standard errors."""
        return float((self.imposed - self.mean) / np.hypot(self.sd, self.imposed_sd))

    @property
    def tight(self) -> bool:
        """Whether the data could hardly contradict the imposed value."""
        return self.imposed_sd < TIGHT * self.sd


def conflicts(problem: Problem, rng: np.random.Generator, *, owner: str) -> list[Conflict]:
    """Implied prevalences without the constraint, beside the imposed ones."""
    prevalence = problem.prevalence
    free = problem.without_prevalence()
    mode = find_mode(free, owner=owner)
    draws = mode.problem.natural(resampled_draws(mode, CONFLICT_DRAWS, rng).draws)
    implied = mean_risks(mode.problem, draws, problem.cells.member, len(prevalence.value))
    return [
        Conflict(name, float(prevalence.value[g]), float(prevalence.sd[g]),
                 float(implied[:, g].mean()), float(implied[:, g].std()))
        for g, name in enumerate(prevalence.names)
    ]  # fmt: skip


@dataclass(frozen=True)
class Predictive:
    """Observed against expected counts over bins, and a posterior predictive p-value.

    Attributes
    ----------
    label : str
        What is counted.
    observed, expected, weight : (N_BINS,) float arrays
        Rates by bin, and rows.
    p_value : float
        Probability of a larger chi-square under the model.
    """

    label: str
    observed: FloatArray
    expected: FloatArray
    weight: FloatArray
    p_value: float


def predictive_checks(problem: Problem, draws: Natural) -> list[Predictive]:
    """Testing rates over bins of P(tested), outcomes of the tested over bins of their risk."""
    some = draws.thinned(CHECK_DRAWS)
    code, weight = problem.cells.code, problem.cells.weight
    tested, both = code_probabilities((5, 2), *problem.columns, some, problem.law)
    ordinary = np.isin(code, (_data.UNTESTED, _data.NEGATIVE, _data.POSITIVE))
    chosen = np.isin(code, (_data.NEGATIVE, _data.POSITIVE))
    return [
        _predictive("testing rates", tested[:, ordinary], chosen[ordinary], weight[ordinary]),
        _predictive("outcomes of the tested", (both / tested)[:, chosen],
                    code[chosen] == _data.POSITIVE, weight[chosen]),
    ]  # fmt: skip


def _predictive(label: str, p: FloatArray, seen: Any, weight: FloatArray) -> Predictive:
    from scipy.special import gammaincc

    mean = p.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    bins = np.empty(len(mean), dtype=np.intp)
    bins[order] = np.minimum((share - 1e-12) * N_BINS, N_BINS - 1).astype(np.intp)
    indicator = (bins[:, None] == np.arange(N_BINS)) * weight[:, None]
    observed, expected = seen.astype(float) @ indicator, p @ indicator
    variance = np.maximum((p * (1 - p)) @ indicator, 1e-12)
    chi2 = ((observed - expected) ** 2 / variance).sum(axis=1)
    used = int((indicator.sum(axis=0) > 0).sum())
    total = np.maximum(indicator.sum(axis=0), 1e-12)
    return Predictive(
        label, observed / total, expected.mean(axis=0) / total, indicator.sum(axis=0),
        float(gammaincc(used / 2, chi2 / 2).mean()),
    )  # fmt: skip


def sampling_findings(posterior: Posterior, sampler: str) -> list[Finding]:
    """Whether the draws are draws of the posterior."""
    if posterior.convergence is not None:
        c = posterior.convergence
        seen = (
            f"R-hat {c.rhat:.3f}, ESS {c.ess_bulk:.0f} / {c.ess_tail:.0f}, divergences "
            f"{c.divergences}, E-BFMI {c.ebfmi:.2f}"
        )
        meaning = (
            "the chains agree" if c.ok
            else f"did not converge: {'; '.join(c.complaints())}. Do not report these intervals"
        )  # fmt: skip
        return [Finding("sampler", seen, c.ok, meaning)]
    if posterior.pareto_k is not None:
        ok = posterior.pareto_k <= MAX_PARETO_K
        return [
            Finding(
                "sampler", f"Pareto k {posterior.pareto_k:.2f}", ok,
                "the quick approximation could be corrected" if ok
                else 'the quick approximation is too far from the posterior; use "nutpie"',
            )
        ]  # fmt: skip
    return [
        Finding(
            "sampler", sampler, True,
            "normal approximation at the mode, not corrected; compare with sampler='laplace'",
        )
    ]  # fmt: skip


def predictive_findings(found: list[Predictive]) -> list[Finding]:
    """Whether the model reproduces what was seen."""
    return [
        Finding(
            f"{one.label}, by tenths", f"p = {one.p_value:.3f}", one.p_value > LOW_P,
            "the model reproduces them" if one.p_value > LOW_P
            else "the model does not reproduce them: add features, interactions or groups",
        )
        for one in found
    ]  # fmt: skip


def overlap_findings(problem: Problem, draws: Natural, priors: Any) -> list[Finding]:
    """How much narrower than its prior each weakly identified parameter is."""
    half_normal = float(np.sqrt(1 - 2 / np.pi))
    found = []
    for name, values, inferred in (
        ("sigma", draws.sigma, problem.law.sigma is None),
        ("alpha", draws.alpha, problem.law.alpha is None),
    ):
        if inferred:
            ratio = float(values.std() / (priors[name] * half_normal))
            low, high = np.quantile(values, [0.025, 0.975])
            found.append(
                Finding(
                    f"identification of {name}",
                    f"[{low:.2f}, {high:.2f}], {ratio:.0%} of the prior's spread",
                    ratio < OVERLAP,
                    "the data and constraints inform it" if ratio < OVERLAP
                    else "the prior decides: add a constraint, or vary its prior",
                )
            )  # fmt: skip
    largest = max(
        float(values.std(axis=0).max()) for values in (draws.beta, draws.delta) if values.size
    )
    ratio = largest / priors["coefficients"]
    found.append(
        Finding(
            "prior and posterior", f"widest coefficient {ratio:.0%} of its prior", ratio < OVERLAP,
            "coefficients are learnt from the data" if ratio < OVERLAP
            else "a coefficient hangs on its prior: see standard errors",
        )
    )  # fmt: skip
    return found


def prior_finding(draws: Natural, prevalence: FloatArray, scale: float) -> Finding:
    """Where the mean risk goes with half and with twice the prior scale of sigma.

    The draws are weighted by the ratio of the two priors; nothing is fitted again.
    """
    shown, moves = [], []
    for factor in (0.5, 2.0):
        log_weight = -0.5 * (draws.sigma / scale) ** 2 * (1 / factor**2 - 1)
        weight = np.exp(log_weight - log_weight.max())
        mean = float(weight @ prevalence / weight.sum())
        shown.append(f"{mean:.3f}")
        moves.append(abs(mean - float(prevalence.mean())) / max(float(prevalence.std()), 1e-12))
    ok = max(moves) < OVERLAP
    return Finding(
        "prior of sigma", f"mean risk {shown[0]} at half its scale, {shown[1]} at twice", ok,
        "it hardly matters for the level of risk" if ok
        else "the level of risk leans on it: add a constraint, or report both",
    )  # fmt: skip


def conflict_findings(found: list[Conflict]) -> list[Finding]:
    """Imposed prevalences beside those the data imply."""
    out = []
    for one in found:
        whom = "" if one.name == "all" else f" of {one.name}"
        seen = (
            f"imposed {one.imposed:.3g} ± {one.imposed_sd:.2g}, data alone {one.mean:.3g} ± "
            f"{one.sd:.2g}, z = {one.z:.1f}"
        )
        if abs(one.z) > CONFLICT:
            meaning = "conflict: the prevalence or the model is wrong; free it, or widen its sd"
        elif one.tight:
            meaning = (
                "held so tightly that the data could not show it wrong, and if it is, all "
                "intervals are too narrow: run prevalence_sensitivity"
            )
        else:
            meaning = "compatible"
        ok = abs(one.z) <= CONFLICT and not one.tight
        out.append(Finding(f"prevalence{whom}", seen, ok, meaning))
    return out


def spread_finding(prevalence: FloatArray) -> Finding:
    """Whether the level of risk is known at all."""
    sd = float(prevalence.std())
    return Finding(
        "spread of the mean risk", f"sd {sd:.3f}", sd <= WIDE,
        "the level of risk is known" if sd <= WIDE
        else "the level of risk is hardly identified: impose a prevalence or expertise",
    )  # fmt: skip
