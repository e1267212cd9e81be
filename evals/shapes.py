"""The graphs that agentguard guards: by `protect`, and with guarded tools called by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentguard import Guard
from agentguard.langgraph import protect
from evals import scenario as s
from evals import steps
from evals.loops import Meddler, Mouth, Threads

Shape = Literal["graph", "agent", "inline", "functional"]
"""A graph of several agents by `protect`; a `create_agent` loop per agent by `GuardMiddleware`;
a graph whose nodes call guarded tools by hand; an entrypoint that does."""

ToolsOfAgents = Mapping[str, Mapping[str, BaseTool]]
"""Agent → its guarded tools by name."""


def out_of_reach(plan: s.Scenario, play: s.Attack | s.Twin, shape: Shape) -> str | None:
    """Why a play has nothing in this shape that its steps could be done to; None: it has."""
    if shape in ("graph", "agent"):
        return None
    if any(isinstance(step, steps.Invoke) for step in play.steps):
        return "the tools carry the gate: to call them by hand is the way in"
    if play.inside is not None:
        return "no middleware stands between gate and tool"
    if "note_brief" in s.tools_of(plan):
        return "nothing puts a state into a tool that is called by hand"
    if shape == "functional" and (play.routes or any(map(_needs_nodes, play.steps))):
        return "an entrypoint has no nodes to go to, and keeps no messages to change"
    return None


def _needs_nodes(step: steps.Step) -> bool:
    match step:
        case steps.Goto() | steps.UpdateState() | steps.Say(stop=True):
            return True
        case steps.Resume():
            return bool(step.calls)
    return False


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def crew_loop(
    mouth: Mouth, tools: ToolsOfAgents, meddlers: Sequence[Meddler], guard: Guard, threads: Threads
) -> Any:
    """A graph through `protect`, with a ToolNode, `{agent}_tools`, for each agent.

    Args:
        meddlers: what the developer put between gate and tools: one, or none.
    """
    wrap: dict[str, Any] = {}
    for meddler in meddlers:
        wrap = {"wrap_tool_call": meddler.wrap_tool_call,
                "awrap_tool_call": meddler.awrap_tool_call}  # fmt: skip
    nodes = {agent: ToolNode([*own.values()], **wrap) for agent, own in tools.items()}
    builder = _builder(mouth, nodes)
    agents = {f"{agent}_tools": agent for agent in tools}
    # The scripted model and its meddlers hold the whole session, plain tools with it.
    sealed = protect(builder, guard, agents=agents, unsafe_unsearched=["model"])
    return sealed.compile(checkpointer=threads.saver)


def node_loop(mouth: Mouth, tools: ToolsOfAgents, threads: Threads) -> Any:
    """A graph whose nodes, `{agent}_tools`, are functions that call the agent's tools."""
    builder = _builder(mouth, {agent: _node(own) for agent, own in tools.items()})
    return builder.compile(checkpointer=threads.saver)


def _builder(mouth: Mouth, nodes: Mapping[str, Any]) -> StateGraph[Any]:
    """One model, and a node for each agent's tools."""

    def model(state: State) -> dict[str, Any]:
        return {"messages": [mouth.speak()]}

    def route(state: State) -> str:
        agent = mouth.agents.get(state["messages"][-1].id or "")
        return f"{agent}_tools" if agent is not None else END

    builder: StateGraph[Any] = StateGraph(State)
    builder.add_node("model", model)
    builder.add_edge(START, "model")
    for agent, node in nodes.items():
        builder.add_node(f"{agent}_tools", node)
        builder.add_edge(f"{agent}_tools", "model")
    builder.add_conditional_edges("model", route, [*(f"{agent}_tools" for agent in nodes), END])
    return builder


def _node(tools: Mapping[str, BaseTool]) -> Any:
    def run(given: Any, config: RunnableConfig) -> Any:
        return _written([tools[call["name"]].invoke(call, config) for call in _calls(given)])

    async def arun(given: Any, config: RunnableConfig) -> Any:
        return _written([await tools[call["name"]].ainvoke(call, config) for call in _calls(given)])

    return RunnableLambda(run, arun)


def _calls(given: Any) -> Sequence[dict[str, Any]]:
    """The calls in a node's input: a list of them, or the last AI message's."""
    if isinstance(given, list):
        return given
    said = [message for message in given["messages"] if isinstance(message, AIMessage)]
    return [dict(call) for call in said[-1].tool_calls]


def _written(results: Sequence[Any]) -> Any:
    """What a node writes for what its tools returned."""
    flat = [part for each in results for part in (each if isinstance(each, list) else [each])]
    commands = [part for part in flat if isinstance(part, Command)]
    messages = {"messages": [part for part in flat if not isinstance(part, Command)]}
    return [*commands, messages] if commands else messages


def function_loop(mouth: Mouth, tools: ToolsOfAgents, threads: Threads) -> Any:
    """An entrypoint that calls the tools in a row; it returns the messages of its thread."""

    def own(said: AIMessage) -> Mapping[str, BaseTool]:
        return tools[mouth.agents[said.id or ""]]

    if threads.runner is None:

        @task
        def speak() -> AIMessage:
            return mouth.speak()

        @entrypoint(checkpointer=threads.saver)
        def flow(given: Any, *, previous: Any = None) -> list[Any]:
            messages = [*(previous or ())]
            while True:
                said = speak().result()
                messages.append(said)
                if not said.tool_calls:
                    return messages
                messages += [own(said)[call["name"]].invoke(call) for call in said.tool_calls]

        return flow

    @task
    async def aspeak() -> AIMessage:
        return mouth.speak()

    @entrypoint(checkpointer=threads.saver)
    async def aflow(given: Any, *, previous: Any = None) -> list[Any]:
        messages = [*(previous or ())]
        while True:
            said = await aspeak()
            messages.append(said)
            if not said.tool_calls:
                return messages
            messages += [await own(said)[call["name"]].ainvoke(call) for call in said.tool_calls]

    return aflow
