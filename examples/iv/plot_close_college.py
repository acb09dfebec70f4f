r"""
Schooling and wages: what an invalid instrument can still say
=============================================================

Does a year of schooling raise wages? Ability is unmeasured and drives both. Growing up near a
four-year college (:math:`Z`) makes school cheaper and has served as an instrument ever since Card
(1995). But parents choose where to live, and places with colleges have other labour markets: the
instrument may act on wages directly. An estimator that allows this pays for it. Here the price is
so high that the data refuse to answer, and the point of the example is that the library says so.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from causalfair.datasets import load_close_college, make_invalid_iv
from causalfair.iv import MRGenius, MultiplyRobustATE

schooling, roles = load_close_college(return_roles=True)

# Experience is age - schooling - 6, so it moves with the treatment: leave it out.
roles["covariates"] = ["black", "south", "smsa"]
schooling.describe().round(2)

# %%
# Fit
# ---
# Schooling in years is a continuous treatment, and people near and far from a college
# both attend: nothing is one-sided. One constant effect is asked for (``"~ 1"``), the easiest
# question there is.
effect = MultiplyRobustATE({"effect": "~ 1"}).fit(schooling, **roles)

# %%
# The fit warns. The summary repeats the warning beside the numbers:
effect

# %%
# The warning is the result
# -------------------------
# Two-stage least squares has a first stage: living near a college moves the *mean* of schooling.
# What identifies an effect without the exclusion restriction is a change in its *variance*, and
# there is none:
effect.relevance()

# %%
# So the estimate and its normal interval are no answer. The set that holds however weak the
# identification is the whole line:
print(effect.robust_set())

# %%
# A tempting way out is to look for a definition of schooling that "works": some degree rather
# than years. Among eight thresholds some will pass any rule by chance, and most do not come near:
for years in range(11, 19):
    degree = (schooling["educ"] >= years).astype(int)
    table = schooling.assign(degree=degree)
    names = {**roles, "treatment": "degree"}
    with warnings.catch_warnings():  # we know by now what they would say
        warnings.simplefilter("ignore")
        found = MultiplyRobustATE({"effect": "~ 1"}).fit(table, **names)
    print(f"{years} years or more: F_het {found.relevance().f_het:5.2f}   {found.robust_set()}")

# %%
# Other roads to the same wall
# ----------------------------
# The generalised method of moments agrees with the estimate's order of magnitude and with the
# verdict, and its table has the benchmarks beside it:
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    genius = MRGenius(residualize=True).fit(schooling, **roles)
genius.comparators().round(3)

# %%
# How strong would the instrument have to be?
# -------------------------------------------
# Simulated studies of the same size, in which the variance shift grows from nothing. The normal
# interval looks precise long before it can be trusted; the robust set tells.
shifts = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5])
strength, width = [], []
for shift in shifts:
    frame, truth = make_invalid_iv(
        3010, heterogeneity=0.0, variance_shift=shift, random_state=int(100 * shift)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = MultiplyRobustATE({"effect": "~ 1"}).fit(
            frame, "y", treatment="treatment", instrument="instrument", covariates=["x1", "x2"]
        )
    strength.append(fit.relevance().f_het)
    pieces = fit.robust_set()
    width.append(pieces[0][1] - pieces[0][0] if len(pieces) == 1 else np.inf)

figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
axis.semilogy(shifts, strength, "o-", label=r"$F_{het}$ of simulated studies")
axis.axhline(10, color="0.4", linestyle=":", label="10, the least for normal intervals")
axis.axhline(
    effect.relevance().f_het, color="C3", linestyle="--", label="college proximity, these data"
)
axis.set_xlabel("action of the instrument on the variance of the treatment")
axis.set_ylabel("strength of identification")
axis.legend(frameon=False)

# %%
for shift, size in zip(shifts, width, strict=True):
    print(f"variance shift {shift:4.2f}: width of the robust set {size:.2f}")

# %%
# What would change the conclusion
# --------------------------------
# * *Believing the exclusion restriction.* Then two-stage least squares is an answer, and its
#   interval is in the table above. No test in these data can support that belief: the direct
#   effect is estimated too loosely to be told from zero or from something large.
effect.direct_effect().to_frame().round(3)

# %%
# * *An instrument that changes who varies*, not only how much the average person gets: a rule
#   that makes schooling uniform in one place and leaves it free in another.
# * *More instruments.* :class:`~causalfair.iv.MRGenius` takes any number, all of them possibly
#   invalid, and tests whether they agree.
#
# **Conclusion.** Without the exclusion restriction these data say nothing about the return to
# schooling. A library that printed an estimate without that sentence would be worse than none.
#
# Cite
# ----
print(effect.cite())
