"""Rows of tools that were started past the guard inside a job (I5)."""

from __future__ import annotations

from agentguard.ledger.storage.open import Tx

MARKED = "EXISTS (SELECT 1 FROM unguarded_runs WHERE job = jobs.id)"
"""Whether a tool was started past the guard in a job."""


def stop(tx: Tx, job: str | None, *, tool: str) -> None:
    """Record an unguarded run that was stopped; its job, where it is known, is marked for good.

    The mark counts, not the stop: what runs the tool may swallow the error and go on.
    """
    if job is not None:
        tx.lock_job(job)
        if tx.one("SELECT 1 FROM unguarded_runs WHERE job = ? AND tool = ?", job, tool) is None:
            tx.insert("unguarded_runs", job=job, tool=tool, at=tx.now)
    tx.record("unguarded.stopped", {"job": job or "", "tool": tool})
