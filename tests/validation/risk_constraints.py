"""What a prevalence and expertise buy: widths and errors of the synthetic study.

``nox -s validation -- risk_constraints`` rewrites ``docs/_data/validation/risk_constraints.csv``
and ``risk_wrong_prevalence.csv``; ``--quick`` fits a few data sets and compares with the stored
tables instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from validation._tables import Table, run

from causalfair.datasets import make_selective_labels
from causalfair.exceptions import IdentificationError
from causalfair.risk import DomainConstrainedRisk

# The paper weighs the squared distance from the prevalence by 1e5: a standard error of 0.0022.
SD, DRAWS = 0.0022, 1000
COVARIATES = ["x1", "x2", "x3", "x4"]
TIED = [f"testing:{name}" for name in COVARIATES[1:]]
TERMS = {
    "risk, all coefficients": ["risk:intercept", *(f"risk:{name}" for name in COVARIATES)],
    "risk, intercept": ["risk:intercept"],
    "risk, slopes": [f"risk:{name}" for name in COVARIATES],
    "testing": ["testing:intercept", "testing:x1"],
    "sigma": ["sigma"],
}
ROWS = "risk of a row"
WRONG = {
    "true, sd 0.0022": (1.0, SD),
    "10% low, sd 0.0022": (0.9, SD),
    "10% high, sd 0.0022": (1.1, SD),
    "10% low, sd 0.02": (0.9, 0.02),
    "10% high, sd 0.02": (1.1, 0.02),
}


def fit(frame: Any, **known: Any) -> DomainConstrainedRisk:
    """The quick sampler, whose draws are those of NUTS here (Pareto k below zero)."""
    model = DomainConstrainedRisk(sampler="laplace", draws=DRAWS, random_state=0, **known)
    return model.fit(frame, "y", tested="tested", covariates=COVARIATES)


def measures(model: DomainConstrainedRisk, frame: Any, truth: Any) -> dict[str, list[float]]:
    """Mean width, error and share inside of each group of parameters, and of the rows' risks."""
    true = {f"risk:{k}": v for k, v in truth["risk"].items()}
    true |= {f"testing:{k}": v for k, v in truth["testing"].items()} | {"sigma": truth["sigma"]}
    est = model.estimates_
    ends = dict(zip(est.names, model.conf_int(), strict=True))
    point = dict(zip(est.names, est.estimate, strict=True))
    found = {}
    for group, terms in TERMS.items():
        low, high = np.array([ends[t] for t in terms]).T
        value = np.array([true[t] for t in terms])
        error = np.abs([point[t] for t in terms] - value)
        found[group] = [
            float((high - low).mean()), float(error.mean()),
            float(((low <= value) & (value <= high)).mean()),
        ]  # fmt: skip
    low, high = model.predict_interval(frame).T
    risk = truth["risk_proba"]
    error = np.abs(model.predict_proba(frame) - risk)
    inside = (low <= risk) & (risk <= high)
    found[ROWS] = [float((high - low).mean()), float(error.mean()), float(inside.mean())]
    return found


def normal_theory(free: DomainConstrainedRisk, known: list[str]) -> dict[str, float]:
    """Relative widths if the posterior without constraints were normal.

    Knowing c multiplies the variance of a parameter by one minus its squared (multiple) correlation
    with c; a prevalence is known up to its standard error.
    """
    est = free.estimates_
    draws = dict(zip(est.names, est.draws.T, strict=True))
    c = np.array([draws[name] for name in known])
    noise = np.diag([SD**2 if name == "prevalence" else 0.0 for name in known])
    inverse = np.linalg.inv(np.atleast_2d(np.cov(c)) + noise)
    out = {}
    for group, terms in TERMS.items():
        ratio = []
        for term in terms:
            joint = np.cov(np.vstack([draws[term], c]))
            ratio.append(np.sqrt(1 - joint[0, 1:] @ inverse @ joint[0, 1:] / joint[0, 0]))
        out[group] = float(np.mean(ratio))
    return out


def study(data_sets: int) -> pd.DataFrame:
    """Widths and errors of three fits against that without constraints, medians over data sets."""
    ties = {"expertise": ["x1"]}
    records = []
    for seed in range(data_sets):
        frame, truth = make_selective_labels(5000, random_state=seed)
        known = {"prevalence": truth["prevalence"], "prevalence_sd": SD}
        free = fit(frame)
        base = measures(free, frame, truth)
        for name, given, what in (
            ("prevalence", known, ["prevalence"]),
            ("expertise", ties, TIED),
            ("both", known | ties, ["prevalence", *TIED]),
        ):
            theory = normal_theory(free, what)
            for group, (width, error, inside) in measures(
                fit(frame, **given), frame, truth
            ).items():
                records.append((name, group, width / base[group][0], theory.get(group, np.nan),
                                error / base[group][1], inside, base[group][2]))  # fmt: skip
    columns = ["constraint", "term", "width", "normal theory", "error", "coverage", "free coverage"]
    table = pd.DataFrame(records, columns=columns)
    lines = []
    for (name, group), part in table.groupby(["constraint", "term"], sort=False):
        width, error = interval(part["width"]), interval(part["error"])
        lines.append({
            "constraint": name, "term": group, "data sets": data_sets,
            "width": width[0], "width low": width[1], "width high": width[2],
            "width, normal theory": round(float(part["normal theory"].median()), 2),
            "error": error[0], "error low": error[1], "error high": error[2],
            "coverage": round(float(part["coverage"].mean()), 3),
            "coverage, none": round(float(part["free coverage"].mean()), 3),
        })  # fmt: skip
    return pd.DataFrame(lines)


def interval(ratio: pd.Series) -> tuple[float, float, float]:
    """Median over data sets with its 95% bootstrap interval."""
    values = ratio.to_numpy()
    index = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(np.median(values[index], axis=1), [0.025, 0.975])
    return round(float(np.median(values)), 2), round(float(low), 2), round(float(high), 2)


def wrong_prevalence(data_sets: int) -> pd.DataFrame:
    """Both constraints with a prevalence that is 10% off, held tightly or honestly."""
    records = []
    for seed in range(data_sets):
        frame, truth = make_selective_labels(5000, random_state=seed)
        base = measures(fit(frame, expertise=["x1"]), frame, truth)
        for name, (factor, sd) in WRONG.items():
            value = factor * truth["prevalence"]
            try:
                model = fit(frame, expertise=["x1"], prevalence=value, prevalence_sd=sd)
            except IdentificationError:  # below the positives seen
                records.append((name, *[np.nan] * 5, 1))
                continue
            found = measures(model, frame, truth)
            levels = ("risk, intercept", "sigma")
            records.append((
                name, found["risk, all coefficients"][0] / base["risk, all coefficients"][0],
                found["risk, all coefficients"][1] / base["risk, all coefficients"][1],
                np.mean([found[k][2] for k in levels]), found["risk, slopes"][2],
                abs(model.conflicts_[0].z), 0,
            ))  # fmt: skip
    columns = [
        "prevalence", "width of risk", "error of risk", "coverage, intercept and sigma",
        "coverage, slopes", "size of the conflict z", "refused",
    ]  # fmt: skip
    table = pd.DataFrame(records, columns=columns).groupby("prevalence", sort=False)
    out = table.median()
    for name in columns[3:5]:
        out[name] = table[name].mean()
    out["refused"] = table["refused"].sum()
    out.insert(0, "data sets", data_sets)
    return out.round(2).reset_index()


def problems_of_study(table: pd.DataFrame) -> list[str]:
    """Constraints that do not narrow; in a single data set expertise may widen."""
    limits = {"prevalence": 0.9, "both": 0.9}
    if table["data sets"].iloc[0] > 10:
        limits["expertise"] = 0.95
    ratio = table.set_index(["constraint", "term"])["width"]
    return [
        f"{name} does not narrow {term}"
        for (name, term), value in ratio.items()
        if value > limits.get(name, np.inf)
    ]


def problems_of_wrong(table: pd.DataFrame) -> list[str]:
    """A wrong prevalence that does no harm."""
    error = table.set_index("prevalence")["error of risk"]
    return [
        f"a prevalence 10% too {side} does no harm"
        for side in ("low", "high")
        if not error[f"10% {side}, sd 0.0022"] > 1.5 * error["true, sd 0.0022"]
    ]


if __name__ == "__main__":
    run(
        __doc__,
        {
            "risk_constraints": Table(study, 40, 3, check=problems_of_study),
            "risk_wrong_prevalence": Table(wrong_prevalence, 16, 2, check=problems_of_wrong),
        },
    )
