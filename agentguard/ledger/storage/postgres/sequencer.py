"""The one process that moves records from the outbox into the log, and those that follow it.

Every process that has the ledger open runs this thread; who gets the advisory lock leads, and the
lock ends with the connection that does the work, so any survivor takes over. A leader that can't
write its file yields, and one that stands still loses its connection. The leader signs what
is on the disk, and leaves the note in the database, where the others take it into their own files:
a restored old copy is then noticed by every machine that saw more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from agentguard.errors import LedgerCorrupt, LedgerError, LedgerUnavailable
from agentguard.ledger.storage.base import tree_size
from agentguard.ledger.storage.postgres.connections import Connections, Link, unavailable
from agentguard.ledger.storage.rollback_detection import compare, keep, newest_of
from agentguard.ledger.storage.tree_nodes import Nodes
from agentguard.transparency import merkle
from agentguard.transparency.checkpoints import Checkpoints

_log = logging.getLogger(__name__)

_AT_ONCE = 1000
_BUSY_S = 0.02
_IDLE_S = 0.2
_FOLLOW_S = 1.0
_SIGN_S = 0.25
_NOTES = 100
_LEAVE_S = 2.0
_STALLED_S = 5.0


class Sequencer:
    """A thread that leads or follows, until it is closed.

    Args:
        connections: where to get one of its own.
        checkpoints: the log key, and the file outside the database.
        corrupt: called if the log is not what was signed; the thread ends.
    """

    def __init__(
        self,
        connections: Connections,
        checkpoints: Checkpoints,
        *,
        corrupt: Callable[[LedgerCorrupt], None],
    ) -> None:
        self._connections = connections
        self._checkpoints = checkpoints
        self._corrupt = corrupt
        self._wake = threading.Event()
        self._stopping: float | None = None
        self._dozes = True
        self.leads = False
        self._thread = threading.Thread(target=self._run, name="agentguard-sequencer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to do, and somebody waits for it."""
        self._wake.set()

    def stir(self) -> None:
        """There is something to do. Nobody waits for it: what comes soon after goes with it."""
        if self._dozes:
            self._wake.set()

    def close(self) -> None:
        """Leave nothing behind that this process could still put into the log."""
        self._stopping = time.monotonic() + _LEAVE_S
        self._wake.set()
        self._thread.join()

    @property
    def _over(self) -> bool:
        return self._stopping is not None and time.monotonic() > self._stopping

    def _run(self) -> None:
        waits = False
        while not self._over:
            link: Link | None = None
            try:
                link = self._connections.open(writes=True)
                with unavailable(self._connections.place):
                    follow(link, self._checkpoints)
                    waits = False
                    self._serve(link)
                return
            except LedgerCorrupt as error:
                self._corrupt(error)
                return
            except LedgerError as error:
                _log.log(logging.DEBUG if waits else logging.WARNING, "the log waits: %s", error)
                waits = True  # said once, until the server is back
            finally:
                self.leads = False
                self._connections.drop(link)
            if self._stopping is not None:
                return  # the server is gone; whoever opens the ledger next goes on
            self._wake.wait(0.5)
            self._wake.clear()

    def _serve(self, link: Link) -> None:
        seen, looked = -1, 0.0
        oldest, since = None, 0.0
        while True:
            if not self.leads:
                self.leads = bool(_one(
                    link, "SELECT pg_try_advisory_lock(?)", self._connections.place.key("log")
                ))  # fmt: skip
                leader = _Leader(link, self._checkpoints) if self.leads else None
            if leader is not None:
                pause = leader.step(last=self._stopping is not None)
                if self._stopping is not None and pause:
                    return
            else:
                if time.monotonic() - looked >= _FOLLOW_S:
                    newest = int(_one(link, "SELECT coalesce(max(size), -1) FROM checkpoints"))
                    if newest != seen:
                        follow(link, self._checkpoints)
                    seen, looked = newest, time.monotonic()
                    waiting = _one(link, "SELECT min(id) FROM outbox")
                    if waiting is None or waiting != oldest:
                        oldest, since = waiting, looked
                    elif looked - since >= _STALLED_S:
                        _depose(link, self._connections.place.key("log"))
                        since = looked
                pause = _IDLE_S
                if self._stopping is not None:
                    waits = _one(link, "SELECT EXISTS (SELECT 1 FROM outbox)")
                    if not waits or self._over:
                        return
                    pause = _BUSY_S
            if pause:
                self._dozes = pause > _BUSY_S
                self._wake.wait(pause)
                self._wake.clear()


class _Leader:
    """The work of one tenure. Nobody else writes records, nodes or checkpoints meanwhile."""

    def __init__(self, link: Link, checkpoints: Checkpoints) -> None:
        self._link = link
        self._checkpoints = checkpoints
        self._size = tree_size(link)
        self._nodes = Nodes(link)
        self._signed = int(_one(link, "SELECT coalesce(max(size), 0) FROM checkpoints"))
        self._signed_at = 0.0
        self._moved_at = 0.0

    def step(self, *, last: bool) -> float:
        """Move what waits, sign what is due; returns how long to wait (s)."""
        moved = self._move()
        now = time.monotonic()
        if moved:
            self._moved_at = now
        waiting = moved == _AT_ONCE
        due = self._size - self._signed
        if due and (now - self._signed_at >= _SIGN_S or due >= _AT_ONCE or (last and not waiting)):
            self._sign()
            self._signed_at = now
        if waiting:
            return 0.0
        return _BUSY_S if now - self._moved_at < 1 or self._size > self._signed else _IDLE_S

    def _move(self) -> int:
        rows = self._link.execute(
            "SELECT id, body FROM outbox ORDER BY id LIMIT ?", (_AT_ONCE,)
        ).fetchall()
        if not rows:
            return 0
        bodies = [row["body"] for row in rows]
        try:
            self._link.send("BEGIN ISOLATION LEVEL READ COMMITTED")  # waited for at the COMMIT
            size = merkle.append(
                self._nodes, self._size, [merkle.leaf_hash(body.encode("utf-8")) for body in bodies]
            )
            self._link.send(
                "INSERT INTO records SELECT * FROM unnest(?::bigint[], ?::text[])",
                (list(range(self._size, size)), bodies),
            )
            levels, indexes, digests = zip(*self._nodes.take(), strict=True)
            self._link.send(
                "INSERT INTO nodes SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bytea[])",
                (list(levels), list(indexes), list(digests)),
            )
            # Ids are not in the order of commits: never "all up to the last one".
            self._link.send("DELETE FROM outbox WHERE id = ANY(?)", ([row["id"] for row in rows],))
            self._link.commit()
        except psycopg.IntegrityError as error:
            raise LedgerCorrupt(
                f"the log's nodes do not fit its {self._size} records"
                f" ({error.diag.message_primary}); run `agentguard audit verify` and restore a copy"
            ) from error
        self._size = size
        return len(rows)

    def _sign(self) -> None:
        # Committed with synchronous_commit, so it is on the disk: a checkpoint ahead of the log
        # would look like a restored old copy.
        try:
            signed = keep(self._checkpoints, self._size, merkle.root(self._nodes, self._size))
        except LedgerUnavailable as error:  # I10: another process signs, whose disk has room
            raise LedgerUnavailable(f"a checkpoint could not be written: {error}") from error
        publish(self._link, self._size, signed)
        self._signed = self._size


def follow(link: Link, checkpoints: Checkpoints) -> None:
    """Compare the log with this machine's file and the newest note, which the file then gets.

    A machine that opens the ledger for the first time believes what it finds.

    Raises:
        LedgerCorrupt: the log is shorter than, or differs from, what was signed.
        LedgerUnavailable: the file can't be read or written.
    """
    own = newest_of(checkpoints)  # before the log: others write there first, then into the file
    link.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        if own is not None:
            compare(link, own, checkpoints.path.name)
        row = link.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        if row is None:
            raise LedgerCorrupt("the ledger's checkpoints are gone; restore a copy")
        found = checkpoints.verified(row["note"])
        if own is None or found.size > own.size:
            compare(link, found, "a checkpoint in it")
    finally:
        if not link.lost:
            link.execute("ROLLBACK")
    if own is None or found.size > own.size:
        checkpoints.adopt(row["note"])


def _depose(link: Link, lock: int) -> None:
    """End the connection of a leader that stands still, and its lock with it.

    Should it go on, it finds that out at its next statement. What it may sign until then is in the
    log, which only grows.
    """
    _log.warning("the process that leads the log stands still; another one takes over")
    link.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid::bigint = ? AND objid::bigint = ? AND objsubid = 1"
        " AND pid <> pg_backend_pid()",
        (lock >> 32 & 0xFFFFFFFF, lock & 0xFFFFFFFF),
    )


def publish(link: Link, size: int, signed: str) -> None:
    """Leave a note for the other machines, and few enough of them."""
    link.execute("INSERT INTO checkpoints VALUES (?, ?) ON CONFLICT DO NOTHING", (size, signed))
    link.execute(
        "DELETE FROM checkpoints WHERE size < (SELECT min(size) FROM"
        " (SELECT size FROM checkpoints ORDER BY size DESC LIMIT ?) AS newest)",
        (_NOTES,),
    )


def _one(link: Link, sql: str, *parameters: object) -> Any:
    row = link.execute(sql, parameters).fetchone()
    return None if row is None else row[0]
