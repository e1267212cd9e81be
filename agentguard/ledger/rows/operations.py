"""Rows about what goes on at vendors, and what was sent to them."""

from __future__ import annotations

from dataclasses import dataclass

from agentguard.model import RecordedCall, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRow:
    """Work that goes on at a vendor.

    Args:
        assets: SHA-256 of each asset that went in.
    """

    job: str
    name: str
    grant_id: str
    tool: str
    destination: str | None
    labels: frozenset[str]
    terms: Terms
    contributors: frozenset[str]
    assets: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRow:
    """A claimed call that sent something to a server which remembers; `id`: of its Grant."""

    call_key: str
    thread: str
    call_id: str
    ordinal: int
    agent: str
    body: RecordedCall
    id: str
