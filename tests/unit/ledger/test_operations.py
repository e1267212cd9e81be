"""Rows of operations: where they come from, that they stay, and ledgers from before them."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import IllegalTransition
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger, Started
from agentguard.ledger.queries.operations import operations_named
from agentguard.model import GrantState, OutsideEffect, Terms
from tests.support.ledgers import Bench, checkpoints_beside, ledger_at, made, raw


def one(**changes: Any) -> Started:
    columns: dict[str, Any] = {
        "id": "op-1", "labels": frozenset({"brand"}), "terms": Terms(),
        "contributors": frozenset({"kim"}), "assets": (),
    }  # fmt: skip
    return Started(**(columns | changes))


def start(ledger: Ledger, *ids: str) -> Bench:
    bench = Bench(ledger)
    asked = bench.permit(outside=OutsideEffect.OPAQUE)
    bench.claim(asked)
    assert bench.finish(asked, started=tuple(one(id=id) for id in ids))
    return bench


def test_an_operation_is_found_by_its_job_its_tool_and_its_id_only(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as ledger:
        bench, other = start(ledger, "op-1"), Bench(ledger)
        (row,) = ledger.rows(operations_named(bench.job, ["crop"], "op-1"))
        assert (row.labels, row.tool) == (frozenset({"brand"}), "crop")
        assert ledger.rows(operations_named(bench.job, ["paint"], "op-1")) == []
        assert ledger.rows(operations_named(bench.job, ["crop"], "op-2")) == []
        assert ledger.rows(operations_named(other.job, ["crop"], "op-1")) == []
        assert "op-1" not in str([tuple(row) for row in ledger.all("SELECT * FROM operations")])


@pytest.mark.parametrize("state", [GrantState.FAILED, GrantState.UNKNOWN])
def test_only_a_call_that_ran_starts_an_operation(tmp_path: Path, state: GrantState) -> None:
    with ledger_at(tmp_path / "ledger.db") as ledger:
        bench = Bench(ledger)
        asked = bench.permit(outside=OutsideEffect.OPAQUE)
        bench.claim(asked)
        with pytest.raises(IllegalTransition, match="by a call that ran"):
            bench.finish(asked, state, started=(one(),))
        assert ledger.all("SELECT * FROM operations") == []


def test_an_outcome_that_comes_too_late_starts_nothing(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as ledger:
        bench = Bench(ledger)
        asked = bench.permit(outside=OutsideEffect.NONE)
        bench.claim(asked)
        ledger.end_job(bench.job, reason="done")
        assert not bench.finish(asked, started=(one(),))
        assert ledger.all("SELECT * FROM operations") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE operations SET labels = '[]'",
        "UPDATE operations SET job = 'other'",
        "DELETE FROM operations",
        "INSERT OR REPLACE INTO operations SELECT job, name, grant_id, tool, destination, '[]',"
        " terms, contributors, assets, at FROM operations",
        "INSERT INTO operations SELECT 'other', name, grant_id, tool, destination, labels, terms,"
        " contributors, assets, at FROM operations",
    ],
)
def test_what_an_operation_was_started_with_is_kept(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        start(ledger, "op-1")
        with raw(path) as connection, pytest.raises(IllegalTransition):
            connection.execute(statement)


ADDED_SINCE_1 = (("jobs", "ended_by"), ("approvals", "revoked_by"))


def test_a_ledger_of_version_1_is_brought_up_with_all_it_holds(tmp_path: Path) -> None:
    """A ledger written before operations: opened, migrated, and still what its log says."""
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        bench = Bench(ledger)
        source = made("a")
        ledger.register(source, job=bench.job, by="kim", how="imported")
        asked = bench.permit(assets=(source.sha256,))
    folder = resources.files("agentguard.ledger.storage.sql") / "sqlite"
    assert sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql"))[:2] == [
        "0001_ledger.sql",
        "0002_operations.sql",
    ]
    with raw(path) as connection:  # as version 1 left it
        connection.execute("UPDATE meta SET value = 1 WHERE key = 'schema'")
        with sqlite3.connect(":memory:") as first:
            first.executescript((folder / "0001_ledger.sql").read_text("utf-8"))
            query = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
            before = first.execute(query).fetchall()
        for kind, name, _ in connection.execute(query).fetchall():
            if (kind, name) not in [row[:2] for row in before] and kind in ("table", "index"):
                connection.execute(f"DROP {kind} IF EXISTS {name}")
        triggers = [(name, sql) for kind, name, sql in before if kind == "trigger"]
        for name, _ in triggers:  # a later version gave some of them another condition
            connection.execute(f"DROP TRIGGER {name}")
        for table, column in ADDED_SINCE_1:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for _, sql in triggers:
            connection.execute(sql)
        assert connection.execute(query).fetchall() == before
    with ledger_at(path) as ledger:
        assert bench.job == ledger.all("SELECT id FROM jobs")[0]["id"]
        bench.ledger = ledger
        assert bench.claim(asked) is None  # a grant of then is good now
        assert bench.finish(asked, started=(one(assets=(source.sha256,)),))
        assert len(ledger.rows(operations_named(bench.job, ["crop"], "op-1"))) == 1
        report = audit.verify(ledger.storage, checkpoints_beside(path))
        assert report.rows > 0
    newest = max(int(f.name[:4]) for f in folder.iterdir() if f.name.endswith(".sql"))
    with ledger_at(path) as ledger:  # and once is enough
        assert ledger.one("SELECT value FROM meta WHERE key = 'schema'")["value"] == str(newest)  # type: ignore[index]


def test_I4_an_output_has_the_class_its_sources_rose_to_while_its_tool_ran(tmp_path: Path) -> None:
    with ledger_at(tmp_path / "ledger.db") as ledger:
        bench = Bench(ledger)
        source = made("a", labels=frozenset({"brand"}))
        ledger.register(source, job=bench.job, by="kim", how="imported")
        asked = bench.permit(assets=(source.sha256,))
        bench.claim(asked)
        rise = made("a", labels=frozenset({"customer-data"}), terms=Terms(until=5),
                    contributors=frozenset({"omar"}))  # fmt: skip
        ledger.register(rise, job=None, by="omar", how="imported")
        assert bench.finish(asked, made=(made("b", parents=(source.sha256,)),))
        row = ledger.one("SELECT * FROM assets WHERE sha256 = ?", made("b").sha256)
        assert row is not None
        assert row["labels"] == '["brand","customer-data"]'
        assert row["terms"] == '{"until":5}'
        people = ledger.all("SELECT person FROM contributors WHERE sha256 = ?", row["sha256"])
        assert {each["person"] for each in people} == {"kim", "omar"}
