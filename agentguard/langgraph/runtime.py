"""What a run says of its calls: `CallContext` reads a run's config once, and makes Calls of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from agentguard.calls.arguments import CallArguments
from agentguard.calls.call import Call, call_key
from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.errors import JobError
from agentguard.jobs.job import Job
from agentguard.langgraph import upstream as _upstream
from agentguard.model import Obstacle, ObstacleKind

_LONGEST_ID = 256

_STARTS_OVER = (
    "nothing was done: the graph in node {0} was compiled with checkpointer=False, so it starts"
    " over after each pause and would repeat what it did. Leave that out, as in builder.compile():"
    " then it keeps what the graph around it keeps"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoJob(Obstacle):
    """A run belongs to no job that this process holds; its call may wait in one that was left.

    Args:
        thread: of the run; empty where its interrupts can't be resumed.
    """

    arguments: CallArguments
    thread: str
    call_id: str


CallOrObstacle = Call | Obstacle
"""A call of a run, or why it is none."""


def thread_of(config: Mapping[str, Any]) -> str:
    """The LangGraph thread id of a run, empty where it has none."""
    return str(config.get("configurable", {}).get("thread_id", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What is the same for every call of a run.

    Args:
        job: the job that the run was entered into, or why it is in none.
        thread: the LangGraph thread id, empty without a checkpointer.
        source: id of the message that holds the calls; None where nothing but the call itself
            says which one it is.
        messages: the conversation, where it is known.
        can_ask: an interrupt of the run can be resumed.
        starts_over: the nodes that hold its graph, if that begins anew after each pause.
    """

    point: EnforcementPoint
    job: Job | JobError
    thread: str
    source: str | None
    messages: Sequence[Any]
    can_ask: bool
    starts_over: str | None

    @classmethod
    def from_config(
        cls,
        point: EnforcementPoint,
        config: Mapping[str, Any],
        *,
        source: str | None = None,
        messages: Sequence[Any] = (),
    ) -> CallContext:
        """The context of a run.

        Args:
            config: the run's RunnableConfig.
            source, messages: see `CallContext`.
        """
        configurable = config.get("configurable", {})
        job: Job | JobError
        try:
            job = point.jobs.find(configurable)
        except JobError as error:
            job = error
        over = _upstream.starts_over(configurable)
        return cls(
            point=point,
            job=job,
            thread=thread_of(config),
            source=source,
            messages=messages,
            can_ask=_upstream.has_checkpointer(configurable),
            starts_over=_upstream.graph_path(configurable) if over else None,
        )

    def call(
        self,
        arguments: CallArguments,
        *,
        agent: str | None,
        call_id: str,
        pauses_apart: bool = False,
    ) -> CallOrObstacle:
        """A call of this run.

        Args:
            agent, pauses_apart: see `Call`.

        Returns:
            An Obstacle where the run belongs to no job that this process holds, or starts over
            after each pause; or where the call's id can't be read.
        """
        for name in (call_id, self.thread, self.source or ""):
            readable = isinstance(name, str) and len(name) <= _LONGEST_ID and name.isprintable()
            if not readable:  # whoever calls a tool by hand may give an id of any type
                why = "its call id, thread or message id is no readable id"
                return Obstacle(kind=ObstacleKind.CALL_ID, sentence=why)
        if isinstance(self.job, JobError):
            return NoJob(
                kind=ObstacleKind.NO_JOB,
                sentence=str(self.job),
                arguments=arguments,
                thread=self.thread if self.can_ask else "",
                call_id=call_id,
            )
        bound = arguments.bound
        if bound.binding.stage is not None and self.starts_over is not None:
            why = _STARTS_OVER.format(self.starts_over)
            return Obstacle(kind=ObstacleKind.STARTS_OVER, sentence=why)
        key = None
        if self.source is not None:
            key = call_key(job=self.job.id, thread=self.thread, source=self.source, call_id=call_id)
        return Call(
            agent=agent,
            arguments=arguments,
            call_id=call_id,
            job=self.job,
            thread=self.thread,
            key=key,
            source=self.source,
            can_ask=self.can_ask,
            unanswered=self._unanswered(call_id) if bound.reaches_out else frozenset(),
            pauses_apart=pauses_apart,
        )

    def refuse(self, name: object, agent: str | None, obstacle: Obstacle) -> None:
        """Record and log that a call was refused before anything could be decided about it."""
        job = self.job.id if isinstance(self.job, Job) else ""
        self.point.refusals.record_unmade(
            name, agent, job=job, thread=self.thread, obstacle=obstacle
        )

    def _unanswered(self, call_id: str) -> frozenset[str]:
        """The calls of the conversation, its message's excepted, that no ToolMessage answers."""
        asked: set[str] = set()
        for message in self.messages:
            if isinstance(message, AIMessage):
                ids = {call["id"] for call in message.tool_calls if isinstance(call["id"], str)}
                asked |= ids if call_id not in ids else set()
        answered = {m.tool_call_id for m in self.messages if isinstance(m, ToolMessage)}
        return frozenset(asked - answered - {call_id})
