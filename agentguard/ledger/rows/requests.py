"""Rows about Requests: what was decided on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentguard.ledger.rows.jobs import HolderRow
from agentguard.model import (
    ApprovalState,
    Effect,
    GrantState,
    JobState,
    OutsideEffect,
    RecordedCall,
    Stage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A recorded Request with its first Decision.

    Args:
        body: the call as it was logged, with texts redacted; where people were asked, why.
        call_id: how the ledger names the call's id.
    """

    digest: str
    content_digest: str
    call_key: str
    revision: int
    job: str
    thread: str
    call_id: str
    agent: str
    stage: Stage | None
    tool: str
    destination: str | None
    body: RecordedCall
    effect: Effect
    policies: tuple[str, ...]
    policy_version: str
    reason: str
    credential: str | None
    decided_at: int
    ordinal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunRow(RequestRow):
    """A Request whose Grant was used, and what that came to."""

    came_to: GrantState


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCheck(HolderRow):
    """What recording a Decision needs to know.

    Args:
        known: 1 if the Request is recorded.
        last: the last ordinal of its call id.
    """

    known: int | None
    last: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCallRow:
    """A call of a job, as people read it."""

    digest: str
    agent: str
    tool: str
    destination: str | None
    effect: Effect
    decided_at: int
    approval: ApprovalState | None
    grant_state: GrantState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCall:
    """One recorded call of a conversation and what became of it.

    Args:
        call_key: names the call for good; see `agentguard.calls.call.call_key`.
        call_id: how the ledger names the call's id.
        approval_state: None if nobody was asked.
        said_no: a no to the same media closed its approval request, too.
        grant_state: None without a Grant.
        outside: the kind of effect that the Grant is for.
        text: the recorded outcome; None without one.
        updates: the state keys that the outcome writes.
        recorded: the call; only of another job's calls. Whoever names a thread and a
            call like somebody else's is not that one: only the same call is.
    """

    request: str
    job: str
    job_state: JobState
    call_key: str
    call_id: str
    revision: int
    tool: str
    effect: Effect
    reason: str
    approval_state: ApprovalState | None
    said_no: bool
    asked_until: int | None
    grant_state: GrantState | None
    outside: OutsideEffect | None
    text: str | None
    updates: Mapping[str, Any] | None
    recorded: RecordedCall | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredCall:
    """A call that was carried out, and what its model was told."""

    call_id: str
    text: str
