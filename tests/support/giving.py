"""Assets for jobs, past the guard's verbs."""

from __future__ import annotations

from agentguard.ledger.ledger import Ledger
from agentguard.ledger.storage.transaction import Tx


def give(ledger: Ledger, sha256: str, *, job: str, by: str, name: str) -> None:
    """Make a known asset visible to a job, as importing it once more would, by nobody's hands."""

    def transition(tx: Tx) -> None:
        if tx.insert_new("asset_jobs", job=job, sha256=sha256, how="given", name=name, at=tx.now):
            tx.record("asset.given", {"asset": sha256, "job": job, "person": by})

    ledger.storage.submit(transition).result()
