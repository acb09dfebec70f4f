"""What is known from outside: prevalence, and along what decisions may deviate from risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair._core.logging import warn
from causalfair.exceptions import CausalFairWarning, IdentificationError, ParameterError
from causalfair.risk import _data
from causalfair.risk._design import INTERCEPT

if TYPE_CHECKING:
    from causalfair._core.typing import FloatArray, IntArray
    from causalfair.risk._data import SelectiveRows

SLACK = 2.0


@dataclass(frozen=True)
class Prevalence:
    """Known mean risks, of everybody or of groups, each with its standard error.

    Attributes
    ----------
    value, sd : (k,) float arrays
        Imposed means and their standard errors; empty where nothing is known.
    names : tuple of str
        ``"all"``, or the groups.
    member : (n,) int array
        Which of them each row counts in; -1 for none.
    """

    value: FloatArray
    sd: FloatArray
    names: tuple[str, ...]
    member: IntArray

    def __bool__(self) -> bool:
        return bool(len(self.value))


def read_prevalence(
    prevalence: Any, sd: Any, rows: SelectiveRows, *, owner: str, exact: bool = False
) -> Prevalence:
    """Check the prevalences against what the data allow.

    Raises
    ------
    ParameterError
        A prevalence without a standard error, outside (0, 1), or for an unknown group.
    IdentificationError
        The outcomes seen already exclude it.
    """
    if prevalence is None:
        if sd is not None:
            raise ParameterError(f"{owner} got prevalence_sd={sd!r} without a prevalence.")
        return Prevalence(np.empty(0), np.empty(0), (), np.full(rows.n, -1, dtype=np.intp))
    if sd is None:
        raise ParameterError(
            f"{owner} got prevalence={prevalence!r} without prevalence_sd. Give its standard error "
            "too: a wrong prevalence that is held tightly is worse than none."
        )
    names, values, member = _by_group(prevalence, rows, owner)
    if isinstance(sd, Mapping):
        missing = [name for name in names if name not in {str(k) for k in sd}]
        if missing:
            raise ParameterError(f"{owner}: prevalence_sd lacks {missing[0]!r}.")
        sd = {str(k): v for k, v in sd.items()}
    errors = np.array([float(sd[n]) if isinstance(sd, Mapping) else float(sd) for n in names])
    if (errors < 0).any() or (not exact and (errors == 0).any()) or not np.isfinite(errors).all():
        raise ParameterError(
            f"{owner} got prevalence_sd={sd!r}; standard errors are positive. A prevalence held "
            'exactly (prevalence_sd=0) is for sampler="ml".'
        )
    for k, name in enumerate(names):
        _check_possible(values[k], errors[k], rows, member == k, name, owner)
    return Prevalence(values, errors, names, member)


def _by_group(
    prevalence: Any, rows: SelectiveRows, owner: str
) -> tuple[tuple[str, ...], FloatArray, Any]:
    if not isinstance(prevalence, Mapping):
        return ("all",), np.array([float(prevalence)]), np.zeros(rows.n, dtype=np.intp)
    if rows.group is None:
        raise ParameterError(
            f"{owner} got a prevalence for each group, but fit has no group=; name the groups."
        )
    names = tuple(str(k) for k in prevalence)
    unknown = [n for n in names if n not in rows.group_levels]
    if unknown:
        raise ParameterError(
            f"{owner}: prevalence names the group {unknown[0]!r}; the groups are "
            f"{', '.join(rows.group_levels[:12])}."
        )
    position = {level: k for k, level in enumerate(names)}
    lookup = np.array([position.get(level, -1) for level in rows.group_levels], dtype=np.intp)
    return names, np.array([float(v) for v in prevalence.values()]), lookup[rows.group]


def _check_possible(
    value: float, sd: float, rows: SelectiveRows, inside: Any, name: str, owner: str
) -> None:
    """A prevalence below the positives seen, or above all but the negatives seen, is impossible."""
    if not 0 < value < 1:
        raise ParameterError(
            f"{owner} got prevalence={value:g}; it is a probability, strictly between 0 and 1."
        )
    weight = rows.weight[inside] / rows.weight[inside].sum()
    code = rows.code[inside]
    positive = (_data.POSITIVE, _data.DESIGN_POSITIVE, _data.LATE_POSITIVE)
    negative = (_data.NEGATIVE, _data.DESIGN_NEGATIVE, _data.LATE_NEGATIVE)
    low = float(weight[np.isin(code, positive)].sum())
    high = 1 - float(weight[np.isin(code, negative)].sum())
    whom = "" if name == "all" else f" of group {name!r}"
    if low < value < high:
        seen = np.isin(code, (*positive, *negative))
        rate = low / max(float(weight[seen].sum()), 1e-12)
        if rate < value and name == "all":
            warn(
                f"{owner}: {rate:.3g} of the outcomes seen are positive, less than the prevalence "
                f"{value:.3g}. Testing may select low-risk units; then recode the outcome "
                "(1 - y), since a higher risk is taken to make testing more likely.",
                CausalFairWarning,
            )
        return
    gap = max(low - value, value - high)
    text = (
        f"{owner}: the prevalence {value:.4g}{whom} is impossible: the outcomes seen force it into "
        f"({low:.4g}, {high:.4g})"
    )
    if gap > SLACK * sd:
        raise IdentificationError(
            f"{text}. Check that it is of the same population and outcome, or raise prevalence_sd."
        )
    warn(f"{text}, {gap / sd if sd else 0:.1f} standard errors away.", CausalFairWarning)


@dataclass(frozen=True)
class Expertise:
    """Columns along which testing may deviate from risk, each with the prior sd of the deviation.

    ``free`` are positions in the design, the intercept among them; ``restricted`` says whether any
    column is tied to risk.
    """

    free: tuple[int, ...]
    sd: tuple[float, ...]
    restricted: bool


def read_expertise(expertise: Any, names: Sequence[str], scale: float, *, owner: str) -> Expertise:
    """Positions of the features along which testing may deviate from risk.

    Raises
    ------
    ParameterError
        A name is not a covariate.
    """
    if expertise is None:
        free = tuple(range(len(names)))
        return Expertise(free, (scale,) * len(free), restricted=False)
    if isinstance(expertise, str):
        expertise = [expertise]
    spread = dict(expertise) if isinstance(expertise, Mapping) else dict.fromkeys(expertise, scale)
    for name, sd in spread.items():
        if name not in names:
            from causalfair._core.validation import suggest

            raise ParameterError(
                f"{owner}: expertise names {name!r}, which is not a covariate."
                f"{suggest(str(name), names)} Covariates: {', '.join(names[1:13])}."
            )
        if not float(sd) > 0:
            raise ParameterError(
                f"{owner}: expertise gives {name!r} the prior standard deviation {sd!r}; it must "
                "be positive. Leave the feature out to tie it to risk."
            )
    spread.setdefault(INTERCEPT, scale)
    free = tuple(j for j, name in enumerate(names) if name in spread)
    return Expertise(
        free, tuple(float(spread[names[j]]) for j in free), restricted=len(free) < len(names)
    )
