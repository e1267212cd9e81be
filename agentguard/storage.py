"""How the ledger is kept in SQLite: one writer thread, pooled readers, checked migrations.

DESIGN section 10. The writer owns the only write connection of its process. Callers submit a
transition, a function of a `Tx`, and get a Future; the writer drains what is queued, commits once,
and on an error rolls back and runs them one by one. Whatever a transition writes must be covered
by a record of the log in the same transaction (I10): `Tx` counts.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentguard import merkle
from agentguard._connections import Connections
from agentguard._schema import migrate, verify_schema
from agentguard._transaction import KEYS, Row, Tx, new_id, row_digest, to_json
from agentguard.errors import LedgerCorrupt, LedgerUnavailable

__all__ = [
    "KEYS", "Nodes", "Row", "Storage", "Transition", "Tx", "new_id", "row_digest", "to_json",
    "tree_size", "verify_schema",
]  # fmt: skip

_log = logging.getLogger(__name__)

_BATCH = 64
_QUEUE = 4096
_UNSIGNED = 64

Transition = Callable[[Tx], Any]


class Nodes:
    """The Merkle tree's hashes as rows, for `agentguard.merkle`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, level: int, index: int) -> bytes:
        row = self._connection.execute(
            "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
        ).fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise LedgerCorrupt(f"the log lacks node {level}/{index}; restore it from a copy")
        return row[0]

    def put(self, level: int, index: int, value: bytes) -> None:
        self._connection.execute("INSERT INTO nodes VALUES (?, ?, ?)", (level, index, value))


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
        committed: called by the writer after a durable commit that appended records, with (size,
            root), to sign and keep a checkpoint outside the database.

    Raises:
        LedgerUnavailable: the file can't be opened or written.
        LedgerCorrupt: tables or triggers are not what this version creates.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int],
        committed: Callable[[int, bytes], None],
    ) -> None:
        self.path = path
        self._clock = clock
        self._committed = committed
        self._closed = False
        self._unsigned = 0
        self._thread: threading.Thread | None = None
        self._reset()
        self._connections = Connections(path, forked=self._reset)
        self._connections.create(migrate)

    def submit(self, transition: Transition, *, durable: bool = False) -> Future[Any]:
        """Queue a transition; the Future yields its result once it is committed.

        Args:
            transition: writes through its Tx and records what it wrote. It may run twice (alone
                after its batch failed), so it must have no effect but on the Tx.
            durable: commit with synchronous=FULL, before an effect that leaves the machine.

        Raises:
            LedgerUnavailable: the ledger is closed or its queue is full (deny, I11).
        """
        future: Future[Any] = Future()
        with self._lock:  # what is queued before the end is written, nothing comes after it
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._write, name="agentguard-ledger", daemon=True
                )
                self._thread.start()
            try:
                self._queue.put_nowait(_Job(transition=transition, durable=durable, future=future))
            except queue.Full:
                raise LedgerUnavailable(f"{_QUEUE} transitions are waiting; try again") from None
        return future

    def read(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A read-only connection that sees what is committed.

        Raises:
            LedgerUnavailable: the ledger is closed or can't be read.
        """
        return self._connections.reading()

    def tree_size(self) -> int:
        """How many records the log holds."""
        with self.read() as connection:
            return tree_size(connection)

    def close(self) -> None:
        """Finish what is queued and close every connection; idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
        if self._thread is not None:
            if first:
                self._queue.put(None)
            self._thread.join()
        self._connections.close()

    def _reset(self) -> None:
        """Begin without a writer thread: at first, and in a forked child, where it is not."""
        self._lock = threading.Lock()
        self._queue: queue.Queue[_Job | None] = queue.Queue(_QUEUE)
        self._thread = None

    def _write(self) -> None:
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
            # A caller that gave up while it was queued is skipped.
            jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if jobs and not self._commit(jobs):
                for job in jobs:
                    self._commit([job])

    def _commit(self, jobs: list[_Job]) -> bool:
        """Run jobs in one transaction; False if it was rolled back and nobody was told yet."""
        durable = self._unsigned >= _UNSIGNED or any(job.durable for job in jobs)
        begun = False
        try:
            with self._connections.writing() as connection:
                try:
                    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    connection.execute("BEGIN IMMEDIATE")
                    begun = True
                    results, appended = self._run(connection, jobs)
                    connection.execute("COMMIT")
                except BaseException:
                    _rollback(connection)
                    raise
        except BaseException as error:  # told to the callers; the writer lives on
            if isinstance(error.__cause__, sqlite3.OperationalError):
                self._connections.forget_writer()
            if begun and len(jobs) > 1:
                return False
            for job in jobs:
                job.future.set_exception(error)
            return True
        if appended is not None:
            self._sign(*appended, durable=durable)
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)
        return True

    def _run(
        self, connection: sqlite3.Connection, jobs: Sequence[_Job]
    ) -> tuple[list[Any], tuple[int, bytes, int] | None]:
        results: list[Any] = []
        records: list[bytes] = []
        for job in jobs:
            tx = Tx(now=self._clock(), connection=connection)
            results.append(job.transition(tx))
            records.extend(tx.finish())
        if not records:
            return results, None
        size, root = _append(connection, records)
        return results, (size, root, len(records))

    def _sign(self, size: int, root: bytes, added: int, *, durable: bool) -> None:
        # Only what is on the disk is signed: a power cut must not leave a checkpoint that is
        # ahead of the ledger, which would look like a restored old copy.
        self._unsigned += added
        if not durable:
            return
        try:
            self._committed(size, root)
            self._unsigned = 0
        except Exception:  # the writer lives on
            _log.exception("a checkpoint could not be written beside the ledger")


def tree_size(connection: sqlite3.Connection) -> int:
    """How many records the log holds, as this connection sees it."""
    row = connection.execute("SELECT max(idx) FROM records").fetchone()
    return 0 if row[0] is None else int(row[0]) + 1


def _append(connection: sqlite3.Connection, records: Sequence[bytes]) -> tuple[int, bytes]:
    size = tree_size(connection)
    nodes = Nodes(connection)
    try:
        connection.executemany(
            "INSERT INTO records VALUES (?, ?)",
            [(size + offset, body.decode("utf-8")) for offset, body in enumerate(records)],
        )
        new_size = merkle.append(nodes, size, [merkle.leaf_hash(body) for body in records])
    except sqlite3.IntegrityError as error:
        raise LedgerCorrupt(
            f"the log's nodes do not fit its {size} records ({error}); run `agentguard audit"
            " verify` and restore a copy"
        ) from error
    return new_size, merkle.root(nodes, new_size)


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
