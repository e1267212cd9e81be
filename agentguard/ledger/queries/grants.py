"""What the ledger is asked about Grants, their outcomes and receipts."""

from __future__ import annotations

from agentguard.ledger.queries.jobs import HOLDER, holder_from
from agentguard.ledger.rows.decode import number, row_as, text
from agentguard.ledger.rows.grants import (
    ClaimCheck,
    ClaimedRow,
    FinishCheck,
    GrantRow,
    OutcomeRow,
    ReceiptRow,
    UnknownGrant,
)
from agentguard.ledger.rows.requests import AnsweredCall, BegunRow
from agentguard.ledger.storage.query import Query
from agentguard.model import JobEnd, OutsideEffect, Request


def grant_of(request: str) -> Query[GrantRow]:
    """The Grant of a Request."""
    return Query("SELECT * FROM grants WHERE request = ?", (request,), row_as(GrantRow))


def outcome_of(grant: str) -> Query[OutcomeRow]:
    """What a Grant came to."""
    return Query("SELECT * FROM outcomes WHERE grant_id = ?", (grant,), row_as(OutcomeRow))


def outcome_text(request: str) -> Query[str]:
    """What the model is told of what the Grant of a Request came to."""
    sql = "SELECT outcomes.text FROM outcomes JOIN grants ON id = grant_id WHERE request = ?"
    return Query(sql, (request,), text)


def claim_check(request: Request, *, credential: str, epoch: int) -> Query[ClaimCheck]:
    """What a claim judges; one row, whatever is there."""
    return Query(
        f"SELECT {HOLDER}, credentials.state AS credential_state,"
        " credentials.expires_at AS lives_until,"
        " approvals.state AS approval_state, approvals.expires_at AS approved_until,"
        " (SELECT count(*) FROM answers WHERE request = ?6) AS answers,"
        " (SELECT count(*) FROM approvals denials WHERE denials.job = ?1"
        " AND denials.state = 'denied') AS denied,"
        " grants.id, grants.state, grants.claims, grants.effect, grants.expires_at"
        f" FROM {holder_from('?1')}"
        " LEFT JOIN credentials ON credentials.id = ?2 AND credentials.job = ?1"
        " AND credentials.agent = ?3 AND credentials.epoch = ?4"
        " AND (credentials.stage = ?5 OR CAST(?5 AS TEXT) IS NULL)"
        " LEFT JOIN approvals ON approvals.request = ?6"
        " LEFT JOIN grants ON grants.request = ?6 AND grants.job = ?1",
        (request.job, credential, request.agent, epoch, request.stage, request.digest),
        row_as(ClaimCheck),
    )


def finish_check(request: str, credential: str) -> Query[FinishCheck]:
    """What an outcome judges."""
    return Query(
        "SELECT id, state, epoch = (SELECT epoch FROM credentials WHERE id = ?) AS ours"
        " FROM grants WHERE request = ?",
        (credential, request),
        row_as(FinishCheck),
    )


def held_claim(request: str, *, epoch: int, now: int) -> Query[int]:
    """Whether a holder of this epoch claimed a Request, and the lease of the job has not lapsed."""
    return Query(
        "SELECT 1 FROM grants g JOIN leases l ON l.job = g.job AND l.epoch = g.epoch"
        " WHERE g.request = ? AND g.state = 'claimed' AND g.epoch = ? AND l.until > ?",
        (request, epoch, now),
        number,
    )


_BEGUN_ANYWHERE = (
    "SELECT r.*, g.state AS came_to FROM grants g JOIN requests r ON r.digest = g.request"
    " WHERE g.state = 'unknown' AND r.tool = ? AND r.digest <> ?"
)
_BEGUN_HERE = (
    "SELECT r.*, g.state AS came_to FROM grants g JOIN requests r ON r.digest = g.request"
    " WHERE g.job = ? AND r.thread = ? AND g.state = 'claimed' AND r.tool = ? AND r.digest <> ?"
)
_BEGUN_ON_THE_THREAD = (
    "SELECT r.*, g.state AS came_to FROM requests r JOIN grants g ON g.request = r.digest"
    " JOIN jobs j ON j.id = r.job WHERE r.thread = nullif(?, '') AND r.tool = ? AND r.job <> ?"
    " AND g.state IN ('claimed', 'executed') AND (j.state <> 'ended' OR j.ended_by = ?"
    " OR (j.ended_by IS NULL AND j.reason = ?))"
)

_DIED_UNTIL_8 = "its process died: the lease lapsed"
"""The reason of jobs that schemas until 8 ended so; these had no `ended_by`."""


def begun(request: Request, *, thread: str) -> Query[BegunRow]:
    """The calls of a tool that were begun and whose end this conversation may not know (I8).

    Those whose outcome is unknown, anywhere; those that this thread is at, in this job; and those
    that other jobs of the thread did, unless they ended in order: not by a lapsed lease.
    """
    return Query(
        f"{_BEGUN_HERE} UNION ALL {_BEGUN_ANYWHERE} UNION ALL {_BEGUN_ON_THE_THREAD}",
        (
            *(request.job, thread, request.tool, request.digest),
            *(request.tool, request.digest),
            *(thread, request.tool, request.job, JobEnd.LAPSED, _DIED_UNTIL_8),
        ),
        row_as(BegunRow),
    )


def executed_with(*, job: str, thread: str, content_digest: str) -> Query[AnsweredCall]:
    """The calls of a thread that did exactly this in a job, and what their model was told."""
    return Query(
        "SELECT requests.call_id, outcomes.text FROM requests"
        " JOIN grants ON grants.request = requests.digest"
        " JOIN outcomes ON outcomes.grant_id = grants.id"
        " WHERE requests.job = ? AND requests.thread = ? AND requests.content_digest = ?"
        " AND grants.state = 'executed'",
        (job, thread, content_digest),
        row_as(AnsweredCall),
    )


def unknown_grants(now: int) -> Query[UnknownGrant]:
    """Every Grant whose effect nobody knows, in the order in which they were claimed."""
    return Query(
        "SELECT g.id, g.job, g.request, g.effect, g.idempotency_key, g.claimed_at, r.body, r.tool,"
        " r.destination,"
        " j.state = 'open' OR coalesce(l.until, 0) > ? AS running FROM grants g"
        " JOIN requests r ON r.digest = g.request JOIN jobs j ON j.id = g.job"
        " LEFT JOIN leases l ON l.job = g.job WHERE g.state = 'unknown' ORDER BY g.claimed_at",
        (now,),
        row_as(UnknownGrant),
    )


def unknown_called(request: str) -> Query[GrantRow]:
    """The Grants whose effect nobody knows and whose Request's digest begins so."""
    return Query(
        "SELECT * FROM grants WHERE substr(request, 1, ?) = ? AND state = 'unknown'",
        (len(request), request),
        row_as(GrantRow),
    )


def same_effect(*, job: str, key: str, besides: str) -> Query[int]:
    """Whether another Grant of a job may have had an effect under an idempotency key."""
    return Query(
        "SELECT 1 FROM grants WHERE job = ? AND idempotency_key = ? AND id <> ?"
        " AND state IN ('claimed', 'executed', 'unknown')",
        (job, key, besides),
        number,
    )


def claimed_outside() -> Query[ClaimedRow]:
    """The claimed Grants of open jobs that have an effect outside."""
    return Query(
        "SELECT g.request, g.job, coalesce(l.until, 0) AS until FROM grants g"
        " JOIN jobs j ON j.id = g.job LEFT JOIN leases l ON l.job = g.job"
        " WHERE g.state = 'claimed' AND g.effect <> ? AND j.state = 'open'"
        " ORDER BY g.claimed_at, g.request",
        (OutsideEffect.NONE,),
        row_as(ClaimedRow),
    )


def unsettled(job: str) -> Query[str]:
    """The Requests of a job that were begun and whose outcome is not known."""
    sql = "SELECT request FROM grants WHERE job = ? AND state IN ('claimed', 'unknown')"
    return Query(sql, (job,), text)


def receipts_of(grant: str) -> Query[ReceiptRow]:
    """What was sent under a Grant."""
    sql = "SELECT * FROM receipts WHERE grant_id = ? ORDER BY at"
    return Query(sql, (grant,), row_as(ReceiptRow))


def receipts_with(sha256: str) -> Query[ReceiptRow]:
    """Where an asset was sent."""
    sql = "SELECT * FROM receipts WHERE sha256 = ? ORDER BY at"
    return Query(sql, (sha256,), row_as(ReceiptRow))
