r"""
How much of the answer is assumption?
=====================================

A point estimate of an unseen gap rests on independence. Bounds rest on almost nothing. Seen side by
side they tell how much of the answer the assumption supplies.
"""

import matplotlib.pyplot as plt

from causalfair.datasets import make_weak_proxies
from causalfair.fairness import ProxyFairness

people, truth = make_weak_proxies(20_000, random_state=3)
proxies = ["proxy_1", "proxy_2", "proxy_3"]
audit = ProxyFairness(random_state=0).fit(people, "y_pred", y_true="y_true", proxies=proxies)
audit.compare("equal_opportunity")

# %%
# The same for selection rates. The bounds contain zero: without independence the data do not even
# determine the sign.
audit.bounds()

# %%
# Between the two lie partial relaxations. Let the error rates of the first proxy differ between
# accepted and rejected people by up to gamma: the range widens, and at some point covers zero.
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6))
audit.sensitivity(gamma=[0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2]).plot(ax=axes[0])
audit.sensitivity("proxies").plot(ax=axes[1])
fig.tight_layout()

# %%
# What would change the conclusion: evidence that decision makers saw what the proxy sees.
audit.sensitivity()
