"""The locks of a PostgreSQL ledger: which there are, who takes them, and who waits for whom.

All are advisory locks of the transaction, named by `LedgerUrl.key`, and end with it:

- of a job: whoever moves rows of the job, its Requests, questions, Grants and credentials;
- of the asset graph: shared by whoever relies on it, exclusive for whoever raises something in it;
- of bytes: whoever registers an asset that may be new.

The first transition of a transaction waits for its locks, in the order of their keys. Those that
join it only try, and are put back into the queue (`Busy`): else two processes would wait for each
other. Elsewhere a session holds the lock of the log as long as it leads (`sequencer.py`), and who
migrates that of the migrations (`schema.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from agentguard.config.ledger_url import LedgerUrl
from agentguard.ledger.storage.base import Plan
from agentguard.ledger.storage.postgres.connections import Link, unavailable
from agentguard.ledger.storage.postgres.pipeline import Sent

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's time in ms, in SQL."""


class Busy(Exception):
    """A lock is held by somebody else, and this transition is not the first of its transaction."""


class Locks:
    """The locks that a transaction holds, by their keys.

    Args:
        place: names them.
    """

    def __init__(self, place: LedgerUrl) -> None:
        self.place = place
        self.assets = place.key("assets")
        self._held: dict[int, bool] = {}

    def jobs(self, *jobs: str | None) -> list[int]:
        """The keys of jobs, in the order in which they are taken."""
        return sorted({self.place.key("job", job) for job in jobs if job is not None})

    def bytes(self, *sha256: str) -> list[int]:
        """The keys of assets' bytes, in the order in which they are taken."""
        return sorted({self.place.key("bytes", one) for one in sha256})

    def holds(self, key: int, *, exclusive: bool) -> bool:
        """Whether it has a lock, shared at least."""
        return self._held.get(key, False) or (key in self._held and not exclusive)

    def add(self, keys: Iterable[int], *, exclusive: bool) -> None:
        """It has these now."""
        self._held.update(dict.fromkeys(keys, exclusive))


_Asked = tuple[Any, ...]
"""SQL and its parameters."""


class Prefetched(NamedTuple):
    """What a prefetch locked and read for one transition.

    Args:
        denied: locks that its plan says and somebody else has.
        found: its queries, which may be answered already.
    """

    denied: frozenset[int]
    found: dict[_Asked, Sent]


class Prefetch:
    """What the planned transitions of a group lock and read first, in one round trip.

    Everything is read after the locks are held: PostgreSQL takes statements in their order, and in
    READ COMMITTED each sees what is committed when it begins. What was read under a lock that
    somebody else had is given to nobody.

    Args:
        link: in a transaction.
        locks: that this transaction has; those that it gets are added.
        plans: of the transitions in their order; None: one that says nothing, or ran before.
        first: the first one has a plan, and nothing was done before it: it waits for its locks, so
            none is denied to it. The others never wait, or two processes would wait for each other.

    Raises:
        LedgerUnavailable: the server is away, or somebody else held the first one's locks too long.
    """

    def __init__(
        self,
        link: Link,
        *,
        locks: Locks,
        plans: Sequence[Plan | None],
        first: bool,
    ) -> None:
        self._plans = list(plans)
        self._keys = [set() if plan is None else {*locks.jobs(*plan.jobs)} for plan in plans]
        self._graph = graph = locks.assets
        self._users: defaultdict[int, set[int]] = defaultdict(set)
        for number, keys in enumerate(self._keys):
            for key in keys:
                self._users[key].add(number)
        if first:
            for key in sorted(self._keys[0]):
                link.send("SELECT pg_advisory_xact_lock(?)", (key,))
            locks.add(self._keys[0], exclusive=True)
            if plans[0] is not None and plans[0].assets:
                link.send("SELECT pg_advisory_xact_lock_shared(?)", (graph,))
                locks.add([graph], exclusive=False)
        wanted = {key for key in self._users if not locks.holds(key, exclusive=True)}
        tried = link.send(
            "SELECT key FROM unnest(?::bigint[]) AS asked (key)"
            " WHERE pg_try_advisory_xact_lock(key)", (sorted(wanted),),
        ) if wanted else None  # fmt: skip
        shared = any(plan is not None and plan.assets for plan in plans)
        tried_graph = link.send(
            "SELECT pg_try_advisory_xact_lock_shared(?)", (graph,)
        ) if shared and not locks.holds(graph, exclusive=False) else None  # fmt: skip
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
        with unavailable(locks.place):
            self.now = int(time.rows()[0][0])
            got = {row[0] for row in tried.rows()} if tried is not None else set()
            got_graph = tried_graph is None or bool(tried_graph.rows()[0][0])
        locks.add(got, exclusive=True)
        self._denied = wanted - got
        if not got_graph:
            self._denied.add(graph)
        elif tried_graph is not None:
            locks.add([graph], exclusive=False)

    def prefetched(self, number: int) -> Prefetched | None:
        """What it locked and read for a transition; None: that one has no plan."""
        plan = self._plans[number]
        if plan is None:
            return None
        locks = self._keys[number] | {self._graph} if plan.assets else self._keys[number]
        return Prefetched(frozenset(self._denied & locks), self._found[number])

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
