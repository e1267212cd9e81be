"""One process's connections to a SQLite file: one that writes, a pool that reads.

None crosses a fork: SQLite keeps locks per process in its own memory, so a child that inherits an
open connection, or only the library's notes about one, believes it holds locks that it does not
(https://www.sqlite.org/howtocorrupt.html, section 2.6). Before a fork they are all closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from agentguard.durable_files import flush_file
from agentguard.errors import IllegalTransition, LedgerCorrupt, LedgerError, LedgerUnavailable

_log = logging.getLogger(__name__)

_CACHE_KIB = 16_384
_WAL_BYTES = 16 << 20
_BUSY_TIMEOUT_S = 10.0
_FORK_WAIT_S = 5.0
_POOLED = 16


_SETTINGS = {
    "foreign_keys": 1,
    "recursive_triggers": 1,  # a row that is replaced is deleted, and that fires
    "ignore_check_constraints": 0,
    "writable_schema": 0,
    "defer_foreign_keys": 0,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "read_uncommitted": 0,
    "reverse_unordered_selects": 0,
    "synchronous": 2,  # FULL: some builds flush less in WAL mode
    "fullfsync": 1,
    "checkpoint_fullfsync": 1,
}
"""What the ledger's statements rely on, whatever this SQLite was built with."""


class Connections:
    """Opens connections when they are needed, and lends them out.

    Args:
        path: the database file; `create` makes it, nothing else does.
        forked: called in a child process, before anything else there can use this.
    """

    def __init__(self, path: Path, *, forked: Callable[[], None]) -> None:
        self.path = path
        self._forked = forked
        self._gate = threading.Condition()
        self._lent = 0
        self._forking = False
        self._closed: str | None = None
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        self._file: tuple[int, int] | None = None
        if hasattr(os, "register_at_fork"):  # not on Windows
            this = weakref.ref(self)  # hooks stay for good, so they must not keep this alive
            os.register_at_fork(
                before=lambda: _call(this, Connections._before_fork),
                after_in_parent=lambda: _call(this, Connections._after_in_parent),
                after_in_child=lambda: _call(this, Connections._after_in_child),
            )

    def create(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Open the file for the first time, make it if need be, and prepare it.

        Raises:
            LedgerUnavailable: it can't be opened or written, or is no database.
            LedgerCorrupt: it is damaged.
        """
        with unavailable(self.path), contextlib.closing(self._open("rwc")) as connection:
            prepare(connection)
            _switch_to_wal(connection)
        self._file = _identity(self.path)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one write connection; only one thread may ask for it.

        Raises:
            LedgerUnavailable: it can't be opened.
        """
        with self._borrowed(), unavailable(self.path):
            self._require_same_file()
            if self._writer is None:
                self._writer = self._open("rw")
                # Digests are scattered over their indexes: most of those pages come again.
                self._writer.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                # A WAL that grew while somebody read for long shrinks when it begins anew.
                self._writer.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            yield self._writer

    def flush_wal(self) -> None:
        """Have on the disk what was committed before, whoever did and however.

        Only in a transaction of the writer: meanwhile nobody begins the WAL anew.

        Raises:
            LedgerUnavailable: it may be lost.
        """
        wal = self.path.with_name(self.path.name + "-wal")
        try:
            flush_file(wal)
        except OSError as error:
            raise LedgerUnavailable(f"{wal.name}: {error.strerror}; nothing was done") from error

    def forget_writer(self) -> None:
        """Close the write connection after an error that may have left it unusable."""
        with self._gate:
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(sqlite3.Error):
                    writer.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection that sees what is committed.

        Raises:
            LedgerUnavailable: it can't be opened or read.
        """
        with self._borrowed(), unavailable(self.path):
            self._require_same_file()
            with self._gate:
                idle = self._readers.pop() if self._readers else None
            connection = idle or self._open("ro")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.rollback()
                with self._gate:
                    keep = self._closed is None and len(self._readers) < _POOLED
                    if keep:
                        self._readers.append(connection)
                if not keep:
                    connection.close()

    def close(self) -> None:
        """Close what is idle and lend nothing more; idempotent."""
        with self._gate:
            self._closed = self._closed or "the ledger is closed"
            self._close_idle()

    def _open(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}&cache=private",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        try:
            self._settle(connection, new=mode == "rwc")
        except BaseException:
            connection.close()
            raise
        return connection

    def _settle(self, connection: sqlite3.Connection, *, new: bool) -> None:
        """Set what the ledger relies on, and look at it.

        Args:
            new: the file need not be in WAL mode yet.
        """
        expected: dict[str, int | str] = {**_SETTINGS, "encoding": "UTF-8"}
        for name, value in _SETTINGS.items():
            connection.execute(f"PRAGMA {name} = {value}")
        if not new:
            expected["journal_mode"] = "wal"
        for name, wanted in expected.items():
            row = connection.execute(f"PRAGMA {name}").fetchone()
            got = None if row is None else row[0]
            if got != wanted:
                raise LedgerUnavailable(
                    f"{self.path}: {name}: got {got!r}, expected {wanted!r}; nothing was done"
                )

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[None]:
        with self._gate:
            while self._forking:
                self._gate.wait()
            if self._closed is not None:
                raise LedgerUnavailable(self._closed)
            self._lent += 1
        try:
            yield
        finally:
            with self._gate:
                self._lent -= 1
                self._gate.notify_all()

    def _require_same_file(self) -> None:
        # I10: what is written to a file that was deleted or replaced is gone.
        if _identity(self.path) != self._file:
            raise LedgerUnavailable(
                f"{self.path.name} was deleted or replaced while it was in use; nothing was done"
            )

    def _close_idle(self) -> None:
        for connection in self._readers:
            connection.close()
        self._readers.clear()
        if self._lent == 0:
            self.forget_writer()

    def _before_fork(self) -> None:
        self._gate.acquire()
        self._forking = True
        if not self._gate.wait_for(lambda: self._lent == 0, timeout=_FORK_WAIT_S):
            _log.warning("forked while %s is in use; the child can't use it", self.path.name)
        self._close_idle()

    def _after_in_parent(self) -> None:
        self._forking = False
        self._gate.notify_all()
        self._gate.release()

    def _after_in_child(self) -> None:
        self._gate = threading.Condition()
        self._forking = False
        if self._lent:
            self._closed = "this process was forked while its ledger was in use; open it again here"
            self._lent = 0
        self._forked()


@contextlib.contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Says SQLite's errors as the ledger's."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_unavailable(path, error) from error


def find_damage(connection: sqlite3.Connection) -> str | None:
    """The first thing that is wrong with the file: a page, a table, or an index that lacks a row.

    Reads every table and compares every index with it, in one step for each, so that the WAL can be
    taken over in between.
    """
    try:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = connection.execute(query).fetchall()
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        return f"the file is damaged: {error}"
    for (name,) in tables:
        found = _integrity(connection, name)
        if "malformed" in found:  # a look at the whole file names the page
            whole = _integrity(connection, "1")
            found = whole if whole != "ok" else found
        if found != "ok":
            return f"table {name} is damaged or was edited: {found}"
    return None


def _integrity(connection: sqlite3.Connection, what: str) -> str:
    """What SQLite finds first in a table with its indexes, or with `1` in the whole file."""
    try:
        found = str(connection.execute(f"PRAGMA integrity_check({what})").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise
        found = str(error)
    return " ".join(found.replace("*** in database main ***", "").split())


def locate(path: Path, error: LedgerError) -> LedgerError:
    """The same error, saying where the file is damaged if that is what it says."""
    cause = error.__cause__
    if not (isinstance(cause, sqlite3.DatabaseError) and _is_damage(cause)):
        return error
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with contextlib.closing(connection):
            connection.row_factory = sqlite3.Row
            damage = find_damage(connection)
        if damage is not None:
            return LedgerCorrupt(f"{path}: {damage}; restore a copy")
    return error


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def as_unavailable(path: Path, error: sqlite3.Error) -> LedgerError:
    """The ledger's error for one of SQLite's: a constraint or trigger, damage, or the outside."""
    if isinstance(error, sqlite3.IntegrityError):
        return IllegalTransition(str(error))
    if _is_damage(error):
        return LedgerCorrupt(f"{path}: the file is damaged ({error}); restore a copy")
    return LedgerUnavailable(f"{path}: {error}; nothing was done")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Wait for whoever opens the file just now, too: here SQLite waits for nobody by itself."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            locked = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not locked or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _call(reference: weakref.ref[Connections], method: Callable[[Connections], None]) -> None:
    connections = reference()
    if connections is not None:
        method(connections)
