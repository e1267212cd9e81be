"""The Merkle tree's hashes as rows, for `agentguard.merkle`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from agentguard.errors import LedgerCorrupt
from agentguard.ledger.storage.base import Reader
from agentguard.transparency import merkle

T = TypeVar("T")

_Place = tuple[int, int]  # level, index
_KEPT = 20_000  # hashes that are remembered


class Nodes:
    """The tree's hashes, read one at a time and remembered; new ones are written together.

    Args:
        reader: where the stored ones are.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._known: dict[_Place, bytes] = {}
        self._new: list[tuple[int, int, bytes]] = []

    def get(self, level: int, index: int) -> bytes:
        found = self._known.get((level, index))
        if found is None:
            row = self._reader.execute(
                "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
            ).fetchone()
            found = _hash(level, index, None if row is None else row[0])
            self._known[level, index] = found
        return found

    def put(self, level: int, index: int, digest: bytes) -> None:
        self._known[level, index] = digest
        self._new.append((level, index, digest))

    def take(self) -> list[tuple[int, int, bytes]]:
        """Level, index and hash of each that was put, to be written now."""
        new, self._new = self._new, []
        while len(self._known) > _KEPT:  # the oldest first; the edge of the tree is new
            del self._known[next(iter(self._known))]
        return new


def at_once(reader: Reader, of: Callable[[merkle.Hashes], T]) -> T:
    """What a function makes of the tree's hashes, read in one statement.

    Args:
        of: a root or a proof: it gets the same places whatever the hashes are. It is called
            twice, first to learn the places.

    Raises:
        LedgerCorrupt: one of them is not there.
    """
    asked = _Asked()
    of(asked)
    return of(_Read(_hashes(reader, asked.places)))


def stretch(reader: Reader, level: int, first: int, count: int) -> Mapping[int, object]:
    """What the tree holds at `count` places of one level from index `first` on, by index."""
    rows = reader.execute(
        "SELECT idx, hash FROM nodes WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
        (level, first, first + count),
    )
    return dict(rows.fetchall())


def _hashes(reader: Reader, places: Sequence[_Place]) -> Mapping[_Place, object]:
    if not places:
        return {}
    marks = ", ".join(["(?, ?)"] * len(places))
    rows = reader.execute(
        f"WITH asked (level, idx) AS (VALUES {marks})"
        " SELECT level, idx, hash FROM asked JOIN nodes USING (level, idx)",
        tuple(chain.from_iterable(places)),
    )
    return {(level, index): digest for level, index, digest in rows.fetchall()}


class _Asked:
    """Notes what is read; the hashes are none."""

    def __init__(self) -> None:
        self.places: list[_Place] = []

    def get(self, level: int, index: int) -> bytes:
        self.places.append((level, index))
        return bytes(merkle.HASH_SIZE)


class _Read:
    """What was read before."""

    def __init__(self, hashes: Mapping[_Place, object]) -> None:
        self._hashes = hashes

    def get(self, level: int, index: int) -> bytes:
        return _hash(level, index, self._hashes.get((level, index)))


def _hash(level: int, index: int, found: object) -> bytes:
    if not isinstance(found, bytes):
        raise LedgerCorrupt(f"the log lacks node {level}/{index}; restore it from a copy")
    return found
