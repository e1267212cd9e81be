"""A claimed Grant while its tool runs, and what a call that already ran came to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentguard.bindings.declaration import declarations_of
from agentguard.bindings.running import running
from agentguard.calls.call import Call
from agentguard.calls.request import Prepared
from agentguard.content.scratch import Scratch
from agentguard.errors import ClaimError
from agentguard.export.broker import Receipt


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
        sends: how often the broker sent something under this claim, or may have.
        not_sent: the error with which the broker said that it sent nothing.
        started: the tool's body was entered.
        unknown: an effect outside may have happened, nobody knows (I8).
        left: the tool's body was left; what it started and left behind acts for no call.
    """

    call: Call
    prepared: Prepared
    contributors: frozenset[str]
    credential: str
    scratch: Scratch
    arguments: dict[str, Any]
    outputs: dict[str, str]
    receipts: list[Receipt] = field(default_factory=list)
    sends: int = 0
    not_sent: Exception | None = None
    started: bool = False
    unknown: bool = False
    left: bool = False

    def is_known_not_done(self, error: BaseException) -> bool:
        """Whether an error that ended the tool says that nothing was sent (I8).

        Only the broker may say so, of this claim: the very error that it raised counts. One of
        the same class can come from any tool's body, after it sent something by itself.
        """
        return error is self.not_sent and self.sends == 0


current_claim: ContextVar[Claim | None] = ContextVar("agentguard_claim", default=None)


@contextlib.contextmanager
def claimed(claim: Claim) -> Iterator[None]:
    """Make a claim the current one, for the tool's body."""
    token = current_claim.set(claim)
    try:
        with running(*declarations_of(claim.call.bound.binding.tool)):
            yield
    finally:
        claim.left = True
        current_claim.reset(token)


def idempotency_key() -> str:
    """The idempotency key of the guarded call that runs now: 64 hex digits.

    Send it as the vendor's `Idempotency-Key`, or name by it what is sent; a Binding's `probe` is
    given the same one. It names the content: tool, arguments, media and destination in this job. A
    second call for the same in the same job has the same key.

    Take it right before sending: who slept past the lease of its job gets none, since by then the
    call may have been given up (I8). That reads the ledger; in a coroutine, write
    `await asyncio.to_thread(idempotency_key)`.

    Raises:
        ClaimError: outside of a guarded call's body, or its claim is not held any more.
        LedgerUnavailable: that can't be found out.
    """
    claim = current_claim.get()
    if claim is None:
        raise ClaimError(
            "idempotency_key() was called outside of a guarded call, where there is no key. To run"
            " this tool on its own, replace the function in the module that uses it:"
            " monkeypatch.setattr(your_module, 'idempotency_key', lambda: 'a-key-of-the-test')."
            " A thread that the tool starts is outside, too: take the key before, and hand it over"
        )
    if claim.left or not claim.call.job.has_claimed(claim.prepared.request):
        raise ClaimError(
            "this call is over, or its job is: nothing may be sent in its name any more"
        )
    return claim.prepared.request.content_digest
