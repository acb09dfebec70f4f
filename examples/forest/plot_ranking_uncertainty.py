"""
Is there anything to target? A ranking and its uncertainty
==========================================================

A forest always predicts some spread of effects. Whether ranking by them is of use is another
question, and the honest answer is sometimes no. Two simulated trials look alike at first; only
one of them has effects that differ.
"""

# %%
# Two trials
# ----------
# In the first the effect varies, in the second it is one for all (designs B and C of
# :cite:t:`nie2021quasi`). The predicted spread alone does not tell them apart.

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import make_heterogeneous_effects
from causalfair.exceptions import ParameterError
from causalfair.forest import (
    CausalForest,
    policy_value,
    rank_average_treatment_effect,
    treat_top,
    validate_ranking,
)

trials = {
    "effects differ": make_heterogeneous_effects(1200, setup="B", noise=1.5, random_state=3)[0],
    "one effect for all": make_heterogeneous_effects(1200, setup="C", noise=1.5, random_state=3)[0],
}
roles = {"y": "y", "treatment": "treatment", "covariates": "all"}
forests = {
    name: CausalForest(500, n_jobs=2, random_state=1).fit(frame, **roles)
    for name, frame in trials.items()
}
for name, forest in forests.items():
    print(f"{name}: predicted effects have a standard deviation of {np.std(forest.predict()):.2f}")

# %%
# Sequential validation
# ---------------------
# Each fold is ranked by a forest trained on the folds before it.

checks = {
    name: validate_ranking(CausalForest(300, n_jobs=2), frame, **roles, random_state=1)
    for name, frame in trials.items()
}
for name, check in checks.items():
    print(f"{name}: {check.test_}")

figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axes, (name, check) in zip(panels, checks.items(), strict=True):
    check.plot(ax=axes)
    axes.set_title(f"{name} (p = {check.p_value:.2g})")
panels[1].set_ylabel("")

# %%
# The mistake to avoid
# --------------------
# Ranking rows by predictions of a forest that saw them looks convincing in both trials, so it is
# refused.

frame = trials["one effect for all"]
columns = [name for name in frame if name.startswith("x")]
forest = forests["one effect for all"]
try:
    rank_average_treatment_effect(forest.predict(frame[columns]), forest.scores_)
except ParameterError as error:
    print(error)

# %%
# What targeting is worth
# -----------------------
# Train on one half, evaluate on the other: treat the fifth of the units with the largest
# predicted effect, at a cost of half a unit of the outcome each.

frame = trials["effects differ"]
train, evaluate = frame.iloc[:600], frame.iloc[600:]
ranking = CausalForest(500, n_jobs=2, random_state=2).fit(train, **roles)
scores = CausalForest(500, n_jobs=2, random_state=3).fit(evaluate, **roles).scores_
rule = treat_top(ranking.predict(evaluate[columns]), 0.2)
print(policy_value(rule, scores, cost=0.5))

# %%
# What would change the conclusion: with less noise or more rows the first test grows without
# bound, the second does not.
