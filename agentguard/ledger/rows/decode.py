"""How a row of the ledger becomes an object of its class.

A field is named as its column. Its type says how the column is decoded, once, as the row is read:
labels from JSON to a set, an integer to a bool, a text to a state. SQLite keeps a value of any type
in any column, so each is checked: what the ledger never writes was put there by somebody else, and
is a tamper alarm (I10).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from agentguard.errors import LedgerCorrupt
from agentguard.ledger.storage.query import Row
from agentguard.model import (
    RecordedCall,
    Terms,
)

T = TypeVar("T")

_Decode = Callable[[Any], Any]


class AskedWords(NamedTuple):
    """What a question is about, by the canonical JSON of its Request.

    Args:
        args: the arguments, word for word.
        media: SHA-256 of the assets.
    """

    args: Mapping[str, Any]
    media: frozenset[str]


_EDITED = "its row was edited; run `agentguard audit verify`"


def row_as(kind: type[T]) -> Callable[[Row], T]:
    """What makes a row an object of this dataclass; it needs a column for every field.

    What it returns raises LedgerCorrupt for a row that the ledger did not write.
    """
    columns = columns_of(cast("Any", kind))

    def decode(row: Row) -> T:
        return kind(**values_of(kind, columns, row))

    return decode


def values_of(
    kind: type[Any], columns: Sequence[_Column], row: Row, prefix: str = ""
) -> dict[str, Any]:
    """The fields of a row class, from the columns that bear their names behind a prefix."""
    values = {}
    for column in columns:
        value = row[prefix + column.name]
        if value is not None or not column.optional:
            value = _read(kind, column, value)
        values[column.name] = value
    return values


def text(row: Row) -> str:
    """The one text of a row."""
    return str(_read(str, _TEXT, row[0]))


def number(row: Row) -> int:
    """The one number of a row, such as the 1 that says that there is one."""
    try:
        return int(row[0])  # a sum may be a Decimal
    except (TypeError, ValueError) as error:
        raise LedgerCorrupt(f"got {row[0]!r}, expected a number: {_EDITED}") from error


class _Column(NamedTuple):
    """How a column is read: of which types its value may be, and what makes it a field."""

    name: str
    stored: tuple[type, ...]
    optional: bool = False
    read: _Decode | None = None


_TEXT = _Column("its text", (str,))


def _read(kind: type[Any], column: _Column, value: Any) -> Any:
    try:
        if type(value) not in column.stored:
            raise TypeError(f"it holds a {type(value).__name__}")
        return value if column.read is None else column.read(value)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise LedgerCorrupt(f"{kind.__name__}, {column.name}: {error}: {_EDITED}") from error


def _flag(value: int) -> bool:
    if value not in (0, 1):
        raise ValueError(f"got {value}, expected 0 or 1")
    return bool(value)


def _of(kind: type, stored: str) -> Any:
    value = json.loads(stored)
    if type(value) is not kind:
        raise TypeError(f"its JSON is a {type(value).__name__}")
    return value


def _texts(stored: str) -> list[str]:
    return _require_texts(_of(list, stored))


def _require_texts(values: Any) -> list[str]:
    if type(values) is not list or not all(type(value) is str for value in values):
        raise TypeError("its JSON is no list of texts")
    return values


def asked_words(stored: str) -> AskedWords:
    """What a question is about.

    Raises:
        TypeError, ValueError, KeyError: it is no Request.
    """
    request = _of(dict, stored)
    if type(request["args"]) is not dict:
        raise TypeError("args is no object")
    media = _require_texts([asset["sha256"] for asset in request["assets"]])
    return AskedWords(request["args"], frozenset(media))


_READERS: Mapping[Any, tuple[tuple[type, ...], _Decode | None]] = {
    str: ((str,), None),
    int: ((int,), None),
    bool: ((int, bool), _flag),
    frozenset[str]: ((str,), lambda stored: frozenset(_texts(stored))),
    tuple[str, ...]: ((str,), lambda stored: tuple(_texts(stored))),
    tuple[Any, ...]: ((str,), lambda stored: tuple(_of(list, stored))),
    Mapping[str, Any]: ((str,), lambda stored: _of(dict, stored)),
    RecordedCall: ((str,), RecordedCall.from_json),
    AskedWords: ((str,), asked_words),
    Terms: ((str,), Terms.from_json),
}


@functools.cache
def columns_of(kind: type[Any]) -> tuple[_Column, ...]:
    """How the columns of a row class are read."""
    return tuple(_column(name, hint) for name, hint in get_type_hints(kind).items())


def _column(name: str, hint: Any) -> _Column:
    some = [hint]
    if get_origin(hint) in (Union, UnionType):
        some = [one for one in get_args(hint) if one is not NoneType]
    known = _READERS.get(some[0])
    if known is None and isinstance(some[0], type) and issubclass(some[0], Enum):
        known = ((str,), some[0])
    if known is None or len(some) > 1:
        raise TypeError(f"no column holds a {hint}")
    return _Column(name, known[0], some != [hint], known[1])
