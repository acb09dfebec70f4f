"""
Answers: a greeting is not a quality
====================================

A forum's answers are scored by votes. Moderators greet readers differently on every weekday, and
some weekdays bring more votes; old answers had more time to collect them. What should a writing
assistant learn from the scores?
"""

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import make_weekday_answers
from causalfair.reward import DeconfoundedReward

logs, truth = make_weekday_answers(4000, random_state=0)
words = [*truth["quality"], "greet0", "greet6"]
for word in words:
    logs[word] = [float(word in answer.split()) for answer in logs["answer"]]

# %%
# Weekday and age held fixed
# --------------------------
# The weekday is absorbed, the age enters as a spline. The greetings are functions of the weekday:
# within a weekday they never vary, so nothing can be said about them. The warning says so, and
# they get no reward, instead of the weekday's.

reward = DeconfoundedReward(penalty=0.0)
reward.fit(logs, "score", embedding=words, categorical=["weekday"], numeric=["age_days"])
print(reward.summary())

# %%
# Without the circumstances
# -------------------------

naive = DeconfoundedReward(method="naive", penalty=0.0).fit(logs, "score", embedding=words)
figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for fit, label, shift in ((naive, "naive", 0.12), (reward, "weekday and age held fixed", -0.12)):
    low, high = fit.conf_int().T
    place = np.arange(len(words)) + shift
    error = [fit.estimates_.estimate - low, high - fit.estimates_.estimate]
    axes.errorbar(fit.estimates_.estimate, place, xerr=error, fmt="o", label=label)
axes.plot(list(truth["quality"].values()), range(4), "k|", markersize=20, label="truth")
axes.set_yticks(range(len(words)), words)
axes.axvline(0, color="0.8", zorder=0)
axes.set_xlabel("effect of the word on the score")
axes.legend(frameon=False)

# %%
# From text alone
# ---------------
# The same on the raw answers, and what the reward of one of them is made of.

from_text = DeconfoundedReward(random_state=0)
from_text.fit(logs, "score", text="answer", categorical=["weekday"], numeric=["age_days"])
print(from_text.explain("greet6 simply maybe a source", top=5).round(2).to_string(index=False))
print(reward.cite())

# %%
# What would change the conclusion: had the votes themselves moved the answers' place on the page
# (so that early votes bring more), age would be a consequence of the text as well, and must not be
# held fixed. ``post_treatment=["age_days"]`` would then refuse it.
