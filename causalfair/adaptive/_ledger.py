"""The durable ledger: one SQLite transaction a query, a hash chain over everything revealed.

Protocol of one batch: empirical values are computed in memory; ``BEGIN IMMEDIATE``; a known
``query_id`` returns its stored answer; otherwise the budget is checked, noise drawn from the
counter, log rows inserted, the state updated; ``COMMIT``; only then is anything returned.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from causalfair._core.logging import warn
from causalfair._core.typing import FloatArray
from causalfair.adaptive._chain import (
    CLOSING,
    ROW,
    Audit,
    budget_problems,
    canonical,
    chain,
    chain_problems,
    genesis,
)
from causalfair.adaptive._noise import matches
from causalfair.adaptive._state import State
from causalfair.exceptions import CausalFairWarning, LedgerConflictError, LedgerError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x43464C47  # "CFLG"
BUSY_SECONDS = 60.0
_NETWORK = ("nfs", "cifs", "smb", "afs", "9p", "lustre", "gluster", "ceph", "fuse.sshfs", "ncpfs")
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), content TEXT NOT NULL,
                    head_hash TEXT NOT NULL, n_log INTEGER NOT NULL, closed TEXT NOT NULL);
CREATE TABLE log (i INTEGER PRIMARY KEY, query_id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL,
                  params TEXT NOT NULL, answer TEXT NOT NULL, cost TEXT NOT NULL, t REAL NOT NULL,
                  pid INTEGER NOT NULL, prev_hash TEXT NOT NULL, hash TEXT NOT NULL);
"""


def checkpoint(name: str) -> None:
    """Named points of the protocol; they do nothing, and fault tests replace them."""


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`; empty where the platform does not tell."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    best, kind = "", ""
    target = str(path.resolve())
    for line in mounts.read_text().splitlines():
        _, point, this, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, this
    return kind


class Transaction:
    """Reads and writes between BEGIN IMMEDIATE and COMMIT."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        content, self.head, self.n_log, self.closed = connection.execute(
            "SELECT content, head_hash, n_log, closed FROM state"
        ).fetchone()
        self.state = State(**json.loads(content))

    def find(self, query_id: str) -> dict[str, Any] | None:
        """Stored answer of a query, if it was asked before."""
        return find(self._connection, query_id)

    def vault(self) -> FloatArray | None:
        """Secret array of the mechanism."""
        row = self._connection.execute("SELECT value FROM secret WHERE name='vault'").fetchone()
        return None if row is None else np.frombuffer(row[0], dtype=np.float64)

    def write_vault(self, values: FloatArray) -> None:
        """Replace the secret array."""
        self._connection.execute(
            "INSERT OR REPLACE INTO secret VALUES ('vault', ?)",
            (np.ascontiguousarray(values, dtype=np.float64).tobytes(),),
        )

    def append(self, rows: Sequence[Mapping[str, str]], state: State) -> None:
        """Insert log rows, move the state, extend the chain."""
        checkpoint("before insert")
        now, pid = time.time(), os.getpid()
        records = []
        for row in rows:
            self.n_log += 1
            content = {"i": self.n_log, **row, "t": now, "pid": pid}
            previous, self.head = self.head, chain(self.head, content)
            records.append((*(content[name] for name in ROW), previous, self.head))
        self._connection.executemany(
            f"INSERT INTO log VALUES ({','.join('?' * (len(ROW) + 2))})", records
        )
        checkpoint("after insert")
        self._connection.execute(
            "UPDATE state SET content=?, head_hash=?, n_log=?",
            (canonical(state.to_dict()), self.head, self.n_log),
        )
        checkpoint("after state")

    def close(self, reason: str) -> None:
        """Let the ledger refuse every further query; the chain remembers it."""
        nothing = {"value": [], "status": [], "guess": [], "first": self.state.k_used + 1}
        row = {
            "query_id": f"closed {self.n_log + 1}",
            "kind": CLOSING,
            "params": canonical(reason),
            "answer": canonical(nothing),
            "cost": canonical(self.state.to_dict()),
        }
        self.append([row], self.state)
        self._connection.execute("UPDATE state SET closed=?", (reason,))


def find(connection: sqlite3.Connection, query_id: str) -> dict[str, Any] | None:
    """Log row of a query as a mapping."""
    row = connection.execute(
        "SELECT kind, params, answer FROM log WHERE query_id=?", (query_id,)
    ).fetchone()
    if row is None:
        return None
    return {"kind": row[0], "params": json.loads(row[1]), "answer": json.loads(row[2])}


class Ledger:
    """One ledger file, or a private in-memory one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._locks: dict[int, threading.RLock] = {}  # type: ignore[valid-type]
        self._local: dict[tuple[int, int], sqlite3.Connection] = {}
        self._memory: tuple[int, sqlite3.Connection] | None = None
        if path is None:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._memory = (os.getpid(), memory)

    # ---------------------------------------------------------------------------- opening
    @classmethod
    def create(
        cls,
        path: Path | None,
        meta: Mapping[str, Any],
        state: State,
        key: bytes,
        vault: FloatArray | None,
    ) -> Ledger:
        """New ledger with everything that is fixed."""
        if path is not None:
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                raise LedgerConflictError(
                    f"{path} exists already; open it with ReusableHoldout.open, or choose another "
                    "path."
                ) from None
        ledger = cls(path)
        connection = ledger.connection(fresh=True)
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [(name, canonical(value)) for name, value in meta.items()],
        )
        connection.execute("INSERT INTO secret VALUES ('key', ?)", (key,))
        connection.execute(
            "INSERT INTO state VALUES (1, ?, ?, 0, '')", (canonical(state.to_dict()), genesis(meta))
        )
        Transaction(connection) if vault is None else Transaction(connection).write_vault(vault)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("COMMIT")
        ledger._set_journal(connection)
        return ledger

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Ledger that exists."""
        if not path.exists():
            raise LedgerError(
                f"There is no ledger at {path}; make one with ReusableHoldout.create."
            )
        if not _is_ledger(path):
            raise LedgerError(f"{path} is not a ledger of causalfair.")
        ledger = cls(path)
        try:
            ledger.meta()
        except (ValueError, KeyError) as error:
            raise LedgerError(f"{path} is damaged: what was fixed at creation is gone.") from error
        return ledger

    def _set_journal(self, connection: sqlite3.Connection) -> None:
        """Write-ahead log with full sync; on network file systems a rollback journal."""
        if self.path is None:
            return
        kind = file_system(self.path.parent)
        if any(kind.startswith(name) for name in _NETWORK):
            mode = "delete"
        else:
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0].lower()
        if mode != "wal":
            connection.execute("PRAGMA journal_mode=DELETE")
            warn(
                f"{self.path} lies on a file system ({kind or 'unknown'}) without shared-memory "
                "locks; using the slower rollback journal. Keep ledgers on a local disk.",
                CausalFairWarning,
            )

    def connection(self, *, fresh: bool = False) -> sqlite3.Connection:
        """Connection of this process and thread; a fork or a new thread gets its own."""
        if self._memory is not None:
            pid, memory = self._memory
            if pid != os.getpid():
                raise LedgerError(
                    "A holdout without a path lives in one process; create it with "
                    "a path to share it."
                )
            return memory
        key = (os.getpid(), threading.get_ident())
        found = self._local.get(key)
        if found is not None:
            return found
        if not fresh and (self.path is None or not self.path.exists()):
            raise LedgerError(f"The ledger {self.path} has disappeared.")
        connection = sqlite3.connect(
            str(self.path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # connections inherited through fork stay referenced: closing them here could end the
        # write-ahead log under the parent
        self._local[key] = connection
        return connection

    def _lock(self) -> Any:
        """Lock of this process; one held by another thread at a fork would never open again."""
        return self._locks.setdefault(os.getpid(), threading.RLock())

    def close(self) -> None:
        """Close this process's connections."""
        for pid, thread in list(self._local):
            if pid == os.getpid():
                self._local.pop((pid, thread)).close()
        if self._memory is not None and self._memory[0] == os.getpid():
            self._memory[1].close()

    def __del__(self) -> None:
        if hasattr(self, "_local"):
            self.close()

    # ------------------------------------------------------------------------- transactions
    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """``BEGIN IMMEDIATE`` to ``COMMIT``; any exception rolls back and reveals nothing."""
        with self._lock(), self._readable():
            connection = self.connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise LedgerError(
                    f"The ledger {self.path} stayed locked for {BUSY_SECONDS:.0f} s; another "
                    "process holds it. Try again."
                ) from error
            try:
                checkpoint("after begin")
                transaction = Transaction(connection)
                yield transaction
                checkpoint("before commit")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            checkpoint("after commit")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Errors of the database engine in words of ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"The ledger {self.path} cannot be read or written ({error}). If the disk is not "
                "full the file is damaged; restore the latest copy whose head hash was noted."
            ) from error

    # ------------------------------------------------------------------------------ reading
    def _read(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query; never from within a transaction of another thread."""
        with self._lock(), self._readable():
            return self.connection().execute(statement).fetchall()

    def meta(self) -> dict[str, Any]:
        """Everything fixed at creation."""
        found = {
            name: json.loads(value) for name, value in self._read("SELECT name, value FROM meta")
        }
        if found["schema"] != SCHEMA_VERSION:
            raise LedgerError(
                f"{self.path} has schema {found['schema']}; this version reads {SCHEMA_VERSION}."
            )
        return found

    def key(self) -> bytes:
        """The secret key."""
        return bytes(self._read("SELECT value FROM secret WHERE name='key'")[0][0])

    def state(self) -> State:
        """Budget as of the last commit."""
        return State(**json.loads(self._read("SELECT content FROM state")[0][0]))

    def find(self, query_id: str) -> dict[str, Any] | None:
        """Stored answer of a query."""
        with self._lock(), self._readable():
            return find(self.connection(), query_id)

    def head(self) -> tuple[str, int, str]:
        """Head hash, number of log rows, reason for being closed."""
        head_hash, n_log, closed = self._read("SELECT head_hash, n_log, closed FROM state")[0]
        return str(head_hash), int(n_log), str(closed)

    def rows(self) -> list[dict[str, Any]]:
        """Every log row, as stored."""
        names = (*ROW, "prev_hash", "hash")
        found = self._read(f"SELECT {', '.join(names)} FROM log ORDER BY i")
        return [dict(zip(names, row, strict=True)) for row in found]

    def audit(self, expected_head: str | None = None) -> Audit:
        """Re-verify the chain, the counters, the budget arithmetic and the key."""
        try:
            meta, rows = self.meta(), self.rows()
            state, key, (head, n_log, closed) = self.state(), self.key(), self.head()
        except (LedgerError, ValueError, TypeError, KeyError, IndexError) as error:
            return Audit((f"the file is damaged: {error}",), 0, "")
        problems, last = chain_problems(meta, rows)
        if len(rows) != n_log:
            problems.append(f"the log has {len(rows)} rows and the state counts {n_log}")
        if not problems and head != last:
            problems.append("the head hash does not end the chain")
        if not problems:
            problems = budget_problems(meta, rows, state)
        if (closed != "") != any(row["kind"] == CLOSING for row in rows):
            problems.append("the state and the log disagree on whether the ledger is closed")
        if not matches(key, meta["key_commitment"]):
            problems.append("the key is not the one committed to at creation")
        chained = {genesis(meta), *(row["hash"] for row in rows)}
        if expected_head is not None and expected_head not in chained:
            problems.append(
                "the head hash noted earlier is not in the chain: the file was truncated or "
                "replaced by an old copy"
            )
        return Audit(tuple(problems), sum(row["kind"] != CLOSING for row in rows), head)


def siblings(path: Path) -> Iterator[tuple[Path, str]]:
    """Other ledgers in the same folder, and in ``CAUSALFAIR_LEDGER_DIRS``, with their data hash."""
    folders = [
        path.parent,
        *(Path(p) for p in os.environ.get("CAUSALFAIR_LEDGER_DIRS", "").split(os.pathsep) if p),
    ]
    for folder in dict.fromkeys(f.resolve() for f in folders if f.is_dir()):
        for other in sorted(folder.iterdir()):
            if other.is_file() and other != path.resolve() and _is_ledger(other):
                connection = sqlite3.connect(str(other), timeout=BUSY_SECONDS)
                row = connection.execute(
                    "SELECT value FROM meta WHERE name='holdout_sha256'"
                ).fetchone()
                connection.close()
                if row is not None:
                    yield other, json.loads(row[0])


def _is_ledger(path: Path) -> bool:
    """SQLite header with our application id."""
    with path.open("rb") as stream:
        head = stream.read(72)
    return head[:15] == b"SQLite format 3" and head[68:72] == APPLICATION_ID.to_bytes(4, "big")
