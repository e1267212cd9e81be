"""Rows of credentials: minted for one agent, one stage, one job, and revoked (S23)."""

from __future__ import annotations

from agentguard.ledger.queries.jobs import credential_by_id
from agentguard.ledger.storage.open import Tx, new_id
from agentguard.ledger.transitions.jobs import require_open
from agentguard.model import Credential, Stage


def mint(tx: Tx, job: str, *, epoch: int, agent: str, stage: Stage, lifetime: int) -> Credential:
    """Write a live credential that expires `lifetime` ms from now; recorded.

    Raises:
        JobError: the job is not open under this epoch, or its lease lapsed.
    """
    tx.lock_job(job)
    require_open(tx, job, epoch)
    credential = Credential(
        id=new_id("cred"),
        job=job,
        agent=agent,
        stage=stage,
        epoch=epoch,
        issued_at=tx.now,
        expires_at=tx.now + lifetime,
    )
    tx.insert(
        "credentials",
        id=credential.id,
        job=job,
        agent=agent,
        stage=stage,
        epoch=epoch,
        issued_at=tx.now,
        expires_at=credential.expires_at,
        state="live",
    )
    tx.record(
        "credential.issued",
        {"job": job, "agent": agent, "stage": stage, "credential": credential.id},
    )
    return credential


def revoke(tx: Tx, credential: str, *, reason: str) -> None:
    """Revoke a credential and every unclaimed Grant that was issued under it; recorded."""
    known = tx.first(credential_by_id(credential))
    job = known.job if known is not None else None
    tx.lock_job(job)
    where = "id = ? AND state = 'live'"
    tx.update("credentials", "state = 'revoked'", where, credential)
    tx.update(
        "grants", "state = 'revoked', ended_at = ?",
        "job = ? AND credential = ? AND state = 'issued'", tx.now, job, credential,
    )  # fmt: skip
    tx.record("credential.revoked", {"credential": credential, "reason": reason})
