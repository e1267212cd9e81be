"""No descriptors, no threads: refused in words, and everything works again afterwards (I11)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import AssetError, JobError, LedgerUnavailable
from agentguard.model import JobState
from tests.race.resources import Rig, connections_of, few_descriptors
from tests.race.ways_in import graph_of
from tests.support import GO, KIM, Studio, call, results, says


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
def test_I8_I11_an_export_with_any_number_of_descriptors(
    studio: Studio, temporary: Path, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    """With none, one, two ... left it fails at every place in turn; the ledger is always right."""
    came: Counter[str] = Counter()
    connections = connections_of(studio)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        rig = Rig(studio, job, monkeypatch)
        tool = studio.guard.export_tool()
        assert rig.run("before").status == "success"  # whatever is imported late is there now
        for spare in range(12):
            picture = studio.picture(f"{spare}.png", "navy", 8 + spare)
            asset = job.import_asset(picture, ["brand"])
            script = [says(call("export_asset", {"asset": asset, "to": "team"}, id="c1"))]
            graph = graph_of(studio, "protect", tool, script)
            if cold:  # no connection is open yet
                connections.forget_writer()
                for reader in connections._readers:
                    reader.close()
                connections._readers.clear()
            with few_descriptors(spare):
                said = rig.run(f"t{spare}", graph)
            job.renew()
            name = asset.removeprefix("asset-")
            there = [path.name for path in studio.exported("team") if path.name.startswith(name)]
            row = studio.guard.ledger.one(
                "SELECT g.state FROM requests r LEFT JOIN grants g ON g.request = r.digest"
                " WHERE thread = ?",
                f"t{spare}",
            )
            state = None if row is None else row["state"]
            came[str(state)] += 1
            assert state in (("executed", "unknown") if there else (None, "issued", "failed"))
            assert (said.status == "success") == (state == "executed")
        folder = studio.folder / "out" / "team"
        assert not [path for path in folder.iterdir() if path.suffix == ".partial"]
        assert list(temporary.iterdir()) == []
        assert came["executed"]
        assert came["None"] or came["issued"]
        assert rig.run("after").status == "success"
        assert rig.effects() == 2
    assert job.state is JobState.ENDED
    studio.guard.verify()


def test_I11_without_descriptors_nothing_is_opened_imported_or_begun(
    studio: Studio, temporary: Path
) -> None:
    connections = connections_of(studio)
    connections.forget_writer()
    with few_descriptors(0), pytest.raises(LedgerUnavailable, match="unable to open"):
        studio.guard.open_job("poster", requested_by=KIM)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        picture = studio.picture()
        with few_descriptors(1), pytest.raises((AssetError, LedgerUnavailable)):
            job.import_asset(picture, ["brand"])
        assert studio.guard.ledger.one("SELECT 1 FROM assets") is None
        job.import_asset(picture, ["brand"])
    assert list(temporary.iterdir()) == []
    studio.guard.verify()


# --- threads ----------------------------------------------------------------------------------


@contextmanager
def no_threads() -> Iterator[None]:
    """No new thread can be started: its stack would not fit into any machine."""
    before = threading.stack_size(1 << 46)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_I10_a_ledger_that_gets_no_writer_denies_and_recovers(studio: Studio) -> None:
    storage = studio.guard.ledger.storage
    storage._reset()  # as after a fork, where the writer is not
    for _ in range(2):  # nobody waits for a writer that never began
        with no_threads(), pytest.raises(LedgerUnavailable, match="no writer"):
            storage.submit(lambda tx: None).result(20)
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        assert job.renew()
    studio.guard.verify()


def test_I9_a_job_whose_lease_nobody_can_keep_is_not_opened(studio: Studio) -> None:
    studio.guard.ledger.sweep()  # the writer runs
    with no_threads(), pytest.raises(JobError, match="lease can't be kept"):
        studio.guard.open_job("poster", requested_by=KIM)
    studio.clock.turn(seconds=31)
    with studio.guard.open_job("again", requested_by=KIM) as job:  # it sweeps the first one
        states = studio.guard.ledger.all("SELECT state FROM jobs ORDER BY opened_at")
        assert [row["state"] for row in states] == ["ended", "open"]
        assert any(thread.name == "agentguard-leases" for thread in threading.enumerate())
    assert job.state is JobState.ENDED
    studio.guard.verify()


def test_I8_an_async_run_that_gets_no_thread_does_nothing(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        rig = Rig(studio, job, monkeypatch)

        async def run(thread: str) -> Any:
            return await rig.graph.ainvoke(GO, job.config(thread_id=thread))

        with no_threads(), pytest.raises(RuntimeError, match="can't start new thread"):
            asyncio.run(run("t"))
        assert rig.effects() == 0
        assert "claimed" not in studio.grants()
        state = asyncio.run(run("next"))
        assert results(state)[-1].status == "success"
        assert rig.effects() == 1
    studio.guard.verify()


def test_the_lease_thread_outlives_whatever_a_renewal_raises(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job's trouble must not let every other job's lease lapse."""
    monkeypatch.setattr(studio.guard.jobs, "_interval", 0.01)
    met = threading.Event()

    def broken(*, leased: bool) -> bool:
        met.set()
        raise RuntimeError("can't start new thread")

    with studio.guard.open_job("first", requested_by=KIM) as first:
        monkeypatch.setattr(first, "renew", broken)
        with studio.guard.open_job("second", requested_by=KIM) as second:
            assert met.wait(20)
            renewed = threading.Event()

            def renew(*, leased: Any) -> Any:
                renewed.set()
                return leased

            monkeypatch.setattr(second, "renew", renew)
            assert renewed.wait(20)
    studio.guard.verify()
