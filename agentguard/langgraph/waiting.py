"""How asked calls stand, and the interrupt that says so. Shared by every way in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from agentguard.calls.authorize import Waiting
from agentguard.calls.call import Call, call_name
from agentguard.calls.refused import Refused
from agentguard.errors import ApprovalError, LedgerError
from agentguard.guard import Guard
from agentguard.langgraph.approval_interrupt import OpenQuestion, approval_payload
from agentguard.langgraph.runtime import NoJob
from agentguard.model import Decision, Effect
from agentguard.people.approvals import Approval

_AGAIN = (
    "Still waiting: a resume value is no approval. A person answers with `agentguard approvals"
    " approve`, under their own key; then resume this thread."
)

_ELSEWHERE = (
    "Nothing was done: this call waits in job {0}, which this run is not in. Enter it again with"
    ' `with guard.rejoin_job("{0}", by=...) as job:` and resume this thread with job.config(...).'
)

_NOT_ENTERED = (
    "Nothing was done: this call waits in job {0}, which is open here, but this run was not entered"
    " into it. Whoever holds the job resumes this thread with job.config(...); on a server, that is"
    " its requester or a configured service."
)


Found = Call | Refused
"""A call of a run, or why it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How an asked call stands in the ledger.

    Args:
        question: what people have not answered yet; None if nothing is open.
        permitted: it may be claimed for the first time. Whatever else has no open question is
            answered by the tool, which says what came of it.
    """

    question: OpenQuestion | None = None
    permitted: bool = False


def standing(guard: Guard, call: Found) -> Standing:
    """How a call stands now; one that waits in a job that this process does not hold is open."""
    if isinstance(call, NoJob):  # who resumes without the job must not use up the question
        return Standing(question=_question_of(guard, call))
    if isinstance(call, Refused):
        return Standing()
    try:
        waiting = guard.gate.waiting(call)
    except (Refused, LedgerError):
        return Standing()  # the tool finds no grant, and says why
    if waiting.decision.effect is Effect.ASK:
        return Standing(question=OpenQuestion(waiting=waiting, call_id=call.call_id))
    return Standing(permitted=waiting.decision.effect is Effect.PERMIT and not waiting.begun)


def ask_people(guard: Guard, questions: Sequence[OpenQuestion]) -> NoReturn:
    """Interrupt with all open questions of a task.

    The interrupt notifies, a resume value only wakes: it returns once for each earlier wake of
    the task, which brought nothing, and raises for the live one.
    """
    interrupt(approval_payload(questions, note=None, store=guard.store))
    payload = approval_payload(questions, note=_AGAIN, store=guard.store)
    while True:
        interrupt(payload)


def use_up_wakes() -> None:
    """Take what woke the running task, so that no tool that pauses itself takes it for its answer.

    In a subgraph it would be left for the next supersteps.
    """
    with contextlib.suppress(GraphInterrupt):
        while True:
            interrupt(None)


def await_people(guard: Guard, calls: Sequence[Found]) -> None:
    """Return once no question about these calls is open; else interrupt with all that are."""
    questions = [question for call in calls if (question := standing(guard, call).question)]
    if questions:
        ask_people(guard, questions)


def authorize_message(
    guard: Guard,
    calls: Sequence[Found],
    own: int,
    *,
    changed: bool = False,
    turn: contextlib.AbstractContextManager[Any] | None = None,
) -> None:
    """The whole gate for one call of a message whose calls have a task each.

    Whichever comes first decides on all of them. The first call that people are asked about asks
    for all, and goes on when no question is open; another one that waits raises an empty
    `GraphInterrupt`. Who asks is fixed by the message, not by what is open: an answer in between
    would make it two that ask, or none.

    Args:
        calls: those of the message that are not answered yet, in its order.
        own: which of them this one is.
        changed: it is not what the message holds, so the one that asks can't ask for it.
        turn: held while it is decided, by one call of the message at a time.
    """
    if isinstance(calls[own], NoJob):  # it may wait in one
        stands = [standing(guard, call) for call in calls]
        asked = [number for number, stand in enumerate(stands) if stand.question is not None]
    else:
        try:
            with turn or contextlib.nullcontext():
                asked = _asked(guard, calls, own)
        except LedgerError:
            return  # the tool finds no grant, and says why
    if own not in asked:
        return
    if own == asked[0]:
        await_people(guard, [calls[number] for number in asked])
    elif changed:
        await_people(guard, [calls[own]])
    elif standing(guard, calls[own]).question is not None:
        raise GraphInterrupt()


def _asked(guard: Guard, calls: Sequence[Found], own: int) -> list[int]:
    """Decide on what was not decided of a message; returns which calls people are asked about.

    A call that can't be made says so itself, when it comes.

    Raises:
        LedgerError: nothing was decided.
    """
    made = {number: call for number, call in enumerate(calls) if isinstance(call, Call)}
    if own not in made:
        return []
    others = [number for number in made if number != own]
    known = guard.gate.decided([made[number] for number in others]) if others else []
    effects = dict(zip(others, known, strict=True))
    new = sorted([own, *(number for number in others if effects[number] is None)])
    ahead = frozenset(place for place, number in enumerate(new) if number != own)
    decided = guard.gate.authorize([made[number] for number in new], ahead=ahead)
    effects |= {number: one.decision.effect for number, one in zip(new, decided, strict=True)}
    return [number for number in sorted(effects) if effects[number] is Effect.ASK]


def _question_of(guard: Guard, call: NoJob) -> OpenQuestion | None:
    """The open question about exactly this call; ids alone could be another call's."""
    try:
        found = guard.approvals.unused(call.thread, call_name(call.call_id))
        if found is None or found.shown["tool"] != call.arguments.bound.name:
            return None
        same = call.arguments.frozen == found.arguments
    except (ApprovalError, Refused, LedgerError):  # its row was edited, or nobody was asked
        return None
    if not same:
        return None
    note = _NOT_ENTERED if guard.jobs.holds(found.job) else _ELSEWHERE
    return OpenQuestion(waiting=_as_asked(found), call_id=call.call_id, note=note.format(found.job))


def _as_asked(question: Approval) -> Waiting:
    """An approval request as it was asked; the facts of now need a job."""
    approved = question.state == "approved"
    decision = Decision(
        effect=Effect.ASK,
        policies=question.policies,
        reason="it is approved, and waits for its job only" if approved else question.reason,
        needs=None if approved else question.needs,
    )
    return Waiting(
        request=question.request,
        decision=decision,
        shown={**question.shown, "args": question.arguments},
        expires_at=question.expires_at,
    )
