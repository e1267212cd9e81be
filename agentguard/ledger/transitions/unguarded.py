"""Rows of tools that were started past the guard inside a job (I5)."""

from __future__ import annotations

from agentguard.ledger.queries.jobs import unguarded_run
from agentguard.ledger.storage.open import Tx


def stop(tx: Tx, job: str | None, *, tool: str) -> None:
    """Record an unguarded run that was stopped; its job, where it is known, is marked for good.

    The mark counts, not the stop: what runs the tool may swallow the error and go on.
    """
    if job is not None:
        tx.lock_job(job)
        if tx.first(unguarded_run(job, tool)) is None:
            tx.insert("unguarded_runs", job=job, tool=tool, at=tx.now)
    tx.record("unguarded.stopped", {"job": job or "", "tool": tool})
