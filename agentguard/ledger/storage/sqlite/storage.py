"""The ledger in a SQLite file: one write connection per process, pooled readers, checked schema.

The writer owns the only write connection of its process and commits once for
what is queued; on an error it rolls back and runs them one by one. Nobody else writes meanwhile,
so a transition needs no locks of its own. A transition joins a commit only while at most 64 records
wait for a signed checkpoint with it, however many processes write.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerError
from agentguard.ledger.storage.base import (
    UNPLANNED,
    Cursor,
    Plan,
    Queued,
    Reader,
    Rows,
    Storage,
    tree_size,
)
from agentguard.ledger.storage.query import Row
from agentguard.ledger.storage.rollback_detection import keep, newest_of
from agentguard.ledger.storage.sqlite.connections import Connections, find_damage
from agentguard.ledger.storage.sqlite.schema import migrate, verify_schema
from agentguard.ledger.storage.transaction import KEYS, Tx, Written
from agentguard.ledger.storage.tree_nodes import Nodes
from agentguard.transparency import merkle
from agentguard.transparency.checkpoints import Checkpoints

_log = logging.getLogger(__name__)

_UNSIGNED = 64
_PAGE = 1000  # rows, records
_BROKEN_TEXT = "Could not decode to UTF-8"


class SqliteTx(Tx):
    """A transition in a SQLite transaction, which has the database for itself.

    Args:
        connection: in a transaction.
        plan: what it said that it locks. Nothing is locked here, but a plan that does not hold
            elsewhere is found out.
    """

    def __init__(
        self, *, now: int, connection: sqlite3.Connection, plan: Plan | None = None
    ) -> None:
        super().__init__(now=now)
        self._connection = connection
        self._plan = plan
        self._expected_changes = connection.total_changes

    def lock_job(self, *jobs: str | None) -> None:
        if self._plan is not None and not self._plan.jobs.issuperset({*jobs} - {None}):
            raise IllegalTransition(UNPLANNED)

    def lock_bytes(self, *sha256: str) -> None:
        if self._plan is not None and sha256:
            raise IllegalTransition(UNPLANNED)

    def lock_assets(self, *, exclusive: bool) -> None:
        if self._plan is not None and (exclusive or not self._plan.assets):
            raise IllegalTransition(UNPLANNED)

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def _write(self, sql: str, parameters: Sequence[Any]) -> Written:
        rows: list[Row] = self._connection.execute(sql, parameters).fetchall()
        self._expected_changes += len(rows)
        return lambda: rows

    def finish(self) -> list[bytes]:
        records = super().finish()
        if self._connection.total_changes != self._expected_changes:
            raise IllegalTransition("written without a record: by a statement of its own")
        return records


class SqliteStorage(Storage):
    """A SQLite ledger file: opened, migrated and verified.

    Args:
        path: the database file; its folder must exist.
        clock: the ledger's time in ms.
        checkpoints: the log key, and the file outside the database. A durable commit that appended
            records signs a checkpoint; so does one that would leave too many without.

    Raises:
        LedgerUnavailable: the file can't be opened or written.
        LedgerCorrupt: tables or triggers are not what this version creates.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], int],
        checkpoints: Checkpoints,
    ) -> None:
        super().__init__()
        self.path = path
        self.name = str(path)
        self._clock = clock
        self._checkpoints = checkpoints
        self._signed = 0
        self._signed_in: tuple[int, ...] | None = None  # the file as it was when that was so
        self._connections = Connections(path, forked=self._reset)
        self._connections.create(migrate)

    def clock(self) -> int:
        return self._clock()

    def read(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._connections.reading()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        with self.read() as connection:
            connection.execute("BEGIN")
            yield connection

    @contextlib.contextmanager
    def long_read(self) -> Iterator[Reader]:
        yield _ShortReads(self._connections)

    def latest(self, reader: Reader) -> contextlib.AbstractContextManager[Reader]:
        return self.snapshot()

    def verify_schema(self, reader: Reader) -> None:
        verify_schema(reader)

    def verify_indexes(self) -> None:
        with self.read() as reader:
            damage = find_damage(reader)
        if damage is not None:
            raise LedgerCorrupt(f"{self.path.name}: {damage}; restore a copy")

    def records(self, reader: Reader, first: int = 0) -> Generator[tuple[int, bytes], None, None]:
        while True:
            page = reader.execute(  # as bytes: what somebody put there need not be text
                "SELECT idx, CAST(body AS BLOB) FROM records WHERE idx >= ? ORDER BY idx LIMIT ?",
                (first, _PAGE),
            ).fetchall()
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1][0] + 1

    def rows(self, reader: Reader, table: str) -> Generator[Row, None, None]:
        keys = ", ".join(KEYS[table])
        sql = f"SELECT * FROM {table} {{}} ORDER BY {keys} LIMIT {_PAGE}"
        page = _page(reader, sql.format(""), ())
        while page:
            yield from page
            last = tuple(page[-1][key] for key in KEYS[table])
            where = f"WHERE ({keys}) > ({', '.join('?' * len(last))})"
            page = _page(reader, sql.format(where), last)

    def row(self, reader: Reader, table: str, key: Sequence[str]) -> Row | None:
        with _written_text():
            return super().row(reader, table, key)

    def close(self) -> None:
        super().close()
        self._connections.close()

    def _commit(self, group: list[Queued]) -> None:
        while group:
            told = self._transact(group)
            if told is None:
                for one in group:
                    self._transact([one])
                return
            group = group[told:]

    def _transact(self, group: list[Queued]) -> int | None:
        """Run a group, as many as fit, in one transaction.

        Returns how many were told; None if it was rolled back and nobody was told yet.
        """
        durable = any(one.durable for one in group)
        begun = False
        try:
            with self._connections.writing() as connection:
                try:
                    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    connection.execute("BEGIN IMMEDIATE")
                    begun = True
                    results, appended = self._run(connection, group)
                    connection.execute("COMMIT")
                except BaseException:
                    _rollback(connection)
                    raise
        except BaseException as error:  # noqa: BLE001 - told to the callers; the writer lives on
            if isinstance(error.__cause__, sqlite3.OperationalError):
                self._connections.forget_writer()
            if begun and len(group) > 1:
                return None
            for one in group:
                one.future.set_exception(error)
            return len(group)
        if appended is not None and (durable or appended[2] > _UNSIGNED):
            size, root, _ = appended
            try:
                if not durable:
                    self._connections.flush_wal()
                self._sign(size, root)
            except LedgerError:  # the writer lives on, and refuses before too many are unsigned
                _log.exception("a checkpoint could not be written beside the ledger")
        for one, result in zip(group, results, strict=False):
            one.future.set_result(result)
        return len(results)

    def _run(
        self, connection: sqlite3.Connection, group: Sequence[Queued]
    ) -> tuple[list[Any], tuple[int, bytes, int] | None]:
        """Results of those that ran, and size and root of the log with how many records they added.

        Nobody joins a commit that then had more records than may be unsigned.
        """
        results: list[Any] = []
        records: list[bytes] = []
        for one in group:
            if results:
                connection.execute("SAVEPOINT joining")
            tx = SqliteTx(now=self._clock(), connection=connection, plan=one.plan)
            result, added = one.transition(tx), tx.finish()
            if results and len(records) + len(added) > _UNSIGNED:
                connection.execute("ROLLBACK TO joining")
                break
            if results:
                connection.execute("RELEASE joining")
            results.append(result)
            records.extend(added)
        if not records:
            return results, None
        size = tree_size(connection)
        if size + len(records) - self._newest() > _UNSIGNED:
            self._sign_before(connection, size)
        return results, (*_append(connection, size, records), len(records))

    def _newest(self) -> int:
        """How many records the newest checkpoint covers, whichever process signed it."""
        now = self._file()
        if now is None or now != self._signed_in:
            newest = newest_of(self._checkpoints)
            self._signed = 0 if newest is None else newest.size
            self._signed_in = now
        return self._signed

    def _sign_before(self, connection: sqlite3.Connection, size: int) -> None:
        """Sign what others and this process committed before, inside a transaction.

        Raises:
            LedgerUnavailable: the file can't be written, so nothing may be added.
        """
        if size > self._newest():
            self._connections.flush_wal()
            self._sign(size, merkle.root(Nodes(connection), size))

    def _sign(self, size: int, root: bytes) -> None:
        # Only what is on the disk is signed: a power cut must not leave a checkpoint that is
        # ahead of the ledger, which would look like a restored old copy.
        keep(self._checkpoints, size, root)
        self._signed, self._signed_in = max(size, self._signed), self._file()

    def _file(self) -> tuple[int, ...] | None:
        try:
            found = self._checkpoints.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


class _ShortReads:
    """A reader of which every statement is a read of its own, over before the next begins."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        with self._connections.reading() as connection, _written_text():
            return Rows(connection.execute(sql, parameters).fetchall())


def _page(reader: Reader, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    with _written_text():
        return reader.execute(sql, parameters).fetchall()


@contextlib.contextmanager
def _written_text() -> Iterator[None]:
    """Says broken text as what was never written."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _BROKEN_TEXT in str(error):
            raise TypeError(str(error)) from error
        raise


def _append(
    connection: sqlite3.Connection, size: int, records: Sequence[bytes]
) -> tuple[int, bytes]:
    nodes = Nodes(connection)
    try:
        connection.executemany(
            "INSERT INTO records VALUES (?, ?)",
            [(size + offset, body.decode("utf-8")) for offset, body in enumerate(records)],
        )
        new_size = merkle.append(nodes, size, [merkle.leaf_hash(body) for body in records])
        connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", nodes.take())
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
