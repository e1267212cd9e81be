"""One transition inside an open transaction: what it reads, locks, writes and records."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentguard.canonical import Canonical, canonical
from agentguard.errors import IllegalTransition
from agentguard.ledger.storage.query import Reads, Row

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
    "operations": ("job", "name", "grant_id"),
    "unguarded_runs": ("job", "tool"),
    "numbers": ("request",),
    "refusals": ("call_key",),
}
"""Primary key of every table that the log accounts for."""


_ENCODER = json.JSONEncoder(sort_keys=True)


def new_id(kind: str) -> str:
    """A fresh unguessable id such as `job-4f0c…` (80 bits)."""
    return f"{kind}-{secrets.token_hex(10)}"


def to_json(value: object) -> str:
    """The canonical text of a JSON column."""
    return canonical(value).decode("utf-8")


ROWS = 500
"""How many rows one record lists at most: each is a leaf to be published."""

_NULLS_UNTIL_3: Mapping[str, tuple[str, ...]] = {
    "jobs": ("ended_at", "reason"),
    "requests": ("stage", "destination", "credential"),
    "approvals": ("ended_at",),
    "answers": ("answered_as",),
    "grants": ("credential", "claimed_at", "epoch", "ended_at"),
    "assets": ("width", "height"),
    "origins": ("tool", "agent", "credential", "person"),
    "operations": ("destination",),
}
"""Columns that could be NULL until schema 3, when the digest of a row had them as null."""


def row_digest(row: Row) -> str:
    """Names a table row's content, the same on every database.

    Columns that are NULL are left out, so that a column which a migration adds changes no row.

    Raises:
        TypeError: a column holds a BLOB; the ledger writes only text, integers and NULL there.
    """
    return _digest({name: value for name, value in _columns(row) if value is not None})


def digests_of(table: str, row: Row) -> tuple[str, ...]:
    """Every digest under which a record may tell of a row as it is: docs/adr/0011.

    The first is `row_digest`. Records of versions until 3 wrote NULL columns out. No other row has
    either of them: both name each column that holds something, and NULL is written one way only.

    Raises:
        TypeError: see `row_digest`.
    """
    held = {name: value for name, value in _columns(row) if value is not None}
    nulls = {name: None for name in _NULLS_UNTIL_3.get(table, ()) if name not in held}
    return (_digest(held), _digest(held | nulls)) if nulls else (_digest(held),)


def _columns(row: Row) -> Iterator[tuple[str, Any]]:
    return zip(row.keys(), row, strict=True)


def _digest(columns: Mapping[str, Any]) -> str:
    return hashlib.sha256(_ENCODER.encode(columns).encode("ascii")).hexdigest()


Written = Callable[[], Sequence[Row]]
"""Gives the rows that a writing statement returned, and waits for them if need be."""

_Touched = tuple[str, Written, bool]
"""A table, what was written there, and whether it must be exactly one row."""


class Tx(Reads):
    """One transition's view of the open transaction.

    SQL is one text for every database: `?` and `?1` stand for parameters, and only what both
    know may be written. A parameter that is only compared with NULL is cast: `CAST(? AS TEXT)`.

    Args:
        now: the ledger's time for this transition (ms).
    """

    def __init__(self, *, now: int) -> None:
        self.now = now
        self._records: list[tuple[Mapping[str, Any], list[_Touched]]] = []
        self._touched: list[_Touched] = []

    @abstractmethod
    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """Every row of a query."""

    @abstractmethod
    def _write(self, sql: str, parameters: Sequence[Any]) -> Written:
        """Run a writing statement, now or later; what gives the rows that it returns."""

    def lock_job(self, *jobs: str | None) -> None:
        """Until the transaction ends, nobody else moves rows of these jobs.

        Rows of one job (its credentials, requests, approvals, answers, grants, outcomes) are
        read and moved under its lock. Take locks in this order: jobs, bytes, assets. In SQLite
        a transition has the database for itself, and no lock does anything.
        """
        return

    def lock_bytes(self, *sha256: str) -> None:
        """Until the transaction ends, nobody else registers these bytes."""
        return

    def lock_assets(self, *, exclusive: bool) -> None:
        """Keep the asset graph as it is until the transaction ends. The last lock to take.

        Args:
            exclusive: nobody else may rely on it meanwhile: for what raises labels, terms,
                contributors, holds or recalls of assets that are known.
        """
        return

    def one(self, sql: str, *parameters: Any) -> Row | None:
        """The first row of a query, or None."""
        rows = self._read(sql, parameters)
        return rows[0] if rows else None

    def all(self, sql: str, *parameters: Any) -> list[Row]:
        """Every row of a query."""
        return self._read(sql, parameters)

    def insert(self, table: str, **columns: Any) -> None:
        """Insert a row; a row of that key must not exist."""
        self._insert(table, columns, "")

    def insert_new(self, table: str, **columns: Any) -> bool:
        """Insert a row unless its key exists; returns whether it was new."""
        return bool(self._insert(table, columns, "ON CONFLICT DO NOTHING")())

    def update(self, table: str, change: str, where: str, *parameters: Any) -> int:
        """A conditional UPDATE; returns how many rows it changed."""
        return len(self._update(table, change, where, parameters)())

    def ensure(self, table: str, **columns: Any) -> None:
        """Insert a row unless its key exists, which changes nothing for the transition."""
        self._insert(table, columns, "ON CONFLICT DO NOTHING")

    def put(self, table: str, **columns: Any) -> None:
        """Insert a row, or replace that of its key."""
        key = KEYS[table]
        change = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        self._insert(table, columns, f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {change}")

    def move(self, table: str, change: str, where: str, *parameters: Any) -> None:
        """An UPDATE of exactly one row: the transition read it, under its lock.

        Raises:
            IllegalTransition: it changes another number of rows; sooner or later, but in any case
                before anything is committed.
        """
        self._update(table, change, where, parameters, one=True)

    def lease(self, job: str, *, epoch: int, until: int) -> None:
        """Set a job's lease; leases come and go without records."""
        self._write(
            "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE"
            " SET epoch = excluded.epoch, until = excluded.until RETURNING job",
            (job, epoch, until),
        )

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        """Append a record that accounts for every row touched since the last one.

        They are rows of one job, or of none. One that lists more than ROWS goes on in further
        records, of the kind `continued`.
        """
        said = {**body, "kind": kind, "at": self.now}
        self._records.append((said, self._touched))
        self._touched = []

    def finish(self) -> list[bytes]:
        """The records of this transition, once everything that it wrote is there.

        Raises:
            IllegalTransition: something was written that no record accounts for (I10), or a row
                that had to be there was not.
        """
        made = [part for said, touched in self._records for part in _parts(said, _last(touched))]
        require_recorded(_last(self._touched))
        return made

    def _insert(self, table: str, columns: Mapping[str, Any], conflict: str) -> Written:
        written = self._write(_insert(table, tuple(columns), conflict), tuple(columns.values()))
        self._touched.append((table, written, False))
        return written

    def _update(
        self, table: str, change: str, where: str, parameters: Sequence[Any], *, one: bool = False
    ) -> Written:
        sql = f"UPDATE {table} SET {change} WHERE {where} RETURNING *"
        written = self._write(sql, parameters)
        self._touched.append((table, written, one))
        return written


@functools.lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], conflict: str) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) {conflict} RETURNING *"


_Rows = dict[tuple[str, tuple[Any, ...]], Row]
"""Rows by table and key."""


def _last(touched: Sequence[_Touched]) -> _Rows:
    """The last state of every row, in the order in which they were first touched."""
    last: _Rows = {}
    for table, written, one in touched:
        rows = written()
        if one and len(rows) != 1:
            raise IllegalTransition(
                f"{table}: {len(rows)} rows moved, expected the one that was read"
            )
        for row in rows:
            last[table, tuple(row[key] for key in KEYS[table])] = row
    return last


def require_recorded(unaccounted: _Rows) -> None:
    """Refuse a transition that wrote rows which no record accounts for (I10).

    Raises:
        IllegalTransition: there is such a row.
    """
    if unaccounted:
        raise IllegalTransition(f"written without a record: {next(iter(unaccounted))[0]}")


def _parts(said: Mapping[str, Any], rows: _Rows) -> list[bytes]:
    """A record, and what of its rows goes on in further ones.

    Raises:
        IllegalTransition: it tells of rows of more than one job.
    """
    jobs = {row["id" if table == "jobs" else "job"] for (table, _), row in rows.items()
            if table == "jobs" or "job" in row.keys()}  # fmt: skip  # noqa: SIM118
    if said.get("job") is not None:
        jobs.add(said["job"])
    if len(jobs) > 1:
        raise IllegalTransition(
            f"a record of kind {said['kind']} tells of {len(jobs)} jobs, expected one or none"
        )
    listed = [[table, list(key), row_digest(row)] for (table, key), row in rows.items()]
    made = [Canonical(said).written(rows=listed[:ROWS])]
    for start in range(ROWS, len(listed), ROWS):
        more = {"kind": "continued", "at": said["at"], "of": said["kind"]}
        more |= {"job": said["job"]} if "job" in said else {}
        made.append(Canonical(more).written(rows=listed[start : start + ROWS]))
    return made
