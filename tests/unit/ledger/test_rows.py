"""Rows come out of the ledger decoded: each column by the type of its field."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from agentguard.errors import LedgerCorrupt
from agentguard.ledger import rows
from agentguard.ledger.rows.approvals import ApprovalRow
from agentguard.ledger.rows.calls import CallRow, call_row
from agentguard.ledger.rows.decode import AskedWords, number, row_as, text
from agentguard.ledger.rows.grants import GrantRow
from agentguard.ledger.rows.requests import RequestRow
from agentguard.model import Answer, GrantState, RecordedCall, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    name: str
    count: int | None
    clean: bool
    state: GrantState
    labels: frozenset[str]
    assets: tuple[str, ...]
    body: Mapping[str, Any] | None
    terms: Terms


def one(sql: str) -> sqlite3.Row:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        row: sqlite3.Row = connection.execute(sql).fetchone()
        return row


def test_each_column_is_decoded_by_its_type() -> None:
    row = one(
        "SELECT 'a' AS name, 3 AS count, 1 AS clean, 'claimed' AS state, '[\"b\",\"c\"]' AS labels,"
        " '[\"x\"]' AS assets, '{\"k\":[1]}' AS body, '{\"until\":5}' AS terms, 'more' AS more"
    )
    assert row_as(Example)(row) == Example(
        name="a",
        count=3,
        clean=True,
        state=GrantState.CLAIMED,
        labels=frozenset({"b", "c"}),
        assets=("x",),
        body={"k": [1]},
        terms=Terms(until=5),
    )


def test_null_stays_none() -> None:
    row = one(
        "SELECT 'a' AS name, NULL AS count, 0 AS clean, 'failed' AS state, '[]' AS labels,"
        " '[]' AS assets, NULL AS body, '{}' AS terms"
    )
    found = row_as(Example)(row)
    assert (found.count, found.body) == (None, None)


def test_type_that_no_column_holds_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong:
        at: float

    with pytest.raises(TypeError, match="float"):
        row_as(Wrong)


MODULES = [
    importlib.import_module(f"{rows.__name__}.{module.name}")
    for module in pkgutil.iter_modules(rows.__path__)
]
ROWS = [
    kind
    for module in MODULES
    for _, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__ == module.__name__
]
PARTS = {"": RequestRow, "a_": ApprovalRow, "g_": GrantRow}
"""What a recorded call is read from, by what is put before the names of its columns."""

LEAST = (
    '{"agent":"","args":{},"assets":[],"binding":"b","destination":null,"destination_digest":null,'
    '"stage":null,"text_labels":[],"tool":"wait"}'
)
"""What a recorded call holds at least."""

WRITTEN: dict[Any, tuple[Any, list[Any]]] = {
    str: ("a", [None, 5, b"a"]),
    int: (3, [None, "3", b"3", 3.0]),
    bool: (1, [None, "1", 2]),
    frozenset[str]: ('["b"]', [None, "[", "{}", '"b"', "[1]", 5, b"[]"]),
    tuple[str, ...]: ('["b"]', [None, "[", "{}", '"b"', "[1]", 5, b"[]"]),
    tuple[Any, ...]: ("[1]", [None, "[", "{}", "5", "[" * 100_000]),
    Mapping[str, Any]: ("{}", [None, "{", "[]", "null", 5]),
    Terms: ("{}", [None, "{", "[]", '{"until":"5"}', '{"channels":"ab"}', '{"channels":[1]}',
                   '{"consent":0}', '{"more":1}', 5]),
    RecordedCall: (LEAST, [None, "{", "[]", "{}", LEAST.replace("{}", "[]"), 5]),
    AskedWords: (
        '{"args":{},"assets":[{"sha256":"ab"}]}',
        [None, "{", "[]", "{}", '{"args":[],"assets":[]}', '{"args":{},"assets":[{}]}', 5],
    ),
}  # fmt: skip
"""By type: what a column may hold, and what it can't."""


def examples(hint: Any) -> tuple[Any, list[Any]]:
    """A value that the ledger writes for a type, and values that it never writes."""
    some = [one for one in get_args(hint) if one is not NoneType]
    if NoneType in get_args(hint):
        good, bad = examples(some[0])
        return good, [value for value in bad if value is not None]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint)).value, [None, "lost", 5, b"lost"]
    return WRITTEN[hint]


@pytest.mark.parametrize("kind", [*(kind for kind in ROWS if kind is not CallRow), Answer])
def test_I10_what_was_never_written_there_is_corrupt(kind: Any) -> None:
    hints = get_type_hints(kind)
    row: Any = {name: examples(hint)[0] for name, hint in hints.items()}
    assert row_as(kind)(row) == row_as(kind)(row)
    for name, hint in hints.items():
        for bad in examples(hint)[1]:
            with pytest.raises(LedgerCorrupt, match=name):
                row_as(kind)(row | {name: bad})


def test_recorded_call_is_read_with_its_approval_request_and_its_grant() -> None:
    row = _row_of_call()
    call = call_row(row)
    assert call.approval is not None
    assert call.grant is not None
    assert call.approval.body == call.body
    without = call_row(row | {"a_request": None, "g_request": None})
    assert (without.approval, without.grant) == (None, None)


@pytest.mark.parametrize("prefix", PARTS)
def test_I10_call_with_a_part_that_was_never_written_is_corrupt(prefix: str) -> None:
    for name, hint in get_type_hints(PARTS[prefix]).items():
        for bad in examples(hint)[1]:
            if (bad, name) == (None, "request"):
                continue  # nobody was asked, or nothing was granted
            with pytest.raises(LedgerCorrupt, match=name):
                call_row(_row_of_call() | {f"{prefix}{name}": bad})


def _row_of_call() -> Any:
    return {
        f"{prefix}{name}": examples(hint)[0]
        for prefix, kind in PARTS.items()
        for name, hint in get_type_hints(kind).items()
    }


@pytest.mark.parametrize(
    ("decode", "bad"), [(text, None), (text, 5), (number, None), (number, "a")]
)
def test_I10_a_text_or_number_that_is_none_is_corrupt(decode: Any, bad: Any) -> None:
    with pytest.raises(LedgerCorrupt):
        decode([bad])


@pytest.mark.parametrize("kind", ROWS)
def test_every_row_is_frozen(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
