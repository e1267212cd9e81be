"""The settings that the ledger's statements rely on, whatever the database is told elsewhere.

A role, a database, an environment or a pooler's last user may have set them. Each is set by the
connection and looked at; what can't be set is refused, with what was got and what was expected.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentguard.config.ledger_url import LedgerUrl
from agentguard.errors import IllegalTransition, LedgerUnavailable
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.storage.postgres.connections import Link
from agentguard.ledger.storage.postgres.storage import PostgresStorage
from agentguard.ledger.storage.sqlite.connections import Connections
from agentguard.ledger.verify import verify
from agentguard.model import OutsideEffect
from tests.support.ledgers import Bench, Place, checkpoints_beside, job_held, ledger_at, made
from tests.unit.ledger.storage.test_storage import noted

ISOLATION = ("read committed", "repeatable read", "serializable")

# A setting, a value that somebody else may have left, and what the connection makes of it.
SET = {
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_deferrable": ("on", "off"),
    "default_transaction_read_only": ("on", "off"),
    "client_encoding": ("LATIN1", "UTF8"),
    "standard_conforming_strings": ("off", "on"),
    "transform_null_equals": ("on", "off"),
    "array_nulls": ("off", "on"),
    "row_security": ("on", "off"),
    "synchronous_commit": ("off", "on"),
    "quote_all_identifiers": ("on", "off"),
    "search_path": ("public", None),
    "statement_timeout": ("0", "30000"),
    "lock_timeout": ("0", "5000"),
    "idle_in_transaction_session_timeout": ("0", "30000"),
}
REFUSED = {
    "session_replication_role": ("replica", "origin"),
    "zero_damaged_pages": ("on", "off"),
    "ignore_checksum_failure": ("on", "off"),
}


@contextmanager
def made_database(postgres: Any, options: str = "") -> Iterator[str]:
    name = f"settings_{secrets.token_hex(6)}"
    admin(postgres, f"CREATE DATABASE {name} {options}")
    try:
        yield name
    finally:
        admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def database(postgres: Any) -> Iterator[str]:
    """A database whose defaults these tests may change."""
    with made_database(postgres) as name:
        yield name


@pytest.fixture
def place(postgres: Any, database: str, tmp_path: Path) -> Iterator[Place]:
    """Where a new ledger goes, in that database with its defaults unchanged."""
    yield place_in(postgres, database, tmp_path)
    admin(postgres, f"ALTER DATABASE {database} RESET ALL")


def place_in(postgres: Any, name: str, folder: Path) -> Place:
    uri = postgres.get_uri(database=name)
    schema = f"led_{secrets.token_hex(6)}"
    return Place(url=f"{uri}{'&' if '?' in uri else '?'}schema={schema}", folder=folder)


def admin(postgres: Any, statement: str) -> None:
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute(statement)


def database_of(place: Place) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(LedgerUrl.parse(place.url).conninfo)["dbname"])


def set_default(postgres: Any, place: Place, name: str, value: str) -> None:
    admin(postgres, f"ALTER DATABASE {database_of(place)} SET {name} = '{value}'")


def setting(link: Link, name: str) -> str:
    row = link.execute("SELECT setting FROM pg_settings WHERE name = ?", (name,)).fetchone()
    return str(row[0])


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ISOLATION)
@pytest.mark.parametrize("end", ["credential", "held"])
def test_I1_waiting_claim_sees_what_was_revoked_under_any_default_isolation(
    postgres: Any, place: Place, level: str, end: str
) -> None:
    asset = made("ab")

    def revoke(tx: Tx) -> None:
        if end == "credential":
            tx.update("credentials", "state = 'revoked'", "state = 'live'")
            tx.record("credential.revoked", {"reason": "seen"})
        else:
            tx.lock_assets(exclusive=True)
            tx.update("assets", "held = 1, version = version + 1", "sha256 = ?", asset.sha256)
            tx.record("asset.marked", {})

    set_default(postgres, place, "default_transaction_isolation", level)
    with ledger_at(place) as one, ledger_at(place) as other:
        bench = Bench(one)
        one.register(asset, job=bench.job, by="kim", how="imported")
        asked = bench.permit(assets=(asset.sha256,), outside=OutsideEffect.OPAQUE)
        claimed: dict[str, str | None] = {}

        def claim() -> None:
            claimed["said"] = bench.claim(asked, versions={asset.sha256: 1})

        with job_held(other, bench.job, revoke) as let_go:
            waiting = threading.Thread(target=claim)
            waiting.start()
            wait_until_blocked(place)
            let_go()
            waiting.join(20)
        assert claimed["said"] is not None
        assert bench.state(asked) == "issued"


def wait_until_blocked(place: Place) -> None:
    """Until somebody waits for an advisory lock of this database."""
    with psycopg.connect(LedgerUrl.parse(place.url).conninfo, autocommit=True) as connection:
        for _ in range(2000):
            row = connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone()
            if row is not None and row[0]:
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("name", SET)
def test_setting_of_a_database_is_overruled(postgres: Any, place: Place, name: str) -> None:
    other, expected = SET[name]
    set_default(postgres, place, name, other)
    where = LedgerUrl.parse(place.url)
    link = Link(where, writes=True)
    try:
        assert setting(link, name) == (expected or f'"{where.schema}", pg_temp')
    finally:
        link.close()
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        bench.finish(bench.permit())
        ledger.storage.sign()
        verify(ledger.storage, place.checkpoints)


def test_settings_of_the_environment_are_overruled(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_isolation=serializable")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        ledger.storage.submit(noted("Ålesund ☃")).result(20)
        assert isinstance(ledger.storage, PostgresStorage)
        link = ledger.storage._writer
        assert link is not None
        assert setting(link, "default_transaction_isolation") == "read committed"
        assert bench.job_state() == "open"


@pytest.mark.parametrize("name", REFUSED)
def test_setting_that_only_an_administrator_can_undo_is_refused(
    postgres: Any, place: Place, name: str
) -> None:
    bad, expected = REFUSED[name]
    with ledger_at(place):
        pass
    set_default(postgres, place, name, bad)
    found = f"{name}: got '{bad}', expected '{expected}'"
    with pytest.raises(LedgerUnavailable, match=found), ledger_at(place):
        pass


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_of_another_encoding_is_refused(
    postgres: Any, tmp_path: Path, encoding: str
) -> None:
    options = f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    found = f"server_encoding: got '{encoding}', expected 'UTF8'"
    with (
        made_database(postgres, options) as name,
        pytest.raises(LedgerUnavailable, match=found),
        ledger_at(place_in(postgres, name, tmp_path)),
    ):
        pass


LEFT = [
    "SET session_replication_role = replica",
    "SET default_transaction_isolation = 'repeatable read'",
    "PREPARE agentguard_0 AS SELECT 1",
    "SELECT pg_try_advisory_lock(1)",
    "CREATE TEMPORARY TABLE grants (id text)",
    "SET SESSION AUTHORIZATION DEFAULT; SET ROLE pg_monitor",
    "LISTEN anything",
]


@pytest.mark.parametrize("left", LEFT)
def test_session_that_a_pooler_hands_on_is_cleaned(
    place: Place, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """A pooler in session mode, with its reset query switched off."""
    connect = psycopg.connect

    def used(*arguments: Any, **options: Any) -> Any:
        connection = connect(*arguments, **options)
        connection.execute(left)
        return connection

    monkeypatch.setattr(psycopg, "connect", used)
    with ledger_at(place) as ledger:
        bench = Bench(ledger)
        for _ in range(3):
            bench.finish(bench.permit())
        writer = ledger.storage._writer  # type: ignore[attr-defined]
        row = writer.execute("SELECT current_user = session_user").fetchone()
        assert row[0] is True
        assert setting(writer, "session_replication_role") == "origin"
        with pytest.raises(IllegalTransition, match="kept"):  # triggers fire
            ledger.storage.submit(_delete).result(20)
        ledger.storage.sign()
        verify(ledger.storage, place.checkpoints)


def _delete(tx: Tx) -> None:
    tx._write("DELETE FROM jobs RETURNING id", ())()


def test_pooler_in_transaction_mode_is_refused(place: Place) -> None:
    with ledger_at(place) as ledger:
        Bench(ledger)
        writer = ledger.storage._writer  # type: ignore[attr-defined]
        writer.backend += 1  # as if the next transaction came to another session
        with pytest.raises(LedgerUnavailable, match="pooler in transaction mode"):
            ledger.storage.submit(noted("x")).result(20)


# --- SQLite ---------------------------------------------------------------------------------------

PRAGMAS = {
    "foreign_keys": (0, 1),
    "recursive_triggers": (0, 1),
    "ignore_check_constraints": (1, 0),
    "writable_schema": (1, 0),
    "defer_foreign_keys": (1, 0),
    "trusted_schema": (1, 0),
    "cell_size_check": (0, 1),
    "read_uncommitted": (1, 0),
    "reverse_unordered_selects": (1, 0),
    "synchronous": (0, 2),
    "fullfsync": (0, 1),
    "checkpoint_fullfsync": (0, 1),
}


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    with ledger_at(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.mark.parametrize("name", PRAGMAS)
@pytest.mark.parametrize("mode", ["rwc", "rw", "ro"])
def test_pragma_of_another_build_is_overruled(
    sqlite_ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str
) -> None:
    other, expected = PRAGMAS[name]
    connect = sqlite3.connect

    def built_otherwise(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.execute(f"PRAGMA {name} = {other}")
        return connection

    monkeypatch.setattr(sqlite3, "connect", built_otherwise)
    connections = Connections(tmp_path / "ledger.db", forked=lambda: None)
    with closing(connections._open(mode)) as opened:
        assert opened.execute(f"PRAGMA {name}").fetchone()[0] == expected


def test_pragma_that_can_not_be_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(sqlite3.Connection):
        def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 1" if "recursive_triggers = " in sql else sql, *more)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Stubborn))
    found = "recursive_triggers: got 0, expected 1"
    with pytest.raises(LedgerUnavailable, match=found), ledger_at(tmp_path / "ledger.db"):
        pass


def test_ledger_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a); DROP TABLE t")
    with pytest.raises(LedgerUnavailable, match="encoding: got 'UTF-16"), ledger_at(path):
        pass


def test_ledger_that_somebody_took_out_of_wal_mode_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with ledger_at(path) as ledger:
        Bench(ledger)
        with ledger.storage.read() as reader:
            assert reader.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        verify(ledger.storage, checkpoints_beside(path))


def test_journal_mode_that_is_not_wal_is_refused(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    connections = Connections(path, forked=lambda: None)
    with pytest.raises(LedgerUnavailable, match="journal_mode: got 'delete', expected 'wal'"):
        connections._open("rw")


@pytest.mark.filterwarnings("ignore:enable_shared_cache:DeprecationWarning")
def test_connections_of_one_process_share_no_cache(tmp_path: Path) -> None:
    sqlite3.enable_shared_cache(True)
    try:
        with ledger_at(tmp_path / "ledger.db") as ledger:
            Bench(ledger)
            names = [row["name"] for row in ledger.all("PRAGMA database_list")]
            assert names == ["main"]
            with ledger.storage.read() as reader, raw_write(tmp_path / "ledger.db"):
                reader.execute("SELECT * FROM meta").fetchall()  # no "table is locked"
    finally:
        sqlite3.enable_shared_cache(False)


@contextmanager
def raw_write(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = value")
        yield
        connection.execute("ROLLBACK")
