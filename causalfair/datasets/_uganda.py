"""The Youth Opportunities Programme in Uganda with satellite images of the places."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from causalfair.exceptions import DataError

__all__ = ["fetch_uganda_youth_programme", "load_uganda_youth_programme"]

NAME = "uganda_youth_programme.npz"
SHA256 = "091aceaef795a57ac13418d058db5d461108d145507fa6459af093dedc883332"
COVARIATES = ("X2", "X4", "X5", "X6", "geo_long", "geo_lat")


def load_uganda_youth_programme(path: str | Path | None = None) -> tuple[Any, Any]:
    """Trial of the Youth Opportunities Programme (Uganda, 2008) with Landsat images, from a file.

    327 images of 35 x 35 pixels and three bands, and 2,082 people, several to an image. The data
    are the tutorial data of the R package ``causalimages`` (GPL-3) and are not distributed with
    causalfair.

    Parameters
    ----------
    path : path, optional
        A local ``uganda_youth_programme.npz``. None: that name in the folder of the environment
        variable ``CAUSALFAIR_DATA``, or in the working directory.

    Returns
    -------
    frame : pandas.DataFrame
        Columns ``y`` (standardised outcome), ``treatment``, ``place`` and six covariates, two of
        them with missing values. Three columns of the source that follow the assignment (``X1``
        repeats it, ``X3`` and ``X7`` are correlated with it at .47 and .58) are left out.
    images : ImageSequence
        One frame a place, ``image_of_unit`` set.

    Raises
    ------
    DataError
        There is no such file, or its SHA-256 is not the expected one.

    See Also
    --------
    fetch_uganda_youth_programme : From an address.

    References
    ----------
    .. [1] C. Blattman, N. Fiala and S. Martinez (2014). Generating skilled self-employment in
       developing countries. Quarterly Journal of Economics 129, 697-752. doi:10.1093/qje/qjt057
    .. [2] C. T. Jerzak and A. Daoud (2023). CausalImages: an R package for causal inference with
       Earth observation, bio-medical, and social science images. arXiv:2310.00233

    Examples
    --------
    >>> from causalfair.datasets import load_uganda_youth_programme
    >>> load_uganda_youth_programme("nowhere.npz")
    Traceback (most recent call last):
    ...
    causalfair.exceptions.DataError: load_uganda_youth_programme found no file nowhere.npz. ...
    """
    import pandas as pd

    from causalfair.imagery._sequence import ImageSequence

    folder = os.environ.get("CAUSALFAIR_DATA")
    place = Path(path) if path is not None else Path(folder or ".") / NAME
    if not place.is_file():
        raise DataError(
            f"load_uganda_youth_programme found no file {place}. The data come with the R package "
            "causalimages (CausalImagesTutorialData); save images, image_of_unit, W, Y, X1 to X7, "
            f"geo_long and geo_lat as {NAME}, put it there or set CAUSALFAIR_DATA to its folder."
        )
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    if digest != SHA256:
        raise DataError(
            f"load_uganda_youth_programme: {place} has SHA-256 {digest}, not {SHA256}; it is "
            "another file or damaged."
        )
    with np.load(place) as data:
        frame = pd.DataFrame(
            {"y": data["Y"], "treatment": data["W"].astype(int), "place": data["image_of_unit"],
             **{name: data[name] for name in COVARIATES}}
        )  # fmt: skip
        images = ImageSequence(
            data["images"], image_of_unit=data["image_of_unit"], scale=1 / 255,
        )  # fmt: skip
    return frame, images


def fetch_uganda_youth_programme(
    url: str, *, cache_dir: str | Path | None = None
) -> tuple[Any, Any]:
    """Download the file of :func:`load_uganda_youth_programme` once, check its hash, and load it.

    The authors publish the data inside an R package, not as this file, so there is no default
    address: give that of your copy.

    Parameters
    ----------
    url : str
        Address of ``uganda_youth_programme.npz``.
    cache_dir : path, optional
        Folder of the cache, see :func:`fetch`. A file that lies there with the right hash is used
        without any network.

    Returns
    -------
    frame : pandas.DataFrame
        As for :func:`load_uganda_youth_programme`.
    images : ImageSequence
        As for :func:`load_uganda_youth_programme`.

    Raises
    ------
    DataError
        The file cannot be downloaded, or its SHA-256 is not the expected one.
    MissingDependencyError
        ``pooch`` is absent.

    Examples
    --------
    >>> from causalfair.datasets import fetch_uganda_youth_programme
    >>> url = "https://data.example.org/uganda_youth_programme.npz"
    >>> frame, images = fetch_uganda_youth_programme(url)  # doctest: +SKIP
    """
    from causalfair.datasets._fetch import fetch

    return load_uganda_youth_programme(
        fetch(url, sha256=SHA256, file_name=NAME, cache_dir=cache_dir)
    )
