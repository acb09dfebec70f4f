r"""
Can people protect their answers and still be counted fairly?
=============================================================

Before they leave a phone, three weak answers about a sensitive attribute are randomised: each is
kept with a known probability and replaced otherwise. The gap between groups stays identified; only
the interval pays.
"""

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import make_weak_proxies
from causalfair.fairness import ProxyFairness, randomized_response

people, truth = make_weak_proxies(200_000, random_state=0)
answers = people[["proxy_1", "proxy_2", "proxy_3"]]
budgets = [np.inf, 4.0, 2.0, 1.5]
rows = []
for budget in budgets:
    noisy = randomized_response(answers, budget, n_levels=2, random_state=1)
    audit = ProxyFairness(random_state=0).fit(noisy, people["y_pred"], y_true=people["y_true"])
    gap = audit.disparity("demographic_parity")
    guess = audit.diagnostics().to_frame().set_index("quantity")["value"]
    rows.append((budget, gap.estimate[0], *gap.conf_int()[0], guess["accuracy of all proxies"]))

for budget, estimate, low, high, accuracy in rows:
    print(
        f"epsilon {budget:4}  gap {estimate:.3f} [{low:.3f}, {high:.3f}]"
        f"  best guess of a person's group right in {accuracy:.0%}"
    )

# %%
# The truth is 0.2. Smaller budgets make it harder to guess a person's group (60 % would be right by
# always naming the larger one) and widen the interval; the gap is still found. Three answers spend
# the sum of their budgets.
fig, ax = plt.subplots(figsize=(6, 3))
for position, (_, estimate, low, high, _) in enumerate(rows):
    ax.plot([position] * 2, [low, high], color="0.3")
    ax.plot(position, estimate, "o", color="C0")
ax.axhline(truth["demographic_parity"], color="0.7", linewidth=0.8)
ax.set_xticks(range(len(rows)), [f"{b:g}" for b in budgets])
ax.set_xlabel("privacy budget of each answer")
ax.set_ylabel("gap between groups")
ax.spines[["top", "right"]].set_visible(False)
fig.tight_layout()
