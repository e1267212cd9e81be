"""What a log says, kept while it is verified in memory that does not grow with it.

`audit verify` compares every row with the last record of it, and every checkpoint with the tree at
its size. Both are as many as the log is long, so they wait in a temporary database, which SQLite
keeps in a file of its own and removes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Self

from agentguard.errors import LedgerUnavailable, VerificationFailed

_RECENT = 20_000  # rows of one call lie close together in the log, so most are written once

_MOST = 2**62  # what a file can hold; no log is as long
_MET = _MOST  # from here on, in place of a record's index: the row itself, the last look counts

# Both are only appended to, and sorted once: a long log has no page in memory twice.
_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;
CREATE TABLE said (name TEXT, idx INTEGER, digest TEXT);
CREATE TABLE roots (size INTEGER PRIMARY KEY, root BLOB);
BEGIN;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A person went on with a ledger that may lack its end.

    Args:
        index: of the record that says so.
        because: why the ledger was refused, if it was.
    """

    index: int
    person: str
    reason: str
    because: str


class Logged:
    """The last digest that a log gives each row, and the roots that were signed of it.

    Raises:
        LedgerUnavailable: from any method: there is no room for the temporary file.
    """

    def __init__(self) -> None:
        self._recent: dict[str, tuple[int, str]] = {}
        self._met = 0
        self._looks = _MET
        self.accepted: list[Acceptance] = []
        self.touched: dict[str, tuple[str, Sequence[str]]] | None = None
        """Table and key of the rows that records tell of, by name; None: nobody needs them."""
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
        self._recent[name] = (index, digest)
        if len(self._recent) >= _RECENT:
            self._write()

    def meet(self, rows: Sequence[tuple[str, str]]) -> int:
        """These rows exist, each with these digests; returns how many were met in all.

        Args:
            rows: name and digests, one a line: a record may say either.
        """
        self._append((name, _MET, digest) for name, digest in rows)
        self._met += len(rows)
        return self._met

    def meet_again(self, rows: Sequence[tuple[str, str | None]]) -> None:
        """These rows are now so (None: not there); how they were met before no longer counts."""
        self._looks += 1
        self._append((name, self._looks, digest) for name, digest in rows)

    def compare(self) -> int:
        """Compare what was met with what the log says last of it; returns how many rows it is.

        Raises:
            VerificationFailed: a row is in no record, is not what its last record says, or was
                not met.
        """
        self._write()
        with _room():
            found = self._file.execute("SELECT name, idx, digest FROM said ORDER BY name, idx")
            count, added, edited, missing = _differences(found)
        if added is not None:
            raise VerificationFailed(f"{added} is in no record: it was added by hand")
        if edited is not None:
            index, name = edited
            raise VerificationFailed(f"{name} is not what record {index} says: it was edited")
        if missing is not None:
            index, name = missing
            raise VerificationFailed(f"{name} of record {index} is missing: it was deleted")
        return count

    def note_root(self, size: int, root: bytes) -> bool:
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
        self._append((name, *last) for name, last in self._recent.items())
        self._recent.clear()

    def _append(self, rows: Iterable[tuple[str, int, str | None]]) -> None:
        with _room():
            self._file.executemany("INSERT INTO said VALUES (?, ?, ?)", rows)


_Told = tuple[int, str]  # record, row


def _differences(
    found: Iterable[tuple[str, int, str | None]],
) -> tuple[int, str | None, _Told | None, _Told | None]:
    """How many rows were said; one that was added; the first that was edited; that is missing.

    Args:
        found: (name, index, digest), in order.
    """
    count, added, edited, missing = 0, None, None, None
    for name, group in groupby(found, key=itemgetter(0)):
        last, digest, look = -1, None, _MET
        met: set[str | None] = set()
        for _, index, says in group:
            if index < _MET:
                last, digest = index, says
                continue
            if index > look:
                look, met = index, set()
            met.add(says)
        met.discard(None)
        if last < 0:
            added = added or (name if met else None)
            continue
        count += 1
        if not met:
            missing = _first(missing, (last, name))
        elif not all(digest in says.split("\n") for says in met if says is not None):
            edited = _first(edited, (last, name))
    return count, added, edited, missing


def _first(known: _Told | None, other: _Told) -> _Told:
    return other if known is None else min(known, other)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerUnavailable(
            f"verifying needs room for a temporary file: {error}; set SQLITE_TMPDIR to a folder"
            " that has some"
        ) from error
