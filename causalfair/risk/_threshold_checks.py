"""Whether a threshold test fits its data, and whether data and prior agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.typing import FloatArray
from causalfair.reporting import Table
from causalfair.risk._threshold_model import SearchCells, ThresholdPriors

if TYPE_CHECKING:
    from causalfair._core.sampling import Convergence
    from causalfair.inference import DrawEstimates

__all__ = ["check_table", "predictive_share", "surprises"]

N_REPLICATES = 400


def predictive_share(cells: SearchCells, hit_rate: FloatArray, rng: np.random.Generator) -> float:
    """Share of cells whose hits, given their searches, lie in the 95 % predictive interval.

    ``hit_rate`` holds draws (n_draws, n). Searches are no test: every cell has its own rate.
    """
    chosen = np.linspace(0, len(hit_rate) - 1, min(len(hit_rate), N_REPLICATES)).astype(int)
    replicates = rng.binomial(cells.searches.astype(np.int64), hit_rate[chosen])
    low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
    return float(np.mean((low <= cells.hits) & (cells.hits <= high)))


def _spread(gap: Any, weights: Any) -> float:
    return float(np.sqrt(np.average(gap**2, weights=weights)))


def check_table(cells: Any, inside: float, health: Convergence, surprise: Sequence[str]) -> Table:
    """One row a diagnostic, from the frame of fitted cells."""
    searched = cells[cells["searches"] > 0]
    fitted = searched["hit_rate_fitted"]
    search = _spread(cells["search_rate"] - cells["search_rate_fitted"], cells["stops"])
    hit = _spread(searched["hit_rate"] - fitted, searched["searches"])
    noise = _spread(np.sqrt(fitted * (1 - fitted) / searched["searches"]), searched["searches"])
    converged = "converged" if health.ok else "did not converge: do not use the draws"
    rows = [
        ["search rate, RMSE of the fit", f"{search:.2g}", "weighted by stops"],
        ["hit rate, RMSE of the fit", f"{hit:.2g}", f"chance alone gives about {noise:.2g}"],
        ["hits as predicted", f"{inside:.0%}", "of cells in their 95 % predictive interval"],
        ["sampler", str(health), converged],
        ["prior", "in conflict" if surprise else "agrees", " ".join(surprise)],
    ]
    return Table(["", "value", "meaning"], rows, "Diagnostics")


def surprises(found: Mapping[str, DrawEstimates], priors: ThresholdPriors) -> list[str]:
    """Group parameters whose posterior mean lies beyond two prior standard deviations."""
    out = []
    for name, prior in (
        ("guilt", priors.guilt), ("signal", priors.signal), ("location", priors.threshold)
    ):  # fmt: skip
        distance = np.abs(found[name].estimate - prior[0]) / prior[1]
        worst = int(np.argmax(distance))
        if distance[worst] > 2:
            out.append(
                f"The {name} of group {found[name].names[worst]!r} is "
                f"{found[name].estimate[worst]:.2f}, where the prior says {prior[0]:g} "
                f"+/- {prior[1]:g}."
            )
    return out
