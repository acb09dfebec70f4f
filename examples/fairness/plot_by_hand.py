r"""
How can three bad proxies be enough?
====================================

Here is a table of 768 people small enough to do by hand: a decision, and three proxies each of
which is wrong in a quarter of cases.
"""

import numpy as np

from causalfair.fairness import ProxyFairness

rejected = [163, 57, 57, 27, 57, 27, 27, 33]
accepted = [57, 27, 27, 33, 27, 33, 33, 83]
N = np.array([rejected, accepted], dtype=float).reshape(2, 1, 2, 2, 2)

# %%
# Moments first
# -------------
# Sum over decisions. The three proxies have mean 5/12, every pair has covariance 1/18, and the
# third central moment is 1/108. With a hidden group of share :math:`p_1` and proxies whose rate of
# "1" differs by :math:`d` between groups, the covariances are :math:`p_0p_1d^2`, the third moment
# is :math:`p_0p_1(1-2p_1)d^3`. Two equations, two unknowns:
covariance, third = 1 / 18, 1 / 108
delta = np.sqrt(third**2 + 4 * covariance**3)
share = 0.5 * (1 - third / delta)
difference = delta / covariance
print(f"share of group 1: {share:.4f}   difference of rates: {difference:.4f}")

# %%
# So a third of the people are in group 1, and each proxy says "1" for 3/4 of them and for 1/4 of
# the others. The likelihood agrees to the last digit.
audit = ProxyFairness.from_counts(N, random_state=0)
audit

# %%
# A proxy used as if it were the group shows a gap of 8/35 = 0.229 instead of 0.5.
audit.direct(0)

# %%
# The factor is known: with a proxy that is wrong in a quarter of cases and these shares it is
# 16/35. Two proxies and the decision give the same answer, because the decision is a third view.
ProxyFairness.from_counts(N.sum(axis=-1), model="two_view", random_state=0).group_rates_
