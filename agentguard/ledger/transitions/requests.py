"""Rows of requests, approval requests and answers: from a Decision to a Grant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from agentguard.errors import ApprovalError, JobError
from agentguard.ledger.queries import approvals
from agentguard.ledger.queries.approvals import answer_by, answers_of, approval_of, replaceable
from agentguard.ledger.queries.grants import grant_of
from agentguard.ledger.queries.requests import (
    decision_check,
    request_by_digest,
    revision_of_key,
)
from agentguard.ledger.rows.approvals import ApprovalRow
from agentguard.ledger.rows.requests import DecisionCheck
from agentguard.ledger.storage.open import Tx, new_id, to_json
from agentguard.ledger.storage.query import Query, Reads
from agentguard.ledger.transitions.jobs import obstacle_in
from agentguard.model import (
    Answer,
    ApprovalState,
    Assessment,
    Effect,
    GrantState,
    JobState,
    Reason,
    RecordedCall,
    RevokedBy,
    Verdict,
    is_permitted,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """A call that was refused before it became a Request.

    Args:
        body: what the log says of it.
    """

    call_key: str | None
    job: str
    thread: str
    call_id: str
    tool: str
    reason: str
    body: Mapping[str, Any]


def record_refused(tx: Tx, refused: Sequence[RefusedCall]) -> None:
    """Record refusals; of each call that has a name for good the first one stands."""
    for call in refused:
        if call.call_key is not None:
            tx.insert_new(
                "refusals",
                call_key=call.call_key,
                job=call.job,
                thread=call.thread,
                call_id=call.call_id,
                tool=call.tool,
                reason=call.reason,
                at=tx.now,
            )
        tx.record("refused", call.body)


def record_decisions(
    tx: Tx, assessments: Sequence[Assessment], *, earlier: frozenset[Reason] | None = None
) -> None:
    """Record the decisions of one message: a Grant for PERMIT, an approval request for ASK.

    What they need to know is read before anything is written. A Request that is already recorded
    keeps its first decision.

    Args:
        earlier: the reasons of the question that they replace; None: they replace none.

    Raises:
        JobError: one is no DENY, and the job is not open under the epoch of its holder.
    """
    found = [(item, tx.first(decision_of(item))) for item in assessments]
    recorded: set[tuple[str, int]] = set()
    ordinals: Counter[tuple[str, str, str]] = Counter()
    for item, check in found:
        request = item.request
        if check is None or check.known or (request.call_key, request.revision) in recorded:
            continue
        if item.decision.effect is not Effect.DENY:
            obstacle = obstacle_in(check, request.job, item.holder.epoch, now=tx.now)
            if obstacle is not None:
                raise JobError(obstacle)
        recorded.add((request.call_key, request.revision))
        # Orders requests that share a call id: models reuse them, within one millisecond too.
        call = (request.job, item.thread, item.call_id_digest)
        ordinals[call] += 1
        _record(tx, item, _recorded(item, earlier), ordinal=(check.last or 0) + ordinals[call])


def decision_of(item: Assessment) -> Query[DecisionCheck]:
    """What recording a Decision needs to know first."""
    return decision_check(item.request, thread=item.thread, call=item.call_id_digest)


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


def _recorded(item: Assessment, earlier: frozenset[Reason] | None) -> RecordedCall:
    """The call and, where people are asked, why (I7)."""
    if item.decision.effect is not Effect.ASK:
        return item.recorded
    return replace(item.recorded, reasons=item.decision.reasons, reasons_before=earlier)


def _record(tx: Tx, item: Assessment, recorded: RecordedCall, *, ordinal: int) -> None:
    request, decision = item.request, item.decision
    body = recorded.to_json()
    tx.insert(
        "requests",
        digest=request.digest,
        content_digest=request.content_digest,
        call_key=request.call_key,
        revision=request.revision,
        job=request.job,
        thread=item.thread,
        call_id=item.call_id_digest,
        agent=request.agent,
        stage=request.stage,
        tool=request.tool,
        destination=request.destination,
        body=to_json(body),
        effect=decision.effect,
        policies=to_json(list(decision.policies)),
        policy_version=item.policy_version,
        reason=decision.reason,
        credential=item.holder.credential,
        decided_at=tx.now,
        ordinal=ordinal,
    )
    if item.bits:
        tx.insert(
            "numbers", request=request.digest, job=request.job, thread=item.thread, bits=item.bits
        )
    if decision.effect is Effect.PERMIT:
        _insert_grant(tx, item)
    elif decision.effect is Effect.ASK and decision.needs is not None:
        tx.insert(
            "approvals",
            request=request.digest,
            job=request.job,
            count=decision.needs.approvals,
            groups=to_json(decision.needs.groups),
            asked_at=tx.now,
            expires_at=tx.now + item.lifetime,
            state=ApprovalState.PENDING,
            ended_at=None,
            question=request.text,
        )
    tx.record(
        "decided",
        {
            "job": request.job,
            "request": request.digest,
            "effect": decision.effect,
            "policies": list(decision.policies),
            "shown": body,
            "credential": item.holder.credential,
        },
    )


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


def issue_grant(tx: Tx, item: Assessment) -> bool:
    """Write the Grant of a Request that was asked and is permitted now, once; recorded.

    Returns:
        False if it is not permitted, or its approvals do not live: its review window closed, or
        a person said no.
    """
    request = item.request
    if not is_permitted(item.decision):
        return False
    if tx.first(grant_of(request.digest)) is not None:
        return True
    tx.update("approvals", "state = 'approved', ended_at = ?1",
              "request = ?2 AND state = 'pending' AND expires_at > ?1",
              tx.now, request.digest)  # fmt: skip
    asked = tx.first(approval_of(request.digest))
    if asked is None or not is_approved(asked.state, asked.expires_at, asked=True, now=tx.now):
        return False
    _insert_grant(tx, item)
    tx.record(
        "granted",
        {
            "job": request.job,
            "request": request.digest,
            "policies": list(item.decision.policies),
            "policy_version": item.policy_version,
        },
    )
    return True


def is_approved(state: ApprovalState | None, until: int | None, *, asked: bool, now: int) -> bool:
    """Whether approvals live, or nobody was `asked` for any.

    Args:
        state: of the approval request; None where nobody was asked.
        until: the end of its review window.
    """
    if state is None or until is None:
        return not asked
    return state is ApprovalState.APPROVED and until > now


def _enough(tx: Tx, request: str) -> bool:
    """Whether the approvals given are as many, and of the groups, that were asked for."""
    needs = tx.first(approval_of(request))
    given = [one for one in tx.rows(answers_of(request)) if one.verdict is Verdict.APPROVE]
    if needs is None:
        return False
    return len(given) >= needs.count and needs.groups <= {one.group for one in given}


def _insert_grant(tx: Tx, item: Assessment) -> None:
    tx.insert(
        "grants",
        id=new_id("grant"),
        request=item.request.digest,
        job=item.request.job,
        credential=item.holder.credential,
        policy_version=item.policy_version,
        effect=item.outside,
        idempotency_key=item.request.content_digest,
        state=GrantState.ISSUED,
        issued_at=tx.now,
        expires_at=tx.now + item.lifetime,
        claims=0,
        claimed_at=None,
        epoch=None,
        ended_at=None,
    )
