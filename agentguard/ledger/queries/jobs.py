"""What the ledger is asked about jobs, their holders and credentials."""

from __future__ import annotations

from agentguard.ledger.queries.approvals import UNUSED
from agentguard.ledger.queries.parts import begins_with
from agentguard.ledger.rows.decode import number, row_as, text
from agentguard.ledger.rows.jobs import CredentialRow, HolderRow, JobRow, JobSummary, StandingRow
from agentguard.ledger.storage.query import Query

HOLDER = "jobs.state AS job_state, jobs.epoch AS job_epoch, leases.until AS leased_until"
"""Columns that say whether a job is open, under which epoch, and until when it is leased."""

_SUMMARY = (
    "SELECT jobs.*, leases.until, (SELECT count(*) FROM approvals WHERE job = jobs.id AND"
    " state = 'pending' AND expires_at > ?) AS asked FROM jobs LEFT JOIN leases"
    " ON leases.job = id"
)

_LAPSED = "coalesce((SELECT until FROM leases WHERE job = jobs.id), 0) <= ?"

_IDLE = (  # who enters it again within the window is still told of a no
    "state = 'waiting' AND NOT EXISTS (SELECT 1 FROM approvals WHERE job = jobs.id"
    f" AND ({UNUSED} OR (approvals.state = 'denied' AND approvals.expires_at > ?1)))"
)

# Whatever waits, or is approved and unused, is of a job that has not ended; `+` keeps SQLite away
# from the index of states and deadlines, where all history is.
_OVER = (
    "SELECT id AS job FROM jobs WHERE id IN ("
    f"SELECT id FROM jobs WHERE state = 'open' AND {_LAPSED.replace('?', '?1')}"
    " UNION ALL SELECT approvals.job FROM jobs CROSS JOIN approvals"
    " WHERE jobs.state IN ('open', 'waiting') AND approvals.job = jobs.id"
    f" AND +approvals.expires_at <= ?1 AND {UNUSED}"
    " UNION ALL SELECT job FROM grants WHERE state = 'issued' AND claims = 0 AND expires_at <= ?1"
    " UNION ALL SELECT job FROM credentials WHERE state = 'live' AND expires_at <= ?1"
    f" UNION ALL SELECT id FROM jobs WHERE {_IDLE}) ORDER BY id LIMIT ?2"
)
"""Jobs in which something may be over."""


def holder_from(job: str) -> str:
    """What HOLDER is selected from: one row, whether the job is there or not.

    Args:
        job: the parameter that names it.
    """
    return (
        f"(SELECT 1 AS one) AS always LEFT JOIN jobs ON jobs.id = {job}"
        " LEFT JOIN leases ON leases.job = jobs.id"
    )


def job_by_id(job: str) -> Query[JobRow]:
    """A job."""
    return Query("SELECT * FROM jobs WHERE id = ?", (job,), row_as(JobRow))


def jobs_called(name: str) -> Query[JobRow]:
    """The jobs whose id begins so, three at most."""
    sql = f"SELECT * FROM jobs WHERE {begins_with('id')} LIMIT 3"
    return Query(sql, (name,), row_as(JobRow))


def newest_jobs(now: int, limit: int) -> Query[JobSummary]:
    """Jobs, newest first."""
    sql = f"{_SUMMARY} ORDER BY opened_at DESC, id LIMIT ?"
    return Query(sql, (now, limit), row_as(JobSummary))


def job_summary(job: str, now: int) -> Query[JobSummary]:
    """A job as people read it."""
    return Query(f"{_SUMMARY} WHERE id = ?", (now, job), row_as(JobSummary))


def holder_of(job: str) -> Query[HolderRow]:
    """Who may act in a job: one row, whether the job is there or not."""
    return Query(f"SELECT {HOLDER} FROM {holder_from('?')}", (job,), row_as(HolderRow))


def job_for_decision(
    job: str, *, agent: str, stage: str | None, epoch: int, now: int
) -> Query[StandingRow]:
    """A job as a decision sees it.

    Args:
        stage: of the credential; None: any.
        epoch: of the holder.
    """
    return Query(
        "SELECT state, requested_by, EXISTS (SELECT 1 FROM credentials WHERE job = jobs.id"
        " AND agent = ? AND state = 'live' AND epoch = ? AND expires_at > ?"
        " AND (stage = ? OR ? = '')) AS live,"
        " EXISTS (SELECT 1 FROM unguarded_runs WHERE job = jobs.id) AS unguarded,"
        " (SELECT count(*) FROM approvals WHERE job = jobs.id AND state = 'denied') AS denials"
        " FROM jobs WHERE id = ?",
        (agent, epoch, now, stage or "", stage or "", job),
        row_as(StandingRow),
    )


def unguarded_run(job: str, tool: str) -> Query[int]:
    """Whether this tool was started past the guard in a job."""
    sql = "SELECT 1 FROM unguarded_runs WHERE job = ? AND tool = ?"
    return Query(sql, (job, tool), number)


def revealed_labels(job: str, thread: str) -> Query[str]:
    """Labels of what the chat model was shown: in this job, and in earlier ones of its thread.

    A thread keeps its conversation when the next job goes on in it (I4).
    """
    return Query(
        "SELECT label FROM revealed WHERE job IN (SELECT CAST(? AS TEXT)"
        " UNION ALL SELECT job FROM requests WHERE thread = nullif(?, ''))",
        (job, thread),
        text,
    )


def over(now: int, limit: int) -> Query[str]:
    """Jobs in which something may be over."""
    return Query(_OVER, (now, limit), text)


def lapsed(job: str, now: int) -> Query[int]:
    """Whether a job is open and its lease lapsed."""
    sql = f"SELECT 1 FROM jobs WHERE id = ? AND state = 'open' AND {_LAPSED}"
    return Query(sql, (job, now), number)


def idle(job: str, now: int) -> Query[int]:
    """Whether a job waits, and for nothing any more."""
    return Query(f"SELECT 1 FROM jobs WHERE id = ?2 AND {_IDLE}", (now, job), number)


# --- credentials --------------------------------------------------------------------------------


def credential_by_id(credential: str) -> Query[CredentialRow]:
    """A credential."""
    return Query("SELECT * FROM credentials WHERE id = ?", (credential,), row_as(CredentialRow))


def live_credential(credential: str, now: int) -> Query[CredentialRow]:
    """A credential, if it is neither revoked nor expired."""
    sql = "SELECT * FROM credentials WHERE id = ? AND state = 'live' AND expires_at > ?"
    return Query(sql, (credential, now), row_as(CredentialRow))


def unrevoked_credentials() -> Query[CredentialRow]:
    """Every credential that nobody revoked and no sweep saw expire."""
    return Query("SELECT * FROM credentials WHERE state = 'live'", (), row_as(CredentialRow))


def live_credentials_of(job: str, now: int) -> Query[CredentialRow]:
    """The live credentials of a job."""
    return Query(
        "SELECT * FROM credentials WHERE job = ? AND state = 'live'"
        " AND expires_at > ? ORDER BY agent, stage",
        (job, now),
        row_as(CredentialRow),
    )
