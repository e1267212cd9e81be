"""Rows about Grants, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentguard.ledger.rows.jobs import HolderRow
from agentguard.model import ApprovalState, GrantState, OutsideEffect, RecordedCall


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRow:
    """A Grant."""

    id: str
    request: str
    job: str
    credential: str | None
    policy_version: str
    effect: OutsideEffect
    idempotency_key: str
    state: GrantState
    issued_at: int
    expires_at: int
    claims: int
    claimed_at: int | None
    epoch: int | None
    ended_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """What a Grant came to.

    Args:
        state: the declared state keys that its tool wrote.
        assets: ids of what it made.
    """

    grant_id: str
    status: GrantState
    text: str
    assets: tuple[str, ...]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimCheck(HolderRow):
    """What a claim judges.

    Args:
        credential_state, lives_until: of the credential that the call is claimed with.
        approval_state, approved_until: None where nobody was asked.
        answers: how many people answered, whatever they said.
        denied: how many questions of the job were answered with a no.
        id, state, claims, effect, expires_at: of the Grant; None without one.
    """

    credential_state: str | None
    lives_until: int | None
    approval_state: ApprovalState | None
    approved_until: int | None
    answers: int
    denied: int
    id: str | None
    state: GrantState | None
    claims: int | None
    effect: OutsideEffect | None
    expires_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCheck:
    """What an outcome judges.

    Args:
        ours: the claim is still of the holder whose credential finishes it; None: unknown.
    """

    id: str
    state: GrantState
    ours: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownGrant:
    """A Grant whose effect nobody knows (I8).

    Args:
        body: the call as it was logged.
        running: its job may still be at it.
    """

    id: str
    job: str
    request: str
    effect: OutsideEffect
    idempotency_key: str
    claimed_at: int
    body: RecordedCall
    tool: str
    destination: str | None
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRow:
    """A claimed Grant of an open job; `until`: the end of the job's lease."""

    request: str
    job: str
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRow:
    """What was sent where."""

    grant_id: str
    sha256: str
    destination: str
    location: str
    at: int
