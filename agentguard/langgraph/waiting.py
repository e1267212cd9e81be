"""How asked calls stand, and the interrupt that says so. Shared by every way in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from langgraph.errors import GraphInterrupt

from agentguard.calls.asked_calls import CallState, as_asked
from agentguard.calls.call import Call, call_id_digest
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.calls.questions import PendingQuestion
from agentguard.calls.refusal_log import in_a_line
from agentguard.calls.refused import Refused
from agentguard.errors import ApprovalError, LedgerError
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.approval_interrupt import approval_payload
from agentguard.langgraph.runtime import CallOrObstacle, NoJob
from agentguard.ledger.rows.approvals import AskedCallRow
from agentguard.model import Effect, Obstacle

_log = logging.getLogger(__name__)

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


_asking: ContextVar[list[PendingQuestion] | None] = ContextVar("agentguard_asking", default=None)


@contextlib.contextmanager
def asking(*, here: bool = True) -> Iterator[list[PendingQuestion]]:
    """What runs inside may find that a call has to be asked about once more.

    It can't interrupt by itself, for its task may run other calls beside it: the questions are
    kept, and whoever runs the calls asks.

    Args:
        here: False where nobody would ask, so that such a call is refused.
    """
    questions: list[PendingQuestion] = []
    token = _asking.set(questions if here else None)
    try:
        yield questions
    finally:
        _asking.reset(token)


def is_asking() -> bool:
    """Whether a call that runs here may be asked about once more."""
    return _asking.get() is not None


def keep_question(question: PendingQuestion) -> None:
    """Keep a question for whoever runs the calls of this task, once however often it came up."""
    questions = _asking.get()
    if questions is not None and all(one.request != question.request for one in questions):
        questions.append(question)


def call_states(
    point: EnforcementPoint, calls: Sequence[CallOrObstacle]
) -> list[PendingQuestion | CallState]:
    """How calls stand by what the ledger holds.

    One that waits in a job that this process does not hold is open.
    """
    made = [call for call in calls if isinstance(call, Call)]
    try:
        states = point.asked_calls.states(made)
    except LedgerError:  # the tools find no grant, and say why
        return [
            CallState.SETTLED if isinstance(call, Call) else _unmade(point, call) for call in calls
        ]
    known = iter(states)
    return [
        _here_or_left(point, call, next(known)) if isinstance(call, Call) else _unmade(point, call)
        for call in calls
    ]


def _here_or_left(
    point: EnforcementPoint, call: Call, state: PendingQuestion | CallState
) -> PendingQuestion | CallState:
    """How a call stands, which may wait in another job of its thread that its run is not in."""
    if state is not CallState.SETTLED:
        return state
    question = _question_of(point, call)
    if question is None:
        return state
    try:
        known = point.authorizer.recorded_effects([call])
    except LedgerError:
        return state
    return question if known == [None] else state


def _unmade(point: EnforcementPoint, call: Obstacle) -> PendingQuestion | CallState:
    if isinstance(call, NoJob):  # who resumes without the job must not use up the question
        return _question_of(point, call) or CallState.SETTLED
    return CallState.SETTLED


def call_state_now(point: EnforcementPoint, call: CallOrObstacle) -> PendingQuestion | CallState:
    """How a call stands by the current facts."""
    if not isinstance(call, Call):
        return _unmade(point, call)
    try:
        return _here_or_left(point, call, point.asked_calls.state_now(call))
    except LedgerError:
        return CallState.SETTLED


def open_questions(
    point: EnforcementPoint, calls: Sequence[CallOrObstacle], *, look: bool = False
) -> list[PendingQuestion]:
    """The questions about these calls that are open.

    Args:
        look: by the current facts if one was approved, since it can't ask once it went on.
    """
    states = call_states(point, calls)
    if look:
        states = [
            call_state_now(point, call) if state is CallState.PERMITTED else state
            for call, state in zip(calls, states, strict=True)
        ]
    return [state for state in states if isinstance(state, PendingQuestion)]


def pause_for(
    point: EnforcementPoint, questions: Sequence[PendingQuestion], *, woken: bool = False
) -> NoReturn:
    """Interrupt a task with all questions of it that are open.

    The interrupt notifies, a resume value only wakes: it answers none of the interrupts that the
    task has besides, such as those of a wrapper or of a function.

    Args:
        woken: it was woken before, which brought nothing.
    """
    note = _AGAIN if woken else None
    _upstream.pause(approval_payload(questions, note=note, store=point.store))


def await_people(
    point: EnforcementPoint, calls: Sequence[CallOrObstacle], *, woken: bool = False
) -> None:
    """Return once no question about these calls is open; else interrupt with all that are.

    Args:
        woken: the task was woken from its question.
    """
    questions = open_questions(point, calls, look=len(calls) > 1)
    if not questions:
        return
    if not woken:
        pause_for(point, questions)
    states = [call_state_now(point, call) for call in calls]  # what came up since is shown, too
    questions = [state for state in states if isinstance(state, PendingQuestion)]
    if questions:
        pause_for(point, questions, woken=True)


def authorize_message(
    point: EnforcementPoint,
    calls: Sequence[CallOrObstacle],
    own: int,
    *,
    changed: bool = False,
    turn: contextlib.AbstractContextManager[Any] | None = None,
    one_task: bool = False,
    woken: bool = False,
) -> bool:
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
        woken: the task was woken from its question, and what woke it was taken before.

    Returns:
        Whether it alone is asked about by its task, so that it may be once more.
    """
    woken = _upstream.take_wake() or woken
    if isinstance(calls[own], NoJob):  # it may wait in one
        asked = [number for number, call in enumerate(calls) if open_questions(point, [call])]
    else:
        try:
            with turn or contextlib.nullcontext():
                asked = _asked(point, calls, own)
        except LedgerError:
            return False  # the tool finds no grant, and says why
    if own not in asked:
        return False
    if own == asked[0] or one_task:
        await_people(point, [calls[number] for number in asked], woken=woken)
        return len(asked) == 1
    if changed:
        await_people(point, [calls[own]], woken=woken)
        return True
    (state,) = call_states(point, [calls[own]])
    if state is CallState.PERMITTED:  # not begun: it asked nothing that a value could answer
        _upstream.drop_wake()
        state = call_state_now(point, calls[own])
    if isinstance(state, PendingQuestion):
        raise GraphInterrupt()
    return False


def _asked(point: EnforcementPoint, calls: Sequence[CallOrObstacle], own: int) -> list[int]:
    """Decide on what was not decided of a message; returns which calls people are asked about.

    A call that can't be made says so itself, when it comes. One that waits in another job of its
    thread is not decided on here: the question there stays as it is.

    Raises:
        LedgerError: nothing was decided.
    """
    made = {number: call for number, call in enumerate(calls) if isinstance(call, Call)}
    if own not in made:
        return []
    others = [number for number in made if number != own]
    known = point.authorizer.recorded_effects([made[number] for number in others]) if others else []
    effects = dict(zip(others, known, strict=True))
    new = sorted([own, *(number for number in others if effects[number] is None)])
    elsewhere = [number for number in new if _waits_elsewhere(point, made[number])]
    if own in elsewhere:
        return elsewhere
    new = [number for number in new if number not in elsewhere]
    ahead = frozenset(place for place, number in enumerate(new) if number != own)
    decided = point.authorizer.authorize([made[number] for number in new], ahead=ahead)
    effects |= {number: one.effect for number, one in zip(new, decided, strict=True)}
    return [number for number in sorted(effects) if effects[number] is Effect.ASK]


def _waits_elsewhere(point: EnforcementPoint, call: Call) -> bool:
    """Whether people were asked about a call in another job than the one that its run is in."""
    question = _question_of(point, call)
    if question is None or question.note is None:
        return False
    _log.warning("%s: %s", in_a_line(call.call_id), question.note)
    return True


def _question_of(point: EnforcementPoint, call: NoJob | Call) -> PendingQuestion | None:
    """The open question about exactly this call; ids alone could be another call's."""
    try:
        waiting = point.approvals.unused(call.thread, call_id_digest(call.call_id))
        found = next((one for one in waiting if _asks_about(point, one, call)), None)
        if found is None:
            return None
        arguments = point.approvals.arguments(found)
    except (ApprovalError, Refused, LedgerError):  # nobody was asked, or nobody can know
        return None
    note = _NOT_ENTERED if point.jobs.holds(found.job) else _ELSEWHERE
    return as_asked(found, call.call_id, arguments=arguments, note=note.format(found.job))


def _asks_about(point: EnforcementPoint, found: AskedCallRow, call: NoJob | Call) -> bool:
    """Whether a question is about exactly this call, and was asked in another job than its own.

    Raises:
        Refused: the call's arguments can't be read, so nobody was asked about them.
    """
    if found.tool != call.arguments.bound.name:
        return False
    if isinstance(call, Call) and (found.job == call.job.id or not call.is_of_thread(found)):
        return False
    try:
        asked = point.approvals.arguments(found)
    except ApprovalError:  # its row was edited
        return False
    return bool(call.arguments.frozen == asked)
