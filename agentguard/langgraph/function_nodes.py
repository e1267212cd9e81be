"""Nodes that are plain functions, and call guarded tools by hand.

The quickstart of LangGraph has one: a loop over `tool.invoke(call["args"])`. A node that `protect`
was told the agent of runs under a gate: each guarded tool that its function calls is decided,
asked and claimed as in a ToolNode, whether it is called with a tool call or with arguments only.
See calls_by_hand.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool

from agentguard.calls.enforcement_point import EnforcementPoint
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.agent_mapping import Agents
from agentguard.langgraph.calls_by_hand import NodeRun
from agentguard.langgraph.guarded_tool import guarded
from agentguard.langgraph.nested_agents import BY_HAND
from agentguard.langgraph.node_calls import UnansweredCalls
from agentguard.langgraph.own_messages import MESSAGES


class FunctionNode:
    """A function node of a graph, under its gate.

    Args:
        runnable: the developer's own node.
        agents: who it acts as.
    """

    def __init__(
        self, point: EnforcementPoint, runnable: Any, *, name: str, agents: Agents
    ) -> None:
        self._point = point
        self._copies: dict[str, BaseTool] = {}
        self._runnable = runnable
        self._name = name
        self._agents = agents

    def run(self, runnable: Any, input: Any, config: RunnableConfig) -> Any:
        """Run the function; raise the question that a call of it asked, if it swallowed one."""
        node = self._entered(input, config)
        try:
            with node.handed(config) as handed:
                result = runnable.invoke(input, handed)
        except Exception:
            node.raise_question()
            raise
        node.end()
        return result

    async def arun(self, runnable: Any, input: Any, config: RunnableConfig) -> Any:
        """See `run`."""
        node = self._entered(input, config)
        try:
            with node.handed(config) as handed:
                result = await runnable.ainvoke(input, handed)
        except Exception:
            node.raise_question()
            raise
        await asyncio.to_thread(node.end)
        return result

    def as_runnable(self) -> Any:
        """The node in its own place; LangGraph finds the graphs that it holds in its closure."""
        runnable = self._runnable

        def run(input: Any, config: RunnableConfig) -> Any:
            return self.run(runnable, input, config)

        async def arun(input: Any, config: RunnableConfig) -> Any:
            return await self.arun(runnable, input, config)

        for function in (run, arun):
            setattr(function, BY_HAND, True)
        return _upstream.RunnableCallable(run, arun, name=self._name, trace=False)

    def _entered(self, input: Any, config: RunnableConfig) -> NodeRun:
        return NodeRun(
            self._point,
            name=self._name,
            agents=self._agents,
            guarded=self._copy,
            config=config,
            message=_newest_calls(input),
        )

    def _copy(self, tool: BaseTool) -> BaseTool:
        """The guarded copy of a bound tool, made at its first call."""
        return self._copies.get(tool.name) or self._copies.setdefault(
            tool.name, guarded(self._point, tool)
        )


def _newest_calls(input: Any) -> UnansweredCalls | None:
    """What a node's input, the state or a payload, holds of calls to answer."""
    messages: Sequence[Any] = ()
    if isinstance(input, Mapping):
        messages = input.get(MESSAGES) or ()
    elif isinstance(input, (list, tuple)):
        messages = input
    else:
        messages = getattr(input, MESSAGES, None) or ()
    if not isinstance(messages, (list, tuple)):
        return None
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        if isinstance(message, AIMessage):
            calls = [one for one in message.tool_calls if one["id"] and one["id"] not in answered]
            return UnansweredCalls(id=message.id, calls=tuple(dict(one) for one in calls))
    return None
