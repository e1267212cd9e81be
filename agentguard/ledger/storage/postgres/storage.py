"""The ledger in PostgreSQL: many processes on many machines, one writer connection in each.

READ COMMITTED, and locks for what must hold still (`locks.py`). Records go
through an outbox (`sequencer.py`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

import psycopg

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerUnavailable
from agentguard.ledger.storage.base import Plan, Queued, Reader, Storage, Transition, tree_size
from agentguard.ledger.storage.postgres.connections import Connections, Link, as_ours, unavailable
from agentguard.ledger.storage.postgres.indexes import verify_indexes
from agentguard.ledger.storage.postgres.locks import NOW, Busy, Locks, Prefetch
from agentguard.ledger.storage.postgres.schema import prepare, verify_schema
from agentguard.ledger.storage.postgres.sequencer import Sequencer, follow, publish
from agentguard.ledger.storage.postgres.transaction import PostgresTx
from agentguard.ledger.storage.query import Row
from agentguard.transparency import merkle
from agentguard.transparency.checkpoints import Checkpoints

_OUTCOME_S = 10.0
_RECENT = 100_000  # records: more than all workers write while one waits for an outcome
_NOTHING = "nothing was done"
_IN_LOG_S = 10.0


_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_BEGAN = (
    f"SELECT {NOW}, pg_current_xact_id()::text, pg_backend_pid(),"
    " set_config('synchronous_commit', ?, true)"
)
"""The time, the transaction's name, to ask later what it came to, and the session that runs it."""

_LEAVE = (
    "INSERT INTO outbox (body) SELECT body FROM unnest(?::text[])"
    " WITH ORDINALITY AS new (body, nr) ORDER BY nr"
)


class _Lost(Exception):
    """The connection broke, which is its cause. Nothing was done, unless that is `unknown`."""

    def __init__(self, *, unknown: bool) -> None:
        super().__init__(unknown)
        self.unknown = unknown


class PostgresStorage(Storage):
    """A ledger in a schema of a PostgreSQL database: opened, migrated, verified, compared.

    Args:
        place: where, and how patient.
        clock: the ledger's time in ms; None: the server's, since machines differ.
        checkpoints: the log key, and the file that this machine keeps.

    Raises:
        LedgerUnavailable: the server can't be reached, or refuses.
        LedgerCorrupt: tables or triggers are not what this version creates, or an old copy was
            restored.
    """

    def __init__(
        self, place: LedgerUrl, *, clock: Callable[[], int] | None, checkpoints: Checkpoints
    ) -> None:
        super().__init__()
        self.name = place.shown
        self._place = place
        self._given_clock = clock
        self._checkpoints = checkpoints
        self._corrupt: LedgerCorrupt | None = None
        self._server_time = (0, 0.0)
        self._writer: Link | None = None
        self._sequencer: Sequencer | None = None
        self._connections = Connections(place, forked=self._reset_child)
        link = self._connections.open(writes=True)
        try:
            with unavailable(place):
                self._expected = prepare(link, place)
                self._begin_log(link)
                follow(link, checkpoints)
                self._read_time(link)
        finally:
            self._connections.drop(link)
        self._start()

    def submit(
        self, transition: Transition, *, durable: bool = False, plan: Plan | None = None
    ) -> Future[Any]:
        self._require_sound()
        self._start()
        return super().submit(transition, durable=durable, plan=plan)

    def clock(self) -> int:
        if self._given_clock is not None:
            return self._given_clock()
        server, at = self._server_time
        return server + int((time.monotonic() - at) * 1000)

    @contextlib.contextmanager
    def read(self) -> Iterator[Link]:
        self._require_sound()
        with self._connections.reading() as link:
            yield link

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Link]:
        with self._connections.snapshot() as link:
            yield link

    def long_read(self) -> contextlib.AbstractContextManager[Reader]:
        return self.snapshot()

    def latest(self, reader: Reader) -> contextlib.AbstractContextManager[Reader]:
        return contextlib.nullcontext(reader)

    def verify_schema(self, reader: Reader) -> None:
        verify_schema(reader, self._place, self._expected)

    def verify_indexes(self) -> None:
        with self.snapshot() as link:
            verify_indexes(link, self._place.schema)

    def records(self, reader: Reader, first: int = 0) -> Generator[tuple[int, bytes], None, None]:
        sql = "SELECT idx, body FROM records WHERE idx >= ? ORDER BY idx"
        for row in cast(Link, reader).stream(sql, (first,)):
            yield row[0], row[1].encode("utf-8")

    def rows(self, reader: Reader, table: str) -> Generator[Row, None, None]:
        yield from cast(Link, reader).stream(f"SELECT * FROM {table}")

    def pending(self, reader: Reader) -> list[bytes]:
        # Two transitions that touch one row are in order: the second waited for the first.
        rows = reader.execute("SELECT body FROM outbox ORDER BY id").fetchall()
        return [row["body"].encode("utf-8") for row in rows]

    def notes(self, reader: Reader) -> list[str]:
        rows = reader.execute("SELECT note FROM checkpoints").fetchall()
        return [row["note"] for row in rows]

    def wait_for_log(self) -> None:
        with self.read() as link:
            waiting = [row["id"] for row in link.execute("SELECT id FROM outbox").fetchall()]
        deadline = time.monotonic() + _IN_LOG_S
        pause = 0.001
        while waiting:
            self._require_sound()
            self._start()
            if self._sequencer is not None:
                self._sequencer.wake()
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
            with self.read() as link:
                rows = link.execute("SELECT id FROM outbox WHERE id = ANY(?)", (waiting,))
                waiting = [row["id"] for row in rows.fetchall()]
            if waiting and time.monotonic() > deadline:
                raise LedgerUnavailable(
                    f"{self.name}: {len(waiting)} records wait to be put into the log; another"
                    " process leads and does not go on"
                )

    def sign(self) -> None:
        size = self.tree_size()
        deadline = time.monotonic() + _IN_LOG_S
        while True:
            with self.read() as reader:
                signed = reader.execute("SELECT coalesce(max(size), 0) FROM checkpoints")
                if signed.fetchone()[0] >= size:
                    break
            if time.monotonic() > deadline:
                raise LedgerUnavailable(
                    f"{self._checkpoints.path.name} can't be written; see the log"
                )
            time.sleep(0.02)
        link = self._connections.open(writes=False)
        try:
            with unavailable(self._place):
                follow(link, self._checkpoints)
        finally:
            self._connections.drop(link)

    def close(self) -> None:
        super().close()
        if self._sequencer is not None:
            self._sequencer.close()
        self._connections.drop(self._writer)
        self._writer = None
        self._connections.close()

    # --- opening --------------------------------------------------------------------------------

    def _begin_log(self, link: Link) -> None:
        """A new log begins with a checkpoint of nothing, so that one without any lost them."""
        if tree_size(link) or link.execute("SELECT 1 FROM checkpoints").fetchone() is not None:
            return
        signed = self._checkpoints.signed(0, merkle.EMPTY_ROOT)
        publish(link, 0, signed)

    def _start(self) -> None:
        with self._lock:
            if self._sequencer is None and not self._closed:
                self._sequencer = Sequencer(
                    self._connections, self._checkpoints, corrupt=self._found_corrupt
                )

    def _found_corrupt(self, error: LedgerCorrupt) -> None:
        self._corrupt = error

    def _require_sound(self) -> None:
        if self._corrupt is not None:
            raise LedgerCorrupt(str(self._corrupt))

    def _reset_child(self) -> None:
        self._reset()
        self._writer = None
        self._sequencer = None

    # --- writing --------------------------------------------------------------------------------

    def _commit(self, group: list[Queued]) -> None:
        lost = 0
        while group:
            try:
                group = group[self._transact(group) :]
                lost = 0
            except _Lost as error:
                self._forget_writer()
                lost += 1
                if error.unknown or lost > 1:
                    what = "whether this was written is unknown" if error.unknown else _NOTHING
                    told = LedgerUnavailable(f"{self.name}: the server went away; {what}")
                    told.__cause__ = error.__cause__
                    self._fail(group, told)
                    return
            except BaseException as error:  # noqa: BLE001 - told to the callers; the writer lives on
                if len(group) > 1 and not _everybodys(error):
                    for one in group:
                        self._commit([one])
                    return
                self._fail(group, error)
                return

    def _fail(self, group: Sequence[Queued], error: BaseException) -> None:
        for one in group:
            one.future.set_exception(error)

    def _transact(self, group: list[Queued]) -> int:
        """Run a group in one transaction, as many as need not wait; returns how many were told."""
        link = self._writing()
        durable = any(one.durable for one in group)
        try:
            results, records, xid = self._run(link, group, durable=durable)
        except BaseException as error:
            # A defect closes the connection, too, and is told as what it is.
            if link.lost and isinstance(error, (psycopg.Error, LedgerUnavailable)):
                raise _Lost(unknown=False) from error
            link.roll_back()
            raise
        try:
            self._end(link)
        except BaseException as error:
            if isinstance(error, psycopg.Error) and not link.lost:
                link.roll_back()
                raise as_ours(self._place, error) from error
            # I8, I10: whatever broke, it may be committed.
            self._require_committed(xid, link.backend, records, error)
            self._forget_writer()
        if records and self._sequencer is not None and self._sequencer.leads:
            self._sequencer.stir()
        for one, result in zip(group, results, strict=False):
            one.future.set_result(result)
        return len(results)

    def _run(
        self, link: Link, group: Sequence[Queued], *, durable: bool
    ) -> tuple[list[Any], list[bytes], str]:
        results: list[Any] = []
        ran: list[PostgresTx] = []
        locks = Locks(self._place)
        clock = self._given_clock
        with unavailable(self._place):
            link.send(_BEGIN)
            began = link.send(_BEGAN, ("on" if durable else "off",))
        prefetch = None
        if group[0].plan is not None:
            prefetch = self._prefetch(link, group, 0, locks)
        with unavailable(self._place):
            _, xid, backend, _ = began.rows()[0]
        if backend != link.backend:
            raise LedgerUnavailable(
                f"{self.name}: got a session of another connection, expected its own: connect to"
                f" the server itself, not through a pooler in transaction mode; {_NOTHING}"
            )
        now = prefetch.now if prefetch is not None else int(began.rows()[0][0])
        self._server_time = (now, time.monotonic())
        for number, one in enumerate(group):
            if prefetch is None and one.plan is not None:
                prefetch = self._prefetch(link, group, number, locks)
                now = max(now, prefetch.now)
            tx = PostgresTx(
                link, locks=locks, now=now if clock is None else clock(), clock=clock,
                first=not ran,
                prefetched=None if prefetch is None else prefetch.prefetched(number),
            )  # fmt: skip
            try:
                results.append(one.transition(tx))
            except Busy:
                if tx.wrote:
                    raise IllegalTransition("locked after it wrote") from None
                # Never the first one, which waits for its locks: so each transaction tells
                # somebody, and `_commit` comes to an end.
                assert ran  # noqa: S101
                break
            ran.append(tx)
            if prefetch is not None and tx.wrote:
                prefetch.wrote(number)
            now = max(now, tx.now)
        records = [body for tx in ran for body in tx.finish()]
        with unavailable(self._place):
            link.receive()
            if records:  # they go with the COMMIT
                link.send(_LEAVE, ([body.decode("utf-8") for body in records],))
        return results, records, xid

    def _prefetch(self, link: Link, group: Sequence[Queued], number: int, locks: Locks) -> Prefetch:
        """A prefetch for those from one number on; those before it ran."""
        plans = [None] * number + [one.plan for one in group[number:]]
        with unavailable(self._place):
            return Prefetch(link, locks=locks, plans=plans, first=number == 0)

    def _end(self, link: Link) -> None:
        link.commit()

    def _read_time(self, link: Link) -> None:
        row = link.execute(f"SELECT {NOW}").fetchone()
        self._server_time = (int(row[0]), time.monotonic())

    def _require_committed(
        self, xid: str, backend: int, records: Sequence[bytes], cause: BaseException
    ) -> None:
        """Find out what became of a transaction whose COMMIT got no answer (I8, I10).

        A server that crashed gives the number of a transaction that it forgot to another one, so
        that the number alone says nothing: what only this one wrote must be there.

        Args:
            records: what it wrote.

        Raises:
            _Lost: it was not committed, or nobody can tell.
            BaseException: the cause: it was not committed, and the connection is not to blame.
        """
        deadline = time.monotonic() + _OUTCOME_S
        while time.monotonic() < deadline:
            link: Link | None = None
            try:
                link = self._connections.open(writes=True)
                with unavailable(self._place):
                    row = link.execute("SELECT pg_xact_status(?::xid8)", (xid,)).fetchone()
                    if row[0] == "committed" and _are_there(link, records):
                        return
                    if row[0] in ("committed", "aborted"):
                        if isinstance(cause, psycopg.Error):
                            raise _Lost(unknown=False) from cause
                        raise cause
                    if row[0] is None:
                        break
                    link.execute(  # it still hangs: nobody listens to it any more
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid = ? AND backend_xid = (?::xid8)::xid", (backend, xid),
                    )  # fmt: skip
            except LedgerUnavailable as error:  # it is not back yet, or has forgotten the number
                if isinstance(error.__cause__, psycopg.errors.InvalidParameterValue):
                    raise _Lost(unknown=False) from cause
            finally:
                self._connections.drop(link)
            time.sleep(0.05)
        raise _Lost(unknown=True) from cause

    def _writing(self) -> Link:
        if self._writer is None or not self._writer.usable:
            self._forget_writer()
            link = self._connections.open(writes=True)
            try:
                with unavailable(self._place):
                    follow(link, self._checkpoints)  # I10: it may be another ledger than before
            except BaseException:
                self._connections.drop(link)
                raise
            self._writer = link
        return self._writer

    def _forget_writer(self) -> None:
        link, self._writer = self._writer, None
        self._connections.drop(link)


def _everybodys(error: BaseException) -> bool:
    """Whether everyone who is queued would meet the same: nobody waits for each one's patience."""
    return isinstance(error, (LedgerCorrupt, LedgerUnavailable))


def _are_there(link: Link, records: Sequence[bytes]) -> bool:
    """Whether records are in the outbox or, moved by now, at the end of the log.

    A record of a claim names its holder and its moment, so that no other transaction writes it.
    """
    bodies = list({body.decode("utf-8") for body in records})
    row = link.execute(
        "SELECT count(DISTINCT body) FROM (SELECT body FROM outbox WHERE body = ANY(?1::text[])"
        " UNION ALL SELECT body FROM records WHERE body = ANY(?1::text[])"
        " AND idx > (SELECT coalesce(max(idx), 0) FROM records) - ?2) AS found",
        (bodies, _RECENT),
    ).fetchone()
    return bool(row[0] == len(bodies))
