"""Jobs: whatever ends one, nothing of it stays alive (I9, S21, S22)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from agentguard.config.workspace import Lifetimes
from agentguard.errors import JobError, LedgerUnavailable
from agentguard.jobs.entry import ENTRY_KEY
from agentguard.jobs.job import CONFIG_KEY, Job
from agentguard.jobs.registry import Jobs
from agentguard.ledger import verify as audit
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.open import Tx
from agentguard.model import Agent, Effect, GrantState, JobState, Needs, OutsideEffect, Stage
from tests.support import open_studio
from tests.support.ledgers import (
    LEASE,
    REVIEW,
    T0,
    Bench,
    Clock,
    Place,
    kinds,
    ledger_at,
    live,
    made,
)

ROOT = Path(__file__).parents[3]
OUTSIDE = OutsideEffect.IDEMPOTENT
EDITOR = Agent(id="editor", owner="kim", stages=frozenset({Stage.EDIT}))


def hold(
    ledger: Ledger, *, left: Callable[[Job], None] = lambda job: None, bench: Bench | None = None
) -> Job:
    """A handle, as Guard makes it."""
    if bench is None:
        id, epoch = ledger.open_job(purpose="p", requested_by="kim", lease=LEASE)
    else:
        id, epoch = bench.job, bench.epoch
    return Job(
        id=id,
        epoch=epoch,
        requested_by="kim",
        ledger=ledger,
        lifetimes=Lifetimes(),
        import_asset=lambda *a, **k: "",
        left=left,
    )


def busy(bench: Bench) -> dict[str, Any]:
    """Something of everything that lives in a job."""
    asked = {
        "issued": bench.permit(),
        "claimed none": bench.permit(),
        "claimed outside": bench.permit(outside=OUTSIDE),
        "executed": bench.permit(outside=OUTSIDE),
        "pending": bench.ask(),
        "approved": bench.ask(),
        "approved issued": bench.ask(),
        "approved executed": bench.ask(),
    }
    for name in ("approved", "approved issued", "approved executed"):
        bench.answer(asked[name], "omar", Effect.PERMIT)
    for name in ("approved issued", "approved executed"):
        bench.grant(asked[name], outside=OUTSIDE)
    for name in ("claimed none", "claimed outside", "executed", "approved executed"):
        assert bench.claim(asked[name]) is None
    for name in ("executed", "approved executed"):
        bench.finish(asked[name])
    return asked


def close_window(ledger: Ledger, asked: Any) -> None:
    def transition(tx: Tx) -> None:
        tx.update("approvals", "state = 'expired', ended_at = 1", "request = ?", asked.digest)
        tx.record("test", {})

    ledger.storage.submit(transition).result(20)


def require_dead(bench: Bench, asked: dict[str, Any]) -> None:
    assert live(bench.ledger, bench.job) == {}
    assert {name: bench.state(one) for name, one in asked.items()} == {
        "issued": "revoked", "claimed none": "failed", "claimed outside": "unknown",
        "executed": "executed", "pending": "none", "approved": "none",
        "approved issued": "revoked", "approved executed": "executed",
    }  # fmt: skip
    assert bench.approval(asked["approved executed"]) == "approved"  # it was used, and stays so
    assert bench.job_state() == "ended"


# --- every way a job ends ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left", "failed", "ended", "crashed"])
async def test_I9_S21_nothing_lives_on_however_a_job_ends(
    bench: Bench, clock: Clock, how: str, place: Place
) -> None:
    asked = busy(bench)
    ledger, job = bench.ledger, hold(bench.ledger, bench=bench)
    if how == "left":
        # A clean exit waits for approvals that may still come; without any, it ends the job.
        for name in ("pending", "approved", "approved issued"):
            close_window(ledger, asked[name])
        with job:
            pass
        assert job.state is JobState.ENDED
    elif how == "failed":
        with pytest.raises(ZeroDivisionError), job:
            raise ZeroDivisionError
    elif how == "ended":
        assert ledger.end_job(bench.job, reason="by a person")
        assert not ledger.end_job(bench.job, reason="twice")
    else:
        clock.now += LEASE
        assert ledger.sweep()["jobs"] == 1
    require_dead(bench, asked)
    assert not any(ledger.sweep().values())
    audit.verify(ledger.storage, place.checkpoints)


CRASH = """
import os, signal, sys
from pathlib import Path
from tests.support.ledgers import Bench, Clock, Place, open_ledger
from tests.unit.jobs.test_job import busy

ledger = open_ledger(Place(url=sys.argv[1], folder=Path(sys.argv[2])), Clock())
bench = Bench(ledger)
asked = busy(bench)
print(bench.job, bench.credential, *(f"{k}={v.digest}" for k, v in asked.items()), sep="\\n",
      flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_I9_S21_a_killed_process_leaves_nothing_alive_after_its_lease(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, place.url, str(place.folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    job, credential, *lines = done.stdout.splitlines()
    digests = dict(line.split("=", 1) for line in lines)
    with ledger_at(place, Clock(T0 + LEASE - 1)) as ledger:
        assert ledger.sweep()["jobs"] == 0  # it may still be alive
        assert live(ledger, job) != {}
    with ledger_at(place, Clock(T0 + LEASE)) as ledger:
        assert ledger.sweep()["jobs"] == 1
        assert live(ledger, job) == {}
        states = {
            name: row["state"]
            for name, digest in digests.items()
            if (row := ledger.one("SELECT state FROM grants WHERE request = ?", digest))
        }
        assert states == {
            "issued": "revoked", "claimed none": "failed", "claimed outside": "unknown",
            "executed": "executed", "approved issued": "revoked", "approved executed": "executed",
        }  # fmt: skip
        row = ledger.one("SELECT state FROM credentials WHERE id = ?", credential)
        assert row is not None
        assert row["state"] == "revoked"
        audit.verify_tail(ledger.storage, place.checkpoints)
        audit.verify(ledger.storage, place.checkpoints)


def test_an_unreachable_ledger_while_leaving_is_told_and_the_lease_lapses(
    place: Place, clock: Clock
) -> None:
    dropped: list[str] = []
    with ledger_at(place, clock) as ledger:
        job = hold(ledger, left=lambda job: dropped.append(job.id))
        with pytest.raises(LedgerUnavailable), job:
            ledger.storage.close()
    assert dropped == [job.id]
    clock.now += LEASE
    with ledger_at(place, clock) as ledger:
        assert ledger.sweep()["jobs"] == 1


# --- claims whose job ends under them ---------------------------------------------------------


def test_I8_who_still_works_on_an_unknown_says_later_what_came_of_it(bench: Bench) -> None:
    done, failed, again, no_effect = (
        bench.permit(outside=OUTSIDE), bench.permit(outside=OUTSIDE),
        bench.permit(outside=OUTSIDE), bench.permit(),
    )  # fmt: skip
    for one in (done, failed, again, no_effect):
        bench.claim(one)
    bench.ledger.end_job(bench.job, reason="over")
    assert bench.finish(done)
    assert bench.finish(failed, GrantState.FAILED)
    assert bench.finish(again, GrantState.UNKNOWN)  # nothing new; it stays
    assert not bench.finish(no_effect, made=(made("ab"),))
    states = [bench.state(one) for one in (done, failed, again, no_effect)]
    assert states == ["executed", "failed", "unknown", "failed"]
    assert bench.ledger.all("SELECT * FROM assets") == []  # nothing is made after the end
    assert kinds(bench.ledger)[-1] == "finished.late"  # but it is known


def test_I9_a_fenced_holder_can_not_finish_the_claim_of_its_successor(bench: Bench) -> None:
    one = bench.permit()
    bench.ask()
    bench.claim(one)
    old = bench.credential
    assert bench.ledger.leave_job(bench.job, epoch=1, clean=True, reason="") is JobState.WAITING
    assert bench.state(one) == "failed"
    bench.rejoin()
    assert bench.claim(one) is None
    bench.credential, new = old, bench.credential
    assert not bench.finish(one)
    bench.credential = new
    assert bench.state(one) == "claimed"
    assert bench.finish(one)


# --- waiting ----------------------------------------------------------------------------------


def test_S21_a_job_that_waits_keeps_its_questions_and_nothing_else(bench: Bench) -> None:
    asked = busy(bench)
    with hold(bench.ledger, bench=bench) as job:
        pass
    assert job.state is JobState.WAITING
    assert live(bench.ledger, bench.job) == {"approvals": 3}
    assert bench.claim(asked["issued"]) == f"job {bench.job} is waiting"
    assert [bench.approval(asked[n]) for n in ("pending", "approved")] == ["pending", "approved"]
    bench.answer(asked["pending"], "omar", Effect.PERMIT)  # people answer while it waits
    bench.rejoin()
    bench.grant(asked["pending"])
    assert bench.claim(asked["pending"], asked=True) is None


async def test_S21_cancelled_task_leaves_its_job_waiting(bench: Bench) -> None:
    busy(bench)
    job = hold(bench.ledger, bench=bench)

    async def run() -> None:
        async with job:
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.state is JobState.WAITING
    assert live(bench.ledger, bench.job) == {"approvals": 3}


def test_S21_closed_generator_leaves_its_job_waiting(bench: Bench) -> None:
    busy(bench)
    job = hold(bench.ledger, bench=bench)

    def stream() -> Generator[str, None, None]:
        with job:
            yield "a token"

    tokens = stream()
    next(tokens)
    tokens.close()
    assert job.state is JobState.WAITING
    assert live(bench.ledger, bench.job) == {"approvals": 3}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_S21_other_exceptions_end_a_job_with_its_questions(
    bench: Bench, error: type[BaseException]
) -> None:
    busy(bench)
    job = hold(bench.ledger, bench=bench)
    with pytest.raises(error), job:
        raise error
    assert job.state is JobState.ENDED
    assert live(bench.ledger, bench.job) == {}


def test_S22_a_waiting_job_ends_when_its_review_windows_close(bench: Bench, clock: Clock) -> None:
    """Also if another of its approvals was given and used: that one waits for nothing."""
    used, pending = bench.ask(), bench.ask()
    bench.answer(used, "omar", Effect.PERMIT)
    bench.grant(used)
    bench.claim(used)
    bench.finish(used)
    with hold(bench.ledger, bench=bench) as job:
        pass
    assert job.state is JobState.WAITING
    clock.now += REVIEW - 1
    assert bench.ledger.sweep()["jobs"] == 0
    clock.now += 1
    assert bench.ledger.sweep() == {"jobs": 1, "approvals": 1, "grants": 0, "credentials": 0}
    assert bench.approval(pending) == "expired"
    assert bench.job_state() == "ended"
    assert live(bench.ledger, bench.job) == {}
    with pytest.raises(JobError, match="is ended, expected waiting"):
        bench.rejoin()


def test_S22_approvals_that_nobody_used_expire_with_the_window(bench: Bench, clock: Clock) -> None:
    asked = bench.ask()
    bench.answer(asked, "omar", Effect.PERMIT)
    with hold(bench.ledger, bench=bench):
        pass
    clock.now += REVIEW
    bench.ledger.sweep()
    assert bench.approval(asked) == "expired"
    assert bench.job_state() == "ended"


def test_a_job_whose_windows_closed_before_it_was_left_does_not_wait(
    bench: Bench, clock: Clock
) -> None:
    bench.ledger.renew_lease(bench.job, epoch=1, lease=2 * REVIEW)
    asked = bench.ask()
    clock.now += REVIEW
    with hold(bench.ledger, bench=bench) as job:
        pass
    assert job.state is JobState.ENDED
    assert bench.approval(asked) == "revoked"


def test_I9_rejoining_fences_the_old_holder(bench: Bench) -> None:
    first = hold(bench.ledger, bench=bench)
    bench.ask()
    with first:
        first.credential(EDITOR, Stage.EDIT)
    bench.rejoin()
    second = hold(bench.ledger, bench=bench)
    assert second.epoch == first.epoch + 1
    with pytest.raises(JobError, match="re-entered elsewhere"):
        first.credential(EDITOR, Stage.EDIT)
    assert not first.renew()
    first.__exit__(None, None, None)  # leaving twice changes nothing for the new holder
    assert first.state is JobState.OPEN
    assert bench.job_state() == "open"
    assert second.renew()
    second.credential(EDITOR, Stage.EDIT)
    with pytest.raises(JobError, match="is open, expected waiting"):
        bench.rejoin()


def test_only_one_of_many_rejoins(bench: Bench) -> None:
    bench.ask()
    with hold(bench.ledger, bench=bench):
        pass
    won: list[int] = []
    barrier = threading.Barrier(8)

    def rejoin() -> None:
        barrier.wait(20)
        with contextlib.suppress(JobError):
            won.append(bench.ledger.rejoin_job(bench.job, by="kim", lease=LEASE))

    threads = [threading.Thread(target=rejoin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert won == [2]


def test_an_unknown_job_is_neither_rejoined_nor_ended(ledger: Ledger) -> None:
    with pytest.raises(JobError, match="no job job-x"):
        ledger.rejoin_job("job-x", by="kim", lease=LEASE)
    with pytest.raises(JobError, match="no job job-x"):
        ledger.end_job("job-x", reason="")
    assert ledger.leave_job("job-x", epoch=1, clean=True, reason="") is JobState.ENDED


def test_leaving_twice_is_leaving_once(bench: Bench) -> None:
    job = hold(bench.ledger, bench=bench)
    with job:
        pass
    before = len(kinds(bench.ledger))
    with pytest.raises(KeyError), job:
        raise KeyError
    assert job.state is JobState.ENDED
    assert len(kinds(bench.ledger)) == before


# --- leases and credentials -------------------------------------------------------------------


def test_I9_a_lease_is_lapsed_at_its_end_for_everybody_alike(bench: Bench, clock: Clock) -> None:
    one = bench.permit()
    clock.now += LEASE - 1
    assert bench.ledger.sweep()["jobs"] == 0
    assert bench.ledger.renew_lease(bench.job, epoch=1, lease=LEASE)
    clock.now += LEASE
    assert bench.claim(one) is not None
    assert not bench.ledger.renew_lease(bench.job, epoch=1, lease=LEASE)  # too late to come back
    assert bench.ledger.sweep()["jobs"] == 1


def test_S14_a_credential_is_renewed_past_half_of_its_life(ledger: Ledger, clock: Clock) -> None:
    lifetimes = Lifetimes()
    job = hold(ledger)
    first = job.credential(EDITOR, Stage.EDIT)
    assert job.credential(EDITOR, Stage.EDIT) == first
    for _ in range(lifetimes.credential // 2 // LEASE + 2):
        clock.now += LEASE - 1
        assert job.renew()
    second = job.credential(EDITOR, Stage.EDIT)
    assert second.id != first.id
    assert second.expires_at > first.expires_at
    states = {row["id"]: row["state"] for row in ledger.all("SELECT * FROM credentials")}
    assert states == {first.id: "live", second.id: "live"}
    while clock.now < first.expires_at:
        clock.now += LEASE - 1
        assert job.renew()
    ledger.sweep()
    states = {row["id"]: row["state"] for row in ledger.all("SELECT * FROM credentials")}
    assert states[first.id] == "expired"


def test_S21_credentials_are_forgotten_by_the_handle_that_was_left(ledger: Ledger) -> None:
    job = hold(ledger)
    with job:
        job.credential(EDITOR, Stage.EDIT)
    with pytest.raises(JobError, match="is ended"):
        job.credential(EDITOR, Stage.EDIT)


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_the_thread_renews_what_is_held_and_drops_what_is_lost(
    ledger: Ledger, clock: Clock
) -> None:
    jobs = Jobs(interval=0.01)
    try:
        kept, lost = hold(ledger, left=jobs.drop), hold(ledger, left=jobs.drop)
        for job in (kept, lost):
            jobs.hold(job)

        def lease(job: Job) -> int:
            row = ledger.one("SELECT until FROM leases WHERE job = ?", job.id)
            assert row is not None
            return int(row["until"])

        clock.now += 1000
        until(lambda: lease(kept) == clock.now + LEASE)
        ledger.end_job(lost.id, reason="by a person")
        until(lambda: lost.id not in jobs._held)
        clock.now += LEASE - 1
        until(lambda: lease(kept) == clock.now + LEASE)
        assert jobs.find(kept.config()["configurable"]) is kept
        with pytest.raises(JobError, match="not open in this process"):
            jobs.find(lost.config()["configurable"])
    finally:
        jobs.close()
    assert not any(t.name == "agentguard-leases" for t in threading.enumerate())


def test_the_thread_outlives_a_ledger_that_is_away_for_a_while(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(interval=0.01)
    try:
        job = hold(ledger, left=jobs.drop)
        failed = threading.Event()

        def away(*_: Any, **__: Any) -> bool:
            failed.set()
            raise LedgerUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(ledger, "renew_leases", away)
            patched.setattr(ledger, "renew_lease", away)
            jobs.hold(job)
            assert failed.wait(20)
        clock.now += 1000
        until(
            lambda: (
                ledger.one(
                    "SELECT 1 FROM leases WHERE job = ? AND until = ?", job.id, clock.now + LEASE
                )
                is not None
            )
        )
    finally:
        jobs.close()


def test_I6_only_id_and_entry_travel_in_the_config(ledger: Ledger) -> None:
    job = hold(ledger)
    base: RunnableConfig = {"configurable": {"x": 1, "thread_id": "old"}, "tags": ["t"]}
    config = job.config(base, thread_id="new")
    assert config == {
        "configurable": {
            "x": 1, "thread_id": "new", CONFIG_KEY: job.id, ENTRY_KEY: job.entry,
        },
        "tags": ["t"],
    }  # fmt: skip
    assert base["configurable"] == {"x": 1, "thread_id": "old"}
    credential = job.credential(EDITOR, Stage.EDIT)
    assert credential.id not in str(job.config())


def test_S12_a_run_outside_a_job_is_refused_and_a_child_finds_its_parents(ledger: Ledger) -> None:
    jobs = Jobs(interval=60)
    try:
        with pytest.raises(JobError, match="belongs to no job"):
            jobs.find({})
        job = hold(ledger, left=jobs.drop)
        jobs.hold(job)
        with job:
            assert jobs.find({}) is job
            with pytest.raises(JobError, match="another job"):
                jobs.find({CONFIG_KEY: "job-forged"})
        with pytest.raises(JobError):
            jobs.find({CONFIG_KEY: job.id})
    finally:
        jobs.close()


def test_a_sweep_with_nothing_to_do_writes_nothing(ledger: Ledger) -> None:
    for _ in range(3):
        ledger.sweep()
    assert kinds(ledger) == []
    Bench(ledger).ask(needs=Needs(approvals=2))
    before = len(kinds(ledger))
    ledger.sweep()
    assert len(kinds(ledger)) == before


def test_leases_are_renewed_together_and_a_lost_one_stops_nobody(
    ledger: Ledger, clock: Clock
) -> None:
    jobs = Jobs(interval=60)
    try:
        held = [hold(ledger, left=jobs.drop) for _ in range(5)]
        for job in held:
            jobs.hold(job)
        ledger.end_job(held[2].id, reason="by a person")
        clock.now += LEASE - 1
        jobs.renew()
        assert set(jobs._held) == {job.id for job in held} - {held[2].id}
        rows = ledger.all("SELECT job, until FROM leases")
        kept = {row["job"] for row in rows if row["until"] == clock.now + LEASE}
        assert kept == set(jobs._held)
    finally:
        jobs.close()


def test_many_leases_share_a_few_commits(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, ten thousand jobs would lose their leases while others are renewed."""
    jobs = [hold(ledger) for _ in range(40)]
    submit, seen = ledger.storage.submit, list[str]()

    def counted(transition: Any, **options: Any) -> Any:
        seen.append("submitted")
        future = submit(transition, **options)
        result = future.result

        def waited(timeout: float | None = None) -> Any:
            seen.append("waited")
            return result(timeout)

        future.result = waited  # type: ignore[method-assign]  # of this one only
        return future

    monkeypatch.setattr(ledger.storage, "submit", counted)
    kept = ledger.renew_leases({job.id: job.epoch for job in jobs}, lease=LEASE)
    assert kept == {job.id for job in jobs}
    assert seen == ["submitted"] * 40 + ["waited"] * 40
    assert ledger.renew_leases({jobs[0].id: jobs[0].epoch + 1}, lease=LEASE) == frozenset()


@pytest.mark.parametrize("how", ["all", "one"])
def test_when_leases_can_not_be_renewed_together_each_is_asked_alone(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    jobs = Jobs(interval=60)
    try:
        job = hold(ledger, left=jobs.drop)
        jobs.hold(job)
        clock.now += 1000

        def fails(*_: Any, **__: Any) -> frozenset[str]:
            if how == "one":
                return frozenset()
            raise LedgerUnavailable("away")

        monkeypatch.setattr(ledger, "renew_leases", fails)
        jobs.renew()
        row = ledger.one("SELECT until FROM leases WHERE job = ?", job.id)
        assert row is not None
        assert row["until"] == clock.now + LEASE
    finally:
        jobs.close()


def test_I9_a_sweep_of_many_jobs_takes_some_at_a_time_and_forgets_none(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentguard.ledger.transitions.jobs.SWEPT", 3)
    benches = [Bench(ledger) for _ in range(8)]
    clock.now += LEASE
    assert ledger.sweep()["jobs"] == 8
    assert {bench.job_state() for bench in benches} == {"ended"}
    assert not any(ledger.sweep().values())


def test_opening_many_jobs_does_not_look_at_all_of_them_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = open_studio(tmp_path)
    with studio.guard as guard:
        guard.open_job("one", requested_by="kim@acme.example")
        swept: list[int] = []
        sweep = guard.ledger.sweep

        def counted() -> Any:
            swept.append(1)
            return sweep()

        monkeypatch.setattr(guard.ledger, "sweep", counted)
        for _ in range(3):
            guard.open_job("more", requested_by="kim@acme.example")
        assert not swept
        studio.clock.turn(seconds=1)
        guard.open_job("later", requested_by="kim@acme.example")
        studio.clock.turn(seconds=-3600)  # a clock set back must not stop the sweeps
        guard.open_job("earlier", requested_by="kim@acme.example")
        assert len(swept) == 2
