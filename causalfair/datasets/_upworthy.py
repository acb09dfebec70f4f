"""The Upworthy Research Archive: headlines in randomised tests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from causalfair._core.random import generator, root_seed
from causalfair._core.typing import RandomState
from causalfair._core.validation import check_lengths, check_numeric
from causalfair.datasets._fetch import fetch
from causalfair.exceptions import DataError

__all__ = ["fetch_upworthy", "make_confounded_headlines"]

PAGE = "https://osf.io/jd64p"
# Files that are known by name; any other file of the archive needs its hash from the user.
KNOWN = {
    "upworthy_development_half.parquet": (
        "91e12acc1c936b00b95958a2975530649d3788408928c35ac0efcbc6a3251ee2"
    )
}
COLUMNS = (
    "clickability_test_id", "eyecatcher_id", "test_week", "headline", "impressions", "clicks",
)  # fmt: skip
FAULTY_WEEKS = (201325, 201401)  # the randomisation is known to have failed in between


def fetch_upworthy(
    path: str | Path | None = None,
    *,
    url: str | None = None,
    sha256: str | None = None,
    faulty_weeks: bool = False,
) -> Any:
    """Headlines in randomised tests by Upworthy, 2013 to 2015, from the web or from a file.

    Every test showed the packages (headline, picture) of one story to visitors at random, so that
    differences in clicks within a test are effects. The archive is at https://osf.io/jd64p (CC BY
    4.0); its files are not distributed with causalfair.

    Parameters
    ----------
    path : path, optional
        A file of the archive, CSV or Parquet. Without path and url,
        ``upworthy_development_half.parquet`` in the folder of the environment variable
        ``CAUSALFAIR_DATA``.
    url : str, optional
        Address of a file of the archive, downloaded once into the cache; needs ``sha256``.
    sha256 : str, optional
        Expected SHA-256 of the file, as its page shows it. A local file is checked where it is
        given.
    faulty_weeks : bool, default False
        Keep weeks 25 of 2013 to 1 of 2014, whose randomisation is known to be faulty.

    Returns
    -------
    pandas.DataFrame
        ``test``, ``experiment`` (packages of one test with the same picture, which differ in
        words alone), ``week``, ``headline``, ``impressions``, ``clicks``; one row a package.

    Raises
    ------
    DataError
        There is no such file, its hash differs, or it lacks a column.

    References
    ----------
    .. [1] J. N. Matias, K. Munger, M. A. Le Quere and C. Ebersole (2021). The Upworthy Research
       Archive, a time series of 32,487 experiments in U.S. media. Scientific Data 8, 195.
       doi:10.1038/s41597-021-00934-7

    Examples
    --------
    >>> from causalfair.datasets import fetch_upworthy
    >>> fetch_upworthy("nowhere.csv")
    Traceback (most recent call last):
    ...
    causalfair.exceptions.DataError: fetch_upworthy found no file nowhere.csv. ...
    """
    place = _place(path, url, sha256)
    frame = _read(place)
    frame = frame[(frame["impressions"] > 0) & frame["headline"].notna()]
    if not faulty_weeks:
        first, last = FAULTY_WEEKS
        frame = frame[(frame["test_week"] < first) | (frame["test_week"] > last)]
    frame = frame.rename(columns={"clickability_test_id": "test", "test_week": "week"})
    experiment = frame.groupby(["test", "eyecatcher_id"], dropna=False, sort=False).ngroup()
    frame = frame.assign(experiment=experiment)
    columns = ["test", "experiment", "week", "headline", "impressions", "clicks"]
    return frame[columns].reset_index(drop=True)


def _place(path: Any, url: str | None, sha256: str | None) -> Path:
    """Local file with the expected hash."""
    if url is not None:
        if sha256 is None:
            raise DataError(
                "fetch_upworthy: url= needs sha256=, the hash that the page of the file shows; "
                "without it a damaged or changed file would pass."
            )
        return fetch(url, sha256=sha256)
    name = next(iter(KNOWN))
    place = Path(os.environ.get("CAUSALFAIR_DATA", ".")) / name if path is None else Path(path)
    if not place.is_file():
        raise DataError(
            f"fetch_upworthy found no file {place}. Get the exploratory packages from {PAGE} and "
            f"give path= (or url= and sha256=), or put {name} into the folder of CAUSALFAIR_DATA."
        )
    expected = KNOWN.get(place.name) if sha256 is None else sha256.lower()
    if expected is not None:
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        if digest != expected:
            raise DataError(
                f"fetch_upworthy: {place} has SHA-256 {digest}, not {expected}; it is another file "
                "or damaged."
            )
    return place


def _read(place: Path) -> Any:
    import pandas as pd

    read = pd.read_parquet if place.suffix == ".parquet" else pd.read_csv
    frame = read(place)
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise DataError(
            f"fetch_upworthy: {place} lacks the column(s) {', '.join(lacking)}; it is no file of "
            "packages."
        )
    return frame[list(COLUMNS)]


def make_confounded_headlines(
    tests: Any, marker: Any, *, strength: float = 2.0, random_state: RandomState = None
) -> tuple[Any, dict[str, Any]]:
    """An observational log made from randomised tests by selecting on purpose.

    One arm of every test, drawn at random, only takes the temperature of the story: its click rate,
    in fifths, becomes the recorded circumstance ``popularity``. Of the other arms one is logged,
    with odds that favour the marker in popular stories and shun it in unpopular ones. Selection
    follows the recorded circumstance alone, so that holding it fixed undoes it, while the raw log
    credits the marker with the story.

    Parameters
    ----------
    tests : pandas.DataFrame
        As :func:`fetch_upworthy` returns it: ``test``, ``headline``, ``impressions``, ``clicks``.
    marker : array of shape (n,)
        Property of each headline that selection turns on, between 0 and 1.
    strength : float, default 2
        Log odds of logging a marked arm rather than an unmarked one in the most popular fifth.
    random_state : int, SeedSequence, Generator, RandomState or None
        Seed.

    Returns
    -------
    log : pandas.DataFrame
        One row a test: ``test``, ``headline``, ``impressions``, ``clicks``, ``popularity`` (0 to
        4), ``marker``.
    truth : dict
        ``row`` of ``tests`` that each row of the log is, and ``selection``: the share of marked
        headlines in each fifth.

    Raises
    ------
    DataError
        No test has three arms, or the marker is not between 0 and 1.

    Examples
    --------
    >>> import pandas as pd
    >>> tests = pd.DataFrame({"test": [0, 0, 0], "headline": list("abc"),
    ...                       "impressions": 100, "clicks": [1, 2, 3]})
    >>> log, _ = make_confounded_headlines(tests, [1, 0, 1], random_state=0)
    >>> log.shape
    (1, 6)
    """
    import pandas as pd

    owner = "make_confounded_headlines"
    mark = check_numeric(marker, "marker", owner=owner)
    check_lengths(owner=owner, tests=tests, marker=mark)
    if ((mark < 0) | (mark > 1)).any():
        raise DataError(f"{owner}: marker must lie in [0, 1]; scale it first.")
    rng = generator(root_seed(random_state))
    codes = tests["test"].factorize()[0]
    arms = pd.Series(np.arange(len(tests))).groupby(codes).indices
    usable = [rows for rows in arms.values() if len(rows) >= 3]
    if not usable:
        raise DataError(f"{owner}: no test has three arms: one for the temperature, two to choose.")
    shuffled = [rng.permutation(rows) for rows in usable]
    heat = np.array([rows[0] for rows in shuffled])
    clicks, shown = (tests[c].to_numpy(dtype=float)[heat] for c in ("clicks", "impressions"))
    rate = (clicks + 0.5) / (shown + 1)
    popularity = np.floor(5 * rate.argsort().argsort() / len(rate)).astype(int)
    lean = strength * (popularity - 2) / 2
    logged = np.empty(len(usable), dtype=np.intp)
    for t, rows in enumerate(shuffled):
        weight = np.exp(lean[t] * mark[rows[1:]])
        logged[t] = rng.choice(rows[1:], p=weight / weight.sum())
    log = tests.iloc[logged][["test", "headline", "impressions", "clicks"]]
    log = log.assign(popularity=popularity, marker=mark[logged]).reset_index(drop=True)
    return log, {"row": logged, "selection": log.groupby("popularity")["marker"].mean().to_dict()}
