"""
Upworthy: selection put back in, and undone
===========================================

From 2013 to 2015 Upworthy showed several headlines of one story to visitors at random
:cite:p:`matias2021upworthy`. Differences in clicks within a test are effects, so the truth is
known, and it is known for real readers. We take the randomisation away on purpose: in popular
stories the logged headline is likely to have the property, in unpopular ones it is not. Can the
reward be recovered from that log?

The archive is at https://osf.io/jd64p (CC BY 4.0) and is not distributed with the package. This
example runs where ``upworthy_development_half.parquet``, one half of its exploratory tests, lies in
the folder of the environment variable ``CAUSALFAIR_DATA``; with another file of the archive give
``fetch_upworthy(path)``. The figures quoted below are those of that half.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from causalfair.datasets import fetch_upworthy, make_confounded_headlines
from causalfair.reward import DeconfoundedReward

packages = fetch_upworthy()
print(f"{len(packages):,} packages in {packages['test'].nunique():,} tests")

# %%
# Six properties of a headline
# ----------------------------
# For each: its effect on the log odds of a click within randomised tests, what the confounded log
# says, and what it says with the story's popularity held fixed.

marks = {
    "question mark": r"\?",
    "digit": r"\d",
    "you": r"\b[Yy]ou",
    "this": r"\b[Tt]his\b",
    "quotation": r"['\"]",
    "she or he": r"\b(?:[Ss]he|[Hh]e|[Hh]is|[Hh]er)\b",
}


def effect(frame, method, **roles):
    fit = DeconfoundedReward(method=method, penalty=0.0)
    fit.fit(frame, "clicks", trials="impressions", embedding=["marker"], **roles)
    return fit.estimates_.estimate[0], 1.96 * fit.estimates_.std_error[0]


rows = {}
for name, pattern in marks.items():
    mark = packages["headline"].str.contains(pattern).astype(float)
    log, _ = make_confounded_headlines(packages, mark, random_state=0)
    rows[name] = {
        "randomised": effect(
            packages.assign(marker=mark), "orthogonal", categorical=["test"], cluster="test"
        ),
        "raw log": effect(log, "naive"),
        "popularity held fixed": effect(log, "orthogonal", categorical=["popularity"]),
    }

table = pd.DataFrame(
    {k: {m: f"{a:+.2f} ± {b:.2f}" for m, (a, b) in v.items()} for k, v in rows.items()}
)
print(table.T.to_string())

# %%
# .. code-block:: text
#
#                     randomised       raw log popularity held fixed
#    question mark  -0.10 ± 0.03  +0.02 ± 0.09          -0.11 ± 0.06
#    digit          +0.08 ± 0.05  +0.22 ± 0.07          +0.08 ± 0.05
#    you            +0.01 ± 0.03  +0.10 ± 0.07          -0.02 ± 0.05
#    this           +0.06 ± 0.03  +0.28 ± 0.07          +0.04 ± 0.05
#    quotation      -0.01 ± 0.03  +0.16 ± 0.06          -0.04 ± 0.04
#    she or he      +0.11 ± 0.04  +0.33 ± 0.07          +0.07 ± 0.05
#
# Readers click less on questions. The raw log says the opposite, because questions were logged
# where the story sold itself.

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for shift, label in zip(
    (0.22, 0.0, -0.22), ("randomised", "raw log", "popularity held fixed"), strict=True
):
    estimate, error = np.array([row[label] for row in rows.values()]).T
    axes.errorbar(estimate, np.arange(len(rows)) + shift, xerr=error, fmt="o", label=label)
axes.set_yticks(range(len(rows)), list(rows))
axes.axvline(0, color="0.8", zorder=0)
axes.set_xlabel("effect on the log odds of a click")
axes.legend(frameon=False)

# %%
# What would change the conclusion: selection here follows a recorded circumstance by construction.
# Had editors followed something they saw and nobody recorded, no method on this log would find it;
# the randomised tests would.
