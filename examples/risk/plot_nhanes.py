"""
Whom did the doctors not test?
==============================

In the NHANES survey everybody gave blood, so that raised HbA1c (5.7 % or more) is known for all.
Let simulated doctors decide whom to test. They see waist, blood pressure, HDL cholesterol and
what earlier doctors said; the analyst sees age, sex, BMI and ethnicity. Doctors follow risk, but
test women more often than men of equal risk. How many of the untested have raised HbA1c?
"""

# %%
# Decisions, and what is hidden
# -----------------------------
# Adults never told they have diabetes. Three in ten are tested; the results of the others, and
# the doctors' private information, are hidden from here on.
import matplotlib.pyplot as plt
import pandas as pd

from causalfair.datasets import load_nhanes_hba1c, make_selective_decisions
from causalfair.risk import DomainConstrainedRisk, compare_risk_models, prevalence_sensitivity

hidden = ["waist", "systolic", "hdl", "told_prediabetes"]
adults = load_nhanes_hba1c().query("told_diabetes == 0").dropna(subset=["bmi", *hidden])
adults["raised"] = (adults["hba1c"] >= 5.7).astype(int)
for group in ("black", "asian"):
    adults[group] = (adults["ethnicity"] == group).astype(int)

seen, truth = make_selective_decisions(
    adults,
    "raised",
    observed=["age", "bmi", "female", "black", "asian"],
    hidden=hidden,
    share_tested=0.3,
    deviations={"female": 0.7},
    random_state=0,
)
covariates = ["age", "bmi", "female", "black", "asian"]
print(f"tested {seen['tested'].mean():.0%}, of these raised {seen['raised'].mean():.0%}")

# %%
# What is known from outside
# --------------------------
# The share with raised HbA1c is known from a survey, give or take a percentage point, and sex is
# the only feature on which guidelines let doctors deviate from risk.
model = DomainConstrainedRisk(
    prevalence=truth["prevalence"],
    prevalence_sd=0.01,
    expertise=["female"],
    sampler="laplace",
    draws=400,
    random_state=0,
)
model.fit(seen, "raised", tested="tested", covariates=covariates)
print(model.summary())

# %%
# The term ``testing:female`` recovers that doctors test women more often at equal risk (0.7 was
# put in). ``check`` says what may be doubted.
print(model.check())

# %%
# Against what one would do otherwise
# -----------------------------------
# A regression on the tested takes the untested for as ill as the tested of the same age and BMI;
# to count the untested as healthy is worse. Imposing a prevalence that is 10 % off moves the
# answer by as much, with intervals just as narrow.
table = compare_risk_models(
    model, seen, "raised", tested="tested", covariates=covariates, truth=truth["y"]
)
print(table)

# %%
methods = table.to_frame()
fig, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
for row, one in enumerate(methods.itertuples()):
    colour = "0.4" if pd.isna(one.untested_risk_low) else "C0"
    ax.plot([one.untested_risk_low, one.untested_risk_high], [row, row], color=colour, linewidth=2)
    ax.plot(one.untested_risk, row, "o", color=colour)
ax.axvline(truth["prevalence_untested"], color="C3", linestyle="--", label="truth")
ax.set_yticks(range(len(methods)), methods["method"])
ax.invert_yaxis()
ax.set_xlabel("share of the untested with raised HbA1c")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="lower left")

# %%
# What would change the conclusion
# --------------------------------
# The prevalence does most of the work, so vary it. A log-likelihood lost of more than two says
# that the data speak against a value.
p = truth["prevalence"]
print(
    prevalence_sensitivity(
        model,
        seen,
        "raised",
        values=[0.8 * p, 0.9 * p, p, 1.1 * p],
        tested="tested",
        covariates=covariates,
    )
)
