"""A snapshot is one moment: the same question has one answer in it, and is asked once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from agentguard.ledger.ledger import _Snapshot
from agentguard.ledger.rows.decode import number, text
from agentguard.ledger.storage.query import Query


def test_same_question_is_asked_once_in_a_snapshot() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        sent: list[str] = []
        connection.execute("CREATE TABLE labels (job, label)")
        connection.execute("INSERT INTO labels VALUES ('a', 'x'), ('a', 'y'), ('b', 'z')")
        connection.set_trace_callback(sent.append)
        reads = _Snapshot(connection)

        def labels(job: str) -> Query[str]:
            return Query("SELECT label FROM labels WHERE job = ?", (job,), text)

        assert reads.rows(labels("a")) == reads.rows(labels("a")) == ["x", "y"]
        assert reads.first(labels("a")) == reads.first(labels("a")) == "x"
        assert reads.rows(labels("b")) == ["z"]
        nobody: Query[Any] = Query("SELECT 1 WHERE 1 = 0", (), number)
        assert reads.first(nobody) is reads.first(nobody) is None
        assert len(sent) == 4
        assert _Snapshot(connection).first(labels("a")) == "x"
        assert len(sent) == 5
