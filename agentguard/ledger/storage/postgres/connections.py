"""One process's connections to a PostgreSQL ledger: opened when needed, lent out, found dead.

None crosses a fork. A child closes its copies of the sockets without a word, so that the server
notices when the parent dies: else a dead sequencer would keep its lock for as long as a child.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg.types.string import StrDumper

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerError, LedgerUnavailable
from agentguard.ledger.storage.base import Cursor, Rows
from agentguard.ledger.storage.postgres.pipeline import PgRow, Sent, Wire, numbered, places_of
from agentguard.ledger.storage.query import Row

_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "array_nulls": "on",
    "row_security": "off",  # a policy that would hide a row is an error
    "synchronous_commit": "on",  # what is signed is on the disk
    "quote_all_identifiers": "off",
}
"""What the ledger's statements rely on, whatever a role, a database or the environment says."""

_EXPECTED = {
    "server_encoding": "UTF8",
    "session_replication_role": "origin",  # else no trigger fires
    "zero_damaged_pages": "off",  # else a damaged page is an empty one
    "ignore_checksum_failure": "off",
}
"""What they rely on and only an administrator can change."""


def _rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], PgRow]:
    places = places_of(column.name for column in cursor.description or ())
    return lambda values: PgRow(places, values)


class Link:
    """One connection, in autocommit unless BEGIN was said."""

    def __init__(self, place: LedgerUrl, *, writes: bool) -> None:
        self.raw: psycopg.Connection[Any] = psycopg.connect(
            place.conninfo,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            connect_timeout=place.connect_timeout,
            **_patience(place),
        )
        try:
            self.backend = _settle(self.raw, place, writes=writes)
            self.raw.adapters.register_dumper(str, StrDumper)  # text, not a guess
            self.fd = self.raw.fileno()
            self.wire = Wire(self.raw)
            self.pid = os.getpid()
        except BaseException:
            self.raw.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one statement, after all that was sent before it."""
        return Rows(self.wire.send(sql, parameters).rows())

    def send(self, sql: str, parameters: Sequence[Any] = ()) -> Sent:
        """Send one statement without waiting for it."""
        return self.wire.send(sql, parameters)

    def script(self, sql: str) -> None:
        """Run several statements without parameters, after all that was sent before."""
        self.wire.receive()
        self.raw.execute(sql.encode("utf-8"))

    def commit(self) -> None:
        """End the transaction, after all that was sent before.

        Raises:
            psycopg.Error: nothing was committed; if the connection is lost, nobody knows.
        """
        sent = self.wire.send("COMMIT")
        sent.rows()
        if sent.status != b"COMMIT":  # PostgreSQL's word for what it did
            raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")

    def receive(self) -> None:
        """Wait for all that was sent."""
        self.wire.receive()

    def roll_back(self) -> None:
        """End the transaction, whatever became of what was sent."""
        with contextlib.suppress(psycopg.Error):
            self.wire.receive()
        with contextlib.suppress(psycopg.Error):
            if not self.lost and self.raw.info.transaction_status:
                self.execute("ROLLBACK")

    def stream(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a query that need not fit into memory, inside a transaction."""
        self.wire.receive()
        with psycopg.RawServerCursor(self.raw, "agentguard", row_factory=_rows) as cursor:
            cursor.itersize = 2000
            cursor.execute(numbered(sql), parameters)
            yield from cursor

    @property
    def usable(self) -> bool:
        """Nothing is open on it, and the server has not hung up."""
        if self.pid != os.getpid() or self.raw.closed or self.raw.broken:
            return False
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return not poll.poll(0)  # what an idle connection hears is that it is over

    @property
    def lost(self) -> bool:
        return self.raw.closed or self.raw.broken

    def close(self) -> None:
        if self.pid == os.getpid():
            self.raw.close()


def _settle(raw: psycopg.Connection[Any], place: LedgerUrl, *, writes: bool) -> int:
    """Set what the ledger relies on in a session, and look at it; returns the server's process.

    Raises:
        LedgerUnavailable: a setting is not what it must be.
    """
    patience = {
        "statement_timeout": place.statement_timeout,
        "lock_timeout": place.lock_timeout,
        # A process that stands still gives up what it holds.
        "idle_in_transaction_session_timeout": place.statement_timeout,
    }
    ours = {
        **_SETTINGS,
        "search_path": f'"{place.schema}", pg_temp',
        "default_transaction_read_only": "off" if writes else "on",
        **{name: str(seconds * 1000) for name, seconds in patience.items()},
    }
    raw.execute(b"DISCARD ALL")  # of whoever had this session of a pooler before
    raw.execute(
        b"SELECT pg_catalog.set_config(name, value, false)"
        b" FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))"
        b" AS ours (name, value)",
        (list(ours), list(ours.values())),
    )
    expected = {**ours, **_EXPECTED}
    rows = raw.execute(
        b"SELECT name, setting, pg_catalog.pg_backend_pid() FROM pg_catalog.pg_settings"
        b" WHERE name = ANY($1::text[])",
        (list(expected),),
    ).fetchall()
    got = {name: value for name, value, _ in rows}
    for name, value in expected.items():
        if got.get(name) != value:
            raise LedgerUnavailable(
                f"{place.shown}: {name}: got {got.get(name)!r}, expected {value!r};"
                f" {_REMEDIES.get(name, _RESET)}; nothing was done"
            )
    return int(rows[0][2])


_RESET = "ALTER ROLE ... RESET and ALTER DATABASE ... RESET take a setting back"
_REMEDIES = {"server_encoding": "the ledger needs a database made with ENCODING 'UTF8'"}


def _patience(place: LedgerUrl) -> dict[str, Any]:
    """Notice a server that is gone without a word; what the URL says counts more."""
    said = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    ours = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
            "tcp_user_timeout": 20_000, "application_name": "agentguard"}  # fmt: skip
    return {name: value for name, value in ours.items() if name not in said}


class Connections:
    """Opens connections, and lends out those that read.

    Args:
        place: where, how many and how patient.
        forked: called in a child process, before anything else there can use this.
    """

    def __init__(self, place: LedgerUrl, *, forked: Callable[[], None]) -> None:
        self.place = place
        self._forked = forked
        self._closed = False
        self._open: set[Link] = set()
        self._reset()
        if hasattr(os, "register_at_fork"):  # not on Windows
            this = weakref.ref(self)  # hooks stay for good, so they must not keep this alive
            os.register_at_fork(after_in_child=lambda: _after_in_child(this))

    def open(self, *, writes: bool) -> Link:
        """A connection of the caller's own; give it back with `drop`.

        Raises:
            LedgerUnavailable: the server can't be reached, or refuses.
        """
        with unavailable(self.place):
            link = Link(self.place, writes=writes)
        with self._gate:
            self._open.add(link)
        return link

    def drop(self, link: Link | None) -> None:
        """Close a connection, whatever state it is in."""
        if link is None:
            return
        with self._gate:
            self._open.discard(link)
        with contextlib.suppress(psycopg.Error, OSError):
            link.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Link]:
        """A connection that sees what is committed, and can't write.

        Raises:
            LedgerUnavailable: none came free in time, or the server can't be reached.
        """
        self._enter()
        link: Link | None = None
        try:
            with self._gate:
                while self._idle and link is None:
                    link = self._idle.pop()
                    if not link.usable:
                        stale, link = link, None
                        self._open.discard(stale)
                        stale.close()
            link = link or self.open(writes=False)
            with unavailable(self.place):
                yield link
                link.roll_back()
        finally:
            self._leave(link)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Link]:
        """As `reading`, and it sees one moment for as long as it is lent."""
        with self.reading() as link:
            link.send("BEGIN ISOLATION LEVEL REPEATABLE READ")  # it goes with the first read
            yield link

    def close(self) -> None:
        """Close what is idle and lend nothing more; idempotent."""
        with self._gate:
            self._closed = True
            while self._idle:
                link = self._idle.pop()
                self._open.discard(link)
                link.close()

    def _enter(self) -> None:
        deadline = time.monotonic() + self.place.connect_timeout
        with self._gate:
            while not self._closed and self._lent >= self.place.pool:
                if not self._gate.wait(deadline - time.monotonic()):
                    raise LedgerUnavailable(
                        f"{self.place.pool} connections are in use; try again, or raise pool= in"
                        " the ledger's URL"
                    )
            if self._closed:
                raise LedgerUnavailable("the ledger is closed")
            self._lent += 1

    def _leave(self, link: Link | None) -> None:
        if link is not None and link.pid != os.getpid():
            return  # forked while it was lent
        with self._gate:
            self._lent -= 1
            keep = link is not None and not self._closed and link.usable
            keep = keep and link is not None and not link.raw.info.transaction_status
            if keep and link is not None:
                self._idle.append(link)
            self._gate.notify()
        if not keep:
            self.drop(link)

    def _reset(self) -> None:
        self._gate = threading.Condition()
        self._idle: list[Link] = []
        self._lent = 0

    def after_in_child(self) -> None:
        """Forget the parent's connections, in a way that neither it nor the server notices."""
        inherited, self._open = self._open, set()
        for link in inherited:
            with contextlib.suppress(OSError):
                os.close(link.fd)
        self._inherited = inherited  # kept: what is deleted while open complains
        self._reset()
        self._forked()


def _after_in_child(reference: weakref.ref[Connections]) -> None:
    connections = reference()
    if connections is not None:
        connections.after_in_child()


@contextlib.contextmanager
def unavailable(place: LedgerUrl) -> Iterator[None]:
    """Says PostgreSQL's errors as the ledger's."""
    try:
        yield
    except psycopg.Error as error:
        raise as_ours(place, error) from error


def as_ours(place: LedgerUrl, error: psycopg.Error) -> LedgerError:
    """The ledger's error for one of PostgreSQL's: a constraint or trigger, or something outside."""
    said = error.diag.message_primary or str(error).strip() or type(error).__name__
    for secret in place.secrets:
        said = said.replace(secret, "***")
    said = " ".join(said.split())
    if isinstance(error, psycopg.IntegrityError):
        return IllegalTransition(said)
    if isinstance(error, (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted)):
        return LedgerCorrupt(f"{place.shown}: {said}; it is damaged: restore a copy")
    return LedgerUnavailable(f"{place.shown}: {said}; nothing was done")
