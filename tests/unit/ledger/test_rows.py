"""Rows come out of the ledger decoded: each column by the type of its field."""

from __future__ import annotations

import dataclasses
import inspect
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from agentguard.ledger import rows
from agentguard.ledger.rows import row_as
from agentguard.model import GrantState, Terms


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


@pytest.mark.parametrize(
    "edited", ["'lost' AS state, '[]' AS labels", "'failed' AS state, '[' AS labels"]
)
def test_what_was_never_written_there_is_no_row(edited: str) -> None:
    row = one(
        f"SELECT 'a' AS name, NULL AS count, 0 AS clean, {edited},"
        " '[]' AS assets, NULL AS body, '{}' AS terms"
    )
    with pytest.raises(ValueError, match=r"lost|Expecting"):
        row_as(Example)(row)


def test_type_that_no_column_holds_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong:
        at: float

    with pytest.raises(TypeError, match="float"):
        row_as(Wrong)


@pytest.mark.parametrize(
    "kind",
    [kind for _, kind in inspect.getmembers(rows, dataclasses.is_dataclass)
     if kind.__module__ == rows.__name__],
)  # fmt: skip
def test_every_row_is_frozen_and_can_be_decoded(kind: Any) -> None:
    assert kind.__dataclass_params__.frozen
    row_as(kind)
