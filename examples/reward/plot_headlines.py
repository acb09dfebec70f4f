"""
Headlines: the word that sells is not the word that helps
=========================================================

A newsroom logs its headlines and the clicks they got. Should its writers, or a language model
tuned on these logs, say "shock"? The logs are simulated, so the answer is known: "shock" and
"urgent" drive readers away, but live in popular sections; "hope" helps and lives there too.
"""

import matplotlib.pyplot as plt

from causalfair.datasets import make_headlines
from causalfair.reward import DeconfoundedReward, TextFeaturizer

logs, truth = make_headlines(4000, random_state=1)
print(logs.head(3).to_string(index=False))

# %%
# What every method would have taught
# -----------------------------------
# Section and hour are the circumstances: they move the choice of words and the clicks. One call
# refits every method on the same features, and judges it on fresh headlines of known reward.
# ``marker_share`` is how often the best of 16 candidates says "shock".

reward = DeconfoundedReward(features=TextFeaturizer(random_state=0), random_state=0)
reward.fit(logs, "outcome", text="headline", categorical=["section", "hour"])
comparison = reward.compare(
    candidates=truth["evaluation_texts"],
    truth=truth["evaluation_reward"],
    marker=truth["evaluation_attributes"]["shock"],
)
print(comparison)

# %%
# The naive reward credits words for the company they keep. Forcing the reward to be unrelated to
# the section ("invariant") overshoots: it also takes away from "hope", which helps and happens to
# live in the same sections.
#
# Word by word
# ------------
# The same regressions on the eight properties themselves.

table = logs.join(truth["attributes"])
names = list(truth["effects"])
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
shifts = {"naive": 0.2, "invariant": 0.0, "orthogonal": -0.2}
for method, shift in shifts.items():
    fit = DeconfoundedReward(method=method, penalty=0.0)
    fit.fit(table, "outcome", embedding=names, categorical=["section", "hour"])
    axes.plot(fit.coef_, [i + shift for i in range(8)], "o", label=method)
axes.plot(list(truth["effects"].values()), range(8), "k|", markersize=22, label="truth")
axes.set_yticks(range(8), names)
axes.axvline(0, color="0.8", zorder=0)
axes.set_xlabel("effect of the word on the outcome")
axes.legend(frameon=False)

# %%
# Rank new headlines
# ------------------

ranked = reward.rank(["shock urgent secret", "why hope", "seven how guide"], by="lcb")
print(ranked[["candidate", "reward", "std_error", "p_best"]].round(2).to_string(index=False))
print(reward.cite())

# %%
# What would change the conclusion: a cause of both words and clicks that nobody recorded. The
# editor on duty would be one. ``reward.sensitivity(a, b)`` says how strong it would have to be.
