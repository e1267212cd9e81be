"""What every ledger storage shares: transitions are queued, and one thread commits them in groups.

Callers submit a transition, a function of a `Tx`, and get a Future; the writer
drains what is queued and commits once. What a transition writes must be covered by a record of
the log in the same transaction (I10): `Tx` counts.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentguard.errors import LedgerUnavailable
from agentguard.ledger.storage.query import Query, Row
from agentguard.ledger.storage.transaction import KEYS, Tx

_BATCH = 64
_QUEUE = 4096

UNPLANNED = "it takes a lock that its plan does not say"

Transition = Callable[[Tx], Any]


class Cursor(Protocol):
    """The rows of a query, to be taken one by one or together."""

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Rows:
    """The rows of a query that is over."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = iter(rows)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class Reader(Protocol):
    """A connection that only reads."""

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a transition locks, and what it reads first, said before it runs.

    A database that is far away locks and fetches it for a whole group at once. A true plan changes
    no result. A transition that takes a lock which its plan does not say raises IllegalTransition,
    on every database.

    Args:
        jobs: all whose lock it takes.
        assets: it relies on the asset graph, and raises nothing in it. A plan never says bytes.
        reads: queries, as it will ask them.
        request: the one Request whose rows it reads and writes, besides reading its job and what
            it relied on; None: any rows of its jobs.
    """

    jobs: frozenset[str]
    assets: bool = False
    request: str | None = None
    reads: tuple[Query[Any], ...] = ()


@dataclass(kw_only=True)
class Queued:
    """A queued transition and who waits for it."""

    transition: Transition
    durable: bool
    future: Future[Any]
    plan: Plan | None = None


class Storage(ABC):
    """Where a ledger's rows are. See `SqliteStorage` and `PostgresStorage`."""

    name: str
    """What it is called in messages: never with a password."""

    def __init__(self) -> None:
        self._closed = False
        self._thread: threading.Thread | None = None
        self._reset()

    def submit(
        self, transition: Transition, *, durable: bool = False, plan: Plan | None = None
    ) -> Future[Any]:
        """Queue a transition; the Future yields its result once it is committed.

        Args:
            transition: writes through its Tx and records what it wrote. It may run several
                times (in a fresh batch, or alone after its batch failed), so it must have no
                effect but on the Tx.
            durable: on the disk before the Future is done: before an effect that leaves the
                machine.
            plan: everything that it locks, and what it reads first; None: not known before it
                runs.

        Raises:
            LedgerUnavailable: the ledger is closed or its queue is full (deny, I11).
        """
        future: Future[Any] = Future()
        with self._lock:  # what is queued before the end is written, nothing comes after it
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            if self._thread is None:
                thread = threading.Thread(target=self._drain, name="agentguard-ledger", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # and nobody waits for one that never began
                    raise LedgerUnavailable(f"the ledger has no writer: {error}") from error
                self._thread = thread
            if self._queue.qsize() >= _QUEUE:
                raise LedgerUnavailable(f"{_QUEUE} transitions are waiting; try again")
            self._queue.put(
                Queued(transition=transition, durable=durable, future=future, plan=plan)
            )
        return future

    @abstractmethod
    def clock(self) -> int:
        """The ledger's time in ms."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Reader]:
        """A read-only connection that sees what is committed.

        Raises:
            LedgerUnavailable: the ledger is closed or can't be read.
        """

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Reader]:
        """A read-only connection that sees one moment, for as long as it is lent.

        Raises:
            LedgerUnavailable: the ledger is closed or can't be read.
        """

    @abstractmethod
    def long_read(self) -> AbstractContextManager[Reader]:
        """A reader for as long as it takes, which keeps nobody from anything.

        SQLite reads each of its statements by itself, since one long snapshot would stop the
        checkpoints of the WAL, which then grows with every commit: read so only what does not
        change, or look again at what did. PostgreSQL lends one snapshot.

        Raises:
            LedgerUnavailable: the ledger is closed or can't be read.
        """

    @abstractmethod
    def latest(self, reader: Reader) -> AbstractContextManager[Reader]:
        """One moment, the latest that a long read can see. Keep it for a bounded time only.

        Args:
            reader: of `long_read`.
        """

    @abstractmethod
    def verify_schema(self, reader: Reader) -> None:
        """Compare what is in the database with what this version's migrations create.

        Raises:
            LedgerCorrupt: naming the first object that is missing, added or different.
        """

    @abstractmethod
    def verify_indexes(self) -> None:
        """Compare every index with its table, and look for keys that two rows have (I8, I10).

        Raises:
            LedgerCorrupt: naming an index that leaves out a row, which nobody would find any more,
                or a page that is damaged.
            LedgerUnavailable: the ledger can't be read.
        """

    @abstractmethod
    def records(self, reader: Reader, first: int = 0) -> Generator[tuple[int, bytes], None, None]:
        """The log from one record on: (index, body)."""

    @abstractmethod
    def rows(self, reader: Reader, table: str) -> Generator[Row, None, None]:
        """Every row of a table.

        Raises:
            TypeError: one holds what was never written there.
        """

    def row(self, reader: Reader, table: str, key: Sequence[str]) -> Row | None:
        """The row of a key; None: there is none.

        Raises:
            TypeError: it holds what was never written there.
        """
        where = " AND ".join(f"{column} = ?" for column in KEYS[table])
        found = reader.execute(f"SELECT * FROM {table} WHERE {where}", tuple(key)).fetchall()
        if len(found) > 1:
            raise TypeError(f"{len(found)} rows of one key")
        return found[0] if found else None

    def pending(self, reader: Reader) -> list[bytes]:
        """Records that are committed and not in the log yet, in the order of their rows."""
        return []

    def wait_for_log(self) -> None:
        """Wait until what was committed before is in the log.

        Raises:
            LedgerUnavailable: nobody put it there in time.
        """
        return

    def notes(self, reader: Reader) -> list[str]:
        """Signed checkpoints that are kept in the database, for other machines."""
        return []

    def sign(self) -> None:
        """Have a signed checkpoint of all that was committed before.

        Raises:
            LedgerUnavailable: it can't be written.
        """
        self.submit(lambda tx: tx.record("checkpoint", {}), durable=True).result()

    def tree_size(self) -> int:
        """How many records the log holds, with all that was committed before."""
        self.wait_for_log()
        with self.read() as reader:
            return tree_size(reader)

    def close(self) -> None:
        """Finish what is queued and close every connection; idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
        if self._thread is not None:
            if first:
                self._queue.put(None)
            self._thread.join()

    @abstractmethod
    def _commit(self, group: list[Queued]) -> None:
        """Run a group, commit it together as far as possible, and tell every caller."""

    def _reset(self) -> None:
        """Begin without a writer thread: at first, and in a forked child, where it is not."""
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Queued | None] = queue.SimpleQueue()
        self._thread = None

    def _drain(self) -> None:
        running = True
        while running:
            first = self._queue.get()
            group = [] if first is None else [first]
            running = first is not None
            while running and len(group) < _BATCH:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    running = False
                else:
                    group.append(item)
            # A caller that gave up while it was queued is skipped.
            group = [one for one in group if one.future.set_running_or_notify_cancel()]
            if group:
                self._commit(group)


def wall_clock() -> int:
    """Milliseconds since the Unix epoch, as this machine believes."""
    return time.time_ns() // 1_000_000


def tree_size(reader: Reader) -> int:
    """How many records the log holds, as this connection sees it."""
    row = reader.execute("SELECT max(idx) FROM records").fetchone()
    return 0 if row[0] is None else int(row[0]) + 1
