"""Simulated audits with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import ParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causalfair._core.typing import FloatArray, IntArray, RandomState

_TWO_GROUP_OUTCOMES = np.array([[0.40, 0.15, 0.15, 0.30], [0.25, 0.10, 0.25, 0.40]])
_HETEROGENEOUS = (
    np.array([[0.85, 0.15], [0.3, 0.7]]),
    np.array([[0.7, 0.3], [0.2, 0.8]]),
    np.array([[0.6, 0.4], [0.35, 0.65]]),
)
_IDENTICAL = (np.array([[0.75, 0.25], [0.3, 0.7]]),) * 3
_THREE_GROUPS = (
    np.array([[0.8, 0.1, 0.1], [0.15, 0.7, 0.15], [0.1, 0.2, 0.7]]),
    np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.2, 0.1, 0.7]]),
    np.array([[0.75, 0.15, 0.1], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]]),
)
_DESIGNS: Mapping[str, tuple[FloatArray, FloatArray, tuple[FloatArray, ...]]] = {
    "heterogeneous": (np.array([0.6, 0.4]), _TWO_GROUP_OUTCOMES, _HETEROGENEOUS),
    "identical": (np.array([0.6, 0.4]), _TWO_GROUP_OUTCOMES, _IDENTICAL),
    "three_groups": (
        np.array([0.5, 0.3, 0.2]),
        np.array([[0.40, 0.15, 0.15, 0.30], [0.30, 0.10, 0.25, 0.35], [0.2, 0.1, 0.3, 0.4]]),
        _THREE_GROUPS,
    ),
    "shared_cause": (np.array([0.6, 0.4]), _TWO_GROUP_OUTCOMES, _HETEROGENEOUS),
    "copied_decision": (np.array([0.6, 0.4]), _TWO_GROUP_OUTCOMES, _HETEROGENEOUS),
}


def draw_levels(rows: FloatArray, rng: np.random.Generator) -> IntArray:
    """One draw from each row of probabilities (n, L)."""
    cumulative = np.cumsum(rows, axis=1)
    u = rng.random(len(rows)) * cumulative[:, -1]
    return np.asarray((u[:, None] >= cumulative[:, :-1]).sum(axis=1), dtype=np.intp)


def make_weak_proxies(
    n: int = 5000,
    *,
    design: str = "heterogeneous",
    prevalence: Sequence[float] | None = None,
    outcomes: FloatArray | None = None,
    transition: Sequence[FloatArray] | None = None,
    missing: float = 0.0,
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Simulate decisions, labels and weak proxies of an unseen group.

    Parameters
    ----------
    n : int
        Rows.
    design : {"heterogeneous", "identical", "three_groups", "shared_cause", "copied_decision"}
        Three proxies with different error rates; with the same; three groups; proxies that read a
        common cause which agrees with the group in 85 % of rows (undetectable); a first proxy that
        copies the decision in 30 % of rows.
    prevalence : sequence of K floats, optional
        Group shares, instead of the design's.
    outcomes : (K, 4) array, optional
        P(decision, label | group), in the order (0,0), (0,1), (1,0), (1,1).
    transition : sequence of (K, L_j) arrays, optional
        Error matrices of the proxies.
    missing : float
        Share of proxy values set to -1, completely at random.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``group`` (the truth), ``y_pred``, ``y_true``, ``proxy_1`` ...
    truth : dict
        ``prevalence`` (K,), ``joint`` (4, K), ``group_rates`` (K, 2), ``rates_by_label`` (2, K, 2),
        ``transition`` (list), ``demographic_parity`` (gap of group 1 against group 0 in the rate of
        decision 1) and, for the shared cause, ``apparent_gap`` and ``apparent_prevalence``.

    Examples
    --------
    >>> from causalfair.datasets import make_weak_proxies
    >>> frame, truth = make_weak_proxies(1000, random_state=0)
    >>> list(frame.columns)
    ['group', 'y_pred', 'y_true', 'proxy_1', 'proxy_2', 'proxy_3']
    >>> round(truth["demographic_parity"], 3)
    0.2
    """
    import pandas as pd

    from causalfair._core.random import generator, root_seed

    if design not in _DESIGNS:
        raise ParameterError(
            f"make_weak_proxies got design={design!r}; choose one of {sorted(_DESIGNS)}."
        )
    rng = generator(root_seed(random_state), 0)
    p, H, T = _DESIGNS[design]
    p = p if prevalence is None else np.asarray(prevalence, dtype=float)
    H = H if outcomes is None else np.asarray(outcomes, dtype=float)
    T = T if transition is None else tuple(np.asarray(t, dtype=float) for t in transition)
    group = draw_levels(np.tile(p, (n, 1)), rng)
    cell = draw_levels(H[group], rng)
    y_pred, y_true = cell // 2, cell % 2
    source = group
    if design == "shared_cause":
        flip = rng.random(n) < 0.15
        source = np.where(flip, 1 - group, group)
    proxies = [draw_levels(t[source], rng) for t in T]
    if design == "copied_decision":
        proxies[0] = np.where(rng.random(n) < 0.3, y_pred, proxies[0])
    columns = {"group": group, "y_pred": y_pred, "y_true": y_true}
    for j, proxy in enumerate(proxies):
        seen = proxy
        if missing > 0:
            seen = np.where(rng.random(n) < missing, -1, proxy)
        columns[f"proxy_{j + 1}"] = seen
    truth = audit_truth(p, H, T)
    if design == "shared_cause":
        shift = np.array([[0.85, 0.15], [0.15, 0.85]])
        apparent = p @ shift
        posterior = (p[:, None] * shift / apparent).T
        apparent_rates = posterior @ truth["group_rates"]
        truth["apparent_prevalence"] = apparent
        truth["apparent_gap"] = float(apparent_rates[1, 1] - apparent_rates[0, 1])
    return pd.DataFrame(columns), truth


def audit_truth(p: FloatArray, H: FloatArray, T: Sequence[FloatArray]) -> dict[str, Any]:
    """True quantities of an audit with a binary decision and label: H (K, 4)."""
    joint = (p[:, None] * H).T  # (4, K)
    by_label = np.empty((2, len(p), 2))
    for y in range(2):
        block = H[:, [y, 2 + y]]
        by_label[y] = block / block.sum(axis=1, keepdims=True)
    rates = np.stack([H[:, :2].sum(axis=1), H[:, 2:].sum(axis=1)], axis=1)
    return {
        "prevalence": p,
        "joint": joint,
        "group_rates": rates,
        "rates_by_label": by_label,
        "transition": [np.asarray(t) for t in T],
        "demographic_parity": float(rates[1, 1] - rates[0, 1]),
    }


def population_tensor(p: FloatArray, H: FloatArray, T: Sequence[FloatArray]) -> FloatArray:
    """Cell probabilities (n_pred, n_labels, L_1, ..., L_m) when every assumption holds."""
    m = len(T)
    letters = "bcdefghijklmno"[:m]
    operands = ",".join(f"a{letter}" for letter in letters)
    q = np.einsum(f"a,as,{operands}->s{letters}", p, H, *T)
    n_pred = 2 if H.shape[1] in (2, 4) else H.shape[1]
    return np.asarray(q.reshape(n_pred, H.shape[1] // n_pred, *q.shape[1:]))


def make_names_and_places(
    n: int = 20_000,
    *,
    n_areas: int = 60,
    n_surnames: int = 400,
    outcome_depends_on: str = "group",
    random_state: RandomState = None,
) -> tuple[Any, dict[str, Any]]:
    """Simulate people with a surname, an area of residence and an outcome, for two groups.

    Parameters
    ----------
    n : int
        People.
    n_areas, n_surnames : int
        Areas, whose group shares are Beta distributed, and surnames.
    outcome_depends_on : {"group", "surname"}
        "group": the outcome depends on the group and the area, as the outcome-regression model
        assumes; "surname": on how the surname sounds, which breaks it.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Returns
    -------
    frame : pandas.DataFrame
        ``group``, ``surname`` (int), ``area`` (int), ``y_pred``.
    truth : dict
        ``surname_given_group`` (2, n_surnames), ``group_given_area`` (n_areas, 2),
        ``probability`` (n, 2) = P(group | surname, area), ``group_rates`` (2,) realised rates in
        the population, ``demographic_parity``.

    Examples
    --------
    >>> from causalfair.datasets import make_names_and_places
    >>> frame, truth = make_names_and_places(500, random_state=1)
    >>> truth["probability"].shape
    (500, 2)
    """
    import pandas as pd

    from causalfair._core.random import generator, root_seed

    if outcome_depends_on not in ("group", "surname"):
        raise ParameterError(
            "make_names_and_places got outcome_depends_on="
            f"{outcome_depends_on!r}; choose 'group' or 'surname'."
        )
    rng = generator(root_seed(random_state), 0)
    minority = rng.beta(0.8, 1.6, size=n_areas)
    area_share = np.stack([1 - minority, minority], axis=1)
    lean = rng.beta(0.6, 0.6, size=n_surnames)
    base = rng.gamma(0.7, size=n_surnames) + 1e-3
    names = np.stack([base * (1 - lean), base * lean])
    names /= names.sum(axis=1, keepdims=True)
    area = rng.integers(n_areas, size=n)
    group = draw_levels(area_share[area], rng)
    surname = draw_levels(names[group], rng)
    drift = rng.normal(0.0, 0.05, size=n_areas)
    if outcome_depends_on == "group":
        rate = np.clip(0.35 + 0.2 * group + drift[area], 0.02, 0.98)
    else:
        rate = np.clip(0.35 + 0.2 * lean[surname] + drift[area], 0.02, 0.98)
    y_pred = (rng.random(n) < rate).astype(np.intp)
    probability = area_share[area] * names[:, surname].T
    probability /= probability.sum(axis=1, keepdims=True)
    rates = np.array([rate[group == a].mean() for a in range(2)])
    frame = pd.DataFrame({"group": group, "surname": surname, "area": area, "y_pred": y_pred})
    truth = {
        "surname_given_group": names,
        "group_given_area": area_share,
        "probability": probability,
        "group_rates": rates,
        "demographic_parity": float(rates[1] - rates[0]),
    }
    return frame, truth


def make_clustered_features(
    n: int = 4000, *, separation: float = 6.0, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """Simulate one proxy and features whose nearest neighbours mostly share the group.

    Parameters
    ----------
    n : int
        Rows.
    separation : float
        Distance between the two group means, in units of the features' standard deviation.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed of the random numbers.

    Returns
    -------
    frame : pandas.DataFrame
        ``group``, ``y_pred``, ``y_true``, ``proxy`` and ``x_1`` to ``x_5``.
    truth : dict
        As in :func:`make_weak_proxies`.

    Examples
    --------
    >>> from causalfair.datasets import make_clustered_features
    >>> frame, truth = make_clustered_features(200, random_state=0)
    >>> frame.shape
    (200, 9)
    """
    import pandas as pd

    from causalfair._core.random import generator, root_seed

    rng = generator(root_seed(random_state), 0)
    p, H, _ = _DESIGNS["heterogeneous"]
    group = draw_levels(np.tile(p, (n, 1)), rng)
    cell = draw_levels(H[group], rng)
    features = rng.standard_normal((n, 5))
    features[:, 0] += separation * group
    frame = pd.DataFrame(
        {
            "group": group,
            "y_pred": cell // 2,
            "y_true": cell % 2,
            "proxy": draw_levels(_IDENTICAL[0][group], rng),
            **{f"x_{k + 1}": features[:, k] for k in range(5)},
        }
    )
    return frame, audit_truth(p, H, _IDENTICAL[:1])
