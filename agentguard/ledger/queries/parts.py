"""Pieces of statements that several queries share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

ALL = 2**62
"""A limit that no list reaches."""

_AT_ONCE = 400
"""Values of one statement; SQLite takes 999 parameters everywhere."""


def begins_with(column: str) -> str:
    """A condition: a column of ids or digests begins with parameter 1. An index answers it.

    Ids and digests go on in hexadecimal digits, which every collation puts before `g`.
    """
    return f"({column} >= ?1 AND {column} < ?1 || 'g' AND substr({column}, 1, length(?1)) = ?1)"


def marks(values: Sequence[str]) -> str:
    """A question mark for each value."""
    return ", ".join("?" * len(values))


def in_parts(values: Sequence[str]) -> Iterator[list[str]]:
    """Values in parts that a statement takes."""
    left = iter(values)
    while some := list(islice(left, _AT_ONCE)):
        yield some
