r"""
Reject inference: the risk of those who were refused
====================================================

A lender sees repayment of accepted applicants only. A score fitted to them is used for
everybody. How wrong is it for those who were refused, and which remedy helps? Here the answer is
known, because the applicants are simulated: the loan officer saw something the table does not
hold.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from causalfair.datasets import make_probit_selection
from causalfair.risk import BivariateProbitSelection, DecisionShiftEstimator, selection_bounds

applicants, truth = make_probit_selection(
    6_000, sigma=1.5, intercept=0.4, free=(1,), random_state=8
)
applicants = applicants.rename(columns={"y": "repaid", "tested": "accepted"})
features = ["x1", "x2", "x3"]
accepted = applicants["accepted"] == 1
print(f"accepted {accepted.mean():.0%}; repaid among them {applicants['repaid'].mean():.0%}")
print(f"would repay among the refused {truth['y'][~accepted].mean():.0%}")

# %%
# Remedies in use
# ---------------
# *Accepted only* fits them as if they were everybody. *Weighting* makes the accepted look like all
# applicants in the columns of the table. *Fuzzy augmentation* adds every refused applicant twice,
# as a good and a bad one, weighted by the first score. *Parcelling* draws outcomes of the refused
# by that score, here with the usual guess that they repay 20 % less often.
X, seen = applicants[features], applicants[accepted]
refused = applicants[~accepted]
rng = np.random.default_rng(0)


def logistic(table, outcome, weight=None):
    return LogisticRegression().fit(table[features], outcome, weight).predict_proba(X)[:, 1]


only = logistic(seen, seen["repaid"])
chance = LogisticRegression().fit(X, accepted).predict_proba(X)[:, 1]
weighted = logistic(seen, seen["repaid"], 1 / chance[accepted])

both = pd.concat([seen, refused, refused])
outcome = np.concatenate([seen["repaid"], np.ones(len(refused)), np.zeros(len(refused))])
good = only[~accepted]
fuzzy = logistic(both, outcome, np.concatenate([np.ones(len(seen)), good, 1 - good]))

drawn = rng.random(len(refused)) < 0.8 * good
parcelled = logistic(
    pd.concat([seen, refused]), np.concatenate([seen["repaid"], drawn.astype(float)])
)

# %%
# Models of the decision
# ----------------------
# The lender knows from a year in which everybody was accepted that about as many repay as in the
# truth, give or take two points. The probit with selection uses it, and so does the odds identity,
# which believes no law of what the officer saw.
known = {"prevalence": truth["prevalence"], "prevalence_sd": 0.02}
roles = {"tested": "accepted", "covariates": features}
probit = BivariateProbitSelection(**known, expertise=["x1"]).fit(applicants, "repaid", **roles)
shift = DecisionShiftEstimator(
    **known,
    tested_learner=LogisticRegression(),
    outcome_learner=LogisticRegression(),
    random_state=0,
).fit(applicants, "repaid", **roles)
probit

# %%
scores = {
    "accepted only": only,
    "weighting": weighted,
    "fuzzy augmentation": fuzzy,
    "parcelling (-20 %)": parcelled,
    "odds identity": shift.predict_proba(applicants, given="untested"),
    "probit with selection": probit.predict_proba(applicants, given="untested"),
}
repaid = truth["y"][~accepted]
table = pd.DataFrame(
    {
        "mean of the refused": {name: score[~accepted].mean() for name, score in scores.items()},
        "Brier score": {
            name: np.mean((repaid - score[~accepted]) ** 2) for name, score in scores.items()
        },
    }
)
table["error"] = table["mean of the refused"] - repaid.mean()
table.round(3)

# %%
# Calibration among the refused
# -----------------------------
# Every remedy without knowledge from outside stays where the accepted put it, because nothing in
# the table says what the officer saw.
fig, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
for name in ("accepted only", "parcelling (-20 %)", "odds identity", "probit with selection"):
    score = scores[name][~accepted]
    bins = np.digitize(score, np.quantile(score, np.linspace(0, 1, 9)[1:-1]))
    mean = [(score[bins == b].mean(), repaid[bins == b].mean()) for b in range(8)]
    ax.plot(*zip(*mean, strict=True), "o-", markersize=4, label=name)
ax.set(xlabel="predicted share repaid, refused applicants", ylabel="actual share")
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)

# %%
# What holds without any model
# ----------------------------
# The bounds are honest and wide; the model's answer should lie inside.
bounds = selection_bounds(
    applicants, "repaid", **roles, gamma=(0.1, 1.0), tested_learner=LogisticRegression(),
    outcome_learner=LogisticRegression(), random_state=0,
)  # fmt: skip
bounds.plot(model=probit.estimates_["prevalence"])

# %%
# What would change the conclusion: a share of repayers that is not that of these applicants. Check
# the conflict the model reports, and how the refused move with it.
probit.check()
