"""The ledger in a SQLite file: one write connection per process, pooled readers, checked schema.

DESIGN section 10. The writer owns the only write connection of its process and commits once for
what is queued; on an error it rolls back and runs them one by one. Nobody else writes meanwhile,
so a transition needs no locks of its own.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentguard.errors import IllegalTransition, LedgerCorrupt
from agentguard.ledger.storage.base import UNPLANNED, Plan, Queued, Reader, Storage, tree_size
from agentguard.ledger.storage.sqlite.connections import Connections
from agentguard.ledger.storage.sqlite.schema import migrate, verify_schema
from agentguard.ledger.storage.transaction import Row, Tx, Written
from agentguard.ledger.storage.tree_nodes import Nodes
from agentguard.transparency import merkle

_log = logging.getLogger(__name__)

_UNSIGNED = 64
_SOUGHT = ("grants", "approvals", "answers", "jobs", "credentials")  # found by index at each claim


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

    def lock_assets(self, *, alone: bool) -> None:
        if self._plan is not None and (alone or not self._plan.assets):
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
        super().__init__()
        self.path = path
        self.name = str(path)
        self._clock = clock
        self._committed = committed
        self._unsigned = 0
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

    def verify_schema(self, reader: Reader) -> None:
        verify_schema(reader)

    def verify_indexes(self, reader: Reader) -> None:
        for table in _SOUGHT:
            said = reader.execute(f"PRAGMA integrity_check({table})").fetchone()[0]
            if said != "ok":
                raise LedgerCorrupt(f"an index of {table} was edited: {said}")

    def records(self, reader: Reader, first: int = 0) -> Generator[tuple[int, bytes], None, None]:
        yield from reader.execute(  # as bytes: what somebody put there need not be text
            "SELECT idx, CAST(body AS BLOB) FROM records WHERE idx >= ? ORDER BY idx", (first,)
        )

    def rows(self, reader: Reader, table: str) -> Generator[Row, None, None]:
        try:
            yield from super().rows(reader, table)
        except sqlite3.OperationalError as error:  # broken text
            raise TypeError(str(error)) from error

    def close(self) -> None:
        super().close()
        self._connections.close()

    def _commit(self, group: list[Queued]) -> None:
        if not self._transact(group):
            for one in group:
                self._transact([one])

    def _transact(self, group: list[Queued]) -> bool:
        """Run a group in one transaction; False if it was rolled back and nobody was told yet."""
        durable = self._unsigned >= _UNSIGNED or any(one.durable for one in group)
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
        except BaseException as error:  # told to the callers; the writer lives on
            if isinstance(error.__cause__, sqlite3.OperationalError):
                self._connections.forget_writer()
            if begun and len(group) > 1:
                return False
            for one in group:
                one.future.set_exception(error)
            return True
        if appended is not None:
            self._sign(*appended, durable=durable)
        for one, result in zip(group, results, strict=True):
            one.future.set_result(result)
        return True

    def _run(
        self, connection: sqlite3.Connection, group: Sequence[Queued]
    ) -> tuple[list[Any], tuple[int, bytes, int] | None]:
        results: list[Any] = []
        records: list[bytes] = []
        for one in group:
            tx = SqliteTx(now=self._clock(), connection=connection, plan=one.plan)
            results.append(one.transition(tx))
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


def _append(connection: sqlite3.Connection, records: Sequence[bytes]) -> tuple[int, bytes]:
    size = tree_size(connection)
    nodes = _Buffer(Nodes(connection))
    try:
        connection.executemany(
            "INSERT INTO records VALUES (?, ?)",
            [(size + offset, body.decode("utf-8")) for offset, body in enumerate(records)],
        )
        new_size = merkle.append(nodes, size, [merkle.leaf_hash(body) for body in records])
        connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", nodes.new())
    except sqlite3.IntegrityError as error:
        raise LedgerCorrupt(
            f"the log's nodes do not fit its {size} records ({error}); run `agentguard audit"
            " verify` and restore a copy"
        ) from error
    return new_size, merkle.root(nodes, new_size)


class _Buffer:
    """The tree's nodes: those of this commit are kept, to be written together."""

    def __init__(self, stored: Nodes) -> None:
        self._stored = stored
        self._put: dict[tuple[int, int], bytes] = {}

    def get(self, level: int, index: int) -> bytes:
        found = self._put.get((level, index))
        return found if found is not None else self._stored.get(level, index)

    def put(self, level: int, index: int, digest: bytes) -> None:
        self._put[level, index] = digest

    def new(self) -> list[tuple[int, int, bytes]]:
        """Level, index and hash of each."""
        return [(*place, digest) for place, digest in self._put.items()]


def _rollback(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
