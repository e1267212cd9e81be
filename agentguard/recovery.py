"""After a crash: what became of an effect whose outcome nobody recorded (I8)."""

from __future__ import annotations

import json

from agentguard.broker import Broker, Receipt
from agentguard.errors import DestinationError
from agentguard.ledger import Ledger, to_json
from agentguard.model import GrantState, OutsideEffect
from agentguard.storage import Row, Tx


def reconcile(ledger: Ledger, broker: Broker) -> list[tuple[str, str]]:
    """Ask each Destination about each `unknown`, and record what it says.

    A call claimed by a job that is over counts as unknown too. An opaque effect can't be found
    out; it stays until a person looks.

    Returns:
        (request digest, `executed`, `failed` or why it stays) for each.
    """
    _orphans_to_unknown(ledger)
    found = []
    rows = ledger.all(
        "SELECT g.*, r.body, r.destination, r.job AS in_job FROM grants g JOIN requests r"
        " ON r.digest = g.request WHERE g.state = 'unknown'"
    )
    for row in rows:
        found.append((str(row["request"]), _settle(ledger, broker, row)))
    return found


def _orphans_to_unknown(ledger: Ledger) -> None:
    """A claim whose job ended without an outcome: nobody will record one any more."""

    def transition(tx: Tx) -> None:
        where = (
            "state = 'claimed' AND effect {} 'none' AND job IN"
            " (SELECT id FROM jobs JOIN leases ON job = id WHERE state = 'ended' AND until < ?)"
        )
        changed = tx.update("grants", "state = 'unknown'", where.format("<>"), tx.now)
        changed += tx.update("grants", "state = 'failed', ended_at = ?",
                             where.format("="), tx.now, tx.now)  # fmt: skip
        if changed:
            tx.record("orphaned", {"count": changed})

    ledger.storage.submit(transition, durable=True).result()


def _settle(ledger: Ledger, broker: Broker, row: Row) -> str:
    if row["effect"] == OutsideEffect.OPAQUE:
        return "stays unknown: this tool's effect can't be found out; a person must look"
    receipts: list[Receipt] = []
    try:
        for asset in json.loads(row["body"])["assets"]:
            receipt = broker.find(
                destination=row["destination"] or "",
                key=row["idempotency_key"],
                sha256=asset["sha256"],
            )
            if receipt is not None:
                receipts.append(receipt)
    except DestinationError as error:
        return f"stays unknown: {error}"
    state = GrantState.EXECUTED if receipts else GrantState.FAILED
    text = "found at the destination" if receipts else "not at the destination: it did not happen"

    def transition(tx: Tx) -> None:
        if not tx.update("grants", "state = ?, ended_at = ?", "id = ? AND state = 'unknown'",
                         state, tx.now, row["id"]):  # fmt: skip
            return
        tx.insert_new(
            "outcomes", grant_id=row["id"], status=state, text=text, assets="[]", state=to_json({})
        ) or tx.update("outcomes", "status = ?, text = ?", "grant_id = ?", state, text, row["id"])
        for receipt in receipts:
            tx.insert_new(
                "receipts",
                grant_id=row["id"],
                destination=receipt.destination,
                location=receipt.location,
                sha256=receipt.sha256,
                at=tx.now,
            )
        tx.record("reconciled", {"request": row["request"], "as": state})

    ledger.storage.submit(transition, durable=True).result()
    return str(state)
