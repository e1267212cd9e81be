"""The studio: a director and one agent per stage, each with its own model, tools and identity.

    director ──▶ painter ⇄ painter_tools     generate_image
             ──▶ editor ⇄ editor_tools       list_assets, place_logo, compose_photo, caption, ...
             ──▶ renderer ⇄ renderer_tools   render_video, transcode, thumbnail
             ──▶ reviewer ⇄ reviewer_tools   review_media
             ──▶ traffic ⇄ traffic_tools     queue_for_release
             ──▶ publisher ⇄ publisher_tools export_asset

A model sees its own tools and its own task only, so one that is hijacked reaches one stage. Run it
on your own brief with `python -m graphs.studio --help`; `langgraph dev` serves it (`served`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph_sdk.runtime import ServerRuntime

from agentguard import Guard
from agentguard.langgraph import protect
from graphs.bindings import AGENTS, toolboxes
from graphs.director import HAND_OVER, hand_over
from graphs.prompts import director_prompt, stage_prompt

Graph: TypeAlias = CompiledStateGraph[Any, Any, Any, Any]
Node: TypeAlias = Any  # LangGraph names its protocol of nodes privately


def build(
    guard: Guard,
    *,
    model: BaseChatModel,
    models: Mapping[str, BaseChatModel] | None = None,
    extra: Mapping[str, Sequence[BaseTool]] | None = None,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> Graph:
    """The compiled, protected graph.

    Args:
        guard: holds the Bindings of all tools.
        model: speaks for the director and every agent.
        models: other models for some agents.
        extra: further tools for some agents.
        checkpointer: where threads are kept; without one no call can wait for a person.
    """
    builder = StateGraph(MessagesState)
    builder.add_node("director", _director(model, director_prompt(guard.workspace)))
    builder.add_edge(START, "director")
    builder.add_conditional_edges("director", _next_agent, [*AGENTS, "director", END])
    tools = toolboxes(guard)
    for agent in AGENTS:
        box = [*tools[agent], *(extra or {}).get(agent, ())]
        builder.add_node(agent, _worker(agent, (models or {}).get(agent, model), box))
        builder.add_node(f"{agent}_tools", ToolNode(box))
        builder.add_edge(f"{agent}_tools", agent)
        builder.add_conditional_edges(
            agent, _after(f"{agent}_tools"), [f"{agent}_tools", "director", END]
        )
    sealed = protect(builder, guard, agents={f"{agent}_tools": agent for agent in AGENTS})
    graph: Graph = sealed.compile(checkpointer=checkpointer, name="studio")
    return graph.with_config(recursion_limit=200)


def _director(model: BaseChatModel, prompt: str) -> Node:
    bound = model.bind_tools([hand_over])

    def director(state: MessagesState) -> dict[str, Any]:
        heard = _directors_own(state["messages"])
        if not any(isinstance(message, HumanMessage) for message in heard):
            return {}  # nobody asked for anything
        answer = bound.invoke([SystemMessage(prompt), *heard])
        if not answer.tool_calls:
            return {"messages": [AIMessage(answer.text, id=answer.id, name="director")]}
        call = answer.tool_calls[0]  # one task at a time, whatever the model would like
        said = AIMessage(answer.text, id=answer.id, name="director", tool_calls=[call])
        if call["name"] == HAND_OVER and call["args"].get("agent") in AGENTS:
            return {"messages": [said]}
        wrong = f"No such agent. There are {', '.join(AGENTS)}."
        reply = ToolMessage(wrong, tool_call_id=call["id"], name=HAND_OVER, status="error")
        return {"messages": [said, reply]}

    return director


def _worker(agent: str, model: BaseChatModel, tools: Sequence[BaseTool]) -> Node:
    bound = model.bind_tools(list(tools))
    prompt = stage_prompt(agent)

    def worker(state: MessagesState) -> dict[str, Any]:
        task, since = _task_of(agent, state["messages"])
        if task is None:  # reached by no hand-over: there is nobody to report to
            return {}
        answer = bound.invoke(
            [SystemMessage(prompt), HumanMessage(str(task["args"].get("task", ""))), *since]
        )
        answer.name = agent
        if answer.tool_calls:
            return {"messages": [answer]}
        report = ToolMessage(
            answer.text or "Done, without a word.", tool_call_id=task["id"], name=HAND_OVER
        )
        return {"messages": [answer, report]}

    return worker


def _directors_own(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """What the director hears: people, itself, and the reports that answer its hand-overs."""
    own = [m for m in messages if isinstance(m, AIMessage) and m.name == "director"]
    ids = {call["id"] for message in own for call in message.tool_calls}
    return [
        m for m in messages
        if isinstance(m, HumanMessage) or m in own
        or (isinstance(m, ToolMessage) and m.tool_call_id in ids)
    ]  # fmt: skip


def _task_of(
    agent: str, messages: Sequence[BaseMessage]
) -> tuple[Mapping[str, Any] | None, list[BaseMessage]]:
    """The hand-over that an agent works on, and what was said since."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if isinstance(message, AIMessage) and message.name == "director":
            for call in message.tool_calls:
                if call["args"].get("agent") == agent:
                    return call, list(messages[at + 1 :])
            break
    return None, []


def _next_agent(state: MessagesState) -> str:
    last = state["messages"][-1] if state["messages"] else None
    if isinstance(last, ToolMessage) and last.name == HAND_OVER:
        return "director"
    if isinstance(last, AIMessage) and last.name == "director" and last.tool_calls:
        return str(last.tool_calls[0]["args"]["agent"])
    return END


def _after(tools: str) -> Callable[[MessagesState], str]:
    def after(state: MessagesState) -> str:
        last = state["messages"][-1] if state["messages"] else None
        if isinstance(last, AIMessage) and last.tool_calls:
            return tools
        return "director" if isinstance(last, ToolMessage) and last.name == HAND_OVER else END

    return after


async def served(config: RunnableConfig, runtime: ServerRuntime[None]) -> Graph:
    """The studio on a LangGraph server; see graphs/serving.py for jobs and people."""
    from graphs import serving

    return await serving.graph(build, config, runtime)


if __name__ == "__main__":
    from graphs.command import run

    run("studio", build)
