"""How much the calls of a job may ask and say, and which questions a no closes besides its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentguard.ledger.queries.call_history import (
    bits_said,
    line_of,
    media_of,
    questions_asked,
)
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.storage.query import Reads
from agentguard.ledger.transitions.requests import SAID_NO, Judged
from agentguard.model import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the calls of one job and conversation may use up.

    Args:
        bits: that they say in numbers without carrying what was revealed before.
        questions: that people are asked.
    """

    bits: int
    questions: int


def has_room(reads: Reads, judged: Sequence[Judged], room: Room) -> bool:
    """Whether calls still fit into what their job and conversation may use up."""
    bits = [item for item in judged if item.bits]
    asks = [item for item in judged if item.decision.effect is Effect.ASK]
    said = {item.thread: bits_said(reads, job=item.request.job, thread=item.thread)
            for item in bits}  # fmt: skip
    if any(before + sum(item.bits for item in bits) > room.bits for before in said.values()):
        return False
    return not asks or (questions_asked(reads, asks[0].request.job) + len(asks) <= room.questions)


def close_like(tx: Tx, denied: str) -> None:
    """Close the open questions about the media of a denied Request, for its destination.

    A no holds for what is made from them as well. What only words tell is refused at the claim.
    """
    row = tx.one(
        "SELECT requests.job, requests.destination, approvals.question FROM approvals"
        " JOIN requests ON requests.digest = approvals.request WHERE approvals.request = ?"
        " AND approvals.state = 'denied'",
        denied,
    )
    if row is None or row["destination"] is None:
        return
    media = media_of(row["question"])
    for other in tx.all(
        "SELECT approvals.request, approvals.question FROM approvals"
        " JOIN requests ON requests.digest = approvals.request WHERE approvals.job = ?"
        " AND approvals.state = 'pending' AND requests.destination = ?",
        row["job"],
        row["destination"],
    ):
        if not media & line_of(tx, media_of(other["question"])):
            continue
        tx.move("approvals", "state = 'revoked', ended_at = ?", "request = ?", tx.now,
                other["request"])  # fmt: skip
        tx.record(
            "approval.settled",
            {"request": other["request"], "as": "revoked", "reason": SAID_NO, "denied": denied},
        )
