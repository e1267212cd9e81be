"""Verifying a whole log: its records against the tree, its checkpoints, and the rows they tell of.

In batches: one statement compares what a batch completes of a level of the tree.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from json.encoder import encode_basestring_ascii as _quoted

from agentguard.errors import VerificationFailed
from agentguard.ledger.storage.open import KEYS, Reader, Row, Storage, digests_of, stretch
from agentguard.ledger.verify_rows import Acceptance, Logged
from agentguard.transparency import merkle

_AT_ONCE = 1000  # rows, records

_encode = json.JSONEncoder().encode
_decode = json.JSONDecoder().raw_decode

ACCEPTED = "log.accepted"
"""The kind of record by which a person goes on with a ledger that may lack its end."""

Progress = Callable[[str, int], None]
"""Told now and then what is counted (checkpoints, records, rows), and how many were seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """The first stored hash that is not that of its records.

    Args:
        stop: how many records it takes until it is known.
        said: what is wrong.
    """

    stop: int
    said: str


class Tree:
    """Builds the tree again from the records and compares every stored hash with it.

    Args:
        reader: what it reads never changes once it is there.
    """

    def __init__(self, reader: Reader) -> None:
        self.size = 0
        self._reader = reader
        self._edge: dict[int, tuple[int, list[bytes]]] = {}  # level → first index, hashes

    def append(self, bodies: Sequence[bytes]) -> Wrong | None:
        """Add records. Afterwards `root` answers for each size from the one before to this one."""
        wrong: list[Wrong] = []
        leaves = [merkle.leaf_hash(body) for body in bodies]
        for level, first, row in merkle.completed(self, self.size, leaves):
            stored = stretch(self._reader, level, first, len(row))
            extra = stored.keys() - set(range(first, first + len(row)))
            if extra:
                raise _not_of_these(level, extra.pop(), self.size)
            wrong += [
                _wrong(level, index)
                for index, digest in enumerate(row, first)
                if stored.get(index) != digest
            ][:1]
            # The sibling of a right child stands in the roots until that one is complete.
            before = [self.get(level, first - 1)] if first & 1 else []
            self._edge[level] = first - len(before), before + row
        self.size += len(leaves)
        return min(wrong, key=lambda one: one.stop, default=None)  # of equal ones the lowest level

    def root(self, size: int) -> bytes:
        """The root over the first records, of which the last batch holds the last."""
        return merkle.root(self, size)

    def get(self, level: int, index: int) -> bytes:
        first, row = self._edge[level]
        if index < first:
            raise LookupError(f"{level}/{index} is before the last batch")
        return row[index - first]

    def require_nothing_else(self, reader: Reader) -> None:
        """The database holds no hash but those of these records; `append` saw those between.

        Args:
            reader: sees a moment at which the log has no more records.

        Raises:
            VerificationFailed: it does.
        """
        (level,) = reader.execute("SELECT min(level) FROM nodes").fetchone()
        while level is not None:
            width = self.size >> level if isinstance(level, int) and level >= 0 else 0
            for beyond in ("idx >= ?", "idx < ?"):
                row = reader.execute(
                    f"SELECT idx FROM nodes WHERE level = ? AND {beyond} LIMIT 1",
                    (level, width if beyond == "idx >= ?" else 0),
                ).fetchone()
                if row is not None:
                    raise _not_of_these(level, row[0], self.size)
            (level,) = reader.execute(
                "SELECT min(level) FROM nodes WHERE level > ?", (level,)
            ).fetchone()


def _not_of_these(level: object, index: object, size: int) -> VerificationFailed:
    return VerificationFailed(
        f"the log's tree has node {level!r}/{index!r:.40}, which its {size} records do not make:"
        " records were cut off, or nodes added by hand"
    )


def _wrong(level: int, index: int) -> Wrong:
    stop = index + 1 << level
    if level == 0:
        return Wrong(stop=stop, said=f"record {index} was changed after it was written")
    first = index << level
    return Wrong(stop=stop, said=f"the node over records {first} to {stop - 1} was changed")


def verify_records(
    records: Iterator[tuple[int, bytes]],
    tree: Tree,
    logged: Logged,
    signed: Iterator[tuple[int, bytes]],
    progress: Progress,
) -> bytes:
    """Compare every record's place in the tree, and every checkpoint where the tree has its size.

    Returns the root over all of them.

    Args:
        signed: (size, root) of the checkpoints, the smallest first.

    Raises:
        VerificationFailed: naming the first that is wrong.
    """
    due = next(signed, None)
    while True:
        some = list(islice(records, _AT_ONCE))
        first = tree.size
        bodies = [body for place, (index, body) in enumerate(some, first) if index == place]
        wrong = tree.append(bodies)
        # What comes first in the log is said first.
        while due is not None and due[0] <= tree.size and (wrong is None or due[0] < wrong.stop):
            if due[1] != tree.root(due[0]):
                raise VerificationFailed(
                    f"the first {due[0]} records are not those that were signed at that size"
                )
            due = next(signed, None)
        if wrong is not None:
            raise VerificationFailed(wrong.said)
        for index, body in enumerate(bodies, first):
            note_rows(logged, index, body)
        if len(bodies) < len(some):
            raise VerificationFailed(f"record {tree.size} is missing")
        if not some:
            break
        progress("records", tree.size)
    if due is not None:
        last = max((size for size, _ in signed), default=due[0])
        raise VerificationFailed(
            f"the log ends at {tree.size} records, a checkpoint proves {last}:"
            " it was truncated, or an old copy restored"
        )
    return tree.root(tree.size)


def note_rows(logged: Logged, index: int, body: bytes) -> None:
    """Note what a record says of rows.

    Raises:
        VerificationFailed: it is not a record.
    """
    said: list[tuple[str, str]] = []
    places: dict[str, tuple[str, Sequence[str]]] = {}
    try:
        record, end = _decode(text := text_of(index, body))
        if end != len(text):
            raise ValueError("there is more behind it")
        for table, key, digest in record["rows"]:
            if not (isinstance(digest, str) and f"{table}{digest}".isascii()):
                raise ValueError("a row has no table or no digest")
            said.append((name := f"{table} {_written(key)}", digest))
            places[name] = (table, key)
        if record.get("kind") == ACCEPTED:
            logged.accepted.append(
                Acceptance(
                    index=index,
                    person=str(record["person"]),
                    reason=str(record["reason"]),
                    because=str(record["because"]),
                )
            )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationFailed(f"record {index} is not a record") from error
    for name, digest in said:
        logged.row(name, digest, index)
    if logged.touched is not None:
        logged.touched.update(places)


def text_of(index: int, body: bytes) -> str:
    """A record as text.

    Raises:
        VerificationFailed: it is none.
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"record {index} is not text: it was changed") from error


def compare_rows(
    found: Iterator[Row], table: str, keys: Sequence[str], logged: Logged, progress: Progress
) -> None:
    """Put every row of a table beside the last record of it, for `Logged.compare`.

    Raises:
        VerificationFailed: one holds what was never written there.
    """

    def named(row: Row) -> tuple[str, str]:
        return f"{table} {_written([row[key] for key in keys])}", "\n".join(digests_of(table, row))

    while True:
        try:
            some = [named(row) for row in islice(found, _AT_ONCE)]
        except TypeError as error:
            raise VerificationFailed(f"{table} holds what was never written there") from error
        if not some:
            return
        progress("rows", logged.meet(some))


def look_again(reader: Reader, storage: Storage, logged: Logged) -> None:
    """Put the rows that records touched since beside these records, in place of what was met.

    Args:
        reader: sees one moment.

    Raises:
        VerificationFailed: one holds what was never written there.
    """
    found: list[tuple[str, str | None]] = []
    for name, (table, key) in (logged.touched or {}).items():
        keys = KEYS.get(table)  # what names no row of ours is not met, and missing
        if keys is None or not (isinstance(key, list) and len(key) == len(keys)):
            continue
        if not all(isinstance(part, str) for part in key):
            continue
        try:
            row = storage.row(reader, table, key)
            found.append((name, None if row is None else "\n".join(digests_of(table, row))))
        except TypeError as error:
            raise VerificationFailed(f"{table} holds what was never written there") from error
    logged.meet_again(found)


def _written(key: object) -> str:
    """The JSON of a row's key, which is a list of strings."""
    if type(key) is list:
        try:
            return f"[{', '.join(map(_quoted, key))}]"
        except TypeError:
            pass
    return _encode(key)
