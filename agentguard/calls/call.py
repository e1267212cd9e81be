"""One tool call as it reached the gate, its names, and why it is refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentguard.bindings.bound import Bound
from agentguard.canonical import digest
from agentguard.jobs.job import Job


class Refused(Exception):
    """A call is refused before or instead of a Decision; the text is for the model.

    Args:
        reason: one sentence saying what is wrong and what to do.
        policy: id of the built-in rule, e.g. `agentguard.unknown-asset`.
    """

    def __init__(self, reason: str, *, policy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.policy = f"agentguard.{policy}"

    @classmethod
    def like(cls, other: Refused) -> Refused:
        """The same refusal, to be raised once more."""
        return cls(other.reason, policy=other.policy.removeprefix("agentguard."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call as it reached the gate.

    Args:
        agent: who calls; None where the call runs and the recorded Request says who.
        arguments: as the model wrote them, injected ones left out.
        thread: the LangGraph thread id, empty without a checkpointer.
        key: names this call for good, see `call_key`; None without a message that holds it, and
            where the recorded Request says it.
        can_ask: an interrupt of this run can be resumed.
        unanswered: ids of earlier calls whose answers the conversation does not hold: a user's
            message in between drops what a finished sibling said.
        pauses_apart: if its tool pauses itself, it does so in a superstep in which no question of
            the guard is open: one resume can't answer both.
        instead_of: the call as its message has it, where it may have been decided on ahead; that
            gives way if something changed the call on its way here, or its Grant lapsed meanwhile.
    """

    bound: Bound
    agent: str | None
    arguments: Mapping[str, Any]
    call_id: str
    job: Job
    thread: str
    key: str | None
    can_ask: bool
    unanswered: frozenset[str] = frozenset()
    pauses_apart: bool = False
    instead_of: Call | None = None


def call_key(*, job: str, thread: str, source: str, call_id: str) -> str:
    """The name of one call of one message of one thread of one job (DESIGN section 3).

    Args:
        source: id of the message that holds the call, or else the digest of its content.
    """
    return digest("agentguard/call/v1", [job, thread, source, call_id])


def content_source(tool: str, frozen: Mapping[str, Any]) -> str:
    """What stands for the message of a call that no message holds.

    Args:
        frozen: its arguments, see `freeze`.
    """
    return digest("agentguard/call-content/v1", [tool, frozen])


@functools.lru_cache(maxsize=512)
def call_name(call_id: str) -> str:
    """How the ledger names a call id: a model chose it, so it is not written down as it is."""
    return digest("agentguard/call-id/v1", call_id)[:32]
