"""Reads that take long: they stop nobody, and what they find is one moment."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import VerificationFailed
from agentguard.ledger import verify as verification
from agentguard.ledger import verify_records
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.sqlite import connections, storage
from agentguard.ledger.verify import verify
from tests.support.ledgers import Bench, Place, checkpoints_beside, ledger_at, raw
from tests.unit.ledger.storage.test_storage import noted


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps so small that a short log takes many."""
    monkeypatch.setattr(verify_records, "_AT_ONCE", 5)
    monkeypatch.setattr(verification, "_RECORDS_AT_ONCE", 5)
    monkeypatch.setattr(storage, "_PAGE", 3)


def life(ledger: Ledger, *, calls: int = 4) -> Bench:
    bench = Bench(ledger)
    for _ in range(calls):
        execute(bench)
    return bench


def execute(bench: Bench) -> None:
    asked = bench.permit()
    assert bench.claim(asked) is None
    assert bench.finish(asked)


@pytest.mark.usefixtures("small_steps")
def test_verify_is_content_while_others_write(place: Place) -> None:
    with ledger_at(place) as ledger, ledger_at(place) as other:
        benches = [life(other) for _ in range(3)]
        before = ledger.storage.tree_size()
        turns = itertools.count()

        def meanwhile(what: str, count: int) -> None:
            turn = next(turns)
            if turn < 40:  # rows that were read are moved, and new ones come before and behind
                bench = benches[turn % 3]
                execute(bench)
                life(other, calls=1)
                if turn in (5, 20):
                    other.end_job(benches.pop().job, reason="over")
                    benches.append(life(other))

        report = verify(ledger.storage, place.checkpoints, progress=meanwhile)
        assert next(turns) > 10
        other.storage.wait_for_log()
        assert report.records >= before
        if place.url.startswith("sqlite:"):
            assert report.records == ledger.storage.tree_size()
        verify(ledger.storage, place.checkpoints)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("when", range(0, 30, 4))
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE grants SET policy_version = 'x' WHERE rowid_ = 0", "was edited"),
        ("DELETE FROM outcomes WHERE rowid_ = 0", "was deleted"),
    ],
)
def test_I10_edit_before_is_found_although_others_write(
    tmp_path: Path, when: int, change: str, found: str
) -> None:
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        bench = life(ledger, calls=12)
        table, key = ("grants", "id") if "grants" in change else ("outcomes", "grant_id")
        with raw(path) as shell:
            names = [row[0] for row in shell.execute(f"SELECT {key} FROM {table} ORDER BY 1")]
            forge(shell, change.replace("rowid_ = 0", f"{key} = '{names[when % len(names)]}'"))
        turns = itertools.count()

        def meanwhile(what: str, count: int) -> None:
            if next(turns) < 20:
                execute(bench)

        with pytest.raises(VerificationFailed, match=found):
            verify(ledger.storage, checkpoints_beside(path), progress=meanwhile)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("change", ["state = 'failed'", None])
def test_I10_row_that_was_touched_since_is_compared_as_it_is_then(
    tmp_path: Path, change: str | None
) -> None:
    """It was met while it was right; then a record tells of it, and somebody edits it."""
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        life(ledger)
        bench = Bench(ledger)
        asked = bench.permit()
        bench.claim(asked)
        done: list[bool] = []

        def meanwhile(what: str, count: int) -> None:
            if what == "rows" and not done:
                done.append(bench.finish(asked))
                with raw(path) as shell:
                    where = f"WHERE request = '{asked.digest}'"
                    forge(shell, f"UPDATE grants SET {change} {where}" if change
                          else f"DELETE FROM grants {where}")  # fmt: skip

        found = "was edited" if change else "was deleted"
        with pytest.raises(VerificationFailed, match=found):
            verify(ledger.storage, checkpoints_beside(path), progress=meanwhile)
        assert done


def forge(shell: Any, statement: str) -> None:
    """Run a statement as somebody who takes the triggers away and puts them back."""
    triggers = shell.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    ).fetchall()
    shell.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        shell.execute(f"DROP TRIGGER {name}")
    shell.execute(statement)
    for _, sql in triggers:
        shell.execute(sql)
    shell.execute("COMMIT")


def require_nobody_reads(path: Path) -> None:
    """A checkpoint of the WAL comes to its end: no snapshot holds it up."""
    with raw(path) as shell:
        busy, frames, done = shell.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    assert busy == 0
    assert done == frames


def test_verify_holds_up_no_checkpoint_of_the_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_records, "_AT_ONCE", 5)
    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        bench = life(ledger, calls=20)
        told: list[str] = []

        def meanwhile(what: str, count: int) -> None:
            told.append(what)
            if len(told) < 60:
                execute(bench)
                require_nobody_reads(path)

        verify(ledger.storage, checkpoints_beside(path), progress=meanwhile)
        assert {"records", "rows"} <= set(told)


def test_export_holds_up_no_checkpoint_of_the_wal(tmp_path: Path) -> None:
    from agentguard.cli.commands.audit import _records

    path = tmp_path / "ledger.db"
    with ledger_at(path) as ledger:
        bench = life(ledger)
        size = ledger.storage.tree_size()
        with closing(_records(ledger, 0)) as found:  # type: ignore[type-var]
            first = next(found)
            bench.permit()
            require_nobody_reads(path)
            left = list(found)
        assert [first[0], *(index for index, _ in left)] == list(range(size))


def test_wal_that_grew_shrinks_while_the_ledger_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_WAL_BYTES", 1 << 20)
    path = tmp_path / "ledger.db"
    wal = path.with_name("ledger.db-wal")
    with ledger_at(path) as ledger:
        with ledger.storage.snapshot() as reader:
            reader.execute("SELECT count(*) FROM records").fetchone()
            for number in range(20):
                ledger.storage.submit(noted(f"{number}" + "x" * 400_000)).result(20)
            assert wal.stat().st_size > 8 << 20
        for number in range(5):
            ledger.storage.submit(noted(f"after {number}")).result(20)
        assert wal.stat().st_size <= 1 << 20


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
def test_every_row_and_record_is_read_whatever_the_page(
    place: Place, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(storage, "_PAGE", 3)
    with ledger_at(place) as ledger:
        ledger.storage.submit(lambda tx: [noted(f"n{n}")(tx) for n in range(count)]).result(20)
        ledger.storage.wait_for_log()
        with ledger.storage.long_read() as reader:
            assert [index for index, _ in ledger.storage.records(reader)] == list(range(count))
            assert [index for index, _ in ledger.storage.records(reader, 2)] == [*range(2, count)]
            everything: Callable[[], list[Any]] = lambda: [  # noqa: E731
                dict(row) for table in ("jobs", "revealed")
                for row in ledger.storage.rows(reader, table)
            ]  # fmt: skip
            found = [json.dumps(one, sort_keys=True) for one in everything()]
            assert len(found) == len(set(found)) == count
