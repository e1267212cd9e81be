"""I10: `audit verify` compares every index with its table, and finds keys that are twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import LedgerCorrupt, VerificationFailed
from agentguard.ledger import verify as audit
from agentguard.ledger.storage.migrations import migrations_of
from bench.history import fill
from tests.support.command_line import Shell, studio_in
from tests.support.databases import shell as database_shell
from tests.support.ledgers import T0, Bench, Place, ledger_at
from tests.unit.ledger.test_verify_finds_tampering import live_through

KIM, OMAR = "kim@acme.example", "omar@acme.example"


def sqlite_indexes() -> list[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for _, script in migrations_of("sqlite"):
            connection.executescript(script)
        query = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name <> 'meta'"
        return sorted(row[0] for row in connection.execute(query) if "_jobs_1" not in row[0])


LIVE = {
    "credentials_live": ("credentials", "state = 'live'"),
    "grants_live": ("grants", "state = 'issued'"),
    "grants_unknown": ("grants", "state = 'unknown'"),
    "reviews_unclean": ("reviews", "clean = 0"),
}
"""Indexes of what lives, which old rows are not in."""


def come_to_life(path: Path, table: str, change: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
        ).fetchall()
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(f"UPDATE {table} SET {change}")
        for _, sql in triggers:
            connection.execute(sql)


def rooted_elsewhere(path: Path, index: str) -> None:
    """An index whose tree is another, empty one: rows and their digests stay as they were."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE spare (x)")
        connection.execute("CREATE INDEX spare_x ON spare (x)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
            " WHERE name = 'spare_x') WHERE name = ?",
            (index,),
        )
        connection.execute("DELETE FROM sqlite_master WHERE name LIKE 'spare%'")
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")


@pytest.mark.parametrize("index", sqlite_indexes())
def test_index_of_sqlite_that_leads_elsewhere_is_found(tmp_path: Path, index: str) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        fill(f"sqlite:{path}", 40, until=T0)
        live_through(ledger)
        live = LIVE.get(index)
        if live is not None:
            come_to_life(path, *live)
        ledger.storage.verify_indexes()
    rooted_elsewhere(path, index)
    with ledger_at(path) as ledger, pytest.raises(LedgerCorrupt, match=index):
        ledger.storage.verify_indexes()


def test_every_index_of_postgres_that_lacks_a_row_is_found(postgres_place: Place) -> None:
    place = postgres_place
    with ledger_at(place) as ledger:
        fill(place.url, 40, until=T0)
        live_through(ledger)
        ledger.storage.verify_indexes()
        with database_shell(place.url) as connection:
            connection.execute("SET session_replication_role = replica")
            for index, table, where in _indexes(connection):
                _written_past(connection, index, table, where)
                name = index.removesuffix("_pkey")
                with pytest.raises(LedgerCorrupt, match=name):
                    ledger.storage.verify_indexes()
                connection.execute(f"REINDEX INDEX {index}")
                ledger.storage.verify_indexes()


def _indexes(connection: Any) -> list[tuple[str, str, str]]:
    """(index, its table, which rows are in it) of every index that can have rows."""
    rows = connection.execute(
        "SELECT indexrelid::regclass::text, indrelid::regclass::text,"
        " coalesce(pg_get_expr(indpred, indrelid), 'true') FROM pg_index JOIN pg_class"
        " ON pg_class.oid = indrelid WHERE relnamespace = current_schema()::regnamespace"
        " ORDER BY 1"
    ).fetchall()
    return [row for row in rows if row[1] not in ("meta", "records", "nodes", "outbox")]


def _written_past(connection: Any, index: str, table: str, where: str) -> None:
    """Write a row that this index does not get: for as long as it takes, it is not ready."""
    found = connection.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1").fetchone()
    if found is None:  # a partial index of what lives: an old row comes to life
        connection.execute(
            f"UPDATE {table} SET {where.strip('()')}"
            f" WHERE ctid = (SELECT ctid FROM {table} LIMIT 1)"
        )
        found = connection.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1").fetchone()
    marks = ", ".join(["%s"] * len(found))
    ready = "UPDATE pg_index SET indisready = %s WHERE indexrelid = %s::regclass"
    connection.execute(
        f"DELETE FROM {table} WHERE ctid = (SELECT ctid FROM {table} WHERE {where} LIMIT 1)"
    )
    connection.execute(ready, (False, index))
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", found)
    connection.execute(ready, (True, index))


def test_second_grant_of_a_request_that_its_index_lacks_is_found(postgres_place: Place) -> None:
    """I8: a Grant that the index does not find is written anew, with a record of its own."""
    place = postgres_place
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        asked = bench.permit()
        with database_shell(place.url) as connection:
            connection.execute("SET session_replication_role = replica")
            for ready in (False, True):
                connection.execute(
                    "UPDATE pg_index SET indisready = %s"
                    " WHERE indexrelid = 'grants_request_key'::regclass",
                    (ready,),
                )
                if not ready:
                    connection.execute(
                        "INSERT INTO grants SELECT 'grant-2', request, job, credential,"
                        " policy_version, effect, idempotency_key, state, issued_at, expires_at,"
                        " claims, claimed_at, epoch, ended_at FROM grants WHERE request = %s",
                        (asked.digest,),
                    )
        with pytest.raises(VerificationFailed, match="grants has two rows of one request"):
            audit.verify(ledger.storage, place.checkpoints)


def test_index_of_postgres_that_leads_to_another_row_is_found(postgres_place: Place) -> None:
    """It has as many entries as there are rows, one of them under the key that a row had before."""
    place = postgres_place
    with ledger_at(place) as ledger:
        fill(place.url, 40, until=T0)
        with database_shell(place.url) as connection:
            connection.execute("SET session_replication_role = replica")
            live = "UPDATE pg_index SET indisready = %s, indislive = %s WHERE indexrelid::regclass"
            live += "::text = %s"
            connection.execute(live, (False, False, "receipts_asset"))
            connection.execute(
                "UPDATE receipts SET sha256 = 'x' WHERE ctid = (SELECT ctid FROM receipts LIMIT 1)"
            )
            connection.execute(live, (True, True, "receipts_asset"))
        with pytest.raises(LedgerCorrupt, match="receipts_asset"):
            ledger.storage.verify_indexes()


@pytest.mark.parametrize("how", ["zeros", "noise"])
def test_verify_of_a_damaged_page_exits_5_and_says_where(shell: Shell, how: str) -> None:
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    with studio_in(shell.folder, keys={}) as studio:
        for _ in range(200):
            studio.guard.ledger.refuse({"reason": "x" * 100})
    path = shell.folder / ".agentguard" / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'records'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    at = (root - 1) * size
    data[at : at + size] = bytes(size) if how == "zeros" else bytes(range(1, 129)) * (size // 128)
    path.write_bytes(data)
    said = shell.error("audit", "verify", code=5)

    assert f"age {root}" in said
    assert "table records is damaged" in said


def test_file_cut_in_half_is_said_to_be_damaged(shell: Shell) -> None:
    shell("init", "--workspace", "acme", "--person", KIM, "--person", OMAR)
    shell("jobs", "list")
    path = shell.folder / ".agentguard" / "ledger.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 4096 * 4096])
    assert "the file is damaged" in shell.error("audit", "verify", code=5)
    assert "the file is damaged" in shell.error("jobs", "list", code=5)
