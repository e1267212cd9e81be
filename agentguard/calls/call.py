"""One tool call as it reached the gate, and its names."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentguard.bindings.bound import Bound
from agentguard.calls.arguments import CallArguments
from agentguard.canonical import digest
from agentguard.jobs.job import Job
from agentguard.ledger.rows.approvals import AskedCallRow
from agentguard.ledger.rows.requests import RequestRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call as it reached the gate; only `CallContext.call` makes one of what a run says.

    Args:
        agent: who calls; None where the call runs and the recorded Request says who.
        arguments: what the model gave, for the tool of its Binding.
        thread: the LangGraph thread id, empty without a checkpointer.
        key: names this call for good, see `call_key`; None without a message that holds it, and
            where the recorded Request says it.
        source: see `call_key`; None without a message that holds it.
        can_ask: an interrupt of this run can be resumed.
        unanswered: ids of earlier calls whose answers the conversation does not hold: a user's
            message in between drops what a finished sibling said.
        pauses_apart: if its tool pauses itself, it does so in a superstep in which no question of
            the guard is open: one resume can't answer both.
        changed_mind: the node that makes it did something, in an earlier run of the same task, that
            it does not do again; told when it is decided on first, and kept with that.
        as_written: the call as its message has it, where it may have been decided on ahead; that
            gives way if something changed the call on its way here, its Grant lapsed meanwhile, or
            its node changed its mind.
    """

    agent: str | None
    arguments: CallArguments
    call_id: str
    job: Job
    thread: str
    key: str | None
    can_ask: bool
    source: str | None = None
    unanswered: frozenset[str] = frozenset()
    pauses_apart: bool = False
    changed_mind: bool = False
    as_written: Call | None = None
    id_digest: str = field(init=False)
    """How the ledger names its id; see `call_id_digest`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id_digest", call_id_digest(self.call_id))

    @property
    def bound(self) -> Bound:
        """The Binding of its tool."""
        return self.arguments.bound

    def may_be(self, row: RequestRow | AskedCallRow) -> bool:
        """Whether a row may be of this call: of the same agent and key, where these are known."""
        return self.agent in (None, row.agent) and self.key in (None, row.call_key)

    def is_of_thread(self, row: RequestRow | AskedCallRow) -> bool:
        """Whether a row is of this call, whichever job of its thread it was decided on in."""
        if self.source is None:
            return True
        return row.call_key == call_key(
            job=row.job, thread=self.thread, source=self.source, call_id=self.call_id
        )


def call_key(*, job: str, thread: str, source: str, call_id: str) -> str:
    """The name of one call of one message of one thread of one job.

    Args:
        source: id of the message that holds the call, or else the digest of its content.
    """
    return digest("agentguard/call/v1", [job, thread, source, call_id])


def call_id_digest(call_id: str) -> str:
    """How the ledger names a call id: a model chose it, so it is not written down as it is."""
    return digest("agentguard/call-id/v1", call_id)[:32]
