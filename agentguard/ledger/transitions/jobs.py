"""Rows of jobs and leases, and what ends with a job (I9)."""

from __future__ import annotations

from agentguard.errors import JobError
from agentguard.ledger.queries.approvals import UNUSED, waits_in
from agentguard.ledger.queries.jobs import holder_of, idle, job_by_id, lapsed, over
from agentguard.ledger.rows.jobs import HolderRow, JobRow
from agentguard.ledger.storage.open import Tx
from agentguard.model import JobEnd, JobState, RevokedBy

SWEPT = 500
"""How many jobs one transition of `sweep` takes: each is a lock, and others wait for them. It stops
after as many rows, too."""


def require_open(tx: Tx, job: str, epoch: int) -> None:
    """Raise JobError unless the job is open under this epoch and its lease has not lapsed."""
    obstacle = job_obstacle(tx, job, epoch)
    if obstacle is not None:
        raise JobError(obstacle)


def job_obstacle(tx: Tx, job: str, epoch: int) -> str | None:
    """What stands against acting in a job as its holder of this epoch; None if nothing does."""
    return obstacle_in(tx.first(holder_of(job)), job, epoch, now=tx.now)


def obstacle_in(holder: HolderRow | None, job: str, epoch: int, *, now: int) -> str | None:
    """The same, where it is known who holds the job."""
    if holder is None or holder.job_state is None:
        return f"no job {job} in this ledger"
    if holder.job_state != JobState.OPEN:
        return f"job {job} is {holder.job_state}"
    if is_fenced(holder, epoch):
        return f"job {job} was re-entered elsewhere"
    if holder.leased_until is None or holder.leased_until <= now:
        return f"the lease on job {job} lapsed"
    return None


def is_fenced(holder: HolderRow, epoch: int) -> bool:
    """Whether somebody re-entered the job after the holder of this epoch did."""
    return holder.job_epoch != epoch


def is_waiting(job: JobRow) -> bool:
    """Whether a job may be re-entered: it was left while answers may still come."""
    return job.state == JobState.WAITING


def open_job(tx: Tx, job: str, *, purpose: str, requested_by: str, lease: int) -> None:
    """Write a new open job, held by whoever opened it for `lease` ms; recorded."""
    tx.insert(
        "jobs",
        id=job,
        purpose=purpose,
        requested_by=requested_by,
        state=JobState.OPEN,
        epoch=1,
        opened_at=tx.now,
        ended_at=None,
        reason=None,
    )
    tx.lease(job, epoch=1, until=tx.now + lease)
    tx.record("job.opened", {"job": job, "person": requested_by, "purpose": purpose})


def rejoin(tx: Tx, job: str, *, by: str, lease: int) -> int:
    """Open a waiting job under a raised epoch, which fences older holders; recorded.

    Raises:
        JobError: no such job, or it is not waiting.
    """
    tx.lock_job(job)
    known = tx.first(job_by_id(job))
    if known is None:
        raise JobError(f"no job {job} in this ledger")
    if not is_waiting(known):
        raise JobError(f"job {job} is {known.state}, expected waiting")
    tx.update("jobs", "state = 'open', epoch = epoch + 1", "id = ?", job)
    epoch = known.epoch + 1
    tx.lease(job, epoch=epoch, until=tx.now + lease)
    tx.record("job.rejoined", {"job": job, "person": by, "epoch": epoch})
    return epoch


def stop(tx: Tx, job: str, *, reason: str) -> bool:
    """End a job whoever holds it; False if it had ended.

    Raises:
        JobError: no such job.
    """
    tx.lock_job(job)
    known = tx.first(job_by_id(job))
    if known is None:
        raise JobError(f"no job {job} in this ledger")
    if known.state == JobState.ENDED:
        return False
    end_job(tx, job, by=JobEnd.STOPPED, reason=reason)
    return True


def renew(tx: Tx, job: str, *, epoch: int, lease: int) -> bool:
    """Extend the lease of a job's holder by `lease` ms from now; False if it is not its holder."""
    tx.lock_job(job)
    if job_obstacle(tx, job, epoch) is not None:
        return False  # a lapsed lease too: whoever sweeps next ends the job
    tx.lease(job, epoch=epoch, until=tx.now + lease)
    return True


def leave(tx: Tx, job: str, *, epoch: int, clean: bool, reason: str) -> JobState:
    """Leave a job: `waiting` if it left cleanly while approvals may still come, else `ended`.

    Whoever holds it no longer (another epoch, or it is over) changes nothing.
    """
    tx.lock_job(job)
    known = tx.first(job_by_id(job))
    if known is None or known.state != JobState.OPEN or known.epoch != epoch:
        return known.state if known is not None else JobState.ENDED
    waits = tx.first(waits_in(job, tx.now))
    if not clean or waits is None:
        end_job(tx, job, by=JobEnd.LEFT, reason=reason)
        return JobState.ENDED
    _kill_live(tx, job, paused=False)
    tx.update("jobs", "state = 'waiting'", "id = ?", job)
    tx.record("job.waiting", {"job": job})
    return JobState.WAITING


def end_job(tx: Tx, job: str, *, by: JobEnd, reason: str) -> int:
    """End a job and all that lives with it (I9); recorded. Returns how many rows moved.

    Args:
        by: what ends it.
        reason: why, in words for people.
    """
    rows = _kill_live(tx, job, paused=True)
    rows += revoke_questions(tx, job)
    rows += tx.update(
        "jobs", "state = 'ended', ended_at = ?, reason = ?, ended_by = ?", "id = ?",
        tx.now, reason, by, job,
    )  # fmt: skip
    tx.record("job.ended", {"job": job, "ended_by": by, "reason": reason})
    return rows


def sweep(tx: Tx) -> tuple[dict[str, int], bool]:
    """End what is over in some jobs; recorded, each job by itself. See `Ledger.sweep`.

    Returns:
        How many of each were ended, and whether more may be over.
    """
    jobs = tx.rows(over(tx.now, SWEPT))
    tx.lock_job(*jobs)  # and look again: a lease may have been renewed, a grant claimed
    done = {"jobs": 0, "approvals": 0, "grants": 0, "credentials": 0}
    rows = 0
    for number, job in enumerate(jobs):
        if number and rows >= SWEPT:
            return done, True
        rows += _sweep_job(tx, job, done)
    return done, len(jobs) == SWEPT


def _sweep_job(tx: Tx, job: str, done: dict[str, int]) -> int:
    """End what is over in a job, counted in `done`; returns how many rows moved."""
    if has_lapsed(tx, job):
        done["jobs"] += 1
        return end_job(tx, job, by=JobEnd.LAPSED, reason="its process died: the lease lapsed")
    counts = {
        "approvals": expire_questions(tx, job),
        "grants": tx.update(
            "grants", "state = 'expired', ended_at = ?",
            "job = ? AND state = 'issued' AND claims = 0 AND expires_at <= ?", tx.now, job, tx.now,
        ),
        "credentials": tx.update(
            "credentials", "state = 'expired'", "job = ? AND state = 'live' AND expires_at <= ?",
            job, tx.now,
        ),
    }  # fmt: skip
    rows = sum(counts.values())
    if rows:
        tx.record("swept", {"job": job, "counts": counts})
        for name, count in counts.items():
            done[name] += count
    if tx.first(idle(job, tx.now)):
        done["jobs"] += 1
        rows += end_job(
            tx, job, by=JobEnd.IDLE, reason="nothing in it waits for an answer any more"
        )
    return rows


def _kill_live(tx: Tx, job: str, *, paused: bool) -> int:
    """End what lives with a job's holder; returns how many rows moved.

    Args:
        paused: also the Grants of tools that paused themselves; they go on when the job does.
    """
    return revoke_credentials(tx, job) + revoke_grants(tx, job, paused=paused) + end_claims(tx, job)


def has_lapsed(tx: Tx, job: str) -> bool:
    """Whether nobody holds an open job any more."""
    return tx.first(lapsed(job, tx.now)) is not None


def expire_questions(tx: Tx, job: str) -> int:
    """Close the questions of a job whose review window is over; returns how many rows moved."""
    return tx.update(
        "approvals", "state = 'expired', ended_at = ?",
        f"job = ? AND +expires_at <= ? AND {UNUSED}", tx.now, job, tx.now,
    )  # fmt: skip


def revoke_questions(tx: Tx, job: str) -> int:
    """Close what waits for answers in a job; returns how many rows moved."""
    return tx.update(
        "approvals", "state = 'revoked', ended_at = ?, revoked_by = ?", f"job = ? AND {UNUSED}",
        tx.now, RevokedBy.JOB, job,
    )  # fmt: skip


def revoke_credentials(tx: Tx, job: str) -> int:
    """Revoke the credentials of a job; returns how many rows moved."""
    return tx.update("credentials", "state = 'revoked'", "job = ? AND state = 'live'", job)


def revoke_grants(tx: Tx, job: str, *, paused: bool) -> int:
    """Revoke the Grants of a job that no claim holds; returns how many rows moved.

    Args:
        paused: also those of tools that paused themselves.
    """
    return tx.update("grants", "state = 'revoked', ended_at = ?",
                     f"job = ? AND state = 'issued' {'' if paused else 'AND claims = 0'}",
                     tx.now, job)  # fmt: skip


def end_claims(tx: Tx, job: str) -> int:
    """End the claims of a job; returns how many rows moved.

    I8: a claim without an outcome may have had its effect; `reconcile` finds out. One that is
    still at work can say later what came of an `unknown`.
    """
    return tx.update(
        "grants", "state = CASE effect WHEN 'none' THEN 'failed' ELSE 'unknown' END, ended_at = ?",
        "job = ? AND state = 'claimed'", tx.now, job,
    )  # fmt: skip
