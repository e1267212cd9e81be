"""One transition inside an open transaction: what it reads, writes and records."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Mapping
from typing import Any

from agentguard.canonical import canonical
from agentguard.errors import IllegalTransition

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
    "receipts": ("grant_id", "sha256"),
}
"""Primary key of every table that the log accounts for."""

Row = sqlite3.Row


def new_id(kind: str) -> str:
    """A fresh unguessable id such as `job-4f0c…` (80 bits)."""
    return f"{kind}-{secrets.token_hex(10)}"


def to_json(value: object) -> str:
    """The canonical text of a JSON column."""
    return canonical(value).decode("utf-8")


def row_digest(row: Row) -> str:
    """Names a table row's content.

    Raises:
        TypeError: a column holds a BLOB; the ledger writes only text, integers and NULL there.
    """
    text = json.dumps({key: row[key] for key in row.keys()}, sort_keys=True)  # noqa: SIM118
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Tx:
    """One transition's view of the open transaction.

    Args:
        now: the ledger's time for this transition (ms).
        connection: in a transaction.
    """

    def __init__(self, *, now: int, connection: sqlite3.Connection) -> None:
        self.now = now
        self._connection = connection
        self._expected_changes = connection.total_changes
        self._records: list[bytes] = []
        self._touched: list[tuple[str, tuple[Any, ...]]] = []

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a query, or None."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Every row of a query."""
        return self._connection.execute(sql, parameters).fetchall()

    def insert(self, table: str, **columns: Any) -> None:
        """Insert a row; a row of that key must not exist."""
        self._insert(table, columns, "")

    def insert_new(self, table: str, **columns: Any) -> bool:
        """Insert a row unless its key exists; returns whether it was new."""
        return self._insert(table, columns, "ON CONFLICT DO NOTHING")

    def update(self, table: str, change: str, where: str, *parameters: Any) -> int:
        """A conditional UPDATE; returns how many rows it changed."""
        keys = ", ".join(KEYS[table])
        rows = self._connection.execute(
            f"UPDATE {table} SET {change} WHERE {where} RETURNING {keys}", parameters
        ).fetchall()
        self._touched.extend((table, tuple(row)) for row in rows)
        self._expected_changes += len(rows)
        return len(rows)

    def lease(self, job: str, *, epoch: int, until: int) -> None:
        """Set a job's lease; leases come and go without records."""
        self._connection.execute(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE"
            " SET epoch = excluded.epoch, until = excluded.until",
            (job, epoch, until),
        )
        self._expected_changes += 1

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
        self._records.append(canonical({**body, "kind": kind, "at": self.now, "rows": rows}))

    def finish(self) -> list[bytes]:
        """The records of this transition.

        Raises:
            IllegalTransition: something was written that no record accounts for (I10).
        """
        if self._touched:
            raise IllegalTransition(f"written without a record: {self._touched[0][0]}")
        if self._connection.total_changes != self._expected_changes:
            raise IllegalTransition("written without a record: by a statement of its own")
        return self._records

    def _insert(self, table: str, columns: Mapping[str, Any], conflict: str) -> bool:
        names = ", ".join(columns)
        marks = ", ".join("?" * len(columns))
        cursor = self._connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks}) {conflict}", tuple(columns.values())
        )
        if cursor.rowcount:
            self._touched.append((table, tuple(columns[key] for key in KEYS[table])))
            self._expected_changes += 1
        return bool(cursor.rowcount)
