"""Rows of approval requests and answers: how a question is answered, asked anew and closed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from agentguard.errors import ApprovalError
from agentguard.ledger.queries import approvals
from agentguard.ledger.queries.approvals import (
    answer_by,
    answers_of,
    approval_of,
    denied_question,
    replaceable,
    unused_questions,
)
from agentguard.ledger.queries.assets import line_of
from agentguard.ledger.queries.requests import (
    request_by_digest,
    revision_of_key,
)
from agentguard.ledger.rows.approvals import ApprovalRow
from agentguard.ledger.storage.open import Tx
from agentguard.ledger.storage.query import Reads
from agentguard.ledger.transitions.requests import record_decisions
from agentguard.model import (
    Answer,
    ApprovalState,
    Assessment,
    Effect,
    JobState,
    RevokedBy,
    Verdict,
)

TOO_LATE = "the review window closed; no answer is a no"
"""S22: what is said to whoever answers, or asks, after the window."""


ASKED_ANEW = "a reason came up that it does not show, so it was asked anew; answer the new question"
"""I7: what is said to whoever answers a question that another one replaced."""


SAID_NO = "a person said no to the same media for this destination; a new job may ask again"
"""Why a question is closed that nobody answered."""


class Closed(Enum):
    """Why an approval request takes no answer any more; its value says so to people and models."""

    DENIED = "a person said no"
    DENIED_LIKE = SAID_NO
    LATE = TOO_LATE
    REPLACED = ASKED_ANEW
    JOB_ENDED = "its job ended"
    WITHDRAWN = "withdrawn: the conversation went on"


ENDED_BY_A_NO = "('pending', 'approved')"
"""States of an approval request that a no ends: also of what was approved, and not begun yet."""


_REPLACED = {
    ApprovalState.PENDING: ApprovalState.SUPERSEDED,
    ApprovalState.APPROVED: ApprovalState.REVOKED,
}


def ask_anew(tx: Tx, item: Assessment, *, instead_of: str) -> bool:
    """Close an open question and put the one that takes its place; see `Ledger.ask_anew`."""
    tx.lock_job(item.request.job)
    old = tx.first(replaceable(instead_of))
    if old is None or old.granted or old.expires_at <= tx.now:
        return False
    if tx.first(revision_of_key(item.request.call_key, item.request.revision)):
        return True  # another process was quicker
    # Both are final, so that no answer to the old question is ever taken or counted again.
    state = _REPLACED.get(old.state)
    if state is None:
        return False
    close_question(tx, instead_of, state)
    tx.record(
        "approval.settled",
        {"request": instead_of, "as": state, "reason": ASKED_ANEW, "next": item.request.digest},
    )
    record_decisions(tx, [item], earlier=old.body.question.reasons)
    return True


def close_question(tx: Tx, request: str, state: ApprovalState) -> None:
    """Move the approval request of a Request, in whose place another one is asked, to its end."""
    by = RevokedBy.NEW_QUESTION if state is ApprovalState.REVOKED else None
    tx.move("approvals", "state = ?, ended_at = ?, revoked_by = ?", "request = ?",
            state, tx.now, by, request)  # fmt: skip


def answer(tx: Tx, given: Answer) -> None:
    """Record an Answer and what its approval request comes to; see `Ledger.answer`."""
    lock_job_of(tx, given.request)
    approval = tx.first(approval_of(given.request))
    if approval is None:
        raise ApprovalError("this approval request is unknown; nothing to answer")
    if not is_open_question(tx, given.request):
        closed = why_closed(tx, given.request)
        raise ApprovalError(nothing_to_answer(approval.state, closed))
    if is_too_late(approval, now=tx.now):
        raise ApprovalError(TOO_LATE)
    if has_answered(tx, given):
        raise ApprovalError(f"{given.person} answered this before; an answer stands")
    tx.insert(
        "answers",
        request=given.request,
        person=given.person,
        verdict=given.verdict,
        answered_as=given.group,
        at=given.at,
        key_id=given.key_id,
        signature=given.signature,
        received_at=tx.now,
    )
    outcome = Effect.DENY
    if given.verdict is Verdict.APPROVE:
        outcome = Effect.PERMIT if _enough(tx, given.request) else Effect.ASK
    if outcome is Effect.PERMIT:
        tx.update("approvals", "state = 'approved', ended_at = ?",
                  "request = ? AND state = 'pending'", tx.now, given.request)  # fmt: skip
    elif outcome is Effect.DENY:
        tx.update("approvals", "state = 'denied', ended_at = ?",
                  f"request = ? AND state IN {ENDED_BY_A_NO}", tx.now,
                  given.request)  # fmt: skip
    tx.record(
        "answered",
        {
            "request": given.request,
            "person": given.person,
            "verdict": given.verdict,
            "group": given.group,
            "outcome": outcome,
        },
    )
    if given.verdict is Verdict.DENY:
        close_like(tx, given.request)


def is_too_late(approval: ApprovalRow, *, now: int) -> bool:
    """Whether the review window is over when an Answer is recorded, whenever it was sent (S22)."""
    return now >= approval.expires_at


def has_answered(tx: Tx, given: Answer) -> bool:
    """Whether a person answered a question before (I1)."""
    return tx.first(answer_by(given.request, given.person)) is not None


def lock_job_of(tx: Tx, request: str) -> None:
    """Take the lock of a recorded Request's job, which never changes."""
    known = tx.first(request_by_digest(request))
    tx.lock_job(known.job if known is not None else None)


def withdraw(tx: Tx, requests: Sequence[str]) -> None:
    """Close what waits of these Requests: questions, unused approvals, unclaimed Grants; recorded.

    What was claimed meanwhile, answered with a no, or is over by now stays as it is.
    """
    jobs = {}
    for request in requests:
        known = tx.first(request_by_digest(request))
        if known is not None:
            jobs[request] = known.job
    tx.lock_job(*sorted(set(jobs.values())))
    for request, job in jobs.items():
        # A Grant that its tool gave back, to ask a question of its own, was claimed before.
        changed = tx.update("grants", "state = 'revoked', ended_at = ?",
                            "request = ? AND state = 'issued'", tx.now, request)  # fmt: skip
        changed += tx.update("approvals", "state = 'superseded', ended_at = ?",
                             "request = ? AND state = 'pending'", tx.now, request)  # fmt: skip
        changed += tx.update(
            "approvals", "state = 'revoked', ended_at = ?, revoked_by = ?",
            "request = ? AND state = 'approved' AND NOT EXISTS (SELECT 1 FROM grants"
            " WHERE grants.request = approvals.request AND grants.state <> 'revoked')",
            tx.now, RevokedBy.WITHDRAWAL, request,
        )  # fmt: skip
        if changed:
            why = Closed.WITHDRAWN.value
            tx.record("withdrawn", {"job": job, "request": request, "reason": why})


_CLOSED_BY_PEOPLE = {
    ApprovalState.DENIED: Closed.DENIED,
    ApprovalState.EXPIRED: Closed.LATE,
}


def closed_because(
    state: ApprovalState, *, job_state: JobState, replaced: bool, said_no: bool
) -> Closed | None:
    """Why an approval request takes no answer any more, and permits nothing; None if it may.

    Args:
        state: of the approval request.
        job_state: of its job, whose end revokes what waits.
        replaced: its call was asked about anew.
        said_no: a no to the same media closed it, see `SAID_NO_WITH`.
    """
    if state not in (ApprovalState.SUPERSEDED, ApprovalState.REVOKED):
        return _CLOSED_BY_PEOPLE.get(state)
    if replaced:
        return Closed.REPLACED
    revoked = state is ApprovalState.REVOKED
    if revoked and job_state is JobState.ENDED:
        return Closed.JOB_ENDED
    return Closed.DENIED_LIKE if revoked and said_no else Closed.WITHDRAWN


def why_closed(reads: Reads, request: str) -> str | None:
    """The same of the approval request of a Request, in words; None without one."""
    asked = reads.first(approvals.why_closed(request))
    if asked is None:
        return None
    closed = closed_because(
        asked.state, job_state=asked.job_state, replaced=asked.replaced, said_no=asked.said_no
    )
    return None if closed is None else closed.value


def nothing_to_answer(state: ApprovalState, closed: str | None) -> str:
    """What is said to a person who answers an approval request that is closed.

    Args:
        closed: the words of `closed_because`.
    """
    why = f" ({closed})" if closed else ""
    return f"this approval request is {state}{why}; nothing to answer"


def is_open_question(reads: Reads, request: str) -> bool:
    """Whether people may answer: nobody did enough yet, or the policy came to want more."""
    asked = reads.first(replaceable(request))
    if asked is None:
        return False
    if asked.state is ApprovalState.APPROVED:
        return not asked.granted
    return asked.state is ApprovalState.PENDING


def _enough(tx: Tx, request: str) -> bool:
    """Whether the approvals given are as many, and of the groups, that were asked for."""
    needs = tx.first(approval_of(request))
    given = [one for one in tx.rows(answers_of(request)) if one.verdict is Verdict.APPROVE]
    if needs is None:
        return False
    return len(given) >= needs.count and needs.groups <= {one.group for one in given}


def close_like(tx: Tx, denied: str) -> None:
    """Close the questions about the media of a denied Request, for its destination.

    Also those that were approved, and are not begun yet. A no holds for what is made from them as
    well. What only words tell is refused at the claim.
    """
    no = tx.first(denied_question(denied))
    if no is None or no.destination is None:
        return
    media = no.question.media
    for other in tx.rows(unused_questions(no.job, no.destination)):
        asked = other.question.media
        if not (asked and media.intersection(tx.rows(line_of(asked)))):
            continue
        tx.move("approvals", "state = 'revoked', ended_at = ?, revoked_by = ?", "request = ?",
                tx.now, RevokedBy.DENIAL, other.request)  # fmt: skip
        tx.record(
            "approval.settled",
            {"request": other.request, "as": "revoked", "reason": SAID_NO, "denied": denied},
        )


def expire(tx: Tx, request: str, *, reason: str) -> None:
    """Close a pending approval request whose window ended."""
    lock_job_of(tx, request)
    if tx.update("approvals", "state = 'expired', ended_at = ?",
                 "request = ? AND state = 'pending'", tx.now, request):  # fmt: skip
        body = {"request": request, "as": "expired", "reason": reason}
        tx.record("approval.settled", body)
