"""What a log says, kept while it is verified in memory that does not grow with it.

`audit verify` compares every row with the last record of it, and every checkpoint with the tree at
its size. Both are as many as the log is long, so they wait in a temporary database, which SQLite
keeps in a file of its own and removes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Self

from agentguard.errors import LedgerUnavailable, VerificationFailed

_RECENT = 20_000  # rows of one call lie close together in the log, so most are written once

_MOST = 2**62  # what a file can hold; no log is as long

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
CREATE TABLE rows (name TEXT PRIMARY KEY, digest TEXT, idx INTEGER, met TEXT) WITHOUT ROWID;
CREATE TABLE roots (size INTEGER PRIMARY KEY, root BLOB);
BEGIN;
"""


class Logged:
    """The last digest that a log gives each row, and the roots that were signed of it.

    Raises:
        LedgerUnavailable: from any method: there is no room for the temporary file.
    """

    def __init__(self) -> None:
        self._recent: dict[str, tuple[str, int]] = {}
        with _room():
            self._file = sqlite3.connect("", isolation_level=None)
            self._file.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def row(self, name: str, digest: str, index: int) -> None:
        """Record `index` says this of a row; what earlier ones said no longer counts."""
        self._recent[name] = (digest, index)
        if len(self._recent) >= _RECENT:
            self._write()

    def meet(self, rows: Sequence[tuple[str, str]]) -> None:
        """These rows exist, each with this digest.

        Raises:
            VerificationFailed: the log knows nothing of one, or says another digest of it.
        """
        self._write()
        found = [(digest, name) for name, digest in rows]
        with _room():
            met = self._file.executemany("UPDATE rows SET met = ? WHERE name = ?", found).rowcount
            if met == len(rows):
                return
            known = "SELECT 1 FROM rows WHERE name = ?"
            for name, _ in rows:
                if self._file.execute(known, (name,)).fetchone() is None:
                    raise VerificationFailed(f"{name} is in no record: it was added by hand")

    def compare(self) -> None:
        """Compare what was met with what the log says last of it.

        Raises:
            VerificationFailed: a row is not what its last record says, or was not met.
        """
        self._write()
        with _room():
            edited = self._file.execute(
                "SELECT name, idx FROM rows WHERE met <> digest ORDER BY idx LIMIT 1"
            ).fetchone()
            missing = self._file.execute(
                "SELECT name, idx FROM rows WHERE met IS NULL ORDER BY idx LIMIT 1"
            ).fetchone()
        if edited is not None:
            raise VerificationFailed(
                f"{edited[0]} is not what record {edited[1]} says: it was edited"
            )
        if missing is not None:
            raise VerificationFailed(
                f"{missing[0]} of record {missing[1]} is missing: it was deleted"
            )

    def count(self) -> int:
        """How many rows the log speaks of."""
        self._write()
        with _room():
            return int(self._file.execute("SELECT count(*) FROM rows").fetchone()[0])

    def sign(self, size: int, root: bytes) -> bool:
        """A checkpoint says this root; False if another one says another of the same size."""
        size = min(size, _MOST)
        with _room():
            self._file.execute("INSERT OR IGNORE INTO roots VALUES (?, ?)", (size, root))
            kept = self._file.execute("SELECT root FROM roots WHERE size = ?", (size,)).fetchone()
        return bool(kept[0] == root)

    def signed(self) -> Generator[tuple[int, bytes], None, None]:
        """(size, root) of the checkpoints, the smallest first."""
        with _room():
            yield from self._file.execute("SELECT size, root FROM roots ORDER BY size")

    def _write(self) -> None:
        if not self._recent:
            return
        with _room():
            self._file.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, NULL) ON CONFLICT (name)"
                " DO UPDATE SET digest = excluded.digest, idx = excluded.idx",
                sorted((name, *last) for name, last in self._recent.items()),
            )
        self._recent.clear()


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerUnavailable(
            f"verifying needs room for a temporary file: {error}; set SQLITE_TMPDIR to a folder"
            " that has some"
        ) from error
