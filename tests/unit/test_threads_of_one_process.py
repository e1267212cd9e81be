"""What several threads of one process do at the same time."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentguard import Guard
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.transitions.assets import lock_import
from agentguard.model import Terms
from tests.support import KIM, Studio, write_workspace
from tests.support.ledgers import Bench, made


def test_own_tools_are_bound_once_however_many_threads_ask(tmp_path: Path) -> None:
    write_workspace(tmp_path)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            start = threading.Barrier(8)
            with Guard.from_config(tmp_path / "agentguard.toml") as guard:

                def ask(guard: Guard = guard, start: threading.Barrier = start) -> Any:
                    start.wait(20)
                    return guard.export_tool().name, guard.queue_tool().name, guard.list_tool().name

                with ThreadPoolExecutor(8) as pool:
                    found = [future.result(20) for future in [pool.submit(ask) for _ in range(8)]]
                expected = ("export_asset", "queue_for_release", "list_assets")
                assert set(found) == {expected}
    finally:
        sys.setswitchinterval(before)


def test_job_that_is_being_left_has_not_lost_its_lease(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The renewal comes after the job was left, and before its handle is dropped."""
    guard = studio.guard
    leave = guard.ledger.leave_job

    def left_and_renewed(*arguments: Any, **options: Any) -> Any:
        state = leave(*arguments, **options)
        guard.jobs.renew()
        return state

    monkeypatch.setattr(guard.ledger, "leave_job", left_and_renewed)
    with caplog.at_level(logging.ERROR), guard.open_job("p", requested_by=KIM):
        pass
    assert not caplog.records


def test_lease_that_is_lost_is_still_said(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    job = studio.guard.open_job("p", requested_by=KIM)
    studio.guard.ledger.end_job(job.id, reason="over")
    with caplog.at_level(logging.ERROR):
        studio.guard.jobs.renew()
    assert "is lost" in caplog.text


KNOWN: dict[str, Any] = {"labels": frozenset({"brand", "customer-data"}), "terms": Terms(until=9)}


@pytest.mark.parametrize(
    ("again", "exclusive"),
    [
        ({}, False),
        ({"labels": frozenset({"brand"}), "terms": Terms(until=9)}, False),
        ({"labels": frozenset()}, False),
        ({"labels": frozenset({"brand", "likeness"})}, True),
        ({"terms": Terms(until=8)}, True),
        ({"terms": Terms(consent=False)}, True),
        ({"contributors": frozenset({"omar"})}, True),
    ],
)
def test_import_of_known_bytes_locks_all_assets_only_if_it_raises_one(
    ledger: Ledger, again: dict[str, Any], exclusive: bool
) -> None:
    bench = Bench(ledger)
    first = made("a", **KNOWN)
    ledger.register(first, job=bench.job, by="kim", how="imported")
    taken: list[bool] = []

    def look(tx: Tx) -> None:
        lock = tx.lock_assets

        def locked(*, exclusive: bool) -> None:
            taken.append(exclusive)
            lock(exclusive=exclusive)

        tx.lock_assets = locked  # type: ignore[method-assign]  # of this one only
        lock_import(tx, made("a", **{**KNOWN, **again}))

    ledger.storage.submit(look).result(20)
    assert taken == [exclusive]
    ledger.register(made("a", **{**KNOWN, **again}), job=bench.job, by="kim", how="imported")
    row = ledger.one("SELECT version FROM assets WHERE sha256 = ?", first.sha256)
    assert row is not None
    assert row["version"] == (2 if exclusive else 1)
