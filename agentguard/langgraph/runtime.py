"""The gate in front of a call: authorize, and wait for people. Shared by every way in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from langchain_core.messages import AIMessage, ToolMessage
from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from agentguard.bindings.bound import Bound
from agentguard.calls.authorize import Waiting, log_refusal
from agentguard.calls.call import Call, Refused, call_key, call_name
from agentguard.calls.request import freeze, sayable
from agentguard.errors import ApprovalError, BindingError, JobError, LedgerError
from agentguard.guard import Guard
from agentguard.jobs.job import Job
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.approval_interrupt import OpenQuestion, approval_payload
from agentguard.model import Decision, Effect, Stage
from agentguard.people.approvals import Approval

Agents = str | Mapping[Stage, str]
Gate = Literal["graph", "inline"]

_LONGEST_ID = 256

_AGAIN = (
    "Still waiting: a resume value is no approval. A person answers with `agentguard approvals"
    " approve`, under their own key; then resume this thread."
)

_STARTS_OVER = (
    "nothing was done: the graph in node {0} was compiled with checkpointer=False, so it starts"
    " over after each pause and would repeat what it did. Leave that out, as in builder.compile():"
    " then it keeps what the graph around it keeps"
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


def agent_for(agents: Agents | None, stage: Stage | None) -> str | None:
    """Which agent a ToolNode acts as for a tool of a stage; empty: none (refused)."""
    if agents is None or isinstance(agents, str):
        return agents
    if stage is None:
        return agents[min(agents)]
    return agents.get(stage, "")


def known_agents(
    guard: Guard, node: str, given: str | Mapping[Stage | str, str], unsafe_shared_driver: bool
) -> Agents:
    """The agents that a node acts as, by stage if it shares a driver.

    Raises:
        BindingError: none, unknown ones, or several without `unsafe_shared_driver`.
    """
    if isinstance(given, str):
        if given not in guard.workspace.agents:
            raise BindingError(
                f"no agent {given!r} is configured; there are"
                f" {', '.join(sorted(guard.workspace.agents))}"
            )
        return given
    if not given:
        raise BindingError(f"{node} names no agent; say which agent acts there")
    unknown = sorted(str(stage) for stage in given if str(stage) not in set(Stage))
    if unknown:
        raise BindingError(
            f"{node}: {', '.join(unknown)} is no stage; stages are {', '.join(Stage)}"
        )
    by_stage = {Stage(stage): agent for stage, agent in given.items()}
    if len(set(by_stage.values())) > 1 and not unsafe_shared_driver:
        raise BindingError(
            f"{node}: one loop drives {', '.join(sorted(set(by_stage.values())))}; a hijacked"
            " model reaches them all. Give each agent its own loop, or say"
            " unsafe_shared_driver=True"
        )
    for stage, agent in by_stage.items():
        known = guard.workspace.agents.get(agent)
        if known is None or stage not in known.stages:
            raise BindingError(f"{node}: {agent!r} is no configured agent of the {stage} stage")
    return by_stage


def require_stage(guard: Guard, where: str, bound: Bound, agents: Agents) -> None:
    """Require that a tool's stage is one that its agent takes.

    Args:
        where: the ToolNode or middleware that would run it, for the error.

    Raises:
        BindingError: naming tool, stage and agent.
    """
    stage = bound.binding.stage
    if stage is None:
        return
    agent = agent_for(agents, stage)
    known = guard.workspace.agents.get(agent or "")
    if known is None or stage not in known.stages:
        raise BindingError(
            f"{where}: {bound.name} belongs to the {stage} stage, which"
            f" {agent or 'no named agent'} does not take; take {bound.name} out of this loop, or"
            f' name an agent of that stage: {{"{stage}": ...}}'
        )


def refuse(
    guard: Guard,
    name: object,
    agent: str | None,
    configurable: Mapping[str, Any],
    refusal: Refused,
) -> None:
    """Record and log that a call was refused before anything could be decided about it."""
    job = _job_of(guard, configurable)
    held = job.id if job is not None else ""
    thread = str(configurable.get("thread_id", ""))
    log_refusal(sayable(name), agent, held, thread, (refusal.policy,), refusal.reason)
    body = {
        "tool": sayable(name),
        "job": held,
        "policy": refusal.policy,
        "reason": refusal.reason[:500],
    }
    with contextlib.suppress(LedgerError):  # nothing runs either way
        guard.ledger.refuse(body)


class _NoJob(Refused):
    """A run belongs to no job that this process holds; its call may wait in one that was left."""

    def __init__(
        self, reason: str, *, bound: Bound, arguments: Mapping[str, Any], thread: str, call_id: str
    ) -> None:
        super().__init__(reason, policy="no-job")
        self.bound = bound
        self.arguments = arguments
        self.thread = thread
        self.call_id = call_id


def make_call(
    guard: Guard,
    bound: Bound,
    *,
    agent: str | None,
    arguments: Mapping[str, Any],
    call_id: str,
    configurable: Mapping[str, Any],
    source: str | None,
    messages: Sequence[Any] = (),
    pauses_apart: bool = False,
) -> Call:
    """A Call from what a run's config says.

    Args:
        source: id of the message that holds the call; None where nothing but the call itself
            says which one it is.
        messages: the conversation, where it is known.
        pauses_apart: see `Call`.

    Raises:
        Refused: the run belongs to no job that this process holds, or starts over after each pause.
    """
    thread = str(configurable.get("thread_id", ""))
    for name in (call_id, thread, source or ""):
        if len(name) > _LONGEST_ID or not name.isprintable():
            raise Refused("its call id, thread or message id is no readable id", policy="call-id")
    try:
        job = guard.jobs.find(configurable)
    except JobError as error:
        asks = _upstream.has_checkpointer(configurable)
        raise _NoJob(
            str(error),
            bound=bound,
            arguments=arguments,
            thread=thread if asks else "",
            call_id=call_id,
        ) from None
    if not bound.binding.is_harmless and _upstream.starts_over(configurable):
        raise Refused(_STARTS_OVER.format(_upstream.graph_path(configurable)), policy="starts-over")
    key = None
    if source is not None:
        key = call_key(job=job.id, thread=thread, source=source, call_id=call_id)
    return Call(
        bound=bound,
        agent=agent,
        arguments=arguments,
        call_id=call_id,
        job=job,
        thread=thread,
        key=key,
        can_ask=_upstream.has_checkpointer(configurable),
        unanswered=_unanswered(messages, call_id) if bound.reaches_out else frozenset(),
        pauses_apart=pauses_apart,
    )


def refuse_unknown(guard: Guard, name: str, configurable: Mapping[str, Any]) -> None:
    """Record that a model called a tool which is not there, in the job that the run was in."""
    job = _job_of(guard, configurable)
    guard.gate.refuse_unknown(name, job.id if job is not None else None)


def _job_of(guard: Guard, configurable: Mapping[str, Any]) -> Job | None:
    with contextlib.suppress(JobError):
        return guard.jobs.find(configurable)
    return None


def _unanswered(messages: Sequence[Any], call_id: str) -> frozenset[str]:
    """The calls of a conversation, this message's excepted, that no ToolMessage answers."""
    asked: set[str] = set()
    for message in messages:
        if isinstance(message, AIMessage):
            ids = {call["id"] for call in message.tool_calls if isinstance(call["id"], str)}
            asked |= ids if call_id not in ids else set()
    answered = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    return frozenset(asked - answered - {call_id})


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


def standing(guard: Guard, find: Callable[[], Call]) -> Standing:
    """How a call stands now; one that waits in a job that this process does not hold is open.

    Args:
        find: makes the call.
    """
    try:
        call = find()
        waiting = guard.gate.waiting(call)
    except _NoJob as refusal:  # who resumes without the job must not use up the question
        return Standing(question=_question_of(guard, refusal))
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


def await_people(guard: Guard, finds: Sequence[Callable[[], Call]]) -> None:
    """Return once no question about these calls is open; else interrupt with all that are.

    Args:
        finds: makes each call.
    """
    questions = [question for find in finds if (question := standing(guard, find).question)]
    if questions:
        ask_people(guard, questions)


def authorize_inline(guard: Guard, find: Callable[[], Call]) -> None:
    """The whole gate for one call: decide and record, then wait for people if they are asked."""
    authorize_message(guard, [find], 0)


def authorize_message(
    guard: Guard,
    finds: Sequence[Callable[[], Call]],
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
        finds: makes each call of the message that is not answered yet, in its order.
        own: which of them this one is.
        changed: it is not what the message holds, so the one that asks can't ask for it.
        turn: held while it is decided, by one call of the message at a time.
    """
    try:
        with turn or contextlib.nullcontext():
            asked = _asked(guard, finds, own)
    except _NoJob:  # it may wait in one
        stands = [standing(guard, find) for find in finds]
        asked = [number for number, stand in enumerate(stands) if stand.question is not None]
    except (Refused, LedgerError):
        return  # the tool finds no grant, and says why
    if own not in asked:
        return
    if own == asked[0]:
        await_people(guard, [finds[number] for number in asked])
    elif changed:
        await_people(guard, [finds[own]])
    elif standing(guard, finds[own]).question is not None:
        raise GraphInterrupt()


def _asked(guard: Guard, finds: Sequence[Callable[[], Call]], own: int) -> list[int]:
    """Decide on what was not decided of a message; returns which calls people are asked about.

    Raises:
        Refused: the own call can't be made.
        LedgerError: nothing was decided.
    """
    calls = {own: finds[own]()}
    for number, find in enumerate(finds):
        with contextlib.suppress(Refused):  # it says so itself, when it comes
            calls[number] = calls[number] if number == own else find()
    others = [number for number in calls if number != own]
    known = guard.gate.decided([calls[number] for number in others]) if others else []
    effects = dict(zip(others, known, strict=True))
    new = sorted([own, *(number for number in others if effects[number] is None)])
    ahead = frozenset(place for place, number in enumerate(new) if number != own)
    decided = guard.gate.authorize([calls[number] for number in new], ahead=ahead)
    effects |= {number: one.decision.effect for number, one in zip(new, decided, strict=True)}
    return [number for number in sorted(effects) if effects[number] is Effect.ASK]


def _question_of(guard: Guard, call: _NoJob) -> OpenQuestion | None:
    """The open question about exactly this call; ids alone could be another call's."""
    try:
        found = guard.approvals.unused(call.thread, call_name(call.call_id))
        if found is None or found.shown["tool"] != call.bound.name:
            return None
        same = freeze(call.bound, call.arguments) == found.arguments
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
