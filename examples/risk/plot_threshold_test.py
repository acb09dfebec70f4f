r"""
Are drivers of some groups searched on less evidence?
=====================================================

Police stop drivers, search some of them, and find something on some of those. In the table of the
Stanford Open Policing Project, searches of Hispanic drivers find less than searches of white ones.
That alone shows nothing: if fewer Hispanic drivers carry much and more carry a little, a common
threshold gives a lower hit rate. The threshold test asks for the threshold itself.
"""

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import load_police_searches
from causalfair.risk import ThresholdTest

counties = load_police_searches()
counties.head()

# %%
# The whole table has 1,130 cells and takes minutes to sample with ``place="place",
# region="state"``. Here its counts are added up by state. The published priors hold guilt to be
# rarer than these counts say, and the test warns that thresholds then lean on the prior: read their
# differences rather than their level.
counts = ["stops", "searches", "hits"]
states = counties.groupby(["state", "group"], as_index=False)[counts].sum()

test = ThresholdTest(draws=800, tune=600, chains=2, target_accept=0.9, random_state=0).fit(
    states, "hits", searches="searches", stops="stops", group="group", place="state"
)
test

# %%
# Hit rates, thresholds, and their intervals
# ------------------------------------------
# Left, what the outcome test compares; right, the thresholds above which people were searched.
fig, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
groups = np.arange(len(test.groups_))
rates = states.groupby("group")[["hits", "searches"]].sum()
axes[0].plot(rates["hits"] / rates["searches"], groups, "s", color="0.4")
axes[0].set(xlabel="hit rate", yticks=groups, yticklabels=test.groups_, ylim=(-0.5, 2.5))
low, high = test.conf_int().T
axes[1].hlines(groups, low, high, linewidth=3)
axes[1].plot(test.estimates_.estimate, groups, "o", markersize=7)
axes[1].set(xlabel="threshold of searches, 95 % interval")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlim(0, None)

# %%
# Does the model fit?
# -------------------
# Fitted against observed rates of every state and group; the size of a point is the number of
# searches.
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, name in zip(axes, ("search_rate", "hit_rate"), strict=True):
    for group, cells in test.cells_.groupby("group"):
        size = 4 + 3 * np.sqrt(cells["searches"])
        ax.scatter(cells[name], cells[f"{name}_fitted"], s=size, alpha=0.6, label=group)
    ends = [0, test.cells_[name].max()]
    ax.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    ax.set(xlabel=f"observed {name.replace('_', ' ')}", ylabel="fitted")
    ax.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)

# %%
test.check()

# %%
# What would change the conclusion: officers who see something of evidence that the two signals of
# the model cannot express, hits recorded differently by group, or stops that are themselves
# selected. The test speaks of searches given a stop, not of who is stopped. Levels of thresholds
# rest on the form of the signal; their order much less.
print(test.cite())
