"""Another process holds the ledger's lock longer than anybody waits: fail closed, then go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard.errors import LedgerUnavailable
from agentguard.model import JobState
from tests.race.resources import STEPS, Locker, Rig, connections_of
from tests.race.ways_in import graph_of
from tests.support import GO, KIM, Studio, call, open_studio, says

CROP = {"width": 8, "height": 8}


@pytest.fixture
def locker(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locker]:
    monkeypatch.setattr("agentguard.ledger.storage.sqlite.connections._BUSY_TIMEOUT_S", 0.1)
    connections_of(studio).forget_writer()  # the next one has less patience
    made = Locker(studio.folder / ".agentguard" / "ledger.db")
    yield made
    made.release()


@pytest.fixture
def rig(studio: Studio, locker: Locker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        yield Rig(studio, job, monkeypatch)
        locker.release()


@pytest.mark.parametrize("step", STEPS)
def test_I10_a_lock_that_outlasts_a_step(rig: Rig, locker: Locker, step: str) -> None:
    rig.before(step, locker.lock)
    said = rig.run()
    rig.require_refused(step, said)
    locker.release()
    rig.require_recovered(step)


def test_I8_a_job_that_is_left_records_what_it_owes(
    studio: Studio, locker: Locker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short lock while an effect happens costs nobody a look at the destination."""
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        rig = Rig(studio, job, monkeypatch)
        rig.before("finish", locker.lock)
        rig.require_refused("finish", rig.run())
        locker.release()
    assert job.state is JobState.ENDED
    assert studio.grants() == ["executed"]
    studio.guard.verify()


def test_I8_what_is_owed_is_told_after_the_job_was_ended_elsewhere(
    rig: Rig, locker: Locker, studio: Studio
) -> None:
    rig.before("finish", locker.lock)
    rig.run()
    locker.release()
    studio.guard.ledger.end_job(rig.job.id, reason="by a person")
    assert studio.grants() == ["unknown"]
    assert not rig.job.renew()
    assert studio.grants() == ["executed"]
    before = studio.guard.ledger.storage.tree_size()
    rig.job.settle()  # told once
    assert studio.guard.ledger.storage.tree_size() == before


def test_I8_an_effect_whose_holder_died_owing_is_found_by_reconciling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentguard.ledger.storage.sqlite.connections._BUSY_TIMEOUT_S", 0.1)
    first = open_studio(tmp_path)
    locker = Locker(tmp_path / ".agentguard" / "ledger.db")
    try:
        job = first.guard.open_job("poster", requested_by=KIM)
        asset = job.import_asset(first.picture(), ["brand"])
        script = [says(call("export_asset", {"asset": asset, "to": "team"}))]
        graph = graph_of(first, "protect", first.guard.export_tool(), script)
        rig = Rig(first, job, monkeypatch)
        rig.before("finish", locker.lock)
        assert "could not be recorded" in rig.run("x", graph).content
        first.guard.close()  # it dies without another word
    finally:
        locker.release()
    first.clock.turn(seconds=31)
    second = open_studio(tmp_path, clock=first.clock, keys=first.keys)
    with second.guard as guard:
        assert second.grants() == ["unknown"]
        assert [what for _, what in guard.reconcile()] == ["executed"]
        assert second.grants() == ["executed"]
        assert len(second.exported("team")) == 1
        guard.verify()


def test_what_a_tool_made_is_registered_once_the_ledger_is_back(
    rig: Rig, locker: Locker, studio: Studio
) -> None:
    script = [says(call("crop", {"source": rig.asset, **CROP}))]
    graph = graph_of(studio, "protect", studio.tools["crop"], script, agent="editor")
    rig.before("finish", locker.lock)
    assert "could not be recorded" in rig.run("x", graph).content
    assert studio.guard.ledger.one("SELECT 1 FROM lineage") is None
    locker.release()
    rig.job.renew()
    assert studio.guard.ledger.one("SELECT 1 FROM lineage") is not None
    assert studio.grants() == ["executed"]
    assert studio.world.count("crop") == 1
    studio.guard.verify()


async def test_I8_cancelled_in_the_body_while_the_ledger_is_locked(
    rig: Rig, locker: Locker, studio: Studio
) -> None:
    """What could not be said when it was cancelled, `unknown`, is said later; never `failed`."""
    entered = asyncio.Event()
    original = rig.send.coroutine  # type: ignore[attr-defined]

    async def slow(source: str, to: str) -> str:
        locker.lock()
        entered.set()
        await asyncio.sleep(20)
        return str(await original(source, to))

    rig.send.coroutine = slow
    task = asyncio.ensure_future(rig.graph.ainvoke(GO, rig.job.config(thread_id="t")))
    await asyncio.wait_for(entered.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert studio.grants() == ["claimed"]
    locker.release()
    rig.job.renew()
    assert studio.grants() == ["unknown"]
    studio.guard.verify()


def test_I9_a_job_left_under_a_lock_lapses(studio: Studio, locker: Locker) -> None:
    job = studio.guard.open_job("poster", requested_by=KIM)
    locker.lock()
    with pytest.raises(LedgerUnavailable, match="locked"), job:
        pass
    locker.release()
    studio.clock.turn(seconds=30)
    studio.guard.ledger.sweep()
    row = studio.guard.ledger.one("SELECT state FROM jobs WHERE id = ?", job.id)
    assert row is not None
    assert row["state"] == "ended"
    studio.guard.verify()
