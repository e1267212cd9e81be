"""The numbered migrations of a SQLite ledger, and whether a file is what they create."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator

from agentguard.ledger.storage.base import Reader
from agentguard.ledger.storage.migrations import grouped, migrations_of, require_same, schema_number

_STATISTICS = frozenset(
    {
        ("table", "sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
        ("table", "sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
    }
)
"""Tables that ANALYZE and PRAGMA optimize create; they change no result."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a ledger to this version's schema and verify it, or leave it as it was.

    Raises:
        LedgerCorrupt: a newer version wrote it, or it is not what the migrations create.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations = migrations_of("sqlite")
        newest = migrations[-1][0]
        version = _version(connection, newest)
        for number, script in migrations:
            if number > version:
                for statement in _statements(script):
                    connection.execute(statement)
        if version < newest:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (newest,))
        verify_schema(connection)
        connection.execute("COMMIT")
    finally:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def verify_schema(connection: Reader) -> None:
    """Compare every table, index, view and trigger with what the migrations create.

    Raises:
        LedgerCorrupt: naming the first object that is missing, added or different.
    """
    require_same(_created(tuple(migrations_of("sqlite"))), _objects(connection))


@functools.lru_cache(maxsize=1)
def _created(migrations: tuple[tuple[int, str], ...]) -> dict[str, str]:
    """What migrations create in an empty file."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        for _, script in migrations:
            fresh.executescript(script)
        return _objects(fresh)


def _objects(connection: Reader) -> dict[str, str]:
    """What a database holds, by type and name: two objects of one name are one text.

    SQLite acts on the statement alone: type and name may say something else.
    """
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    return grouped(
        (f"{kind} {name}", f"{table}: {sql}")
        for kind, name, table, sql in rows
        if (kind, name, sql) not in _STATISTICS
    )


def _version(connection: sqlite3.Connection, newest: int) -> int:
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'meta'"
    ).fetchone()
    return 0 if known is None else schema_number(connection, newest)


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
