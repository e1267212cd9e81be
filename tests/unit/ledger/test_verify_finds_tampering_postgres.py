"""The log in PostgreSQL under attack: every table, records, the tree, checkpoints (I10, S35).

One ledger with a life behind it; each test forges in it as its owner can, and puts it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from agentguard.errors import LedgerCorrupt, VerificationFailed
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import KEYS
from agentguard.transparency import merkle
from tests.support.databases import drop_ledger, postgres_url, shell
from tests.support.ledgers import Place, ledger_at
from tests.support.trees import MemoryNodes
from tests.unit.ledger.test_verify_finds_tampering import live_through

TABLES = (*KEYS, "records", "nodes", "checkpoints")


@pytest.fixture(scope="module")
def log(postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Ledger]]:
    place = Place(url=postgres_url(postgres), folder=tmp_path_factory.mktemp("log"))
    with ledger_at(place) as ledger:
        live_through(ledger)
        ledger.storage.sign()
        yield place, ledger
    drop_ledger(place.url)


@contextmanager
def forged(place: Place, *statements: str) -> Iterator[psycopg.Connection[Any]]:
    """Run SQL as a superuser who has no trigger fire; afterwards it is as it was."""
    with shell(place.url) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in TABLES:
            connection.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}")
        try:
            for statement in statements:
                assert connection.execute(statement).rowcount, statement
            yield connection
        finally:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")
                connection.execute(f"INSERT INTO {table} TABLE kept_{table}")


def is_found(log: tuple[Place, Ledger], match: str, *statements: str) -> None:
    place, ledger = log
    with forged(place, *statements), pytest.raises(VerificationFailed, match=match):
        audit.verify(ledger.storage, place.checkpoints)


def test_S35_an_untouched_log_verifies_and_says_what_it_saw(log: tuple[Place, Ledger]) -> None:
    place, ledger = log
    with forged(place) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore
            for table in KEYS
        }
    report = audit.verify(ledger.storage, place.checkpoints)
    assert report.rows == sum(counts.values())
    for index in range(0, report.records, 7):
        audit.verify_proof(
            audit.prove(ledger.storage, place.checkpoints, index), place.checkpoints.verifier_key
        )


def lived(place: Place, table: str) -> bool:
    with shell(place.url) as connection:
        return connection.execute(f"SELECT 1 FROM {table}").fetchone() is not None


def columns(place: Place, table: str) -> list[tuple[str, str]]:
    with shell(place.url) as connection:
        return connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_name = %s AND table_schema = current_schema() ORDER BY ordinal_position",
            (table,),
        ).fetchall()


def changed(name: str, kind: str) -> str:
    return f"coalesce({name}, 0) + 7" if kind == "bigint" else f"coalesce({name}, '') || '7'"


@pytest.mark.parametrize("table", KEYS)
def test_I10_S35_an_edited_deleted_or_added_row_is_found_in_every_table(
    log: tuple[Place, Ledger], table: str
) -> None:
    place, _ = log
    assert lived(place, table), f"live_through writes no row of {table}"
    names = columns(place, table)
    key = " AND ".join(f"{one} = (SELECT {one} FROM {table} ORDER BY ctid LIMIT 1)"
                       for one in KEYS[table])  # fmt: skip
    other = [(name, kind) for name, kind in names if name not in KEYS[table]] or names[-1:]
    for name, kind in (other[0], other[-1]):
        is_found(log, f"^{table} .*(was edited|added by hand|was deleted)",
                 f"UPDATE {table} SET {name} = {changed(name, kind)} WHERE {key}")  # fmt: skip
    is_found(log, f"^{table} .* of record [0-9]+ is missing: it was deleted",
             f"DELETE FROM {table} WHERE {key}")  # fmt: skip
    unique = {*KEYS[table], "request", "call_key", "id"}
    copied = [changed(name, kind) if name in unique else name for name, kind in names]
    is_found(log, f"^{table} .* is in no record: it was added by hand",
             f"INSERT INTO {table} SELECT {', '.join(copied)} FROM {table} LIMIT 1")  # fmt: skip


LAST = "(SELECT max(idx) FROM records)"


@pytest.mark.parametrize(
    ("match", "statement"),
    [
        ("^record 1 was changed after it was written",
         "UPDATE records SET body = replace(body, '\"kind\"', '\"Kind\"') WHERE idx = 1"),
        ("^record 8 is missing", "DELETE FROM records WHERE idx = 8"),
        ("are not those|proves .*truncated|has .* nodes|lacks node|was changed",
         f"DELETE FROM records WHERE idx = {LAST}"),
        ("was changed|not those that were signed",
         "UPDATE nodes SET hash = '\\x00' WHERE level = 1"),
        ("nodes added by hand", "INSERT INTO nodes VALUES (50, 0, '\\x00')"),
        ("the log was forked|not those that were signed|not one of this text|note",
         "UPDATE checkpoints SET note = replace(note, E'\\n', E'\\n1') WHERE size > 0"),
    ],
)  # fmt: skip
def test_S35_a_forged_log_is_named(log: tuple[Place, Ledger], match: str, statement: str) -> None:
    is_found(log, match, statement)


def test_S35_a_forger_who_rebuilds_the_tree_is_stopped_by_the_checkpoints(
    log: tuple[Place, Ledger],
) -> None:
    place, ledger = log
    edit = "UPDATE records SET body = replace(body, 'kim', 'eve') WHERE idx = 0"
    with forged(place, edit) as connection:
        rows = connection.execute("SELECT body FROM records ORDER BY idx").fetchall()
        nodes = MemoryNodes()
        merkle.append(nodes, 0, [merkle.leaf_hash(body.encode()) for (body,) in rows])
        connection.execute("DELETE FROM nodes")
        for (level, index), digest in nodes._digests.items():
            connection.execute("INSERT INTO nodes VALUES (%s, %s, %s)", (level, index, digest))
        with pytest.raises(VerificationFailed, match="not those that were signed"):
            audit.verify(ledger.storage, place.checkpoints)
        with pytest.raises(LedgerCorrupt, match="not those that were signed"), ledger_at(place):
            pass
    audit.verify(ledger.storage, place.checkpoints)
