"""How much the calls of a job may ask and say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentguard.ledger.queries import approvals
from agentguard.ledger.queries.requests import bits_said
from agentguard.ledger.storage.query import Reads
from agentguard.model import Assessment, Effect


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
