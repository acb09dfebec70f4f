"""The model on arrays: columns, priors, law of the unobservable, log posterior of a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.risk import _data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._constraints import Expertise, Prevalence
    from causalfair.risk._data import SelectiveRows
    from causalfair.risk._design import Design

DEFAULT_PRIORS = {"coefficients": 3.0, "sigma": 3.0, "alpha": 3.0, "pooling": 1.0}
MEAN_Z = {"uniform": 0.5, "normal": 0.0, "none": 0.0}
VAR_Z = {"uniform": 1 / 12, "normal": 1.0, "none": 0.0}
NORMAL_REACH = 8.0
GROUP_POOLS = 2


@dataclass(frozen=True)
class Law:
    """The unobservable and its weight in the decision.

    ``alpha`` and ``sigma`` are None where inferred; ``nodes`` and ``weights`` are empty where the
    closed form applies; ``vary_alpha`` says whether decision makers have weights of their own.
    """

    unobservables: str
    alpha: float | None
    sigma: float | None
    nodes: FloatArray
    weights: FloatArray
    vary_alpha: bool = False

    def with_rule(self, reach: float) -> Law:
        """Quadrature good for ``sigma max(1, alpha)`` up to ``reach``."""
        if self.unobservables == "none":
            return replace(self, nodes=np.zeros(1), weights=np.ones(1))
        if self.unobservables == "uniform":
            if self.alpha == 1.0 and not self.vary_alpha:
                return replace(self, nodes=np.empty(0), weights=np.empty(0))
            x, w = np.polynomial.legendre.leggauss(16)
            panels = max(1, int(np.ceil(reach / 3)))
            starts = np.arange(panels)[:, None]
            nodes = ((starts + (x + 1) / 2) / panels).ravel()
            return replace(self, nodes=nodes, weights=np.tile(w / 2, panels) / panels)
        # The trapezoid rule beats Gauss-Hermite: the integrand has poles near the real line.
        nodes = np.linspace(-NORMAL_REACH, NORMAL_REACH, max(32, 24 * int(np.ceil(reach))))
        density = np.exp(-0.5 * nodes**2)
        return replace(self, nodes=nodes, weights=density / density.sum())


@dataclass(frozen=True)
class Layout:
    """Which columns enter the risk and which the deviation of the decision from it.

    Attributes
    ----------
    design : Design
        Intercept and covariates.
    expertise : Expertise
        Covariates along which the decision may deviate.
    group_name, maker_name : str
        Names for tables.
    group_levels, maker_levels : tuple of str
        Levels; groups enter risk and deviation, decision makers the deviation.
    vary_alpha : bool
        Whether decision makers weigh risk each in their own way. The logs of their weights, over
        the common one, then follow the deviation coefficients.
    """

    design: Design
    expertise: Expertise
    group_name: str
    group_levels: tuple[str, ...]
    maker_name: str
    maker_levels: tuple[str, ...]
    vary_alpha: bool = False

    @property
    def beta_names(self) -> tuple[str, ...]:
        """Names of the risk coefficients."""
        return (*self.design.names, *(f"{self.group_name}={g}" for g in self.group_levels))

    @property
    def delta_names(self) -> tuple[str, ...]:
        """Names of the deviation coefficients."""
        free = [self.design.names[j] for j in self.expertise.free]
        free += [f"{self.group_name}={g}" for g in self.group_levels]
        return (*free, *(f"{self.maker_name}={m}" for m in self.maker_levels))

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of the decision makers' log weights of risk."""
        return tuple(f"{self.maker_name}={m}" for m in self.maker_levels if self.vary_alpha)

    @property
    def link(self) -> IntArray:
        """Risk coefficient that belongs to each deviation coefficient; -1 for pooled ones."""
        pooled = len(self.group_levels) + len(self.maker_levels) + len(self.weight_names)
        return np.array([*self.expertise.free, *[-1] * pooled], dtype=np.intp)

    def pools(self) -> tuple[IntArray, IntArray, int]:
        """Pooling scale of each risk and deviation coefficient (-1 for none), and their number."""
        n_groups, n_makers = len(self.group_levels), len(self.maker_levels)
        first = GROUP_POOLS if n_groups else 0
        beta = [*[-1] * self.design.d, *[0] * n_groups]
        delta = [*[-1] * len(self.expertise.free), *[1] * n_groups, *[first] * n_makers]
        delta += [first + 1] * len(self.weight_names)
        return (
            np.array(beta, dtype=np.intp),
            np.array(delta, dtype=np.intp),
            first + bool(n_makers) + self.vary_alpha,
        )

    def pool_names(self) -> list[str]:
        """Names of the pooling scales."""
        names = [f"sd of risk, {self.group_name}", f"sd of testing, {self.group_name}"]
        names = names if self.group_levels else []
        names += [f"sd of testing, {self.maker_name}"] if self.maker_levels else []
        return names + ([f"sd of log alpha, {self.maker_name}"] if self.vary_alpha else [])

    def matrices(
        self, Z: FloatArray, group: Any, maker: Any
    ) -> tuple[FloatArray, FloatArray, IntArray]:
        """Columns of the risk (n, d) and of the deviation (n, f), and whose alpha each row has."""
        groups = _indicators(group, len(self.group_levels), len(Z))
        makers = _indicators(maker, len(self.maker_levels), len(Z))
        X = np.ascontiguousarray(np.column_stack([Z, groups]))
        W = np.column_stack([Z[:, list(self.expertise.free)], groups, makers])
        whose = maker if self.vary_alpha else np.zeros(len(Z))
        return X, np.ascontiguousarray(W), np.ascontiguousarray(whose, dtype=np.intp)

    def beta_original(self, beta: FloatArray) -> FloatArray:
        """Risk coefficients per unit of each covariate."""
        d = self.design.d
        return np.concatenate([self.design.original_scale(beta[..., :d]), beta[..., d:]], axis=-1)

    def delta_original(self, delta: FloatArray) -> FloatArray:
        """Deviation coefficients per unit of each covariate."""
        free = list(self.expertise.free)
        full = np.zeros((*delta.shape[:-1], self.design.d))
        full[..., free] = delta[..., : len(free)]
        original = self.design.original_scale(full)[..., free]
        return np.concatenate([original, delta[..., len(free) :]], axis=-1)


def _indicators(codes: Any, n_levels: int, n: int) -> FloatArray:
    if n_levels == 0:
        return np.empty((n, 0))
    return np.asarray(np.asarray(codes)[:, None] == np.arange(n_levels), dtype=np.float64)


@dataclass(frozen=True)
class Cells:
    """Rows of equal covariates, group, decision maker and code, with their total weight.

    Attributes
    ----------
    Z : (m, d) float array
        Design.
    group, maker : (m,) int array or None
        Codes.
    code : (m,) int8 array
        What was seen.
    weight : (m,) float array
        Total weight.
    member : (m,) int array
        Which prevalence the cell counts in.
    of_row : (n,) int array
        Cell of each row.
    """

    Z: FloatArray
    group: Any
    maker: Any
    code: Any
    weight: FloatArray
    member: IntArray
    of_row: IntArray


def aggregate(rows: SelectiveRows, Z: FloatArray, member: IntArray, *, merge: bool = True) -> Cells:
    """Merge equal rows where that leaves fewer than half of them."""
    codes = _row_codes(rows, Z, member) if merge else None
    if codes is None:
        first = of_row = np.arange(rows.n)
        weight = rows.weight
    else:
        first = np.unique(codes, return_index=True)[1]
        of_row = codes
        weight = np.asarray(np.bincount(codes, weights=rows.weight), dtype=np.float64)
    return Cells(
        Z=np.ascontiguousarray(Z[first]),
        group=None if rows.group is None else rows.group[first],
        maker=None if rows.maker is None else rows.maker[first],
        code=np.ascontiguousarray(rows.code[first]),
        weight=np.ascontiguousarray(weight, dtype=float),
        member=np.ascontiguousarray(member[first], dtype=np.intp),
        of_row=of_row,
    )


def _row_codes(rows: SelectiveRows, Z: FloatArray, member: IntArray) -> IntArray | None:
    """Code of the distinct values of each row; None where there are too many of them."""
    columns: list[Any] = [rows.code, member, *Z[:, 1:].T]
    columns += [one for one in (rows.group, rows.maker) if one is not None]
    codes = np.zeros(rows.n, dtype=np.intp)
    for column in columns:
        levels, inverse = np.unique(column, return_inverse=True)
        codes = np.unique(codes * len(levels) + inverse, return_inverse=True)[1]
        if codes.max() >= 0.5 * rows.n:
            return None
    return codes


ARRAYS = (
    "X", "W", "maker", "code", "weight", "prev_group", "prev_weight", "prev_value", "prev_sd",
    "link", "nodes", "weights", "sd_beta", "pool_beta", "sd_delta", "pool_delta", "held_beta",
    "held_delta", "tau_scale", "options",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A data set, a law and priors: the log posterior over the sampling coordinates.

    ``arrays`` are the arguments of the kernel after the coordinates, in the order of ``ARRAYS``.
    """

    layout: Layout
    law: Law
    cells: Cells
    prevalence: Prevalence
    arrays: dict[str, Any]

    @property
    def n_features(self) -> int:
        """Number of risk coefficients."""
        return int(self.arrays["X"].shape[1])

    @property
    def n_coordinates(self) -> int:
        """Length of the coordinate vector."""
        free = (self.law.sigma is None) + (self.law.alpha is None)
        return int(self.n_features + len(self.arrays["link"]) + free + self.n_pools)

    @property
    def n_pools(self) -> int:
        """Number of pooling scales."""
        return len(self.arrays["tau_scale"])

    @property
    def columns(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """Of the risk, of the deviation, and whose alpha each cell has."""
        return self.arrays["X"], self.arrays["W"], self.arrays["maker"]

    def columns_of(self, chosen: Any) -> tuple[FloatArray, FloatArray, IntArray]:
        """The same of some cells."""
        X, W, maker = self.columns
        return X[chosen], W[chosen], maker[chosen]

    def value_and_gradient(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log posterior and its gradient."""
        from causalfair.risk import _kernels

        value, gradient = _kernels.log_posterior(theta, *(self.arrays[k] for k in ARRAYS))
        return float(value), gradient

    def natural(self, theta: FloatArray) -> Natural:
        """Coefficients of draws (B, k) of the coordinates."""
        from causalfair.risk import _kernels

        o = self.arrays["options"]
        names = ("link", "pool_beta", "pool_delta", "held_beta", "held_delta")
        columns = [self.arrays[k] for k in names]
        parts = [
            _kernels.natural(t, self.n_features, *columns, o[0], o[1], o[2], o[3])
            for t in np.ascontiguousarray(np.atleast_2d(theta))
        ]
        return Natural(
            beta=np.array([p[0] for p in parts]),
            delta=np.array([p[1] for p in parts]),
            alpha=np.array([p[2] for p in parts]),
            sigma=np.array([p[3] for p in parts]),
            pools=np.exp(np.atleast_2d(theta)[:, self.n_coordinates - self.n_pools :]),
        )

    def replaced(self, **arrays: Any) -> Problem:
        """Same problem with other arrays."""
        return replace(self, arrays={**self.arrays, **arrays})

    def pool_positions(self) -> tuple[IntArray, IntArray]:
        """Coordinates of the pooled coefficients, and of the log scale of each."""
        pool = np.concatenate([self.arrays["pool_beta"], self.arrays["pool_delta"]])
        inside = np.flatnonzero(pool >= 0)
        return inside, self.n_coordinates - self.n_pools + pool[inside]

    @property
    def sigma_position(self) -> int | None:
        """Coordinate of sigma; None where it is fixed."""
        position = self.n_features + len(self.arrays["link"])
        return position if self.law.sigma is None else None

    def held(self) -> FloatArray:
        """How far the coordinate of each coefficient is the coefficient itself."""
        return np.concatenate([self.arrays["held_beta"], self.arrays["held_delta"]])

    def recentred(self, theta: FloatArray, held: FloatArray) -> tuple[Problem, FloatArray]:
        """Same problem with other coordinates of the pooled coefficients, and the same point."""
        inside, scales = self.pool_positions()
        old, new = self.held(), self.held()
        new[inside] = held
        moved = theta.copy()
        moved[inside] *= np.exp((new - old)[inside] * theta[scales])
        parts = np.split(new, [self.n_features])
        return self.replaced(held_beta=parts[0], held_delta=parts[1]), moved

    def without_prior(self) -> Problem:
        """Likelihood alone: no priors, no Jacobian (a prevalence stays)."""
        options = self.arrays["options"].copy()
        options[6] = 0.0
        return self.replaced(options=options)

    def without_prevalence(self) -> Problem:
        """Same problem with no prevalence imposed."""
        none = np.empty(0)
        return self.replaced(prev_value=none, prev_sd=none)

    def with_law(self, law: Law) -> Problem:
        """Same problem under another law of the unobservable."""
        old = self.arrays["options"]
        return replace(
            self, law=law, arrays={
                **self.arrays, "nodes": law.nodes, "weights": law.weights,
                "options": _options(law, old[4], old[5], old[6]),
            },
        )  # fmt: skip

    def with_rule_for(self, theta: FloatArray, spread: float) -> Problem:
        """Same problem with a quadrature good for ``spread`` times sigma at ``theta``."""
        here = self.natural(theta)
        n_weights = len(self.layout.weight_names)
        most = float(np.exp(here.delta[0, len(here.delta[0]) - n_weights :]).max(initial=1.0))
        reach = float(here.sigma[0] * max(1.0, here.alpha[0] * most)) * spread
        return self.with_law(self.law.with_rule(min(max(reach, 2.0), 30.0)))


@dataclass(frozen=True)
class Natural:
    """Draws of the model's own parameters: ``beta`` (B, d), ``delta`` (B, f), the rest (B,)."""

    beta: FloatArray
    delta: FloatArray
    alpha: FloatArray
    sigma: FloatArray
    pools: FloatArray

    def __len__(self) -> int:
        return len(self.alpha)

    def thinned(self, most: int) -> Natural:
        """At most so many draws, evenly spaced."""
        keep = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int))
        return Natural(
            self.beta[keep], self.delta[keep], self.alpha[keep], self.sigma[keep], self.pools[keep]
        )


def _options(law: Law, alpha_scale: float, sigma_scale: float, prior: float) -> FloatArray:
    return np.array([
        -1.0 if law.alpha is None else law.alpha,
        -1.0 if law.sigma is None else law.sigma,
        MEAN_Z[law.unobservables], VAR_Z[law.unobservables], alpha_scale, sigma_scale, prior,
    ])  # fmt: skip


def build_problem(
    rows: SelectiveRows,
    layout: Layout,
    law: Law,
    prevalence: Prevalence,
    priors: Mapping[str, float],
    Z: FloatArray,
    *,
    merge: bool = True,
) -> Problem:
    """Everything the kernel needs; ``merge`` adds up equal rows."""
    cells = aggregate(rows, Z, prevalence.member, merge=merge)
    X, W, maker = layout.matrices(cells.Z, cells.group, cells.maker)
    pool_beta, pool_delta, n_pools = layout.pools()
    sd_delta = np.full(len(pool_delta), priors["coefficients"])
    sd_delta[: len(layout.expertise.sd)] = layout.expertise.sd
    likelihood = np.where(cells.code == _data.UNUSED, 0.0, cells.weight)
    arrays = {
        "X": X, "W": W, "maker": maker, "code": cells.code, "weight": likelihood,
        "prev_group": cells.member, "prev_weight": cells.weight,
        "prev_value": prevalence.value, "prev_sd": prevalence.sd,
        "link": layout.link, "nodes": law.nodes, "weights": law.weights,
        "sd_beta": np.full(X.shape[1], priors["coefficients"]), "pool_beta": pool_beta,
        "sd_delta": sd_delta, "pool_delta": pool_delta,
        "held_beta": np.zeros(X.shape[1]), "held_delta": np.zeros(len(pool_delta)),
        "tau_scale": np.full(n_pools, priors["pooling"]),
        "options": _options(law, priors["alpha"], priors["sigma"], 1.0),
    }  # fmt: skip
    return Problem(layout, law, cells, prevalence, arrays)
