"""How asked calls stand, and the interrupt that says so. Shared by every way in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NoReturn

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from agentguard.calls.ask import CallState, PendingQuestion
from agentguard.calls.call import Call, call_name
from agentguard.calls.refused import Refused
from agentguard.errors import ApprovalError, LedgerError
from agentguard.guard import Guard
from agentguard.langgraph.approval_interrupt import approval_payload
from agentguard.langgraph.runtime import Found, NoJob
from agentguard.model import Decision, Effect, Obstacle
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


def standing(guard: Guard, call: Found) -> PendingQuestion | CallState:
    """How a call stands now; one that waits in a job that this process does not hold is open."""
    if isinstance(call, NoJob):  # who resumes without the job must not use up the question
        return _question_of(guard, call) or CallState.SETTLED
    if isinstance(call, Obstacle):
        return CallState.SETTLED
    try:
        return guard.asker.look(call)
    except LedgerError:
        return CallState.SETTLED  # the tool finds no grant, and says why


def open_questions(guard: Guard, calls: Sequence[Found]) -> list[PendingQuestion]:
    """The questions about these calls that are open."""
    stands = (standing(guard, call) for call in calls)
    return [stand for stand in stands if isinstance(stand, PendingQuestion)]


def ask_people(guard: Guard, questions: Sequence[PendingQuestion]) -> NoReturn:
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
    if questions := open_questions(guard, calls):
        ask_people(guard, questions)


def authorize_message(
    guard: Guard,
    calls: Sequence[Found],
    own: int,
    *,
    changed: bool = False,
    turn: contextlib.AbstractContextManager[Any] | None = None,
    one_task: bool = False,
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
        one_task: the calls share a task, so whichever of them comes asks for all.
    """
    if isinstance(calls[own], NoJob):  # it may wait in one
        asked = [number for number, call in enumerate(calls) if open_questions(guard, [call])]
    else:
        try:
            with turn or contextlib.nullcontext():
                asked = _asked(guard, calls, own)
        except LedgerError:
            return  # the tool finds no grant, and says why
    if own not in asked:
        return
    if own == asked[0] or one_task:
        await_people(guard, [calls[number] for number in asked])
    elif changed:
        await_people(guard, [calls[own]])
    elif open_questions(guard, [calls[own]]):
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
    known = guard.authorizer.decided([made[number] for number in others]) if others else []
    effects = dict(zip(others, known, strict=True))
    new = sorted([own, *(number for number in others if effects[number] is None)])
    ahead = frozenset(place for place, number in enumerate(new) if number != own)
    decided = guard.authorizer.authorize([made[number] for number in new], ahead=ahead)
    effects |= {number: one.effect for number, one in zip(new, decided, strict=True)}
    return [number for number in sorted(effects) if effects[number] is Effect.ASK]


def _question_of(guard: Guard, call: NoJob) -> PendingQuestion | None:
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
    return _as_asked(found, call.call_id, note.format(found.job))


def _as_asked(question: Approval, call_id: str, note: str) -> PendingQuestion:
    """An approval request as it was asked; the current facts need a job."""
    approved = question.state == "approved"
    return PendingQuestion(
        call_id=call_id,
        request=question.request,
        decision=Decision(
            effect=Effect.ASK,
            policies=question.policies,
            reason="it is approved, and waits for its job only" if approved else question.reason,
            needs=None if approved else question.needs,
        ),
        shown={**question.shown, "args": question.arguments},
        expires_at=question.expires_at,
        note=note,
    )
