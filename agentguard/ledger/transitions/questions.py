"""How much the calls of a job may ask and say, and which questions a no closes besides its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentguard.ledger.queries import approvals
from agentguard.ledger.queries.assets import line_of
from agentguard.ledger.queries.requests import bits_said
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.storage.query import Reads
from agentguard.ledger.transitions.requests import SAID_NO
from agentguard.model import Assessment, Effect, RevokedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the calls of one job and conversation may use up.

    Args:
        bits: that they say in numbers without carrying what was revealed before.
        questions: that people are asked.
    """

    bits: int
    questions: int


def has_room(reads: Reads, assessments: Sequence[Assessment], room: Room) -> bool:
    """Whether calls still fit into what their job and conversation may use up."""
    bits = [item for item in assessments if item.bits]
    asks = [item for item in assessments if item.decision.effect is Effect.ASK]
    more = sum(item.bits for item in bits)
    for job, thread in {(item.request.job, item.thread) for item in bits}:
        if (reads.first(bits_said(job, thread)) or 0) + more > room.bits:
            return False
    if not asks:
        return True
    asked = reads.first(approvals.questions_asked(asks[0].request.job)) or 0
    return asked + len(asks) <= room.questions


def close_like(tx: Tx, denied: str) -> None:
    """Close the questions about the media of a denied Request, for its destination.

    Also those that were approved, and are not begun yet. A no holds for what is made from them as
    well. What only words tell is refused at the claim.
    """
    no = tx.first(approvals.denied_question(denied))
    if no is None or no.destination is None:
        return
    media = no.question.media
    for other in tx.rows(approvals.unused_questions(no.job, no.destination)):
        asked = other.question.media
        if not (asked and media.intersection(tx.rows(line_of(asked)))):
            continue
        tx.move("approvals", "state = 'revoked', ended_at = ?, revoked_by = ?", "request = ?",
                tx.now, RevokedBy.DENIAL, other.request)  # fmt: skip
        tx.record(
            "approval.settled",
            {"request": other.request, "as": "revoked", "reason": SAID_NO, "denied": denied},
        )
