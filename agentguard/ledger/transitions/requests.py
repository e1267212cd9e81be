"""Rows of requests and their Grants: what a Decision writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentguard.errors import JobError
from agentguard.ledger.queries.approvals import approval_of
from agentguard.ledger.queries.grants import grant_of
from agentguard.ledger.queries.requests import (
    decision_check,
)
from agentguard.ledger.rows.requests import DecisionCheck
from agentguard.ledger.storage.open import Tx, new_id, to_json
from agentguard.ledger.storage.query import Query
from agentguard.ledger.transitions.jobs import obstacle_in
from agentguard.model import (
    ApprovalState,
    Assessment,
    Effect,
    GrantState,
    Reason,
    RecordedCall,
    is_permitted,
)


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
