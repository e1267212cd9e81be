"""A subgraph that keeps nothing starts over after each pause: it may not hold effects (I8)."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from tests.support import GO, KIM, State, Studio, call, results, says, tool_loop
from tests.support.bindings import Binding
from tests.support.chat_models import Watching


def loop(studio: Studio, name: str, script: list[AIMessage]) -> StateGraph[Any]:
    """A loop that, as a real model does when it starts over, makes new ids each time."""

    def model(state: State) -> dict[str, Any]:
        said = sum(1 for m in state["messages"] if isinstance(m, AIMessage))
        if said >= len(script):
            return {"messages": [AIMessage("done", id=uuid.uuid4().hex)]}
        calls = [{**c, "id": uuid.uuid4().hex} for c in script[said].tool_calls]
        return {"messages": [AIMessage("", tool_calls=calls, id=uuid.uuid4().hex)]}

    return tool_loop(model, [studio.tools[name]])


def test_subgraph_without_checkpointer_is_refused_when_it_is_compiled(studio: Studio) -> None:
    sealed = protect(loop(studio, "publish", []), studio.guard, agents={"tools": "publisher"})
    with pytest.raises(BindingError, match=r"tools runs publish, .*leave checkpointer out"):
        sealed.compile(checkpointer=False)
    sealed.compile()


def test_tools_without_stage_may_start_over(studio: Studio) -> None:
    @tool
    def note(text: str) -> str:
        """Take a note."""
        return "noted"

    studio.bind(note, stage=None, texts=["text"])
    sealed = protect(loop(studio, "note", []), studio.guard, agents={"tools": "editor"})
    sealed.compile(checkpointer=False)


def outer_of(inner: Any, held: str) -> Any:
    """A graph that can be resumed around one that forgets, which pauses after that."""
    builder = StateGraph(State)
    if held == "as a node":
        builder.add_node("inner", inner)
    elif held == "in a node":
        builder.add_node("inner", lambda state: {"messages": inner.invoke(state)["messages"]})
    else:
        middle = StateGraph(State).add_node("deep", inner).add_edge(START, "deep")
        builder.add_node("inner", middle.compile())
    builder.add_edge(START, "inner")
    return builder.compile(checkpointer=InMemorySaver())


def agent_of(studio: Studio, script: list[AIMessage], checkpointer: Any) -> tuple[Any, Watching]:
    model = Watching(messages=iter([*script, *[AIMessage("done")] * 9]))
    agent: Any = create_agent(
        model,
        [studio.tools["publish"]],
        middleware=[GuardMiddleware(studio.guard, agent="publisher")],
        checkpointer=checkpointer,
    )
    return agent, model


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("held", ["as a node", "in a node", "two graphs down"])
def test_an_agent_that_starts_over_is_refused_when_it_runs(
    studio: Studio, held: str, mode: str
) -> None:
    if held == "in a node" and mode == "async":
        pytest.skip("the node is synchronous")
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, model = agent_of(studio, script, False)
        graph = outer_of(agent, held)
        config = job.config(thread_id="t")
        state = asyncio.run(graph.ainvoke(GO, config)) if mode == "async" else graph.invoke(
            GO, config)  # fmt: skip
    (message,) = results(state)
    assert studio.world.effects == []
    assert message.status == "error"
    where = "inner.deep" if held == "two graphs down" else "inner"
    assert f"the graph in node {where} was compiled with checkpointer=False" in message.content
    assert "builder.compile()" in message.content
    assert model.wakes == [[], []]


def test_a_protected_graph_inside_an_agent_that_starts_over_is_refused(studio: Studio) -> None:
    """It keeps its own checkpoints, but whoever calls it forgets that it did."""
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        sealed = protect(loop(studio, "publish", script), studio.guard,
                         agents={"tools": "publisher"})  # fmt: skip
        forgets = StateGraph(State).add_node("inner", sealed.compile()).add_edge(START, "inner")
        graph = outer_of(forgets.compile(checkpointer=False), "as a node")
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert "checkpointer=False" in results(state)[0].content
    assert studio.world.effects == []


@pytest.mark.parametrize("held", ["as a node", "in a node", "in a graph as a node", "in a tool"])
def test_an_agent_that_starts_over_is_refused_when_the_graph_is_built(
    studio: Studio, held: str
) -> None:
    agent, _ = agent_of(studio, [], False)
    builder = StateGraph(State)
    if held == "as a node":
        builder.add_node("inner", agent)
    elif held == "in a node":
        builder.add_node("inner", lambda state: agent.invoke(state))
    elif held == "in a graph as a node":
        middle = StateGraph(State).add_node("deep", agent).add_edge(START, "deep")
        builder.add_node("inner", middle.compile())
    else:

        @tool
        def ask(text: str) -> str:
            """Ask the agent."""
            return str(agent.invoke({"messages": [("user", text)]})["messages"][-1].content)

        studio.guard.bind(Binding(ask, stage=None, texts=["text"]))
        with pytest.raises(BindingError, match=r"runs publish and is compiled with checkpointer"):
            studio.guard.tools([ask])
        return
    builder.add_edge(START, "inner")
    with pytest.raises(BindingError, match=r"node inner → .* runs publish and is compiled with"):
        protect(builder, studio.guard, agents={})


@pytest.mark.parametrize("checkpointer", [None, True])
def test_an_agent_that_keeps_what_its_parent_keeps_publishes_once(
    studio: Studio, checkpointer: Any
) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(studio, script, checkpointer)

        def pause(state: State) -> dict[str, Any]:
            interrupt("go on?")
            return {}

        builder = StateGraph(State).add_node("inner", agent).add_node("pause", pause)
        builder.add_edge(START, "inner").add_edge("inner", "pause")
        graph = builder.compile(checkpointer=InMemorySaver())
        config = job.config(thread_id="t")
        assert "__interrupt__" in graph.invoke(GO, config)
        graph.invoke(None, config)
    assert studio.world.count("publish") == 1


def test_a_graph_of_its_own_without_memory_may_publish(studio: Studio) -> None:
    """Nothing around it is ever resumed, so nothing runs again."""
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(studio, script, False)
        state = agent.invoke(GO, job.config())
    assert results(state)[0].status == "success"
    assert studio.world.count("publish") == 1
