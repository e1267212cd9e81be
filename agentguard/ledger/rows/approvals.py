"""Rows about what people are asked, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass

from agentguard.ledger.rows.decode import AskedWords
from agentguard.model import ApprovalState, GrantState, JobState, RecordedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """An approval request.

    Args:
        count, groups: how many approvals were asked for, and of which groups.
        question: the canonical JSON of the Request, which its digest names (I7).
    """

    request: str
    job: str
    count: int
    groups: frozenset[str]
    asked_at: int
    expires_at: int
    state: ApprovalState
    ended_at: int | None
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRow(ApprovalRow):
    """An approval request, and the call as it was logged, with the reasons why it is asked."""

    body: RecordedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRow(AskedRow):
    """An approval request as people read it.

    Args:
        said_no: the no of a person to the same media closed it.
        replaced_by: digest of the newest question about the same call, if it was asked anew.
    """

    reason: str
    policies: tuple[str, ...]
    purpose: str
    requested_by: str
    job_state: JobState
    said_no: bool
    replaced_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedCallRow:
    """A call that people were asked about, and how it stands.

    Args:
        call_key: names the call for good; see `agentguard.calls.call.call_key`.
        call_id: how the ledger names the call's id.
        count, groups, state, expires_at, question: see `ApprovalRow`.
        reason, policies: of its first Decision.
        grant_state: None while no claim wrote its Grant.
    """

    request: str
    job: str
    call_key: str
    call_id: str
    agent: str
    tool: str
    body: RecordedCall
    reason: str
    policies: tuple[str, ...]
    count: int
    groups: frozenset[str]
    state: ApprovalState
    expires_at: int
    question: str
    grant_state: GrantState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRow:
    """What says why an approval request takes no answer any more."""

    state: ApprovalState
    job_state: JobState
    replaced: bool
    said_no: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceableRow:
    """A question that may be asked anew.

    Args:
        granted: there is a Grant.
    """

    state: ApprovalState
    expires_at: int
    body: RecordedCall
    granted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCall:
    """A call that a person said no to.

    Args:
        question: the denied Request as people were asked it.
    """

    tool: str
    content_digest: str
    question: AskedWords


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenQuestion:
    """A question, and where its call goes."""

    request: str
    job: str
    destination: str | None
    question: AskedWords
