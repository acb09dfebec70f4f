"""Group probabilities from names and places (BISG and BIFSG), with tables the user supplies."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from causalfair.exceptions import DataError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causalfair._core.typing import FloatArray, IntArray

SUFFIXES = frozenset({"JR", "SR", "II", "III", "IV"})
PREFIXES = frozenset({"O", "MC", "MAC"})
OTHER = "ALL OTHER NAMES"


@dataclass(frozen=True, slots=True)
class NameProbabilities:
    """Group probabilities of people.

    Attributes
    ----------
    probability : (n, K) array
        P(group | names, place); rows sum to one.
    groups : tuple of str
    match_rates : dict of str to float
        Share of rows whose surname, first name and place were found in the tables.

    Examples
    --------
    >>> from causalfair.fairness import NameProbabilities
    >>> NameProbabilities(np.eye(2), ("a", "b"), {"surname": 1.0})
    NameProbabilities(2 rows, groups a, b; found: surname 100.0%)
    """

    probability: FloatArray
    groups: tuple[str, ...]
    match_rates: dict[str, float]

    def to_frame(self) -> Any:
        """Probabilities as a pandas frame, one column a group.

        Returns
        -------
        pandas.DataFrame
            The numbers, a copy.
        """
        import pandas as pd

        return pd.DataFrame(self.probability, columns=pd.Index(self.groups))

    def __repr__(self) -> str:
        found = ", ".join(f"{k} {v:.1%}" for k, v in self.match_rates.items())
        return (
            f"NameProbabilities({len(self.probability):,} rows, groups {', '.join(self.groups)}; "
            f"found: {found})"
        )


def clean_name(name: Any) -> tuple[str, ...]:
    """Normal form of a name: one or two upper-case words.

    Accents, punctuation and suffixes (JR, SR, II, III, IV) go; O, MC and MAC join the next word; a
    hyphen makes two names; other spaces close up.

    Parameters
    ----------
    name : str or missing
        A name as written.

    Returns
    -------
    tuple of str
        Empty for a missing name.

    Examples
    --------
    >>> from causalfair.fairness import clean_name
    >>> clean_name("O'Brien-Núñez Jr.")
    ('OBRIEN', 'NUNEZ')
    >>> clean_name("Mc Donald")
    ('MCDONALD',)
    """
    if not isinstance(name, str):
        return ()
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().upper()
    parts = []
    for piece in plain.split("-"):
        letters = "".join(c if c.isalpha() else ("" if c in "'`." else " ") for c in piece)
        words = [w for w in letters.split() if w not in SUFFIXES]
        if words:
            parts.append("".join(words))
    if len(parts) > 1 and parts[0] in PREFIXES:
        parts = [parts[0] + parts[1], *parts[2:]]
    return tuple(parts[:2])


def _table(
    table: Any, name: str, groups: Sequence[str] | None
) -> tuple[FloatArray, list[str], Any]:
    """Counts (rows, K), group names and row labels of a user's table."""
    if not hasattr(table, "columns") or not hasattr(table, "index"):
        raise DataError(
            f"{name} must be a pandas frame of counts: one row a name or place, one column "
            "a group; "
            f"got {type(table).__name__}."
        )
    columns = [str(c) for c in table.columns]
    if groups is not None and set(groups) != set(columns):
        raise DataError(f"{name} has the groups {columns}; the other tables have {list(groups)}.")
    order = columns if groups is None else list(groups)
    counts = np.asarray(table[order], dtype=np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise DataError(
            f"{name} has negative or missing counts. Give counts of people, not percentages with "
            "suppressed cells."
        )
    if (counts.sum(axis=0) == 0).any():
        empty = order[int(np.argmin(counts.sum(axis=0)))]
        raise DataError(f"{name} has nobody of group {empty!r}.")
    return counts, order, table.index


def _name_likelihood(
    names: Sequence[Any], table: Any, label: str, groups: Sequence[str], other: str
) -> tuple[list[FloatArray], float]:
    """P(name | group) of up to two parts of each name: arrays (n, K), nan for no part."""
    counts, _, index = _table(table, label, groups)
    rate = counts / counts.sum(axis=0)
    row = {}
    for position, entry in enumerate(index):
        parts = clean_name(str(entry))
        row["".join(parts)] = position
    # people with a name outside the table: its catch-all row, or no information
    fallback = rate[row["".join(clean_name(other))]] if "".join(clean_name(other)) in row else None
    neutral = np.ones(len(groups)) if fallback is None else fallback
    cache: dict[Any, tuple[FloatArray, FloatArray, bool]] = {}
    first, second = np.empty((len(names), len(groups))), np.empty((len(names), len(groups)))
    matched = 0
    for i, name in enumerate(names):
        if name not in cache:
            cache[name] = _look_up(clean_name(name), row, rate, neutral)
        first[i], second[i], found = cache[name]
        matched += found
    return [first, second], matched / max(len(names), 1)


def _look_up(
    parts: tuple[str, ...], row: dict[str, int], rate: FloatArray, neutral: FloatArray
) -> tuple[FloatArray, FloatArray, bool]:
    absent = np.full(len(neutral), np.nan)
    whole = "".join(parts)
    if whole in row:
        return rate[row[whole]], absent, True
    known = [rate[row[p]] for p in parts if p in row]
    if not known:
        return neutral, absent, False
    return known[0], known[1] if len(known) > 1 else absent, True


def _posterior(likelihood: list[FloatArray], prior: FloatArray) -> FloatArray:
    """Normalised product of likelihood and prior; two parts of a name are averaged."""
    out = []
    for part in likelihood:
        mass = part * prior
        total = mass.sum(axis=1, keepdims=True)
        # a name or place nobody of a group has: fall back on the prior, then on the likelihood
        bare = prior / prior.sum(axis=1, keepdims=True)
        out.append(np.where(total > 0, mass / np.where(total > 0, total, 1.0), bare))
    second = np.isnan(likelihood[1][:, :1])
    return np.where(second, out[0], 0.5 * (out[0] + np.nan_to_num(out[1])))


def _place_prior(
    places: Sequence[Any] | None, table: Any, n: int
) -> tuple[FloatArray, list[str], float]:
    """D[g, r] of each row's place; national counts where the place is unknown or empty."""
    counts, groups, index = _table(table, "geography_counts", None)
    national = counts.sum(axis=0)
    if places is None:
        return np.tile(national, (n, 1)), groups, 0.0
    row = {str(entry): position for position, entry in enumerate(index)}
    position: IntArray = np.array([row.get(str(p), -1) for p in places], dtype=np.intp)
    empty = counts.sum(axis=1) == 0
    position[(position >= 0) & empty[np.maximum(position, 0)]] = -1
    prior = np.where((position >= 0)[:, None], counts[np.maximum(position, 0)], national)
    return prior, groups, float((position >= 0).mean())


def bisg(
    surnames: Sequence[Any],
    geographies: Sequence[Any] | None = None,
    *,
    surname_counts: Any,
    geography_counts: Any,
    other: str = OTHER,
) -> NameProbabilities:
    """Group probabilities from surname and place of residence (BISG).

    P(r | s, g) is proportional to P(s | r) D[g, r], with P(s | r) = C[s, r] / sum_s C[s, r]:
    surname and place are taken as independent given the group.

    Parameters
    ----------
    surnames : sequence of str, length n
        Surnames, as people write them.
    geographies : sequence, length n, optional
        Place of each person, as in the index of ``geography_counts``; unknown places, and None, get
        the national shares.
    surname_counts : pandas.DataFrame
        Counts C of people by surname (index) and group (columns).
    geography_counts : pandas.DataFrame
        Counts D of people by place (index) and group (columns).
    other : str, default "ALL OTHER NAMES"
        Row of ``surname_counts`` for names that are not listed; without it such a name says
        nothing.

    Returns
    -------
    NameProbabilities
        Probabilities, groups and match rates.

    Raises
    ------
    DataError
        Tables with different groups, negative or missing counts; lengths that differ.

    See Also
    --------
    bifsg : With first names as well.
    weighted_disparity, linear_disparity, OutcomeRegressionEM : What to do with the probabilities.

    References
    ----------
    .. [1] Elliott et al. (2009), "Using the Census Bureau's surname list to improve estimates of
       race/ethnicity and associated disparities", Health Services and Outcomes Research
       Methodology 9, doi:10.1007/s10742-009-0047-1.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalfair.fairness import bisg
    >>> names = pd.DataFrame({"a": [90, 10], "b": [10, 90]}, index=["SMITH", "GARCIA"])
    >>> places = pd.DataFrame({"a": [50, 20], "b": [50, 80]}, index=["north", "south"])
    >>> found = bisg(["Garcia"], ["north"], surname_counts=names, geography_counts=places)
    >>> found.probability.round(2).tolist()
    [[0.1, 0.9]]
    """
    return _bayes_names(surnames, None, geographies, surname_counts, None, geography_counts, other)


def bifsg(
    surnames: Sequence[Any],
    first_names: Sequence[Any],
    geographies: Sequence[Any] | None = None,
    *,
    surname_counts: Any,
    first_name_counts: Any,
    geography_counts: Any,
    other: str = OTHER,
) -> NameProbabilities:
    """Group probabilities from first name, surname and place (BIFSG).

    As :func:`bisg`, multiplied by P(first name | r).

    Parameters
    ----------
    surnames, first_names : sequences of str, length n
        Names, as people write them.
    geographies : sequence, length n, optional
        Place of each person, as in the index of ``geography_counts``.
    surname_counts, first_name_counts, geography_counts : pandas.DataFrame
        Counts by name or place (index) and group (columns).
    other : str, default "ALL OTHER NAMES"
        Row of the name tables for names that are not listed.

    Returns
    -------
    NameProbabilities
        Probabilities, groups and match rates.

    Raises
    ------
    DataError
        As in :func:`bisg`.

    References
    ----------
    .. [1] Voicu (2018), "Using first name information to improve race and ethnicity
       classification", Statistics and Public Policy 5, doi:10.1080/2330443X.2018.1427012.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalfair.fairness import bifsg
    >>> names = pd.DataFrame({"a": [90, 10], "b": [10, 90]}, index=["SMITH", "GARCIA"])
    >>> firsts = pd.DataFrame({"a": [80, 20], "b": [20, 80]}, index=["ANN", "MARIA"])
    >>> places = pd.DataFrame({"a": [50], "b": [50]}, index=["north"])
    >>> found = bifsg(["Smith"], ["Maria"], ["north"], surname_counts=names,
    ...               first_name_counts=firsts, geography_counts=places)
    >>> found.probability.round(3).tolist()
    [[0.692, 0.308]]
    """
    return _bayes_names(
        surnames,
        first_names,
        geographies,
        surname_counts,
        first_name_counts,
        geography_counts,
        other,
    )


def _bayes_names(
    surnames: Sequence[Any],
    first_names: Sequence[Any] | None,
    geographies: Sequence[Any] | None,
    surname_counts: Any,
    first_name_counts: Any,
    geography_counts: Any,
    other: str,
) -> NameProbabilities:
    names = list(surnames)
    if not names:
        raise DataError("surnames is empty (n = 0); give at least one.")
    for label, values in (("first_names", first_names), ("geographies", geographies)):
        if values is not None and len(list(values)) != len(names):
            raise DataError(f"surnames has {len(names)} entries and {label} {len(list(values))}.")
    if isinstance(surnames, str):
        raise ParameterError("surnames is one string; give a sequence of names.")
    places = None if geographies is None else list(geographies)
    prior, groups, place_rate = _place_prior(places, geography_counts, len(names))
    rates = {}
    if first_names is not None:
        firsts, first_rate = _name_likelihood(
            list(first_names), first_name_counts, "first_name_counts", groups, other
        )
        both = np.where(np.isnan(firsts[1]), firsts[0], 0.5 * (firsts[0] + firsts[1]))
        prior = prior * both
        rates["first name"] = first_rate
    likelihood, surname_rate = _name_likelihood(
        names, surname_counts, "surname_counts", groups, other
    )
    probability = _posterior(likelihood, np.where(prior.sum(1, keepdims=True) > 0, prior, 1.0))
    match = {"surname": surname_rate, **rates, "place": place_rate}
    return NameProbabilities(probability, tuple(groups), match)
