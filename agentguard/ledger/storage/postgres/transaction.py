"""Transitions in a PostgreSQL transaction: one at a time, and what a group of them needs at once.

Each answer that somebody waits for is a round trip. So a group's locks and what its transitions
read first go together (`Flight`), what they write is sent and looked at when all have run, and the
records go with the COMMIT.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import psycopg

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import IllegalTransition
from agentguard.ledger.storage.base import UNPLANNED, Plan
from agentguard.ledger.storage.postgres.connections import Link, as_ours, unavailable
from agentguard.ledger.storage.postgres.pipeline import Sent
from agentguard.ledger.storage.query import Row
from agentguard.ledger.storage.transaction import Tx, Written

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's time in ms, in SQL."""

_WRITES = re.compile(r"^\s*(?!SELECT\b|WITH\b)|\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b", re.I)


class Busy(Exception):
    """A lock is held by somebody else, and this transition is not the first of its transaction."""


_Asked = tuple[Any, ...]
"""SQL and its parameters."""


class Brought(NamedTuple):
    """What a flight brought for one transition.

    Args:
        denied: locks that its plan says and somebody else has.
        found: its queries, which may be answered already.
    """

    denied: frozenset[int]
    found: dict[_Asked, Sent]


class Flight:
    """What the planned transitions of a group lock and read first, in one round trip.

    Everything is read after the locks are held: PostgreSQL takes statements in their order, and in
    READ COMMITTED each sees what is committed when it begins. What was read under a lock that
    somebody else had is given to nobody.

    Args:
        link: in a transaction.
        place: names the locks.
        plans: of the transitions in their order; None: one that says nothing, or ran before.
        held: locks that this transaction has, by key; True: alone. Those that it gets are added.
        first: the first one has a plan, and nothing was done before it: it waits for its locks, so
            none is denied to it. The others never wait, or two processes would wait for each other.

    Raises:
        LedgerUnavailable: the server is away, or somebody else held the first one's locks too long.
    """

    def __init__(
        self,
        link: Link,
        *,
        place: LedgerUrl,
        plans: Sequence[Plan | None],
        held: dict[int, bool],
        first: bool,
    ) -> None:
        self._plans = list(plans)
        self._keys = [_keys(plan, place) for plan in plans]
        self._graph = graph = place.key("assets")
        self._users: defaultdict[int, set[int]] = defaultdict(set)
        for number, keys in enumerate(self._keys):
            for key in keys:
                self._users[key].add(number)
        self._denied: set[int] = set()
        alone: set[int] = set().union(*self._keys) - held.keys()
        shared = graph not in held and any(plan is not None and plan.assets for plan in plans)
        if first:
            for key in sorted(self._keys[0]):
                link.send("SELECT pg_advisory_xact_lock(?)", (key,))
                held[key] = True
            alone -= self._keys[0]
            if shared and plans[0] is not None and plans[0].assets:
                link.send("SELECT pg_advisory_xact_lock_shared(?)", (graph,))
                held[graph], shared = False, False
        tried = link.send(
            "SELECT key FROM unnest(?::bigint[]) AS asked (key)"
            " WHERE pg_try_advisory_xact_lock(key)", (sorted(alone),),
        ) if alone else None  # fmt: skip
        tried_graph = link.send(
            "SELECT pg_try_advisory_xact_lock_shared(?)", (graph,)
        ) if shared else None  # fmt: skip
        time = link.send(f"SELECT {NOW}")
        self._found: list[dict[_Asked, Sent]] = [
            {
                (query.sql, *query.parameters): link.send(query.sql, query.parameters)
                for query in plan.reads
            }
            if plan
            else {}
            for plan in plans
        ]
        with unavailable(place):
            self.now = int(time.rows()[0][0])
        if tried is not None:
            got = {row[0] for row in tried.rows()}
            held.update(dict.fromkeys(got, True))
            self._denied = alone - got
        if tried_graph is not None:
            if tried_graph.rows()[0][0]:
                held[graph] = False
            else:
                self._denied.add(graph)

    def brought(self, number: int) -> Brought | None:
        """What it brought for a transition; None: that one has no plan."""
        plan = self._plans[number]
        if plan is None:
            return None
        locks = self._keys[number] | {self._graph} if plan.assets else self._keys[number]
        return Brought(frozenset(self._denied & locks), self._found[number])

    def wrote(self, number: int) -> None:
        """A transition wrote: what was read of its job is no longer so, but of another Request.

        Rows of other jobs it can't have changed, nor the asset graph: a plan says all its locks.
        """
        if self._plans[number] is None:
            later = set(range(number + 1, len(self._plans)))
        else:
            later = set().union(*(self._users[key] for key in self._keys[number]))
        for other in later:
            if not _apart(self._plans[number], self._plans[other]):
                self._found[other] = {}


def _apart(one: Plan | None, other: Plan | None) -> bool:
    """Whether two transitions of one job are about two Requests."""
    if one is None or other is None or one.request is None or other.request is None:
        return False
    return one.request != other.request


def _keys(plan: Plan | None, place: LedgerUrl) -> set[int]:
    return set() if plan is None else {place.key("job", job) for job in plan.jobs}


class PostgresTx(Tx):
    """A transition in a PostgreSQL transaction.

    Args:
        link: in a transaction.
        place: names the locks.
        clock: the ledger's time; None: the server's.
        held: locks that this transaction has, by key; True: alone.
        first: nothing else was done in this transaction, so it may wait for locks.
        brought: what was locked and read for it; None: it has no plan.
    """

    def __init__(
        self,
        link: Link,
        *,
        place: LedgerUrl,
        now: int,
        clock: Callable[[], int] | None,
        held: dict[int, bool],
        first: bool,
        brought: Brought | None,
    ) -> None:
        super().__init__(now=now)
        self._link = link
        self._place = place
        self._clock = clock
        self._held = held
        self._first = first
        self._denied = None if brought is None else brought.denied
        self._found = {} if brought is None else brought.found
        self.wrote = False

    def lock_job(self, *jobs: str | None) -> None:
        for key in sorted(self._place.key("job", job) for job in jobs if job is not None):
            self._lock(key, alone=True)

    def lock_bytes(self, *sha256: str) -> None:
        for key in sorted({self._place.key("bytes", one) for one in sha256}):
            self._lock(key, alone=True)

    def lock_assets(self, *, alone: bool) -> None:
        self._lock(self._place.key("assets"), alone=alone)

    def _lock(self, key: int, *, alone: bool) -> None:
        if self._held.get(key, False) or (key in self._held and not alone):
            return
        if self._denied is not None:
            if key in self._denied:
                raise Busy
            raise IllegalTransition(UNPLANNED)
        shared = "" if alone else "_shared"
        if self._first:
            # The time is read after the wait: what expired meanwhile has expired.
            (row,) = self._read(f"SELECT pg_advisory_xact_lock{shared}(?), {NOW}", (key,))
            self.now = self._clock() if self._clock is not None else int(row[1])
        else:
            (row,) = self._read(f"SELECT pg_try_advisory_xact_lock{shared}(?)", (key,))
            if not row[0]:
                raise Busy
        self._held[key] = alone

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
            raise as_ours(self._place, error) from error

    def _rows(self, sent: Sent) -> list[Row]:
        try:
            return cast("list[Row]", sent.rows())
        except psycopg.Error as error:
            raise as_ours(self._place, error) from error


@functools.lru_cache(maxsize=1024)
def _writes(sql: str) -> bool:
    return _WRITES.search(sql) is not None
