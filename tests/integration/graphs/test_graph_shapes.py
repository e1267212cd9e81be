"""Graphs as people write them: each keeps its shape under `protect`, and each call runs once."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt

from agentguard.errors import BindingError
from agentguard.langgraph import protect
from tests.integration.shapes.bench import Bench, Kind, told
from tests.support import KIM, OMAR, State, Studio, build, call, results, says, scripted, tool_loop
from tests.support.bindings import Binding

PAINT = {"prompt": "the sea", "colour": "navy"}


def invoke(studio: Studio, graph: Any, thread: str = "t") -> Any:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        return graph.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))


def react(studio: Studio, script: list[AIMessage], state: Any = State) -> StateGraph[Any]:
    return tool_loop(script, [studio.tools["paint"]], state=state)


def test_tools_condition_and_eight_calls_of_one_message(studio: Studio) -> None:
    calls = [call("paint", {**PAINT, "prompt": f"wave {i}"}) for i in range(8)]
    graph = protect(react(studio, [says(*calls)]), studio.guard, agents={"tools": "painter"})
    state = invoke(studio, graph.compile(checkpointer=InMemorySaver()))
    assert [m.status for m in results(state)] == ["success"] * 8
    assert {m.tool_call_id for m in results(state)} == {c["id"] for c in calls}
    assert studio.world.count("paint") == 8
    assert sum(isinstance(m, AIMessage) for m in state["messages"]) == 2  # the model woke once


def test_one_denied_beside_one_permitted_wakes_the_model_once(studio: Studio) -> None:
    asset = "asset-" + "0" * 20
    nodes = {"tools": ("editor", ["crop"])}
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        good = job.import_asset(studio.picture(), ["brand"])
        size = {"width": 4, "height": 4}
        message = says(
            call("crop", {"source": asset, **size}), call("crop", {"source": good, **size})
        )
        graph = build(studio, [message], nodes)
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert [m.status for m in results(state)] == ["error", "success"]
    assert sum(isinstance(m, AIMessage) for m in state["messages"]) == 2


class Additive(State):
    log: Annotated[list[str], operator.add]


def test_an_additive_channel_is_not_doubled(studio: Studio) -> None:
    builder = react(studio, [says(call("paint", PAINT))], Additive)
    sealed = protect(builder, studio.guard, agents={"tools": "painter"})
    graph = sealed.compile(checkpointer=InMemorySaver())
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        first = {"messages": [("user", "go")], "log": ["a"]}
        state = graph.invoke(first, job.config(thread_id="t"))
    assert state["log"] == ["a"]


def test_an_edge_that_waits_for_several_nodes_still_waits(studio: Studio) -> None:
    order: list[str] = []

    def step(name: str) -> Any:
        def run(state: Any) -> dict[str, Any]:
            order.append(name)
            return {}

        return run

    builder = StateGraph(State)
    builder.add_node("model", scripted([says(call("paint", PAINT))]))
    builder.add_node("tools", ToolNode([studio.tools["paint"]]))
    for name in ("side", "side2", "join"):
        builder.add_node(name, step(name))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    builder.add_edge("model", "side")
    builder.add_edge("side", "side2")
    builder.add_edge(["tools", "side2"], "join")
    builder.add_edge("join", END)
    sealed = protect(builder, studio.guard, agents={"tools": "painter"})
    state = invoke(studio, sealed.compile(checkpointer=InMemorySaver()))
    assert order == ["side", "side2", "join"]
    assert studio.world.count("paint") == 1
    assert results(state)[-1].status == "success"


def test_send_and_goto_land_in_the_gate(studio: Studio) -> None:
    one = call("paint", PAINT)

    def send(state: Any) -> Command[Any]:
        return Command(goto=Send("tools", [one]))

    def goto(state: Any) -> Command[Any]:
        return Command(goto="tools", update={"messages": [says(call("paint", PAINT))]})

    for node in (send, goto):
        builder = StateGraph(State)
        builder.add_node("model", node, destinations=("tools",))
        builder.add_node("tools", ToolNode([studio.tools["paint"]]))
        builder.add_edge(START, "model")
        sealed = protect(builder, studio.guard, agents={"tools": "painter"})
        state = invoke(studio, sealed.compile(checkpointer=InMemorySaver()), node.__name__)
        assert results(state)[-1].status == "success"
    assert studio.world.count("paint") == 2


def test_a_protected_subgraph_is_accepted_and_inherits_the_job(studio: Studio) -> None:
    inner = protect(
        react(studio, [says(call("paint", PAINT))]), studio.guard, agents={"tools": "painter"}
    ).compile()
    outer = StateGraph(State)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    sealed = protect(outer, studio.guard, agents={})
    state = invoke(studio, sealed.compile(checkpointer=InMemorySaver()))
    assert results(state)[-1].status == "success"


def test_the_gate_shows_in_the_picture_of_the_graph(studio: Studio) -> None:
    builder = react(studio, [])
    graph = protect(builder, studio.guard, agents={"tools": "painter"}).compile()
    drawn = graph.get_graph().draw_mermaid()
    for edge in ("tools -.-> tools.execute", "tools -.-> tools.ask", "tools.execute --> model"):
        source, _, target = edge.partition(" ")
        assert source in drawn
        assert target.split()[-1].replace(".", "\\2e") in drawn or target.split()[-1] in drawn


async def test_every_stream_mode_works(studio: Studio) -> None:
    sealed = protect(
        react(studio, [says(call("paint", PAINT))]), studio.guard, agents={"tools": "painter"}
    )
    graph = sealed.compile(checkpointer=InMemorySaver())
    modes: Any = ["values", "updates", "messages", "debug", "tasks", "checkpoints", "custom"]
    async with studio.guard.open_job("poster", requested_by=KIM) as job:
        seen = set()
        async for mode, _ in graph.astream(
            {"messages": [("user", "go")]}, job.config(thread_id="t"), stream_mode=modes
        ):
            seen.add(mode)
    assert {"values", "updates", "messages", "debug"} <= seen
    assert studio.world.count("paint") == 1


async def test_an_async_only_tool_runs(studio: Studio) -> None:
    @tool
    async def later(note: str) -> str:
        """Runs on the event loop only."""
        return f"{note} later"

    studio.bind(later, stage="edit", plain=["note"])
    graph = build(studio, [says(call("later", {"note": "now"}))], {"t": ("editor", ["later"])})
    async with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = await graph.ainvoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert results(state)[-1].content == "now later"


def test_the_functional_api_with_the_inline_gate(studio: Studio) -> None:
    tools = {
        t.name: t
        for t in studio.guard.tools([studio.tools["publish"]], agent="publisher", gate="inline")
    }

    @entrypoint(checkpointer=InMemorySaver())
    def flow(asset: str) -> Any:
        made = call("publish", {"source": asset, "to": "team"}, id="f1")
        return tools["publish"].invoke(made).content

    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        config = job.config(thread_id="t")
        assert "__interrupt__" in flow.invoke(asset, config)
        assert studio.world.count("publish") == 0
        studio.answer(studio.pending().request, OMAR)
        assert "published" in flow.invoke(None, config)
    assert studio.world.count("publish") == 1


def test_inline_needs_a_configured_agent(studio: Studio) -> None:
    with pytest.raises(BindingError, match="inline"):
        studio.guard.tools([studio.tools["publish"]], gate="inline")


def test_S25_one_loop_over_several_stages_must_say_so(studio: Studio) -> None:
    def builder() -> StateGraph[Any]:
        script = [says(call("paint", PAINT)), says(call("crop", {}))]
        return tool_loop(script, [studio.tools["paint"], studio.tools["crop"]])

    agents = {"tools": {"generate": "painter", "edit": "editor"}}
    with pytest.raises(BindingError, match="unsafe_shared_driver"):
        protect(builder(), studio.guard, agents=agents)
    with pytest.raises(BindingError, match="edit stage"):
        protect(builder(), studio.guard, agents={"tools": "painter"})
    graph = protect(builder(), studio.guard, agents=agents, unsafe_shared_driver=True)
    invoke(studio, graph.compile(checkpointer=InMemorySaver()))
    rows = studio.guard.ledger.all("SELECT agent, stage FROM credentials ORDER BY agent")
    assert [(r["agent"], r["stage"]) for r in rows] == [("editor", "edit"), ("painter", "generate")]


def test_a_custom_messages_key_is_kept(studio: Studio) -> None:
    from typing import TypedDict

    class Chat(TypedDict):
        chat: Annotated[list[AnyMessage], add_messages]

    builder = StateGraph(Chat)
    builder.add_node("model", lambda state: {"chat": [says(call("paint", PAINT))]})
    builder.add_node("tools", ToolNode([studio.tools["paint"]], messages_key="chat"))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    graph: Any = protect(builder, studio.guard, agents={"tools": "painter"}).compile()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = graph.invoke({"chat": [("user", "go")]}, job.config())
    assert state["chat"][-1].status == "success"


def test_without_a_job_every_call_is_denied(studio: Studio) -> None:
    graph = protect(
        react(studio, [says(call("paint", PAINT))]), studio.guard, agents={"tools": "painter"}
    ).compile()
    state = graph.invoke({"messages": [("user", "go")]})
    assert "belongs to no job" in results(state)[-1].content
    assert studio.world.count("paint") == 0


def test_after_the_job_every_call_is_denied(studio: Studio) -> None:
    graph = protect(
        react(studio, [says(call("paint", PAINT))]), studio.guard, agents={"tools": "painter"}
    ).compile()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        config = job.config(thread_id="t")
    state = graph.invoke({"messages": [("user", "go")]}, config)
    assert "not open in this process" in results(state)[-1].content
    assert studio.world.count("paint") == 0


def test_S7_a_model_that_saw_media_carries_its_class_into_texts(studio: Studio) -> None:
    """What was revealed to the chat model labels the job's later prompts, and stops at a vendor."""

    @tool
    def describe(source: str) -> str:
        """Describe a picture to the model."""
        return "a person at a desk"

    @tool
    def paint_far(prompt: str, file: str = "x.png") -> str:
        """Paint at a vendor's."""
        studio.world.effects.append(("paint_far", prompt))
        return "painted"

    config_ok = studio.guard.workspace.chat_ceiling
    assert "brand" not in config_ok
    studio.tools.update(describe=describe, paint_far=paint_far)
    studio.guard.bind(Binding(describe, stage="review", assets=["source"], reveals=True))
    studio.guard.bind(
        Binding(paint_far, stage="generate", texts=["prompt"], outputs=["file"],
                destination="images")
    )  # fmt: skip
    nodes = {"look_tools": ("reviewer", ["describe"]), "far_tools": ("painter", ["paint_far"])}
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        photo = job.import_asset(studio.picture(), ["customer-data"])
        graph = build(
            studio,
            [
                says(call("describe", {"source": photo})),
                says(call("paint_far", {"prompt": "mail to anna@example.com"})),
            ],
            nodes,
        )
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    first, second = results(state)
    assert first.status == "error"  # above the chat model's ceiling
    assert second.status == "error"  # an e-mail address is above the vendor's
    assert studio.world.count("paint_far") == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_node_of_a_protected_graph_runs_in_the_context_of_its_config(
    studio: Studio, mode: str
) -> None:
    """`interrupt`, `get_config` and tools called by hand look for it there."""
    builder = react(studio, [says(call("paint", PAINT))])
    builder.add_node("ask", lambda state: {"messages": [("user", interrupt("which one?"))]})
    builder.add_edge(START, "ask")
    graph = protect(builder, studio.guard, agents={"tools": "painter"}).compile(InMemorySaver())
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        given: Any = {"messages": [("user", "go")]}
        steps: list[Any] = [given, Command(resume="the blue one")]
        for step in steps:
            if mode == "async":
                state = await graph.ainvoke(step, config)
            else:
                state = graph.invoke(step, config)
    assert "__interrupt__" not in state
    assert [m.content for m in state["messages"] if m.content == "the blue one"]


@pytest.mark.parametrize("kind", ["permit", "ask", "deny"])
def test_plain_node_before_the_tools_that_a_run_begins_with(kind: Kind, tmp_path: Path) -> None:
    """The call in a run's input is answered once, though another node stands before its tools."""
    with Bench(tmp_path, kind) as bench:
        builder = StateGraph(MessagesState)
        builder.add_node("plain", lambda state: {})
        builder.add_node("tools", ToolNode([bench.publish]))
        builder.add_edge(START, "plain")
        builder.add_edge("plain", "tools")
        sealed = protect(builder, bench.guard, agents={"tools": "publisher"})
        graph: Any = sealed.compile(bench.saver)
        asked = AIMessage("", tool_calls=[call("publish", bench.args)], id="m1")
        state = graph.invoke({"messages": [("user", "go"), asked]}, bench.config)
        while bench.open_questions():
            bench.approve()
            state = graph.invoke(None, bench.config)
        assert len(told(state)) == 1
        assert bench.effects == ([] if kind == "deny" else [bench.to])
