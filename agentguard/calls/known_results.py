"""What the ledger knows came of the calls that a conversation holds (I6).

A conversation's messages are a client's to write, and LangGraph drops the results of a superstep
when a person writes while a call waits. Only the ledger says what a call came to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from agentguard.bindings.bound import Bound
from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import call_id_digest, call_key
from agentguard.calls.refused import Refused
from agentguard.errors import CanonicalError
from agentguard.ledger.ledger import Ledger
from agentguard.ledger.queries.requests import calls_named
from agentguard.ledger.rows.requests import ConversationCall
from agentguard.ledger.transitions.approvals import Closed, closed_because
from agentguard.model import Effect, GrantState, JobState, RecordedCall

AGAIN = "call again to ask again"
NO_RECORD = (
    "the conversation went on before this call was carried out, and nothing of it is recorded;"
    " call again if it is still wanted"
)
"""What is said in place of the answer of a guarded call that the ledger never saw."""

_ATTEMPTS = 3
_STILL_OPEN = "nothing was done yet: this call waits"
_WORDLESS = "{}; the words of its outcome are not in the ledger any more"
_STARTED = (
    "this call was started and its outcome is not known yet; do not repeat it (`agentguard"
    " reconcile` finds out)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallName:
    """What a message says of one of its calls.

    Args:
        source: the message's id; None if it has none.
        bound: the Binding of the tool that it names; None if there is none.
        arguments: as the message holds them.
        over: no paused task can go on with it.
    """

    source: str | None
    call_id: str
    bound: Bound | None
    arguments: Mapping[str, Any]
    over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownResult:
    """What the ledger knows of one call.

    Args:
        tool: the tool that was decided on.
        done: an outcome is recorded, so a message about it may have been shortened since.
        status: what a message about the call may claim.
        text: what answers the call where no message does.
        instead: what replaces a message that claims something else.
        updates: the declared state that the outcome writes.
    """

    tool: str
    done: bool
    status: Literal["success", "error"]
    text: str
    instead: str
    updates: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def known_results(
    ledger: Ledger, calls: Sequence[CallName], *, thread: str, job: str | None
) -> list[KnownResult | None]:
    """What the ledger knows of each of these calls; None of one that it never saw.

    What waits of a call that is over is withdrawn: its question closes, its approvals and its
    Grant are used by nothing.

    Args:
        thread: the LangGraph thread id, empty without a checkpointer.
        job: the job that the run belongs to; None without one.

    Raises:
        LedgerError: nothing can be known now.
    """
    names = [name for call in calls if (name := _name_of(call.call_id))]
    if not (names and thread.isprintable()):  # the gate refuses what is not
        return [None] * len(calls)
    for _ in range(_ATTEMPTS):
        rows = calls_named(ledger, thread=thread, job=job, call_ids=names)
        found = _matched(calls, rows, thread=thread)
        now = ledger.clock()
        waiting = [
            row.request
            for call, row in zip(calls, found, strict=True)
            if row is not None and call.over and _is_open(row, now=now)
        ]
        if not waiting:
            break
        ledger.withdraw(waiting)  # and look again: it may have been claimed meanwhile
    return [None if row is None else _result(row, now=now) for row in found]


def are_known(
    ledger: Ledger, call_ids: Sequence[str], *, thread: str, job: str | None
) -> frozenset[str]:
    """Those of these call ids under which the conversation's calls were decided.

    Raises:
        LedgerError: nothing can be known now.
    """
    names = {name: call_id for call_id in call_ids if (name := _name_of(call_id))}
    if not (names and thread.isprintable()):
        return frozenset()
    rows = calls_named(ledger, thread=thread, job=job, call_ids=list(names))
    return frozenset(names[row.call_id] for row in rows)


def _name_of(call_id: str) -> str | None:
    """How the ledger names a call id; None of one that the gate refuses."""
    with contextlib.suppress(CanonicalError):
        return call_id_digest(call_id)
    return None


def _matched(
    calls: Sequence[CallName], rows: Sequence[ConversationCall], *, thread: str
) -> list[ConversationCall | None]:
    """The newest row of each call: an id may come again, so message or content decide, too."""
    by_id: dict[str | None, list[ConversationCall]] = {}
    for row in sorted(rows, key=lambda row: row.revision, reverse=True):
        by_id.setdefault(row.call_id, []).append(row)
    return [_row_of(call, by_id.get(_name_of(call.call_id), ()), thread=thread) for call in calls]


def _row_of(
    call: CallName, rows: Sequence[ConversationCall], *, thread: str
) -> ConversationCall | None:
    for source in _sources(call) if rows else ():
        for row in rows:
            key = call_key(job=row.job, thread=thread, source=source, call_id=call.call_id)
            if row.call_key == key and (row.recorded is None or _is_the_same(call, row.recorded)):
                return row
    return None


def _sources(call: CallName) -> Iterator[str]:
    """What may stand for the call's message in its key: its id, or else the call's content."""
    if call.source is not None and call.source.isprintable():
        yield call.source
    if call.bound is not None:
        with contextlib.suppress(Refused, CanonicalError):  # then it was never decided
            yield CallArguments(call.bound, call.arguments).source


def _is_the_same(call: CallName, recorded: RecordedCall) -> bool:
    """Whether another job of the thread recorded exactly this call."""
    if call.bound is None:
        return False
    try:
        arguments = CallArguments(call.bound, call.arguments).redacted
    except (Refused, CanonicalError):
        return False
    return (recorded.tool, recorded.args) == (call.bound.name, arguments)


def _is_open(row: ConversationCall, *, now: int) -> bool:
    """Whether the call may still be carried out."""
    if row.effect is Effect.DENY or row.job_state is JobState.ENDED:
        return False
    if row.grant_state is not None:
        return row.grant_state == GrantState.ISSUED
    if row.asked_until is not None and now >= row.asked_until:
        return False
    return row.approval_state is not None and row.approval_state.is_open


def _result(row: ConversationCall, *, now: int) -> KnownResult:
    if row.grant_state in (GrantState.EXECUTED, GrantState.FAILED, GrantState.UNKNOWN):
        return _done(row)
    text = _not_done(row, now=now)
    return KnownResult(tool=row.tool, done=False, status="error", text=text, instead=text)


def _done(row: ConversationCall) -> KnownResult:
    executed = row.grant_state == GrantState.EXECUTED
    if executed:
        instead = f"{row.tool} was carried out; what stood here said otherwise and was left out"
    elif row.grant_state == GrantState.FAILED:
        instead = f"{row.tool} failed; what stood here said otherwise and was left out"
    else:
        instead = f"whether {row.tool} took effect is not known, so do not repeat it"
    return KnownResult(
        tool=row.tool,
        done=True,
        status="success" if executed else "error",
        text=_WORDLESS.format(instead) if row.text is None else row.text,
        instead=instead,
        updates=row.updates if executed and row.updates else {},
    )


def _not_done(row: ConversationCall, *, now: int) -> str:
    if row.effect is Effect.DENY:
        return row.reason
    if row.grant_state == GrantState.CLAIMED:
        return _STARTED
    if _is_open(row, now=now):
        return _STILL_OPEN
    closed: Closed | None = None
    if row.approval_state is not None:
        late = row.asked_until is not None and now >= row.asked_until
        closed = closed_because(
            row.approval_state, job_state=row.job_state, replaced=False, said_no=row.said_no
        )
        closed = closed or (Closed.LATE if late else None)
    if closed is None:
        if row.grant_state == GrantState.EXPIRED:
            return "refused: it was not carried out in time"
        closed = Closed.JOB_ENDED if row.job_state is JobState.ENDED else Closed.WITHDRAWN
    if closed is Closed.WITHDRAWN:
        return f"{closed.value}; {AGAIN}"
    return f"refused: {closed.value}"
