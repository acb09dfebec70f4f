"""
Youth grants in Uganda, and what Landsat saw of the places
==========================================================

The Youth Opportunities Programme gave groups of young people in northern Uganda a grant to learn a
trade and start a business :cite:p:`blattman2014generating`. Treatment was drawn at random; several
applicants share a place, and 327 places come with a Landsat image from before. Does the effect vary
with what is visible from above?

The data are those of the tutorial of :cite:t:`jerzak2023causalimages`. They are not distributed
with this library: :func:`~causalfair.datasets.load_uganda_youth_programme` reads them from a file
and checks its hash.
"""

# %%
# The data
# --------

import warnings

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import load_uganda_youth_programme
from causalfair.exceptions import OverlapWarning
from causalfair.forest import CausalForest
from causalfair.imagery import (
    ImageSequenceCATE,
    compare_representations,
    placebo_transport,
    plot_effect_map,
    plot_exemplars,
)
from causalfair.inference import spatial_errors

frame, images = load_uganda_youth_programme()
print(images.describe())
print(f"{len(frame):,} people, {frame['treatment'].mean():.0%} treated")

# %%
# The average effect
# ------------------
# People of one place are alike, so errors are clustered by image. That is the default where units
# share images; ignoring it takes an explicit ``individual=True`` and comes with a warning.

model = ImageSequenceCATE(learner=CausalForest(2000), scheme="oob", random_state=1, n_jobs=2)
model.fit(images, frame["y"], treatment=frame["treatment"])
print(model.summary())

# %%
# Neighbouring places may move together too. Errors that allow for it up to 25, 50 and 100 km:

average = model.average_effect()
for cutoff in (25, 50, 100):
    near = spatial_errors(average, frame[["geo_long", "geo_lat"]], cutoff_km=cutoff)
    print(f"{cutoff:>4} km: {near.estimate[0]:.3f} (std. error {near.std_error[0]:.3f})")

# %%
# Does the ranking mean anything?
# -------------------------------
# Out-of-bag effects rank people by trees that did not see their place; the p-value is one-sided and
# a heuristic. The sequential scheme, which holds its level exactly, has less power with 327 places.

print(model.evaluate())
sequential = ImageSequenceCATE(learner=CausalForest(1000), random_state=1, n_jobs=2)
sequential.fit(images, frame["y"], treatment=frame["treatment"])
ranking = sequential.evaluate("qini")
print(ranking)
ranking.plot()

# %%
# Images, survey answers, or both?
# --------------------------------

columns = ["X2", "X4", "X5", "X6"]
table = compare_representations(
    images, frame["y"], treatment=frame["treatment"], X=frame[columns],
    learners={"forest": CausalForest(500, n_jobs=2)}, random_state=1,
)  # fmt: skip
print(table)

# %%
# What the places look like
# -------------------------
# The largest effects on top. Pictures are anecdotes; look for what they share.

plot_exemplars(model, images, n=3)

# %%
# Predicted effects on the map, one dot a place.

effect = (
    frame.assign(effect=model.predict()).groupby("place")[["geo_long", "geo_lat", "effect"]].mean()
)
figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
plot_effect_map(effect[["geo_long", "geo_lat"]], effect["effect"], ax=ax)
ax.set_title("Predicted effect by place", loc="left")
print(
    f"from {np.quantile(effect['effect'], 0.05):.2f} to {np.quantile(effect['effect'], 0.95):.2f}"
)

# %%
# May the answer be carried elsewhere?
# ------------------------------------
# Outside the trial that cannot be tested; between its regions it can. Each region in turn is
# predicted from the other two, and compared with what the randomisation says there.

region = np.select([frame["geo_long"] < 32.1, frame["geo_lat"] < 2.0], ["west", "south"], "north")
with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", OverlapWarning
    )  # the regions look different, which is the point
    check = placebo_transport(
        ImageSequenceCATE(learner=CausalForest(300), random_state=1, n_jobs=2),
        images, frame["y"], treatment=frame["treatment"], regions=region,
    )  # fmt: skip
print(check)

# %%
# What would change the conclusion: the average effect is beyond doubt. Its variation with the
# images is modest and rests on 327 places. The p-value of the sequential test moves with the random
# folds, so report the seed, or the median over several. Two of three regions are predicted poorly
# from the others: these images do not carry the effect to places far from the trial.
plt.show()
