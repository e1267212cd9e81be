"""How the ledger is kept in SQLite: one writer thread, pooled readers, checked migrations.

DESIGN section 10. The writer owns the only write connection of its process. Callers submit a
transition, a function of a `Tx`, and get a Future; the writer drains what is queued, commits once,
and on an error rolls back and runs them one by one. Whatever a transition writes must be covered
by a record of the log in the same transaction (I10): `Tx` counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from agentguard import merkle
from agentguard.canonical import canonical
from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerUnavailable

_log = logging.getLogger(__name__)

_BATCH = 64
_QUEUE = 4096
_BUSY_TIMEOUT_S = 10.0

KEYS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("id",),
    "credentials": ("id",),
    "requests": ("digest",),
    "approvals": ("request",),
    "answers": ("request", "person"),
    "grants": ("id",),
    "outcomes": ("grant_id",),
    "assets": ("sha256",),
    "asset_jobs": ("job", "sha256"),
    "origins": ("sha256", "source"),
    "lineage": ("child", "parent", "grant_id"),
    "contributors": ("sha256", "person"),
    "queued": ("job", "sha256", "destination"),
    "reviews": ("job", "sha256", "grant_id"),
    "revealed": ("job", "label"),
    "receipts": ("grant_id",),
}
"""Primary key of every table that the log accounts for."""

Row = sqlite3.Row


def row_digest(row: Row) -> str:
    """Names a table row's content; columns hold only text, integers and NULL."""
    text = json.dumps({key: row[key] for key in row.keys()}, sort_keys=True)  # noqa: SIM118
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class _Nodes:
    """The Merkle tree's hashes as rows, for `agentguard.merkle`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, level: int, index: int) -> bytes:
        row = self._connection.execute(
            "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
        ).fetchone()
        if row is None:
            raise LedgerCorrupt(f"the log lacks node {level}/{index}; restore it from a copy")
        return bytes(row[0])

    def put(self, level: int, index: int, value: bytes) -> None:
        self._connection.execute("INSERT INTO nodes VALUES (?, ?, ?)", (level, index, value))


@dataclass(kw_only=True)
class Tx:
    """One transition's view of the open transaction.

    Args:
        now: the ledger's time for this transition (ms).
    """

    now: int
    _connection: sqlite3.Connection
    _records: list[bytes] = field(default_factory=list)
    _touched: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a query, or None."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Every row of a query."""
        return self._connection.execute(sql, parameters).fetchall()

    def insert(self, table: str, **columns: Any) -> None:
        """Insert a row; a row of that key must not exist."""
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        self._connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())
        )
        self._touch(table, tuple(columns[key] for key in KEYS[table]))

    def insert_new(self, table: str, **columns: Any) -> bool:
        """Insert a row unless its key exists; returns whether it was new."""
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        cursor = self._connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",
            tuple(columns.values()),
        )
        if cursor.rowcount:
            self._touch(table, tuple(columns[key] for key in KEYS[table]))
        return bool(cursor.rowcount)

    def update(self, table: str, change: str, where: str, *parameters: Any) -> int:
        """A conditional UPDATE; returns how many rows it changed."""
        keys = ", ".join(KEYS[table])
        rows = self._connection.execute(
            f"UPDATE {table} SET {change} WHERE {where} RETURNING {keys}", parameters
        ).fetchall()
        for row in rows:
            self._touch(table, tuple(row))
        return len(rows)

    def lease(self, job: str, *, epoch: int, until: int) -> None:
        """Set a job's lease; leases come and go without records."""
        self._connection.execute(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE"
            " SET epoch = excluded.epoch, until = excluded.until",
            (job, epoch, until),
        )

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        """Append a record that accounts for every row touched since the last one."""
        rows = []
        for table, key in dict.fromkeys(self._touched):
            where = " AND ".join(f"{column} = ?" for column in KEYS[table])
            row = self.one(f"SELECT * FROM {table} WHERE {where}", *key)
            if row is None:
                raise IllegalTransition(f"{table} {key} vanished while it was written")
            rows.append([table, list(key), row_digest(row)])
        self._touched.clear()
        self._records.append(canonical({"kind": kind, "at": self.now, **body, "rows": rows}))

    def _touch(self, table: str, key: tuple[Any, ...]) -> None:
        self._touched.append((table, key))

    def finish(self) -> list[bytes]:
        """The records of this transition; raises if a write has none (I10)."""
        if self._touched:
            raise IllegalTransition(f"written without a record: {self._touched[0][0]}")
        return self._records


Transition = Callable[[Tx], Any]


@dataclass(kw_only=True)
class _Job:
    transition: Transition
    durable: bool
    future: Future[Any]


class Storage:
    """A SQLite ledger file: opened, migrated and verified.

    Args:
        path: the database file; its folder must exist.
        clock: the ledger's time in ms.
        committed: called by the writer after a commit that appended records, with (size, root,
            durable), to sign and keep a checkpoint outside the database.

    Raises:
        LedgerUnavailable: the file can't be opened or written.
        LedgerCorrupt: tables or triggers are not what this version creates.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int],
        committed: Callable[[int, bytes, bool], None],
    ) -> None:
        self.path = path
        self._clock = clock
        self._committed = committed
        self._closed = False
        self._start_lock = threading.Lock()
        with _unavailable(path), contextlib.closing(self._connect()) as connection:
            _migrate(connection)
            verify_schema(connection)
        self._start()

    def submit(self, transition: Transition, *, durable: bool = False) -> Future[Any]:
        """Queue a transition; the Future yields its result once it is committed.

        Args:
            transition: writes through its Tx and records what it wrote. It may run twice (alone
                after its batch failed), so it must have no effect but on the Tx.
            durable: commit with synchronous=FULL, before an effect that leaves the machine.

        Raises:
            LedgerUnavailable: the ledger is closed or its queue is full (deny, I11).
        """
        if self._pid != os.getpid():
            with self._start_lock:
                if self._pid != os.getpid():
                    self._start()
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
        future: Future[Any] = Future()
        try:
            self._queue.put_nowait(_Job(transition=transition, durable=durable, future=future))
        except queue.Full as error:
            raise LedgerUnavailable(f"{_QUEUE} transitions are waiting; try again") from error
        return future

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection that sees what is committed."""
        with _unavailable(self.path):
            connection = self._reader()
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.rollback()
                self._readers.put((os.getpid(), connection))

    def tree_size(self) -> int:
        """How many records the log holds."""
        with self.read() as connection:
            return _tree_size(connection)

    def nodes(self, connection: sqlite3.Connection) -> _Nodes:
        """The Merkle tree as `agentguard.merkle` reads it."""
        return _Nodes(connection)

    def close(self) -> None:
        """Finish what is queued and close every connection; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._pid == os.getpid():
            self._queue.put(None)
            self._thread.join()
        while not self._readers.empty():
            pid, connection = self._readers.get_nowait()
            if pid == os.getpid():
                connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _reader(self) -> sqlite3.Connection:
        while True:
            try:
                pid, connection = self._readers.get_nowait()
            except queue.Empty:
                break
            if pid == os.getpid():  # a connection must not cross a fork
                return connection
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        return connection

    def _start(self) -> None:
        self._readers: queue.LifoQueue[tuple[int, sqlite3.Connection]] = queue.LifoQueue()
        self._queue: queue.Queue[_Job | None] = queue.Queue(_QUEUE)
        self._thread = threading.Thread(target=self._write, name="agentguard-ledger", daemon=True)
        self._pid = os.getpid()
        self._thread.start()

    def _write(self) -> None:
        jobs: list[_Job] = []
        connection: sqlite3.Connection | None = None
        running = True
        while running:
            first = self._queue.get()
            jobs = [] if first is None else [first]
            running = first is not None
            while running and len(jobs) < _BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    running = False
                else:
                    jobs.append(item)
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            try:
                connection = connection or self._connect()
            except sqlite3.Error as error:
                for job in jobs:
                    job.future.set_exception(_as_unavailable(self.path, error))
                continue
            if not self._commit(connection, jobs, last=len(jobs) == 1):
                for job in jobs:
                    self._commit(connection, [job], last=True)
        if connection is not None:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job], *, last: bool) -> bool:
        """Run jobs in one transaction; False if it was rolled back and nobody was told yet."""
        durable = any(job.durable for job in jobs)
        size, root = 0, b""
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            results = []
            records: list[bytes] = []
            for job in jobs:
                tx = Tx(now=self._clock(), _connection=connection)
                results.append(job.transition(tx))
                records.extend(tx.finish())
            if records:
                size, root = _append(connection, records)
            connection.execute("COMMIT")
        except BaseException as error:  # told to the caller; the writer lives on
            _rollback(connection)
            if not last:
                return False
            jobs[0].future.set_exception(
                _as_unavailable(self.path, error) if isinstance(error, sqlite3.Error) else error
            )
            return True
        if records:
            try:
                self._committed(size, root, durable)
            except OSError:
                _log.exception("a checkpoint could not be written beside the ledger")
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
        return True


def _append(connection: sqlite3.Connection, records: Sequence[bytes]) -> tuple[int, bytes]:
    size = _tree_size(connection)
    connection.executemany(
        "INSERT INTO records VALUES (?, ?)",
        [(size + offset, body.decode("utf-8")) for offset, body in enumerate(records)],
    )
    nodes = _Nodes(connection)
    new_size = merkle.append(nodes, size, [merkle.leaf_hash(body) for body in records])
    return new_size, merkle.root(nodes, new_size)


def _tree_size(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT max(idx) FROM records").fetchone()
    return 0 if row[0] is None else int(row[0]) + 1


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _migrations() -> list[tuple[int, str]]:
    folder = resources.files("agentguard.migrations") / "sqlite"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files]


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        known = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'"
        ).fetchone()
        version = 0
        if known:
            row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            version = int(row[0]) if row else 0
        migrations = _migrations()
        if version > migrations[-1][0]:
            raise LedgerCorrupt(
                f"the ledger has schema {version}, this agentguard knows {migrations[-1][0]};"
                " upgrade agentguard"
            )
        for number, script in migrations:
            if number > version:
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (number,))
        connection.execute("COMMIT")
    finally:
        _rollback(connection)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def verify_schema(connection: sqlite3.Connection) -> None:
    """Compare every table, index and trigger with what the migrations create.

    Raises:
        LedgerCorrupt: naming the first object that is missing, added or different.
    """
    query = "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        for _, script in _migrations():
            fresh.executescript(script)
        expected = dict(fresh.execute(query).fetchall())
    actual = {row[0]: row[1] for row in connection.execute(query).fetchall()}
    for name in sorted(expected.keys() | actual.keys()):
        if expected.get(name) != actual.get(name):
            state = "missing" if name not in actual else "different from what it should be"
            raise LedgerCorrupt(f"ledger {name} is {state}; do not use it, restore a copy")


@contextlib.contextmanager
def _unavailable(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _as_unavailable(path, error) from error


def _as_unavailable(path: Path, error: BaseException) -> LedgerUnavailable | IllegalTransition:
    if isinstance(error, sqlite3.IntegrityError):
        return IllegalTransition(str(error))
    return LedgerUnavailable(f"{path.name}: {error}; nothing was done")
