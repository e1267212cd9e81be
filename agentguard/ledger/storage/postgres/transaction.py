"""Transitions in a PostgreSQL transaction, one at a time.

Each answer that somebody waits for is a round trip. So a group's locks and what its transitions
read first go together (`locks.Prefetch`), what they write is sent and looked at when all have run,
and the records go with the COMMIT.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import psycopg

from agentguard.errors import IllegalTransition
from agentguard.ledger.storage.base import UNPLANNED
from agentguard.ledger.storage.postgres.connections import Link, as_ours
from agentguard.ledger.storage.postgres.locks import NOW, Busy, Locks, Prefetched
from agentguard.ledger.storage.postgres.pipeline import Sent
from agentguard.ledger.storage.query import Row
from agentguard.ledger.storage.transaction import Tx, Written

_WRITES = re.compile(r"^\s*(?!SELECT\b|WITH\b)|\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b", re.I)


class PostgresTx(Tx):
    """A transition in a PostgreSQL transaction.

    Args:
        link: in a transaction.
        locks: that this transaction has.
        clock: the ledger's time; None: the server's.
        first: nothing else was done in this transaction, so it may wait for locks.
        prefetched: what was locked and read for it; None: it has no plan.
    """

    def __init__(
        self,
        link: Link,
        *,
        locks: Locks,
        now: int,
        clock: Callable[[], int] | None,
        first: bool,
        prefetched: Prefetched | None,
    ) -> None:
        super().__init__(now=now)
        self._link = link
        self._locks = locks
        self._clock = clock
        self._first = first
        self._denied = None if prefetched is None else prefetched.denied
        self._found = {} if prefetched is None else prefetched.found
        self.wrote = False

    def lock_job(self, *jobs: str | None) -> None:
        for key in self._locks.jobs(*jobs):
            self._lock(key, exclusive=True)

    def lock_bytes(self, *sha256: str) -> None:
        for key in self._locks.bytes(*sha256):
            self._lock(key, exclusive=True)

    def lock_assets(self, *, exclusive: bool) -> None:
        self._lock(self._locks.assets, exclusive=exclusive)

    def _lock(self, key: int, *, exclusive: bool) -> None:
        if self._locks.holds(key, exclusive=exclusive):
            return
        if self._denied is not None:
            if key in self._denied:
                raise Busy
            raise IllegalTransition(UNPLANNED)
        shared = "" if exclusive else "_shared"
        if self._first:
            # The time is read after the wait: what expired meanwhile has expired.
            (row,) = self._read(f"SELECT pg_advisory_xact_lock{shared}(?), {NOW}", (key,))
            self.now = self._clock() if self._clock is not None else int(row[1])
        else:
            (row,) = self._read(f"SELECT pg_try_advisory_xact_lock{shared}(?)", (key,))
            if not row[0]:
                raise Busy
        self._locks.add([key], exclusive=exclusive)

    def _read(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        known = self._found.get((sql, *parameters)) if self._found else None
        if known is None:
            if _writes(sql):
                raise IllegalTransition("written without a record: by a statement of its own")
            known = self._send(sql, parameters)
        return self._rows(known)

    def _write(self, sql: str, parameters: Sequence[Any]) -> Written:
        self.wrote = True
        self._found = {}  # what was read before is no longer so
        return functools.partial(self._rows, self._send(sql, parameters))

    def _send(self, sql: str, parameters: Sequence[Any]) -> Sent:
        try:
            return self._link.send(sql, parameters)
        except psycopg.Error as error:
            raise as_ours(self._locks.place, error) from error

    def _rows(self, sent: Sent) -> list[Row]:
        try:
            return cast("list[Row]", sent.rows())
        except psycopg.Error as error:
            raise as_ours(self._locks.place, error) from error


@functools.lru_cache(maxsize=1024)
def _writes(sql: str) -> bool:
    return _WRITES.search(sql) is not None
