"""At most 64 records of a SQLite ledger wait for a signed checkpoint, whoever writes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import LedgerUnavailable
from agentguard.ledger.storage.base import Queued
from agentguard.ledger.storage.open import SqliteStorage, Tx
from agentguard.ledger.verify import verify
from agentguard.transparency.checkpoints import Checkpoints
from tests.support.ledgers import checkpoints_beside, ledger_at
from tests.unit.ledger.storage.test_storage import Stopper, names, noted


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def unsigned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records have no checkpoint once each transaction is committed."""
    seen: list[int] = []
    run = SqliteStorage._run

    def watched(
        self: SqliteStorage, connection: sqlite3.Connection, group: Sequence[Queued]
    ) -> Any:
        results, appended = run(self, connection, group)
        if appended is not None:
            newest = checkpoints_beside(self.path).newest()
            assert newest is not None
            seen.append(appended[0] - newest[0].size)
        return results, appended

    monkeypatch.setattr(SqliteStorage, "_run", watched)
    return seen


def several(name: str, count: int) -> Any:
    """A transition that makes so many records."""

    def transition(tx: Tx) -> None:
        for number in range(count):
            noted(f"{name}-{number}")(tx)

    return transition


@pytest.mark.parametrize("records", [1, 2, 3, 7, 40])
def test_I10_threads_share_the_bound(path: Path, unsigned: list[int], records: int) -> None:
    with ledger_at(path) as ledger:
        for group in range(3):
            stop = Stopper(ledger)
            futures = [
                ledger.storage.submit(several(f"{group}-{number}", records)) for number in range(60)
            ]
            stop.release()
            for future in futures:
                future.result(60)
        assert max(unsigned) <= 64
        assert len(names(ledger)) == 3 * 60 * records
        verify(ledger.storage, checkpoints_beside(path))


def test_I10_many_idle_processes_share_the_bound(path: Path, unsigned: list[int]) -> None:
    """Each ledger has its own writer, and no memory of the others: as processes have."""
    with ExitStack() as stack:
        ledgers = [stack.enter_context(ledger_at(path)) for _ in range(8)]
        for turn in range(21):  # 63 records each: as many as one alone may leave unsigned
            for number, ledger in enumerate(ledgers):
                ledger.storage.submit(several(f"{number}-{turn}", 3)).result(20)
        assert max(unsigned) <= 64


def test_I10_processes_that_write_at_once_share_the_bound(path: Path, unsigned: list[int]) -> None:
    with ExitStack() as stack:
        ledgers = [stack.enter_context(ledger_at(path)) for _ in range(4)]

        def write(number: int) -> None:
            for turn in range(40):
                ledgers[number].storage.submit(several(f"{number}-{turn}", 2)).result(60)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names(ledgers[0])) == 4 * 40 * 2
        verify(ledgers[0].storage, checkpoints_beside(path))
    assert max(unsigned) <= 64


def test_transition_of_more_records_is_signed_before_it_is_told(path: Path) -> None:
    with ledger_at(path) as ledger:
        ledger.storage.submit(several("many", 200)).result(20)
        newest = checkpoints_beside(path).newest()
        assert newest is not None
        assert newest[0].size == 200


def test_I11_ledger_refuses_before_too_many_are_unsigned_and_recovers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Checkpoints, signed: str) -> None:
        raise OSError(28, os.strerror(28))

    with ledger_at(path) as ledger:
        monkeypatch.setattr(Checkpoints, "_append", full)
        for number in range(64):
            ledger.storage.submit(noted(f"n{number}"), durable=number % 2 == 0).result(20)
        for _ in range(3):
            with pytest.raises(LedgerUnavailable, match="No space left on device; nothing was"):
                ledger.storage.submit(noted("one more")).result(20)
        assert len(names(ledger)) == 64
        monkeypatch.undo()
        ledger.storage.submit(noted("after")).result(20)
        assert "after" in names(ledger)
        verify(ledger.storage, checkpoints_beside(path))


def test_checkpoint_file_that_was_emptied_is_signed_anew(path: Path) -> None:
    with ledger_at(path) as ledger:
        for number in range(70):
            ledger.storage.submit(noted(f"n{number}")).result(20)
        checkpoints_beside(path).path.write_bytes(b"")
        ledger.storage.submit(noted("signs")).result(20)
        newest = checkpoints_beside(path).newest()
        assert newest is not None
        assert newest[0].size == 70
