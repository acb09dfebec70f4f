"""Downloads with a known hash."""

from __future__ import annotations

from pathlib import Path

from causalfair._core.optional import import_optional
from causalfair.exceptions import DataError, ParameterError

__all__ = ["fetch"]


def fetch(
    url: str, *, sha256: str, file_name: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Download a file once, check its SHA-256, and return its place in the cache.

    Parameters
    ----------
    url : str
        Address of the file.
    sha256 : str
        Expected SHA-256 of its bytes, 64 hexadecimal digits.
    file_name : str, optional
        Name in the cache; by default the last part of the address.
    cache_dir : path, optional
        Folder of the cache; by default the user's cache folder for ``causalfair`` (set the
        environment variable ``CAUSALFAIR_DATA`` to move it).

    Returns
    -------
    pathlib.Path
        Local file with that hash.

    Raises
    ------
    DataError
        If the file cannot be downloaded (the message says where to put it by hand), or its bytes
        differ from the expected ones.
    MissingDependencyError
        If ``pooch`` is absent.

    Examples
    --------
    >>> import hashlib, pathlib, tempfile
    >>> from causalfair.datasets import fetch
    >>> cache = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (cache / "a.csv").write_bytes(b"x")
    >>> fetch("https://example.org/a.csv", sha256=hashlib.sha256(b"x").hexdigest(),
    ...       cache_dir=cache).name
    'a.csv'
    """
    digits = sha256.lower()
    if len(digits) != 64 or any(c not in "0123456789abcdef" for c in digits):
        raise ParameterError(f"fetch got sha256={sha256!r}; it must be 64 hexadecimal digits.")
    pooch = import_optional("pooch", extra="fetch")
    name = url.rstrip("/").rsplit("/", 1)[-1] if file_name is None else file_name
    cache = pooch.create(
        path=pooch.os_cache("causalfair") if cache_dir is None else Path(cache_dir),
        base_url="",
        registry={name: f"sha256:{digits}"},
        urls={name: url},
        env=None if cache_dir is not None else "CAUSALFAIR_DATA",
    )
    place = Path(cache.abspath) / name
    try:
        return Path(cache.fetch(name, progressbar=False))
    except ValueError as error:  # pooch: the downloaded bytes have another hash
        raise DataError(
            f"fetch got a file from {url} whose SHA-256 is not {digits}: it has changed or the "
            "download was damaged. Nothing was kept. Check the address and the expected hash."
        ) from error
    except OSError as error:  # requests' errors derive from OSError
        raise DataError(
            f"fetch could not download {url} ({type(error).__name__}: {error}). Without network, "
            f"get the file elsewhere and put it at {place}; its SHA-256 must be {digits}."
        ) from error
