"""
Many logs and a few experiments
===============================

Nine tenths of the rows are logs with an unseen cause of both texts and outcomes; one tenth are
randomised tests of four texts each. The logs are precise and wrong, the tests right and noisy. How
should they be joined, and which test should be run next?
"""

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import make_two_sources
from causalfair.reward import DeconfoundedReward, PairwiseReward, fuse, select_experiments

logs, truth = make_two_sources(1600, experimental_share=0.1, bias=0.7, random_state=5)
names = [f"x{j}" for j in range(6)]
logged, tested = logs[logs["experiment"] < 0], logs[logs["experiment"] >= 0]

# %%
# One fit on both
# ---------------
# With ``experiment=`` the randomised rows absorb their test and the logged rows their topic. How
# much a randomised row counts is chosen on held-out tests.

both = DeconfoundedReward(penalty=0.0, random_state=0)
both.fit(logs, "y", embedding=names, categorical=["topic"], experiment="experiment")
observational = DeconfoundedReward(penalty=0.0)
observational.fit(logged, "y", embedding=names, categorical=["topic"])
experimental = DeconfoundedReward(penalty=0.0)
experimental.fit(tested, "y", embedding=names, categorical=["experiment"])
print(f"a randomised row counts {both.trust_:g} times")

figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
fits = {"logs alone": observational, "experiments alone": experimental, "both": both}
for shift, (label, fit) in zip((-0.2, 0.0, 0.2), fits.items(), strict=True):
    error = 1.96 * fit.estimates_.std_error
    axes.errorbar(np.arange(6) + shift, fit.coef_ - truth["beta"], yerr=error, fmt="o", label=label)
axes.axhline(0, color="0.8", zorder=0)
axes.set_xticks(range(6), names)
axes.set_ylabel("error of the reward")
axes.legend(frameon=False)

# %%
# The joint fit sits between the two: less biased than the logs, less noisy than forty tests.
#
# Win by win
# ----------
# Where the experiments only say which text won, a pairwise reward is learnt from them and grounds
# the observational one: it may be rescaled and bent, but only as far as the tests demand.

x, y = tested[names].to_numpy(), tested["y"].to_numpy()
first, second = np.arange(0, len(x), 2), np.arange(1, len(x), 2)
wins = (y[first] > y[second]).astype(float)
test = tested["experiment"].to_numpy()[first]
pairwise = PairwiseReward(random_state=0).fit(x[first] - x[second], wins, cluster=test)
tests = (x[first] - x[second], wins, test)

fresh = np.random.default_rng(0).normal(size=(2, 5000, 6))
right = (fresh[0] - fresh[1]) @ truth["beta"] > 0
for method in ("grounding", "ivw"):
    joint = fuse(observational, pairwise, *fresh, tests=tests, method=method)
    frame = joint.to_frame()
    print(joint)
    for column in ("observational", "experimental", "probability"):
        print(f"   {column:14} {np.mean((frame[column] > 0.5) == right):.1%} of fresh pairs right")

# %%
# Which test next?
# ----------------
# Early on, the one whose texts the logs expect to differ most; later, the one about which the two
# sources disagree.

drafts = np.random.default_rng(1).normal(size=(8, 3, 6))
print(select_experiments(drafts, observational, pairwise, rule="disagreement").head(3))
print(joint.cite())

# %%
# What would change the conclusion: with no unseen cause the logs deserve far more weight than the
# tests, and the trust chosen on held-out tests falls accordingly.
