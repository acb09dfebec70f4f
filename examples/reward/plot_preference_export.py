"""
From logs to preference training
================================

A language model is to be tuned on logged headlines. Preference pairs taken from raw outcomes teach
it to say "shock", because shocking headlines live in popular sections. Pairs made inside sections
from the deconfounded reward do not. What would the tuned model write more of?
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import make_headlines
from causalfair.reward import (
    DeconfoundedReward,
    amplification,
    make_pairs,
    off_policy_value,
    tilt_frontier,
)

logs, truth = make_headlines(4000, random_state=1)
prompts = ["Write a headline for our front page."] * len(logs)
reward = DeconfoundedReward(random_state=0)
reward.fit(logs, "outcome", text="headline", categorical=["section", "hour"])

# %%
# Pairs
# -----
# Only pairs whose order is right with a probability of 0.8 or more are kept, at most three a text.
# The first set compares whatever was logged; the second compares texts of one section.

caps = {"min_prob": 0.8, "max_per_text": 3, "prompts": prompts}
raw = make_pairs(
    logs["outcome"],
    np.ones(len(logs)),
    np.zeros(len(logs)),
    logs["headline"].tolist(),
    max_per_stratum=4000,
    **caps,
)
fair = reward.make_pairs(strata="section", max_per_stratum=200, **caps)
for label, pairs in (("raw outcomes", raw), ("our reward, inside sections", fair)):
    print(pairs)
    for word in ("shock", "hope"):
        flags = truth["attributes"][word].to_numpy()
        a, b = flags[pairs.chosen].mean(), flags[pairs.rejected].mean()
        print(f"   {label}: {word!r} in {a:.0%} of chosen and {b:.0%} of rejected texts")

# %%
# Sections are balanced by construction; hours nearly are. The gap in length is real: helpful words
# make a headline longer, and a tuned model will learn that as well.

print(fair.balance().round(2).to_string(index=False))

# %%
# Before and after
# ----------------
# A model tuned with a KL penalty multiplies the odds of a property of reward :math:`\delta` by
# :math:`e^{\delta/\beta}`. This is what :math:`\beta=0.5` does to the share of headlines with each
# word, under the reward of the raw log and under ours.

names = list(truth["effects"])
table = logs.join(truth["attributes"])
shares = truth["attributes"].mean()
taught = {"before": shares}
for label, method in (("tuned on the raw log", "naive"), ("tuned on ours", "orthogonal")):
    fit = DeconfoundedReward(method=method, penalty=0.0)
    fit.fit(table, "outcome", embedding=names, categorical=["section", "hour"])
    pairs = zip(shares, fit.coef_, strict=True)
    taught[label] = [amplification(share, effect, 0.5) for share, effect in pairs]

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for shift, (label, values) in zip((-0.27, 0.0, 0.27), taught.items(), strict=True):
    axes.bar(np.arange(8) + shift, values, width=0.25, label=label)
axes.set_xticks(range(8), names)
axes.set_ylabel("share of headlines with the word")
axes.legend(frameon=False)

# %%
# Files for the trainer
# ---------------------
# One line a pair, ``prompt``, ``chosen``, ``rejected`` and ``margin``, with a card beside the file
# that says how it was made. Its ``label_smoothing`` is the expected share of pairs in the wrong
# order, which robust DPO takes. Other kinds feed KTO, GRPO, reward models and SFT.

folder = Path(tempfile.mkdtemp())
file = fair.to_trl(folder / "preferences.jsonl", kind="preference")
print(file.read_text(encoding="utf-8").splitlines()[0])
print(file.with_suffix(".card.json").read_text(encoding="utf-8"))

# %%
# What would it be worth?
# -----------------------
# The tilted policies that such a tuning approaches need no new texts: the logs are re-weighted by
# out-of-fold rewards, with outcomes net of the circumstances.

frontier = tilt_frontier(reward)
print(frontier.round(3).to_string(index=False))

# %%
# And of a model that has written already: the value of its samples.

samples = [text for text in truth["evaluation_texts"] if "hope" in text and "shock" not in text]
print(off_policy_value(reward, new_texts=samples, random_state=0))
print(reward.cite())

# %%
# What would change the conclusion: an unrecorded circumstance, and a model that leaves the range
# of the logs. The effective sample size says how far the logs carry; where it is small, run a test.
