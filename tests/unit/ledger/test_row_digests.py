"""I10: what old records say of a row stays true, whatever columns a later version adds."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import VerificationFailed
from agentguard.ledger import verify as audit
from agentguard.ledger.storage import migrations
from agentguard.ledger.storage.open import KEYS
from agentguard.model import GrantState
from tests.support.ledgers import Bench, Place, checkpoints_beside, ledger_at, made, raw

OLD = Path(__file__).with_name("ledger_of_schema_3.json")
ADDED = tuple(f"ALTER TABLE {table} ADD COLUMN remark_of_{table} text;" for table in KEYS)


def old_ledger(path: Path) -> None:
    """A ledger as the version before this rule wrote it, with a record of every kind of row."""
    written = json.loads(OLD.read_text("utf-8"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number, script in migrations.migrations_of("sqlite"):
            if number <= 3:
                connection.executescript(script)
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
        triggers = connection.execute(query).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for table, rows in written["tables"].items():
            marks = ", ".join("?" * len(rows["columns"]))
            for row in rows["rows"]:
                values = [bytes.fromhex(v) if c == "hash" else v
                          for c, v in zip(rows["columns"], row, strict=True)]  # fmt: skip
                connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)
        for _, sql in triggers:
            connection.execute(sql)
    lines = "".join(f"{line}\n" for line in written["checkpoints"])
    checkpoints_beside(path).path.write_text(lines, "utf-8")


def add_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next version adds a column to every table."""
    known = migrations.migrations_of

    def more(database: str) -> list[tuple[int, str]]:
        return [*known(database), (9000, "\n".join(ADDED))]

    for database in ("sqlite", "postgres"):
        monkeypatch.setattr(f"agentguard.ledger.storage.{database}.schema.migrations_of", more)


def test_ledger_of_the_version_before_verifies_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old_ledger(path)
    with ledger_at(path) as ledger:
        before = audit.verify(ledger.storage, checkpoints_beside(path))
        assert before.records == 23
        assert before.rows == 40
        bench = Bench(ledger)
        assert bench.claim(bench.permit(call="a new call")) is None
        ledger.sweep()
        assert audit.verify(ledger.storage, checkpoints_beside(path)).records > 23


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET reason = 'other' WHERE state = 'ended'",
        "UPDATE jobs SET reason = NULL WHERE state = 'ended'",
        "UPDATE jobs SET reason = '' WHERE reason IS NULL",
        "UPDATE grants SET epoch = NULL WHERE state = 'executed'",
        "UPDATE grants SET epoch = 0 WHERE epoch IS NULL",
        "UPDATE assets SET held = 0",
        "UPDATE answers SET answered_as = NULL WHERE answered_as = 'legal'",
        "UPDATE origins SET person = 'kim' WHERE person IS NULL",
    ],
)
def test_edit_of_an_old_row_is_found(tmp_path: Path, change: str) -> None:
    path = tmp_path / "ledger.db"
    old_ledger(path)
    with ledger_at(path):
        pass
    with raw(path) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        assert connection.execute(change).rowcount
        for _, sql in triggers:
            connection.execute(sql)
    with ledger_at(path) as ledger, pytest.raises(VerificationFailed, match="it was edited"):
        audit.verify(ledger.storage, checkpoints_beside(path))


def test_old_ledger_verifies_after_columns_were_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    old_ledger(path)
    add_columns(monkeypatch)
    with ledger_at(path) as ledger:
        assert audit.verify(ledger.storage, checkpoints_beside(path)).rows == 40


def test_ledger_verifies_after_columns_were_added(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        ledger.register(made("a"), job=bench.job, by="kim", how="imported")
        asked = bench.permit(assets=(made("a").sha256,))
        bench.claim(asked)
        bench.finish(asked, GrantState.FAILED)
        rows = audit.verify(ledger.storage, place.checkpoints).rows
    add_columns(monkeypatch)
    with ledger_at(place) as ledger:
        assert audit.verify(ledger.storage, place.checkpoints).rows == rows
        bench = Bench(ledger)
        bench.claim(bench.permit())
        audit.verify(ledger.storage, place.checkpoints)
    with raw(place) as connection:
        connection.execute("UPDATE origins SET remark_of_origins = 'x'")
    with ledger_at(place) as ledger, pytest.raises(VerificationFailed, match="it was edited"):
        audit.verify(ledger.storage, place.checkpoints)


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_migrations_add_tables_indexes_and_nullable_columns_only(database: str) -> None:
    """What changes a row that is there makes every record of it untrue. Triggers change none."""
    for number, script in migrations.migrations_of(database):
        if number <= 3:
            continue
        for statement in _statements(script):
            word = statement.split()[:2]
            if word == ["DROP", "TRIGGER"]:  # another one takes its name: no row changes
                assert f"CREATE TRIGGER {statement.split()[2]} " in script
                continue
            assert word[0] == "CREATE" or word == ["ALTER", "TABLE"], f"{number}: {statement}"
            if word[0] == "ALTER":
                pattern = r"ALTER TABLE \w+ ADD COLUMN \w+ (text|bigint|integer)"
                assert re.fullmatch(pattern, statement, re.I), f"{number}: {statement}"


def _statements(script: str) -> list[Any]:
    """Statements of a script, one a line, without comments; triggers and functions as one."""
    text = re.sub(r"--[^\n]*", "", script)
    text = re.sub(r"BEGIN\b.*?\bEND\b", "", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    return [" ".join(one.split()) for one in text.split(";") if one.strip()]
