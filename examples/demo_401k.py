"""Did taking part in a 401(k) plan raise savings? One answer, with every benchmark beside it.

Run by ``nox -s demo``, or as ``python examples/demo_401k.py``. Prints the analysis and writes a
figure, the estimates, their provenance and the BibTeX of what to cite to ``demo_output/``.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import matplotlib.pyplot as plt

from causalfair.datasets import load_401k
from causalfair.inference import CovarianceEstimates
from causalfair.iv import MultiplyRobustATE
from causalfair.reporting import forest_plot, format_number, format_p, format_percent

OUTPUT = Path("demo_output")


def main() -> None:
    say(
        "Households whose employer offers a 401(k) pension plan may take part in it. Did taking "
        "part raise their net financial assets (nettfa, in 1,000 US dollars of 1991)? Those who "
        "take part also save more in other ways, so a plain comparison misleads. Eligibility is "
        "the classic instrument, but employers who offer a plan may differ in pay and habits too: "
        "it may act on assets by a road of its own."
    )
    savings, roles = load_401k(return_roles=True)
    # Nobody takes part who is not eligible; one_sided=True says that we know it.
    effect = MultiplyRobustATE(one_sided=True).fit(savings, **roles)
    beside = effect.comparators()

    heading("The answer, and what it assumes")
    print(effect.summary())

    heading("Every estimate beside it, in 1,000 US dollars")
    print(table_of(beside).summary().tables[0])

    heading("What it says, and how far to trust it")
    for sentence in reading(effect):
        say(sentence)

    heading("Written to demo_output/")
    for path in write(effect, beside):
        print(f" {path.name}")

    heading("Try next")
    for line in (
        "effect.att(), effect.gate(groups), effect.cate(X)      for whom it is larger",
        "effect.sensitivity().plot()                            what would overturn it",
        "effect.exclusion_tests()                               is eligibility a valid instrument?",
        "DebiasedATE(n_folds=5, n_repeats=5, random_state=1)    learners instead of linear models",
        "fit(..., cluster='employer')                           rows that belong together",
        "nox -s docs                                            worked examples and the theory",
    ):
        print(f" {line}")
    heading("Please cite")
    print(effect.cite())


def reading(effect: MultiplyRobustATE) -> list[str]:
    """Put the numbers into words, the doubtful ones first."""
    average = effect.estimates_["ATE"]
    low, high = average.conf_int()[0]
    leverage = effect.leverage()
    without = leverage.to_frame().iloc[0]
    direct = effect.direct_effect()
    beside = effect.comparators().set_index("term")["estimate"]
    sensitivity = effect.sensitivity()
    to_zero = sensitivity.breakdown.zero / sensitivity.scale
    to_cover = sensitivity.breakdown.interval / sensitivity.scale
    return [
        f"Taking part is estimated to raise net financial assets by "
        f"{dollars(average.estimate[0])}, with a 95% interval from {dollars(low)} to "
        f"{dollars(high)}.",
        "Only the eligible can take part, so there is no variation in taking part among the "
        "others. The estimate then rests on no unmeasured confounding among the eligible, given "
        "the covariates; eligibility itself may have an effect of its own.",
        f"If eligibility moved the assets of those who take part through that alone, two-stage "
        f"least squares, {dollars(beside['2SLS'])}, would be right for them and the direct effect "
        f"of eligibility zero. It is estimated at {dollars(direct.estimate[0])} "
        f"(p = {format_p(direct.p_value()[0])}): the data lean against that reading and do not "
        "settle it.",
        f"Five of {len(effect.estimates_.influence):,} households own "
        f"{format_percent(leverage.total_share, 0)} of its variance. Without the first of them "
        f"the estimate would be {dollars(without['ate_without'])}, all models left as they are.",
        f"Savers may take part more often for reasons not in the data. If what the covariates "
        f"leave unexplained of taking part and of assets had a correlation of "
        f"{format_number(to_zero, significant=2)} among the eligible, the effect would be zero; at "
        f"{format_number(to_cover, significant=2)} its interval would reach zero.",
    ]


def table_of(beside: Any) -> CovarianceEstimates:
    """The comparison as estimates, so that it prints and plots like any other."""
    return CovarianceEstimates(
        beside["estimate"].to_numpy(),
        np.diag(beside["std_error"].to_numpy() ** 2),
        beside["term"].tolist(),
    )


def write(effect: MultiplyRobustATE, beside: Any) -> list[Path]:
    """Write the figure, the numbers, their provenance and the references."""
    OUTPUT.mkdir(exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    forest_plot(table_of(beside), ax=left)
    left.set_title("Estimators side by side", loc="left")
    effect.plot_sensitivity(ax=right)
    right.set_title("What an unmeasured cause would do", loc="left")
    figure.savefig(OUTPUT / "effect_of_401k.png", dpi=150)
    plt.close(figure)
    beside.to_csv(OUTPUT / "estimates.csv", index=False)
    (OUTPUT / "provenance.json").write_text(effect.provenance().to_json(), encoding="utf-8")
    (OUTPUT / "references.bib").write_text(effect.cite().bibtex(), encoding="utf-8")
    return sorted(OUTPUT.iterdir())


def dollars(thousands: float) -> str:
    amount = f"{abs(1000 * thousands):,.0f} dollars"
    return f"minus {amount}" if thousands < 0 else amount


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def say(text: str) -> None:
    print(textwrap.fill(text, 88, initial_indent=" ", subsequent_indent=" "))


if __name__ == "__main__":
    main()
