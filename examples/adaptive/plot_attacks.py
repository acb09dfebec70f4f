"""
How a holdout is used up
========================

Four classical experiments with known answers: features that looked good, a leaderboard, a screened
regression, and the feature selection of the reusable-holdout papers. In each of them there is
nothing to find, and the naive holdout finds something.
"""

import matplotlib.pyplot as plt
import pandas as pd

from causalfair.adaptive import bounds, simulate

# %%
# **Features that looked good.** The vote of k worthless features, signed by their exact holdout
# accuracies, against the same with Gaussian noise of the certified size.

n = 10_000
ks = (30, 100, 300, 1_000)
naive, noisy, radius = [], [], []
for k in ks:
    width = bounds.width(n, k)
    naive.append(simulate.correlated_classifier(n, k, n_runs=3, random_state=1)[0]["accuracy"])
    noisy.append(
        simulate.correlated_classifier(n, k, width.sigma, n_runs=3, random_state=1)[0]["accuracy"]
    )
    radius.append(width.radius)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].plot(ks, [a.mean() for a in naive], "o-", label="exact answers")
axes[0].plot(ks, [a.mean() for a in noisy], "s-", label="Gaussian mechanism")
axes[0].axhline(0.5, color="k", lw=0.8, ls="--", label="truth")
axes[0].set(xscale="log", xlabel="queries", ylabel="accuracy of the vote on the holdout")
axes[0].legend(frameon=False)

# %%
# **Feature selection**, at a tenth of the published size and averaged over twenty studies. Standard
# practice reports what it selected. Thresholdout, with the paper's settings, which no theory
# certifies, comes down to a coin: a vote of many features has overfitted the training data by more
# than the threshold, so the holdout is asked, while that of a few slips through.

studies = [
    simulate.reusable_holdout_experiment(1_000, 1_000, random_state=seed)[0] for seed in range(20)
]
mean = pd.concat(studies).groupby(["method", "k"]).mean().reset_index()
for number, (method, run) in enumerate(mean.groupby("method")):
    color = f"C{number}"
    axes[1].plot(run["k"], run["holdout"], "o-", ms=3, color=color, label=f"{method}: holdout")
    axes[1].plot(run["k"], run["fresh"], "--", lw=1, color=color, label=f"{method}: fresh data")
axes[1].set(xlabel="features in the vote", ylabel="accuracy", ylim=(0.47, 0.68))
axes[1].legend(frameon=False, fontsize="small", ncols=2, loc="upper center")

# %%
# **Leaderboard.** Four hundred random submissions, then the vote of those the board liked.

for board in ("exact", "ladder_free", "ladder"):
    attack, truth = simulate.leaderboard_attack(board=board, n_runs=10, random_state=0)
    print(f"{board:12s} loss on the board {attack['loss'].mean():.3f}  (truth 0.500)")

# %%
# **Freedman's paradox.** Fifty noise regressors, those with p < 0.25 kept, refitted.

runs, truth = simulate.freedman(n_runs=300, random_state=0)
print(runs.mean().round(3))
print(f"overall F test significant: {(runs['f_p_value'] < 0.05).mean():.0%}")

# %%
# What the calculators say about such questions, before any is asked:

print(bounds.compare(10_000, 1_000))
