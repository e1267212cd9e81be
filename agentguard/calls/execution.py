"""A claimed call while its tool runs: the Execution, how it ends, and its idempotency key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentguard.bindings.declaration import declarations_of
from agentguard.bindings.running import running
from agentguard.calls.claim import ClaimedCall
from agentguard.calls.results import Collected
from agentguard.errors import ClaimError
from agentguard.export.broker import Receipt


@dataclass(kw_only=True)
class Execution:
    """A claimed call while its tool runs, and how it ended.

    Args:
        result: what the tool's body returned; the body of the `with` sets it.
        started: the tool's body was entered.
        receipts: what the broker sent under the claim.
        sends: how often the broker sent something under the claim, or may have.
        not_sent: the error with which the broker said that it sent nothing.
        left: the tool's body was left; what it started and left behind acts for no call.
        failure: what the model reads of a call that failed, or whose outcome is not recorded.
        text: what the model may read of one that ran.
        taken: what was taken in of it.
    """

    claimed: ClaimedCall
    result: Any = None
    started: bool = False
    receipts: list[Receipt] = field(default_factory=list)
    sends: int = 0
    not_sent: Exception | None = None
    left: bool = False
    failure: str | None = None
    text: str = ""
    taken: TakenIn | None = None

    def is_known_not_done(self, error: BaseException) -> bool:
        """Whether an error that ended the tool says that nothing was sent (I8).

        Only the broker may say so, of this claim: the very error that it raised counts. One of
        the same class can come from any tool's body, after it sent something by itself.
        """
        return error is self.not_sent and self.sends == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenIn:
    """A result that was taken in, before it is recorded.

    Args:
        collected: what the guard made of it.
        updates: state keys that it writes.
        adapted: what the framework's side needs of it afterwards.
    """

    collected: Collected
    updates: Mapping[str, Any] | None = None
    adapted: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an exception that left a tool's body means.

    Args:
        text: what is recorded of it, and what the model reads where it is not raised.
        unknown: an effect outside may have happened, nobody knows (I8).
        error: what the developer's log gets, with its traceback.
        paused: the tool paused itself before any effect: its Grant goes back.
        quiet: nobody is told but the ledger: the run is being stopped, or paused.
        raises: the exception goes on.
    """

    text: str
    unknown: bool = False
    error: Exception | None = None
    paused: bool = False
    quiet: bool = False
    raises: bool = False


class ToolAdapter(Protocol):
    """What the framework around the tools says of their ends."""

    def failure_of(self, execution: Execution, error: BaseException) -> Failure:
        """What an exception of the tool's body means."""

    def take_in(self, execution: Execution) -> TakenIn:
        """What becomes of the result of an execution.

        Raises:
            AssetError: it can't be taken in.
        """


current_execution: ContextVar[Execution | None] = ContextVar("agentguard_execution", default=None)


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
    execution = current_execution.get()
    if execution is None:
        raise ClaimError(
            "idempotency_key() was called outside of a guarded call, where there is no key. To run"
            " this tool on its own, replace the function in the module that uses it:"
            " monkeypatch.setattr(your_module, 'idempotency_key', lambda: 'a-key-of-the-test')."
            " A thread that the tool starts is outside, too: take the key before, and hand it over"
        )
    claimed = execution.claimed
    if execution.left or not claimed.call.job.has_claimed(claimed.request):
        raise ClaimError(
            "this call is over, or its job is: nothing may be sent in its name any more"
        )
    return claimed.request.content_digest


@contextlib.contextmanager
def entered(execution: Execution) -> Iterator[None]:
    """Make an execution the current one, for the tool's body."""
    token = current_execution.set(execution)
    try:
        with running(*declarations_of(execution.claimed.call.bound.binding.tool)):
            yield
    finally:
        execution.left = True
        current_execution.reset(token)


async def await_to_end(work: Awaitable[Any]) -> Any:
    """Await to the end even if the caller is cancelled; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    if cancelled is not None and not task.exception():
        task.result()
        raise cancelled
    return task.result()
