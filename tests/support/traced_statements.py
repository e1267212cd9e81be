"""Every statement that a process really sends to its ledger, and how each one is carried out."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from agentguard.ledger.storage.postgres import pipeline
from tests.support.databases import shell
from tests.support.ledgers import Place

PARTIAL = frozenset({"grants_live", "grants_unknown", "credentials_live"})
"""Indexes of what lives or is open: history is not in them."""

SMALL = frozenset({"meta", "sqlite_master", "outbox", "checkpoints"})
"""Tables that do not grow with history."""

_READS = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", re.I)
_SCAN = re.compile(r"SCAN (\S+)(?: USING (?:COVERING )?INDEX (\S+))?")


@dataclass
class Trace:
    """What was sent.

    Args:
        statements: SQL → the parameters it had last.
        steps: of SQLite: SQL → the most steps of its machine that one run took.
    """

    statements: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)

    def note(self, sql: str, parameters: Any) -> None:
        if _READS.match(sql):
            self.statements[" ".join(sql.split())] = tuple(parameters)


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trace]:
    """Trace every connection that a ledger opens meanwhile, on either database."""
    trace = Trace()

    class Traced(sqlite3.Connection):
        running: str | None = None
        taken = 0

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            self._begin(sql, parameters)
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
            rows = list(parameters)
            self._begin(sql, rows[0] if rows else ())
            self.taken = -10_000_000  # a whole batch is no measure of one statement
            return super().executemany(sql, rows)

        def _begin(self, sql: str, parameters: Any) -> None:
            trace.note(sql, parameters)
            self.running, self.taken = " ".join(sql.split()), 0
            self.set_progress_handler(self._step, 10)

        def _step(self) -> int:
            self.taken += 10
            if self.running is not None:
                trace.steps[self.running] = max(trace.steps[self.running], self.taken)
            return 0

    connect = sqlite3.connect

    def opened(*arguments: Any, **options: Any) -> Any:
        if options.get("uri"):
            options["factory"] = Traced
        return connect(*arguments, **options)

    send = pipeline.Wire.send

    def sent(wire: Any, sql: str, parameters: Any = ()) -> Any:
        trace.note(sql, parameters)
        return send(wire, sql, parameters)

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", opened)
        patched.setattr(pipeline.Wire, "send", sent)
        yield trace


def scans(place: Place, trace: Trace) -> list[str]:
    """Each traced statement that would read a whole table: how, and the statement."""
    if place.url.startswith("sqlite:"):
        return list(_sqlite_scans(place, trace))
    return list(_postgres_scans(place, trace))


def _sqlite_scans(place: Place, trace: Trace) -> Iterator[str]:
    connection = sqlite3.connect(place.url.removeprefix("sqlite:"), isolation_level=None)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    for sql, parameters in trace.statements.items():
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        aliases = re.findall(r"(?:FROM|JOIN) (\w+)(?: AS)? (\w+)", sql)
        named = {alias: table for table, alias in aliases if table in tables}
        for _, parent, _, step in plan:
            if "AUTOMATIC" in step:  # an index made of a whole table, for one statement
                yield f"{step}: {sql}"
            found = _SCAN.match(step)
            if found is None:
                continue
            table = named.get(found[1], found[1])
            if table not in tables - SMALL or found[2] in PARTIAL:
                continue
            sorted_ = any("USE TEMP B-TREE" in row[3] for row in plan if row[1] == parent)
            if found[2] is not None and " LIMIT " in sql and not sorted_:
                continue  # a page, in the order of an index
            yield f"{step}: {sql}"
    connection.close()


def _postgres_scans(place: Place, trace: Trace) -> Iterator[str]:
    with shell(place.url) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute(  # the planner takes the tables for a thousand times as long
            "UPDATE pg_class SET reltuples = reltuples * 1000"
            " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'i')"
        )
        for sql, parameters in trace.statements.items():
            with psycopg.RawCursor(connection) as cursor:
                explain = b"EXPLAIN (FORMAT JSON) " + pipeline.numbered(sql)
                row = cursor.execute(explain, parameters).fetchone()
            assert row is not None
            plan = row[0] if not isinstance(row[0], str) else json.loads(row[0])
            for node in _whole(plan[0]["Plan"], limited=False):
                yield f"{node}: {sql}"


def _whole(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    kind = node["Node Type"]
    if kind == "Limit":
        limited = True
    elif kind in ("Sort", "Aggregate", "HashAggregate", "Hash", "Unique"):
        limited = False
    table, index = node.get("Relation Name", ""), node.get("Index Name", "")
    small = table in SMALL or f"{table}{index}".startswith(("pg_", "outbox_"))
    if kind == "Seq Scan" and not small:
        yield f"Seq Scan on {table}"
    if kind in ("Index Scan", "Index Only Scan", "Bitmap Index Scan") and not (
        node.get("Index Cond") or limited or index in PARTIAL or small
    ):
        yield f"{kind} of all of {index}"
    for child in node.get("Plans", ()):
        yield from _whole(child, limited=limited)
