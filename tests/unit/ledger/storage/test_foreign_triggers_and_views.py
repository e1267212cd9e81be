"""Nothing in or around the schema acts on the ledger's rows but what the migrations create."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import LedgerCorrupt, VerificationFailed
from agentguard.ledger import verify as audit
from tests.support.databases import postgres_server, postgres_url, schema_of, shell
from tests.support.ledgers import Place, checkpoints_beside, ledger_at

TRIGGER = "CREATE TRIGGER {} AFTER INSERT ON grants BEGIN UPDATE assets SET held = 0; END"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with ledger_at(tmp_path / "ledger.db"):
        return tmp_path / "ledger.db"


@contextmanager
def master(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes into the schema table itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        yield connection
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {version + 1}")


@pytest.mark.parametrize("name", ["sqlite_stat1", "sqlite_stat4", "sqlite_autoindex_x_1", "quiet"])
@pytest.mark.parametrize("kind", ["trigger", "table", "index", "x"])
def test_trigger_under_any_name_and_type_is_found(path: Path, name: str, kind: str) -> None:
    """SQLite acts on the statement; the other columns of its schema table may lie."""
    with master(path) as connection:
        connection.execute(
            "INSERT INTO sqlite_master VALUES (?, ?, 'grants', 0, ?)",
            (kind, name, TRIGGER.format(name)),
        )
    with pytest.raises(LedgerCorrupt, match=f"{name} is none of ours|malformed"), ledger_at(path):
        pass


def test_second_object_of_a_known_name_is_found(path: Path) -> None:
    with master(path) as connection:
        connection.execute(
            "INSERT INTO sqlite_master VALUES ('trigger', 'jobs_kept', 'grants', 0, ?)",
            (TRIGGER.format("jobs_kept"),),
        )
    with pytest.raises(LedgerCorrupt), ledger_at(path):
        pass


def test_hidden_trigger_is_found_by_verify_of_an_open_ledger(path: Path) -> None:
    with ledger_at(path) as ledger:
        with master(path) as connection:
            connection.execute(
                "INSERT INTO sqlite_master VALUES ('trigger', 'sqlite_stat1', 'grants', 0, ?)",
                (TRIGGER.format("sqlite_stat1"),),
            )
        with pytest.raises(VerificationFailed, match="sqlite_stat1 is none of ours"):
            audit.verify(ledger.storage, checkpoints_beside(path))


def test_statistics_are_no_objects_of_somebody_else(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ANALYZE")
        assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'")
    with ledger_at(path):
        pass


HIDDEN = {
    "a child table": "CREATE TABLE {other}.more () INHERITS (grants)",
    "an operator": "CREATE OPERATOR = (LEFTARG = text, RIGHTARG = bigint, FUNCTION = {other}.yes)",
    "an overload": "CREATE FUNCTION refuse(x text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "an aggregate": "CREATE AGGREGATE count(text, text) (SFUNC = {other}.pick, STYPE = text)",
    "a type": "CREATE TYPE hidden AS (x text)",
    "a domain": "CREATE DOMAIN hidden AS text CHECK (VALUE <> 'x')",
    "a policy": "CREATE POLICY hidden ON grants USING (false)",
    "a rule": "CREATE RULE hidden AS ON UPDATE TO grants DO ALSO DELETE FROM answers",
    "a function elsewhere": "CREATE OR REPLACE TRIGGER grants_kept BEFORE DELETE ON grants"
    " FOR EACH ROW EXECUTE FUNCTION {other}.quiet()",
    "a constraint trigger": "CREATE CONSTRAINT TRIGGER hidden AFTER INSERT ON grants"
    " FOR EACH ROW EXECUTE FUNCTION {other}.quiet()",
    "a default": "ALTER TABLE assets ALTER held SET DEFAULT 0",
    "a generated column": "ALTER TABLE assets ADD COLUMN x bigint GENERATED ALWAYS AS (1) STORED",
    "a view": "CREATE VIEW hidden AS SELECT * FROM grants",
    "a sequence that repeats": "ALTER SEQUENCE outbox_id_seq CYCLE",
    "an index that is not kept": "UPDATE pg_index SET indisready = false"
    " WHERE indexrelid = 'grants_request_key'::regclass",
}


@pytest.mark.parametrize("what", HIDDEN)
def test_hidden_object_of_postgres_is_found(postgres_place: Place, what: str) -> None:
    place = postgres_place
    with ledger_at(place):
        pass
    other = f"{schema_of(place.url)}_other"
    with shell(place.url) as connection:
        _run(connection, f"CREATE SCHEMA {other}")
        _run(connection, f"CREATE FUNCTION {other}.quiet() RETURNS trigger LANGUAGE plpgsql"
                         " AS 'BEGIN RETURN NEW; END'")  # fmt: skip
        _run(connection, f"CREATE FUNCTION {other}.yes(text, bigint) RETURNS boolean"
                         " LANGUAGE sql AS 'SELECT true'")  # fmt: skip
        _run(connection, f"CREATE FUNCTION {other}.pick(text, text, text) RETURNS text"
                         " LANGUAGE sql AS 'SELECT $1'")  # fmt: skip
        try:
            with ledger_at(place) as ledger:
                _run(connection, HIDDEN[what].format(other=other))
                with pytest.raises(VerificationFailed, match=r"ledger \w+"):
                    audit.verify(ledger.storage, place.checkpoints)
            with pytest.raises(LedgerCorrupt), ledger_at(place):
                pass
        finally:
            _run(connection, f"DROP SCHEMA {other} CASCADE")


def test_event_trigger_of_postgres_is_found(tmp_path: Path) -> None:
    """It belongs to the whole database, so this server is the test's own."""
    with postgres_server("hidden") as server:
        place = Place(url=postgres_url(server), folder=tmp_path)
        with ledger_at(place):
            pass
        with shell(place.url) as connection:
            _run(connection, "CREATE FUNCTION public.seen() RETURNS event_trigger LANGUAGE plpgsql"
                             " AS 'BEGIN END'")  # fmt: skip
            _run(connection, "CREATE EVENT TRIGGER watch ON ddl_command_end"
                             " EXECUTE FUNCTION public.seen()")  # fmt: skip
            with pytest.raises(LedgerCorrupt, match="event trigger watch"), ledger_at(place):
                pass
            _run(connection, "DROP EVENT TRIGGER watch")
            with ledger_at(place):
                pass


def _run(connection: Any, sql: str) -> None:
    connection.execute(sql)
