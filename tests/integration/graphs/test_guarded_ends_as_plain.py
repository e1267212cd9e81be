"""Graphs as people write them, run plain and guarded: the same final state, each call run once."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode, ToolRuntime, tools_condition
from langgraph.types import CachePolicy, Command, RetryPolicy, Send
from pydantic import BaseModel

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from tests.support import KIM, OMAR, Studio, call, results, says, scripted, tool_loop
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]
    mood: str


class Ran:
    """What the tools did, in the order of the calls' words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.failures = 0

    def tools(self) -> dict[str, Any]:
        @tool
        def note(words: str) -> str:
            """Note something."""
            self.words.append(words)
            if self.failures:
                self.failures -= 1
                raise ConnectionError("not now")
            return f"noted {words}"

        @tool
        def mood(words: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
            """Note a mood."""
            self.words.append(words)
            said = ToolMessage("felt", tool_call_id=tool_call_id)
            return Command(update={"mood": words, "log": [f"mood {words}"], "messages": [said]})

        @tool
        def tally(words: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
            """Write words down."""
            self.words.append(words)
            said = ToolMessage("written", tool_call_id=tool_call_id)
            return Command(update={"log": [words], "messages": [said]})

        @tool
        def recall(words: str, log: Annotated[list[str], InjectedState("log")]) -> str:
            """Recall."""
            self.words.append(words)
            return f"{words}: {log}"

        @tool
        def whose(words: str, runtime: ToolRuntime) -> str:
            """Say for whom this runs."""
            self.words.append(words)
            context: Any = runtime.context
            return f"for {context['client']}"

        return {"note": note, "mood": mood, "tally": tally, "recall": recall, "whose": whose}


def notes(*words: str, name: str = "note") -> AIMessage:
    calls = [call(name, {"words": one}, id=f"{name}-{one}") for one in words]
    return says(*calls, id=f"m-{'-'.join(words)}")


def logs(name: str) -> Any:
    return lambda state: {"log": [name]}


Build = Callable[..., tuple[StateGraph[Any], dict[str, Any]]]
SHAPES: dict[str, Build] = {}


def shape(make: Build) -> Build:
    """Register a builder: (tools, wrap) → the builder and what `compile` gets.

    `wrap` protects an inner builder in the guarded run and does nothing in the plain one.
    """
    SHAPES[make.__name__.removeprefix("_").replace("_", " ")] = make
    return make


def loop(script: list[AIMessage], tools: list[Any], **node: Any) -> StateGraph[Any]:
    return tool_loop(script, tools, state=State, **node)


@shape
def _three_turns_with_tools_condition(tools: Any, wrap: Any) -> Any:
    script = [notes("a"), notes("b", "c", "d"), notes("e", name="mood")]
    return loop(script, [tools["note"], tools["mood"]]), {}


@shape
def _several_toolnodes_with_an_agent_each(tools: Any, wrap: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("model", scripted([notes("a"), notes("b", name="mood"), notes("c")]))
    builder.add_node("one", ToolNode([tools["note"]]))
    builder.add_node("two", ToolNode([tools["mood"]]))
    builder.add_edge(START, "model")

    def route(state: Any) -> str:
        calls = state["messages"][-1].tool_calls
        return END if not calls else "one" if calls[0]["name"] == "note" else "two"

    builder.add_conditional_edges("model", route, ["one", "two", END])
    builder.add_edge("one", "model")
    builder.add_edge("two", "model")
    return builder, {}


@shape
def _two_toolnodes_side_by_side(tools: Any, wrap: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [notes("a", "b")]})
    for name in ("one", "two"):
        builder.add_node(f"ask {name}", lambda state, name=name: Command(
            goto=Send(name, [call("note", {"words": name}, id=name)])))  # fmt: skip
        builder.add_node(name, ToolNode([tools["note"]]))
        builder.add_edge("model", f"ask {name}")
    builder.add_node("join", logs("join"))
    builder.add_edge(START, "model")
    builder.add_edge(["one", "two"], "join")
    return builder, {}


@shape
def _conditional_edges_behind_the_tools(tools: Any, wrap: Any) -> Any:
    builder = loop([notes("a", "b", "c")], [tools["note"]])
    builder.edges.discard(("tools", "model"))
    builder.add_node("far", logs("far"))
    builder.add_conditional_edges(
        "tools", lambda state: "far" if len(state["messages"]) > 2 else END, ["far", END]
    )
    return builder, {}


@shape
def _a_command_with_an_additive_channel(tools: Any, wrap: Any) -> Any:
    return loop([notes("a", "b", name="tally")], [tools["tally"]]), {}


@shape
def _a_map_of_sends(tools: Any, wrap: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [notes("a", "b", "c")]})
    builder.add_node("tools", ToolNode([tools["note"]]))
    builder.add_node("join", logs("join"))
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model",
        lambda state: [Send("tools", [one]) for one in state["messages"][-1].tool_calls],
        ["tools"],
    )
    builder.add_edge("tools", "join")
    return builder, {}


@shape
def _a_send_with_its_own_state(tools: Any, wrap: Any) -> Any:
    """The payload of create_agent: upstream believes its state, the guard reads the channels."""
    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [notes("a", name="recall")]})
    builder.add_node("tools", ToolNode([tools["recall"]]))
    builder.add_edge(START, "model")

    def send(state: Any) -> Any:
        (one,) = state["messages"][-1].tool_calls
        return [Send("tools", {"__type": "tool_call_with_context", "tool_call": one,
                               "state": dict(state)})]  # fmt: skip

    builder.add_conditional_edges("model", send, ["tools"])
    return builder, {}


@shape
def _goto_the_tools(tools: Any, wrap: Any) -> Any:
    def model(state: Any) -> Command[Any]:
        if any(isinstance(m, ToolMessage) for m in state["messages"]):
            return Command(goto=END, update={"log": ["end"]})
        return Command(goto="tools", update={"messages": [notes("a", "b")]})

    builder = StateGraph(State)
    builder.add_node("model", model, destinations=("tools", END))
    builder.add_node("tools", ToolNode([tools["note"]]))
    builder.add_edge(START, "model")
    builder.add_edge("tools", "model")
    return builder, {}


@shape
def _goto_the_parents_tools_from_a_subgraph(tools: Any, wrap: Any) -> Any:
    def leave(state: Any) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="tools", update={"messages": [notes("a")]})

    inner = StateGraph(State).add_node("leave", leave).add_edge(START, "leave")
    builder = StateGraph(State)
    builder.add_node("inner", inner.compile(), destinations=("tools",))
    builder.add_node("tools", ToolNode([tools["note"]]))
    builder.add_edge(START, "inner")
    return builder, {}


def _outer(inner: Any) -> StateGraph[Any]:
    builder = StateGraph(State).add_node("before", logs("before")).add_node("inner", inner)
    builder.add_node("after", logs("after"))
    return builder.add_edge(START, "before").add_edge("before", "inner").add_edge("inner", "after")


@shape
def _a_subgraph_without_a_checkpointer(tools: Any, wrap: Any) -> Any:
    return _outer(wrap(loop([notes("a")], [tools["note"]])).compile(checkpointer=False)), {}


@shape
def _a_subgraph_with_its_parents_checkpointer(tools: Any, wrap: Any) -> Any:
    return _outer(wrap(loop([notes("a")], [tools["note"]])).compile()), {}


@shape
def _a_subgraph_with_its_own_memory(tools: Any, wrap: Any) -> Any:
    return _outer(wrap(loop([notes("a")], [tools["note"]])).compile(checkpointer=True)), {}


@shape
def _a_subgraph_that_a_node_invokes(tools: Any, wrap: Any) -> Any:
    inner = wrap(loop([notes("a", "b")], [tools["note"]])).compile()

    def node(state: Any) -> Any:
        made = inner.invoke({"messages": [("user", "inside")], "log": []})
        return {"log": [str(one.content) for one in made["messages"]]}

    return StateGraph(State).add_node("node", node).add_edge(START, "node"), {}


@shape
def _a_subgraph_in_a_thread_of_its_own(tools: Any, wrap: Any) -> Any:
    inner = wrap(loop([notes("a")], [tools["note"]])).compile(checkpointer=InMemorySaver())

    def node(state: Any) -> Any:
        made = inner.invoke({"messages": [("user", "i")]}, {"configurable": {"thread_id": "own"}})
        return {"log": [str(one.content) for one in made["messages"]]}

    return StateGraph(State).add_node("node", node).add_edge(START, "node"), {}


@shape
def _a_retry_policy(tools: Any, wrap: Any) -> Any:
    policy = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False)
    return loop([notes("a")], [tools["note"]], retry_policy=policy), {"failures": 2}


@shape
def _a_deferred_node(tools: Any, wrap: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [notes("a")]})
    builder.add_node("tools", ToolNode([tools["note"]]), defer=True)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    for name, before in (("slow", "model"), ("slower", "slow")):
        builder.add_node(name, logs(name))
        builder.add_edge(before, name)
    builder.add_edge("tools", END)
    return builder, {}


class Typed(BaseModel):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add] = []


@shape
def _a_pydantic_state(tools: Any, wrap: Any) -> Any:
    builder = StateGraph(Typed)
    builder.add_node("model", lambda state: {"messages": [notes("a", name="recall")]})
    builder.add_node("tools", ToolNode([tools["recall"]]))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    return builder, {}


class In(TypedDict):
    messages: list[Any]


class Out(TypedDict):
    messages: list[Any]


@shape
def _schemas_of_input_output_and_context(tools: Any, wrap: Any) -> Any:
    context: Any = dict
    builder = StateGraph(State, context_schema=context, input_schema=In, output_schema=Out)
    builder.add_node("model", scripted([notes("a", name="whose")]))
    builder.add_node("tools", ToolNode([tools["whose"]]))
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", tools_condition)
    builder.add_edge("tools", "model")
    return builder, {}


@shape
def _an_error_handler(tools: Any, wrap: Any) -> Any:
    def caught(state: Any) -> dict[str, Any]:
        return {"log": ["caught"]}

    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"messages": [notes("a")]})
    builder.add_node("tools", ToolNode([tools["note"]]), error_handler=caught)
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    return builder, {"failures": 1}


@dataclass
class Came:
    """What came of a run: messages without ids, other channels, and the calls that ran."""

    state: Any
    ran: list[str]


async def came(graph: Any, ran: Ran, config: Any, mode: str) -> Came:
    given = {"messages": [("user", "go")], "log": ["start"]}
    options = {"context": {"client": "acme"}}
    if mode == "async":
        state = await graph.ainvoke(given, config, **options)
    else:
        state = graph.invoke(given, config, **options)
    read = {key: [plain(one) for one in value] if isinstance(value, list) else value
            for key, value in state.items()}  # fmt: skip
    return Came(read, sorted(ran.words))


def plain(one: Any) -> Any:
    if isinstance(one, BaseMessage):
        calls = [c["id"] for c in getattr(one, "tool_calls", ())]
        return one.type, one.content, calls, getattr(one, "status", None)
    return one


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("name", SHAPES)
async def test_a_guarded_graph_ends_as_the_plain_one(studio: Studio, name: str, mode: str) -> None:
    known = Ran()
    builder, options = SHAPES[name](known.tools(), lambda inner: inner)
    known.failures = options.get("failures", 0)
    bare = builder.compile(checkpointer=InMemorySaver())
    expected = await came(bare, known, {"configurable": {"thread_id": "t"}}, mode)

    ran = Ran()
    tools = ran.tools()
    for one in tools.values():
        studio.guard.bind(Binding(one, stage=None, plain=["words"], state=["mood", "log"]))

    def wrap(inner: StateGraph[Any]) -> StateGraph[Any]:
        nodes = [n for n, spec in inner.nodes.items() if isinstance(spec.runnable, ToolNode)]
        return protect(inner, studio.guard, agents=dict.fromkeys(nodes, "editor"))

    builder, _ = SHAPES[name](tools, wrap)
    ran.failures = options.get("failures", 0)
    graph = wrap(builder).compile(checkpointer=InMemorySaver())
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        found = await came(graph, ran, job.config(thread_id="t"), mode)
    assert found == expected
    assert expected.ran


# --- where they differ, and say so --------------------------------------------------------------


def test_a_cache_policy_is_dropped_and_the_tool_runs_each_time(studio: Studio) -> None:
    def graph_of(tools: Any, wrap: Any) -> Any:
        builder = StateGraph(State)
        builder.add_node("model", lambda state: {"messages": [notes("a")]})
        builder.add_node("tools", ToolNode([tools["note"]]), cache_policy=CachePolicy(
            key_func=lambda state: "one"))  # fmt: skip
        builder.add_edge(START, "model")
        builder.add_edge("model", "tools")
        return wrap(builder).compile(cache=InMemoryCache())

    bare, ran = Ran(), Ran()
    plain_graph = graph_of(bare.tools(), lambda builder: builder)
    tools = ran.tools()
    studio.guard.bind(Binding(tools["note"], stage=None, plain=["words"]))
    guarded = graph_of(tools, lambda b: protect(b, studio.guard, agents={"tools": "editor"}))
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        for thread in ("t1", "t2"):
            plain_graph.invoke({"messages": [("user", "go")]})
            guarded.invoke({"messages": [("user", "go")]}, job.config(thread_id=thread))
    assert (len(bare.words), len(ran.words)) == (1, 2)


def test_a_media_tool_that_raises_is_not_retried_by_the_node(studio: Studio) -> None:
    """Its exception became an error message: the policy sees none, and the model may call again."""
    tries: list[str] = []

    @tool
    def flaky(source: str) -> str:
        """Fail."""
        tries.append(source)
        raise ConnectionError("not now")

    studio.guard.bind(Binding(flaky, stage="edit", assets=["source"]))
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        policy = RetryPolicy(max_attempts=3, initial_interval=0.0, jitter=False)
        builder = loop([says(call("flaky", {"source": asset}))], [flaky], retry_policy=policy)
        graph = protect(builder, studio.guard, agents={"tools": "editor"}).compile()
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert len(tries) == 1
    assert results(state)[-1].content == "flaky failed: ConnectionError"


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_refusal_of_a_return_direct_tool_ends_the_turn(studio: Studio, mode: str) -> None:
    @tool(return_direct=True)
    def place(source: str) -> str:
        """Place a picture."""
        return "placed"

    studio.guard.bind(Binding(place, stage="edit", assets=["source"]))
    script = [says(call("place", {"source": "asset-" + "0" * 20})), AIMessage("never said")]
    agent: Any = create_agent(
        Scripted(messages=iter(script)),
        [place],
        middleware=[GuardMiddleware(studio.guard, agent="editor")],
    )
    given = {"messages": [("user", "go")]}
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        state = await agent.ainvoke(given, config) if mode == "async" else agent.invoke(
            given, config)  # fmt: skip
    assert state["messages"][-1].status == "error"


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_waiting_edge_waits_for_a_person_too(studio: Studio, mode: str) -> None:
    """`join` waits for both ToolNodes: also while one of them waits for an answer."""
    builder = StateGraph(State)
    builder.add_node("model", lambda state: {"log": ["model"]})
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        assets = {
            "one": job.import_asset(studio.picture(), ["brand"]),
            "two": job.import_asset(studio.picture("l.png", "red"), ["likeness"]),
        }
        for name, asset in assets.items():
            sent = call("publish", {"source": asset, "to": "team"}, id=name)
            builder.add_node(f"ask {name}", lambda state, name=name, sent=sent: Command(
                goto=Send(name, [sent])))  # fmt: skip
            builder.add_node(name, ToolNode([studio.tools["publish"]]))
            builder.add_edge("model", f"ask {name}")
        builder.add_node("join", logs("join"))
        builder.add_edge(START, "model")
        builder.add_edge(["one", "two"], "join")
        agents = {"one": "publisher", "two": "publisher"}
        graph = protect(builder, studio.guard, agents=agents).compile(InMemorySaver())
        config = job.config(thread_id="t")

        async def go(given: Any) -> Any:
            return await graph.ainvoke(given, config) if mode == "async" else graph.invoke(
                given, config)  # fmt: skip

        state = await go({"messages": [("user", "go")], "log": []})
        assert state["__interrupt__"]
        assert state["log"] == ["model"]
        assert studio.world.count("publish") == 1  # the other did not wait
        studio.answer(studio.pending().request, OMAR)
        state = await go(None)
    assert state["log"] == ["model", "join"]
    assert studio.world.count("publish") == 2


def test_conditional_edges_behind_the_tools_follow_an_answer_too(studio: Studio) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        builder = loop([says(call("publish", {"source": asset, "to": "team"}))],
                       [studio.tools["publish"]])  # fmt: skip
        builder.edges.discard(("tools", "model"))
        builder.add_node("far", logs("far"))
        builder.add_conditional_edges("tools", lambda state: "far", ["far", END])
        graph = protect(builder, studio.guard, agents={"tools": "publisher"}).compile(
            InMemorySaver()
        )
        config = job.config(thread_id="t")
        state = graph.invoke({"messages": [("user", "go")], "log": []}, config)
        assert (state["log"], bool(state["__interrupt__"])) == ([], True)
        studio.answer(studio.pending().request, OMAR)
        state = graph.invoke(None, config)
    assert state["log"] == ["far"]


@pytest.mark.parametrize("checkpointer", [None, True], ids=["the parent's", "its own"])
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_question_inside_a_subgraph_is_answered_from_the_top(
    studio: Studio, checkpointer: Any, mode: str
) -> None:
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        one = call("publish", {"source": asset, "to": "team"}, id="p")
        inner = loop([says(one, id="m")], [studio.tools["publish"]])
        sealed = protect(inner, studio.guard, agents={"tools": "publisher"})
        outer = protect(_outer(sealed.compile(checkpointer)), studio.guard, agents={})
        graph = outer.compile(InMemorySaver())
        config = job.config(thread_id="t")

        async def go(given: Any) -> Any:
            return await graph.ainvoke(given, config) if mode == "async" else graph.invoke(
                given, config)  # fmt: skip

        state = await go({"messages": [("user", "go")], "log": []})
        assert state["__interrupt__"]
        studio.answer(studio.pending().request, OMAR)
        state = await go(None)
    assert results(state)[-1].content == "published"
    assert studio.world.count("publish") == 1
    assert state["log"].count("after") == 1


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("held", ["a graph in a closure", "a ToolNode in a closure", "with_retry"])
def test_I5_an_unguarded_toolnode_in_a_nodes_hands_is_refused(
    studio: Studio, held: str, guarded: bool
) -> None:
    inner = loop([says(call("paint", {"prompt": "sea", "colour": "red"}))], [studio.tools["paint"]])
    node: Any = inner.nodes["tools"].runnable
    if guarded:
        inner = protect(inner, studio.guard, agents={"tools": "painter"})
    compiled = inner.compile()
    nodes: dict[str, Any] = {
        "a graph in a closure": lambda state: compiled.invoke(state),
        "a ToolNode in a closure": lambda state: node.invoke(state),
        "with_retry": compiled.with_retry(),
    }
    builder = StateGraph(State).add_node("node", nodes[held]).add_edge(START, "node")
    if not guarded or held == "a ToolNode in a closure":  # protect() leaves that node as it was
        with pytest.raises(BindingError, match=r"ToolNode with unguarded tools \(paint\)"):
            protect(builder, studio.guard, agents={})
        return
    graph: Any = protect(builder, studio.guard, agents={}).compile()
    with studio.guard.open_job("poster", requested_by=KIM) as job:
        state = graph.invoke({"messages": [("user", "go")], "log": []}, job.config())
    assert results(state)[-1].status == "success"
