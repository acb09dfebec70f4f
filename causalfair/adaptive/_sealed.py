"""The holdout rows: kept, hashed, cut into blocks, written to a sealed file; never shown."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from causalfair._core.typing import FloatArray, IntArray
from causalfair.exceptions import DataError, HoldoutChangedError, LedgerError

Array = np.ndarray[Any, Any]


def take(table: Any, rows: IntArray | None) -> Any:
    """Rows of a frame or an array, in order."""
    if rows is None or table is None:
        return table
    return table.iloc[rows] if hasattr(table, "iloc") else table[rows]


def _columns(table: Any) -> list[tuple[str, Array]]:
    """Named plain arrays of a frame or an array; text for what has no plain dtype."""
    if hasattr(table, "columns"):
        import narwhals.stable.v2 as nw

        frame = nw.from_native(table, eager_only=True)
        return [(name, _plain(frame[name].to_numpy())) for name in frame.columns]
    return [("", _plain(np.asarray(table)))]


def _plain(values: Any) -> Array:
    values = np.asarray(values)
    if values.dtype.kind in "OUTSMm":
        return np.asarray(values.astype(np.str_))
    return np.asarray(values)


@dataclass(frozen=True, repr=False, slots=True)
class Sealed:
    """Holdout rows with their record groups and public weights."""

    X: Any
    y: Array | None
    groups: IntArray | None = None
    weights: FloatArray | None = None

    def __repr__(self) -> str:
        return f"Sealed({len(self)} rows, contents hidden)"

    def __len__(self) -> int:
        return len(self.X)

    def digest(self) -> str:
        """SHA-256 of every column, name and dtype."""
        total = hashlib.sha256()
        parts = [*_columns(self.X)]
        parts += [
            (name, np.asarray(a))
            for name, a in (("y", self.y), ("groups", self.groups), ("weights", self.weights))
            if a is not None
        ]
        for name, values in parts:
            column = np.ascontiguousarray(_plain(values))
            total.update(json.dumps([name, column.dtype.str, list(column.shape)]).encode())
            total.update(column.tobytes())
        return total.hexdigest()

    def row_hashes(self) -> set[bytes]:
        """Hash of each row of features, to look for exact duplicates."""
        return row_hashes(self.X)

    def save(self, path: Path) -> None:
        """Write an npz without pickled objects, readable by the owner only."""
        is_frame = hasattr(self.X, "columns")
        columns = _columns(self.X)
        if is_frame and type(self.X).__module__.partition(".")[0] != "pandas":
            raise DataError(
                "Only arrays and pandas frames can be sealed in a file; pass seal=False and give "
                "X and y again to ReusableHoldout.open."
            )
        arrays = {f"X{i}": values for i, (_, values) in enumerate(columns)}
        arrays |= {
            name: _plain(a)
            for name, a in (("y", self.y), ("groups", self.groups), ("weights", self.weights))
            if a is not None
        }
        names = [name for name, _ in columns] if is_frame else None
        dtypes = [str(d) for d in self.X.dtypes] if is_frame else None
        header = json.dumps({"columns": names, "dtypes": dtypes})
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, allow_pickle=False, header=np.array(header), **arrays)
            stream.flush()
            os.fsync(stream.fileno())


def load(path: Path) -> Sealed:
    """Read a sealed file."""
    if not path.exists():
        raise LedgerError(
            f"{path.name} is not beside the ledger; pass X and y to ReusableHoldout.open."
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise HoldoutChangedError(f"{path.name} cannot be read; it was altered.") from error
    header = json.loads(str(arrays.pop("header")))
    parts = [arrays[f"X{i}"] for i in range(sum(name.startswith("X") for name in arrays))]
    X: Any = parts[0]
    if header["columns"] is not None:
        import pandas as pd

        X = pd.DataFrame(
            {
                name: pd.Series(values).astype(dtype)
                for name, values, dtype in zip(
                    header["columns"], parts, header["dtypes"], strict=True
                )
            }
        )
    return Sealed(X, arrays.get("y"), arrays.get("groups"), arrays.get("weights"))


def row_hashes(table: Any) -> set[bytes]:
    """Hash of each row of a table."""
    columns = [values for _, values in _columns(table)]
    flat = [c.reshape(len(c), -1) for c in columns]
    return {
        hashlib.blake2b(
            b"\x00".join(np.ascontiguousarray(c[i]).tobytes() for c in flat), digest_size=16
        ).digest()
        for i in range(len(flat[0]))
    }


def partition(n_rows: int, groups: IntArray | None, order: IntArray, parts: int) -> list[IntArray]:
    """Cut records (in this order) into parts whose sizes differ by at most one."""
    if groups is None:
        return [np.sort(block) for block in np.array_split(order[:n_rows], parts)]
    return [np.flatnonzero(np.isin(groups, block)) for block in np.array_split(order, parts)]
