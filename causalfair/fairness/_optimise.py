"""The two outside solvers: linear programmes and constrained smooth maximisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray


def linear_programme(
    cost: FloatArray,
    *,
    at_most: tuple[FloatArray, FloatArray],
    equal: tuple[FloatArray, FloatArray] | None = None,
    upper: float | None = None,
) -> tuple[FloatArray, float] | None:
    """Minimise ``cost @ x`` under linear constraints and 0 <= x <= upper; None if infeasible."""
    from scipy import optimize

    solver: Any = optimize.linprog
    solved = solver(
        cost,
        A_ub=at_most[0],
        b_ub=at_most[1],
        A_eq=None if equal is None else equal[0],
        b_eq=None if equal is None else equal[1],
        bounds=(0.0, upper),
        method="highs",
    )
    if solved.status != 0:
        return None
    return np.asarray(solved.x), float(solved.fun)


def constrained_minimum(
    objective: Callable[[FloatArray], tuple[float, FloatArray]],
    constraint: Callable[[FloatArray], tuple[float, FloatArray]],
    start: FloatArray,
    bound: float,
) -> tuple[FloatArray, float]:
    """Minimise a smooth objective with one equality constraint in a box; both return gradients."""
    from scipy import optimize

    solver: Any = optimize.minimize
    solved = solver(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(-bound, bound)] * len(start),
        constraints={
            "type": "eq",
            "fun": lambda x: constraint(x)[0],
            "jac": lambda x: constraint(x)[1],
        },
        options={"maxiter": 400, "ftol": 1e-13},
    )
    return np.asarray(solved.x), float(solved.fun)
