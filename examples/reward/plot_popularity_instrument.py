"""
Popularity is itself confounded: an instrument for it
=====================================================

Popular posts sell more, and text moves popularity. Holding popularity fixed by regression is not
enough when something unseen (the news of the day) moves popularity and sales alike: its
association with sales is not its effect. A slot on the page that was drawn by lot moves popularity
and, but for that, not the sales.
"""

import matplotlib.pyplot as plt

from causalfair.datasets import make_popularity_iv
from causalfair.reward import DeconfoundedReward, InstrumentedReward

logs, truth = make_popularity_iv(4000, random_state=0)

# %%
# Three answers to one question
# -----------------------------
# By how much does the text property ``x`` move sales, popularity held fixed? The truth is 0.5.

naive = DeconfoundedReward(penalty=0.0).fit(logs, "y", embedding=["x"])
held = DeconfoundedReward(penalty=0.0, numeric_basis="linear")
held.fit(logs, "y", embedding=["x"], numeric=["popularity"])
reward = InstrumentedReward(penalty=0.0)
reward.fit(logs, "y", embedding=["x"], endogenous=["popularity"], instruments=["slot"])
print(reward.summary())

# %%
# Without popularity, text gets credit for it (1.9). With popularity as an ordinary confounder, the
# unseen cause makes popularity look too strong, and the text's reward turns negative.

figure, axes = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
fits = {"popularity ignored": naive, "popularity held fixed": held, "instrumented": reward}
for place, fit in enumerate(fits.values()):
    estimate, (low, high) = fit.estimates_["x"].estimate[0], fit.estimates_["x"].conf_int()[0]
    axes.errorbar(estimate, place, xerr=[[estimate - low], [high - estimate]], fmt="o", color="C0")
axes.axvline(truth["beta"], color="k", linewidth=1, label="truth")
axes.set_yticks(range(3), list(fits))
axes.set_xlabel("effect of the text property")
axes.set_ylim(-0.5, 2.5)
axes.legend(frameon=False)

# %%
# The instrument is strong: its effective F is far above 10, and the set that stays valid with weak
# instruments agrees.

((low, high),) = reward.robust_set()
print(f"effective F {reward.effective_f_:.0f}, effect of popularity in [{low:.2f}, {high:.2f}]")
print(reward.cite())

# %%
# What would change the conclusion: a slot that readers see differently for reasons of their own
# moves sales directly, and the instrument is gone. With a slot that hardly moves popularity,
# :class:`~causalfair.reward.InstrumentedReward` warns and points to ``robust_set()``.
