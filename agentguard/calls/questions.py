"""The question that people are asked about a call, and how it is asked anew (I7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentguard.calls.call import Call
from agentguard.calls.denials import MOST_QUESTIONS
from agentguard.calls.refused import Refused
from agentguard.errors import JobError
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.queries.approvals import questions_asked
from agentguard.ledger.rows.approvals import AskedRow
from agentguard.model import ApprovalState, Assessment, Decision, Effect, ObstacleKind, RecordedCall

TOO_MANY = (
    f"{{}}; but people were asked {MOST_QUESTIONS} times about calls of this job, and are not asked"
    " again: do what needs nobody, or let a new job ask"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingQuestion:
    """A call that waits for people, as an approver needs to see it.

    Args:
        call_id: the tool call's id.
        request: the Request's digest, which is also the name of the approval request.
        decision: an ASK with what is still missing.
        recorded: the call as the ledger keeps it.
        arguments: its arguments, word for word: they are what is asked.
        expires_at: the end of the review window (ms).
        note: what else its reader needs to know; None: nothing.
    """

    call_id: str
    request: str
    decision: Decision
    recorded: RecordedCall
    arguments: Mapping[str, Any]
    expires_at: int
    note: str | None = None


def pending_question(call: Call, item: Assessment, approval: AskedRow) -> PendingQuestion:
    """The question about a call that waits, on the facts that it was just assessed on.

    Args:
        item: an ASK.
        approval: its approval request.
    """
    return PendingQuestion(
        call_id=call.call_id,
        request=item.request.digest,
        decision=item.decision,
        recorded=item.recorded,
        arguments=item.request.args,
        expires_at=approval.expires_at,
    )


def ask_anew(ledger: Ledger, item: Assessment) -> None:
    """Put the question of an asked call anew, as the next revision of its Request.

    Not if the call was begun meanwhile, or nobody can answer the old question any more: who
    looks again is told.

    Raises:
        Refused: people were asked too often, or the job is over.
    """
    old = item.request
    if (ledger.first(questions_asked(old.job)) or 0) >= MOST_QUESTIONS:
        raise Refused(TOO_MANY.format(item.decision.reason), kind=ObstacleKind.QUESTIONS)
    # Its bits were counted with the first question.
    revised = replace(item, request=replace(old, revision=old.revision + 1), bits=0)
    try:
        ledger.ask_anew(revised, instead_of=old.digest)
    except JobError as error:
        raise Refused(str(error), kind=ObstacleKind.JOB) from None


def approved_unknowing(decision: Decision) -> Refused:
    """The refusal of a call that was approved before a new reason came up, where nobody waits."""
    return Refused(
        f"{decision.reason}. Nobody approved it knowing that; make the call again, to ask again",
        kind=ObstacleKind.ASKS_AGAIN,
    )


def close_if_over(ledger: Ledger, item: Assessment, approval: AskedRow) -> None:
    """Close an approval request that waited until its review window ended (S22)."""
    waited = approval.state is ApprovalState.PENDING and ledger.clock() >= approval.expires_at
    if waited and item.decision.effect is not Effect.PERMIT:
        ledger.expire_approval(item.request.digest, reason=item.decision.reason)
