"""One call at a time, each through a graph of one protected ToolNode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentguard.bindings.compilation import Tool
from agentguard.errors import JobError
from agentguard.guard import Guard
from agentguard.jobs.job import Job
from agentguard.langgraph import protect
from agentguard.testing.outcomes import CallResult, CallRun


class Caller:
    """Prepares the runs of calls.

    Args:
        guard: whose tools are called.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._saver = InMemorySaver()
        self._graphs: dict[tuple[str, ...], Any] = {}
        for bind in (guard.list_tool, guard.queue_tool, guard.export_tool):
            bind()

    def begun(
        self,
        job: Job,
        tool: Tool | str,
        arguments: Mapping[str, Any],
        *,
        agent: str | None,
        thread: str | None,
    ) -> CallRun:
        """The run of a new call; see `TestWorkspace.call`.

        Raises:
            ValueError: nobody, or more than one agent, could make it, or there is none of the name.
        """
        name = tool if isinstance(tool, str) else self._guard.tools([tool])[0].name
        if agent is None:
            agent = self._agent_for(name)
        elif agent not in self._guard.workspace.agents:
            known = ", ".join(sorted(self._guard.workspace.agents))
            raise ValueError(f"no agent {agent!r} is configured; there are {known}")
        call_id, source = f"call-{uuid4().hex}", f"message-{uuid4().hex}"
        thread = thread or f"thread-{uuid4().hex}"
        call = {"name": name, "args": dict(arguments), "id": call_id, "type": "tool_call"}
        return CallRun(
            graph=self._graph(agent),
            given={"messages": [AIMessage("", tool_calls=[call], id=source)]},
            config=job.config(thread_id=thread),
            tool=name,
            agent=agent,
            job=job.id,
            thread=thread,
            call_id=call_id,
            source=source,
            records=self._guard.ledger.storage.tree_size(),
        )

    def resumed(self, outcome: CallResult, answer: Any) -> CallRun:
        """The run that goes on with a call.

        Args:
            answer: the value to resume with; None: none.

        Raises:
            JobError: its job was left.
        """
        job = next((job for job in self._guard.jobs.held if job.id == outcome.job), None)
        if job is None:
            raise JobError(
                f"{outcome.job} was left, and nothing runs in it; enter it again with `with"
                f' ws.guard.rejoin_job("{outcome.job}", by=...):` and resume the call there'
            )
        return CallRun(
            graph=self._graph(outcome.agent),
            given=None if answer is None else Command(resume=answer),
            config=job.config(thread_id=outcome.thread),
            tool=outcome.tool,
            agent=outcome.agent,
            job=job.id,
            thread=outcome.thread,
            call_id=outcome.call_id,
            source=outcome.source,
            records=self._guard.ledger.storage.tree_size(),
        )

    def _agent_for(self, name: str) -> str:
        """The one agent that takes the stage of a tool; of a tool without a stage, the first."""
        if name not in self._guard.bound:
            raise ValueError(f"no tool {name!r} is bound; say agent= to have it refused")
        agents = self._guard.workspace.agents.values()
        stage = self._guard.bound[name].binding.stage
        able = [one.id for one in agents if stage is None or stage in one.stages]
        if len(able) != 1 and stage is not None:
            many = ", ".join(able) or "none"
            raise ValueError(f"{name} is of the {stage} stage; say agent=, which has it: {many}")
        return able[0]

    def _graph(self, agent: str) -> Any:
        names = (agent, *self._guard.bound)  # more may be bound later
        if names not in self._graphs:
            builder = StateGraph(MessagesState)
            builder.add_node("tools", ToolNode(self._guard.tools(agent=agent)))
            builder.add_edge(START, "tools")
            builder.add_edge("tools", END)
            sealed = protect(builder, self._guard, agents=agent)
            self._graphs[names] = sealed.compile(checkpointer=self._saver)
        return self._graphs[names]
