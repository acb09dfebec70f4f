"""
Thousands of questions
======================

When a good guess for each answer exists, or the universe is small, a holdout answers far more
questions than the worst case allows. Two simulated sessions with the truth beside them.
"""

import matplotlib.pyplot as plt

from causalfair.adaptive import simulate

# %%
# **Guess and check.** Half of 10,000 records guess, half check. The analyst combines everything
# that looked good at every hundredth question. The worst-case Gaussian bound affords 99 questions
# at this width.

answers, truth = simulate.guess_and_check_analyst(10_000, tau=0.1, random_state=0)
print(truth)

# %%
# **Multiplicative weights** over 65,536 cells: random conjunctions of one to three columns. A few
# dozen looks at the data answer thousands of questions.

conjunctions, weights = simulate.multiplicative_weights_demo(n_queries=5_000, random_state=0)
print(weights)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
failed = answers["status"] == "holdout"
axes[0].plot(answers.index[~failed], answers["error"][~failed], ".", ms=2, label="guess passed")
axes[0].plot(answers.index[failed], answers["error"][failed], "s", ms=4, label="guess failed")
axes[0].axhline(0.1, color="k", lw=0.8, ls="--", label="radius")
axes[0].set(xlabel="query", ylabel="distance from the truth", title="guess and check")
axes[0].legend(frameon=False, fontsize="small")
axes[1].plot(conjunctions["updated"].cumsum(), label="updates")
axes[1].set(
    xlabel="query", ylabel="looks at the data", title="multiplicative weights", xscale="log"
)
