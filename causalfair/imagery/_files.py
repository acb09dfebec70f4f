"""Images kept as one ``.npy`` file a place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalfair.exceptions import DataError

__all__ = ["FileStack"]

OWNER = "ImageSequence.from_npy"


class FileStack:
    """Files of equal arrays, read as one array whose first axis is the file.

    Parameters
    ----------
    files : path of a folder, or sequence of paths
        A folder stands for its ``.npy`` files in the order of their names.
    """

    def __init__(self, files: Any) -> None:
        self.files = _listed(files)
        first = _opened(self.files[0])
        self.shape: tuple[int, ...] = (len(self.files), *first.shape)
        self.dtype = first.dtype
        self.ndim = len(self.shape)
        for path in self.files:
            one = _opened(path)
            if one.shape != first.shape or one.dtype != first.dtype:
                raise DataError(
                    f"{OWNER}: {path} holds {one.dtype} of shape {one.shape}, {self.files[0]} "
                    f"{first.dtype} of shape {first.shape}; all files must be alike."
                )

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Parts of a run of files, ``stack[start:stop, ...]``; only these are read."""
        images, *rest = key
        chosen = self.files[images]
        return np.stack([np.asarray(_opened(path)[tuple(rest)]) for path in chosen])


def _listed(files: Any) -> list[Path]:
    if isinstance(files, str | Path):
        folder = Path(files)
        if not folder.is_dir():
            raise DataError(f"{OWNER}: there is no folder {str(folder)!r}.")
        found = sorted(folder.glob("*.npy"))
        if not found:
            raise DataError(f"{OWNER}: the folder {str(folder)!r} has no .npy file.")
        return found
    found = [Path(path) for path in files]
    missing = [path for path in found if not path.is_file()]
    if missing or not found:
        raise DataError(
            f"{OWNER}: {len(missing)} of {len(found)} file(s) do not exist"
            + (f", the first being {str(missing[0])!r}." if missing else "; give at least one.")
        )
    return found


def _opened(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{OWNER}: {path} is not an array of numbers saved by numpy.") from error
    return array
