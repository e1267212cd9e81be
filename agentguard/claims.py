"""A claimed Grant while its tool runs, and what a call that already ran came to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentguard.assets import Scratch
from agentguard.broker import Receipt
from agentguard.gather import Call, Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The recorded outcome of a call that already ran (I8)."""

    executed: bool
    text: str
    updates: Mapping[str, Any]
    assets: tuple[str, ...]


@dataclass(kw_only=True)
class Claim:
    """A claimed Grant, while its tool runs.

    Args:
        prepared: the Request and asset rows it was claimed for.
        contributors: people who had a hand in its assets (I1).
        scratch: the call's private folder.
        arguments: what the tool runs with.
        outputs: output argument → its path.
        receipts: what the broker sent under this claim.
        started: the tool's body was entered.
        unknown: an effect outside may have happened, nobody knows (I8).
    """

    call: Call
    prepared: Prepared
    contributors: frozenset[str]
    credential: str
    scratch: Scratch
    arguments: dict[str, Any]
    outputs: dict[str, str]
    receipts: list[Receipt] = field(default_factory=list)
    started: bool = False
    unknown: bool = False


current_claim: ContextVar[Claim | None] = ContextVar("agentguard_claim", default=None)


@contextlib.contextmanager
def claimed(claim: Claim) -> Iterator[None]:
    """Make a claim the current one, for the guard's own export tool."""
    token = current_claim.set(claim)
    try:
        yield
    finally:
        current_claim.reset(token)
