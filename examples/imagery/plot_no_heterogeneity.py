"""
Nothing to find: images, a model, and a constant effect
=======================================================

A model on image features always predicts some spread of effects. Two simulated trials have the
same villages and nearly the same picture; in one of them the effect is the same for all. The
rank-weighted average treatment effect tells them apart, if it is computed on villages that did not
train the ranking.
"""

# %%
# Two trials, one model
# ---------------------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV

from causalfair.datasets import make_image_sequence_trial
from causalfair.forest import RLearner
from causalfair.imagery import ImageSequenceCATE, RandomConvolutionFeatures, SequenceFeatures

penalties = np.logspace(-2, 4, 13)
ridge = RLearner(outcome_learner=RidgeCV(penalties), effect_learner=RidgeCV(penalties), n_folds=3)
features = SequenceFeatures(RandomConvolutionFeatures(128, random_state=0))
trials = {
    name: make_image_sequence_trial(500, heterogeneity=h, noise=1.0, random_state=4)
    for name, h in (("effects differ", 1.0), ("one effect for all", 0.0))
}
models = {
    name: ImageSequenceCATE(features, ridge, n_folds=4, random_state=1).fit(
        truth["images"], frame["y"], treatment=frame["treatment"], propensity=0.5
    )
    for name, (frame, truth) in trials.items()
}
spread = {
    name: {
        "predicted spread": np.std(model.predict()),
        "true spread": np.std(trials[name][1]["cate"]),
    }
    for name, model in models.items()
}
print(pd.DataFrame(spread, dtype=float).T.round(2))

# %%
# Ranking, evaluated honestly
# ---------------------------
# Each fold of villages is ranked by a model trained on the folds before it. The curve shows how
# much larger the average effect is among those ranked first than among all; without heterogeneity
# it stays around zero.

figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.9), sharey=True, layout="constrained")
for ax, (name, model) in zip(panels, models.items(), strict=True):
    ranking = model.evaluate()
    print(name)
    print(ranking, end="\n\n")
    ranking.plot(ax=ax)
    ax.set_title(f"{name} (QINI: p = {ranking.p_values()['qini']:.2g})", loc="left")
panels[1].set_ylabel("")

# %%
# Calibration says the same: the second coefficient is one if the predicted spread is right, and
# not distinguishable from zero if there is none.

for name, model in models.items():
    test = model.calibration_test()
    print(f"{name}: spread {test.estimate[1]:.2f}, one-sided p = {test.p_value[1]:.2g}")

# %%
# What would change the conclusion: an average over ordinary cross-fitting folds is not offered, for
# it would call the second trial significant far too often.
plt.show()
