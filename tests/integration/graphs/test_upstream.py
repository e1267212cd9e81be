"""What this package needs of LangGraph and LangChain: private names, and what plain tools return.

The canaries fail with the name that an upgrade moved. The comparisons run one tool in the same
graph twice, plain and behind the gate, and expect the same messages and the same state.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForToolRun
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    tool,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, InjectedStore, ToolNode, ToolRuntime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command, Send, StreamWriter
from pydantic import BaseModel, Field

from agentguard.langgraph import GuardMiddleware, protect
from agentguard.langgraph import upstream as _upstream
from agentguard.langgraph.guarded_tool import invoker_of
from tests.support import KIM, Studio, call, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

# --- canaries ---------------------------------------------------------------------------------

PRIVATE = [
    ("langchain.agents.factory", "_chain_tool_call_wrappers"),
    ("langgraph._internal._constants", "CONFIG_KEY_CALL"),
    ("langgraph._internal._constants", "CONFIG_KEY_CHECKPOINT_NS"),
    ("langgraph._internal._constants", "CONFIG_KEY_CHECKPOINTER"),
    ("langgraph._internal._constants", "CONFIG_KEY_RESUME_MAP"),
    ("langgraph._internal._constants", "CONFIG_KEY_RUNTIME"),
    ("langgraph._internal._constants", "CONFIG_KEY_SCRATCHPAD"),
    ("langgraph._internal._constants", "CONFIG_KEY_SEND"),
    ("langgraph._internal._constants", "CONFIG_KEY_STREAM"),
    ("langgraph._internal._constants", "CONFIG_KEY_TASK_ID"),
    ("langgraph.pregel._tools", "_tool_call_writer"),
    ("langchain_core.tracers.context", "_configure_hooks"),
    ("langgraph._internal._constants", "NS_END"),
    ("langgraph._internal._constants", "NS_SEP"),
    ("langgraph._internal._constants", "PUSH"),
    ("langgraph._internal._constants", "RESUME"),
    ("langgraph._internal._constants", "TASKS"),
    ("langgraph._internal._constants", "CONFIG_KEY_TASK_ID"),
    ("langgraph._internal._runnable", "RunnableCallable"),
    ("langgraph.errors", "is_invalid_resume"),
    ("langgraph.prebuilt", "ToolNode._afunc"),
    ("langgraph.prebuilt", "ToolNode._arun_one"),
    ("langgraph.prebuilt", "ToolNode._func"),
    ("langgraph.prebuilt", "ToolNode._parse_input"),
    ("langgraph.prebuilt", "ToolNode._run_one"),
    ("langchain_core.tools", "BaseTool._to_args_and_kwargs"),
    ("langchain_core.tools", "BaseTool._run"),
    ("langchain_core.tools", "BaseTool._arun"),
    ("langchain_core.tools.base", "_get_runnable_config_param"),
    ("langchain_core.tools.base", "_is_injected_arg_type"),
    ("langchain_core.tools.base", "get_all_basemodel_annotations"),
]


@pytest.mark.parametrize(("module", "name"), PRIVATE, ids=[name for _, name in PRIVATE])
def test_a_private_name_is_where_it_was(module: str, name: str) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{module}.{name} has moved"
        found = getattr(found, part)


@tool
def plain_tool(n: int, config: RunnableConfig) -> str:
    """Answer."""
    return str(n)


def test_a_task_knows_what_was_sent_in_its_superstep_and_which_one_it_is() -> None:
    seen: list[tuple[Any, ...]] = []

    def note(state: Any, config: RunnableConfig) -> None:
        sent = [(send.node, send.arg) for send in _upstream.sends(config)]
        seen.append((state if isinstance(state, int) else "", sent, _upstream.sent_as(config)))

    builder: Any = StateGraph(dict)
    builder.add_node("begin", lambda _: Command(goto=[Send("one", 1), Send("two", 2), "three"]))
    for name in ("one", "two", "three", "last"):
        builder.add_node(name, note)
    builder.add_edge(START, "begin").add_edge("three", "last")
    graph = builder.compile(InMemorySaver(), interrupt_before=["one"])
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    graph.invoke({}, config)
    graph.invoke(None, config)  # as another process would
    sent = [("one", 1), ("two", 2)]
    assert sorted(seen[:3], key=str) == [("", sent, None), (1, sent, 0), (2, sent, 1)]
    assert seen[3:] == [("", [], None)]


@pytest.mark.parametrize("mode", ["batched", "per_call"])
def test_what_stock_hitl_does_to_calls_is_known(studio: Studio, mode: Any) -> None:
    """Its edits stand in the state under this key, and whether it asks per call in this field."""
    seen: list[Any] = []

    class Looking(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            node = _upstream.tool_node_of(handler)
            assert node is not None
            assert list(node.tools_by_name) == ["plain_tool"]
            seen.append((_upstream.asks_per_call(node), set(_upstream.edited_calls(request.state))))
            return handler(request)

    allowed: Any = {"plain_tool": {"allowed_decisions": ["edit"]}}
    one = call("plain_tool", {"n": 1}, id="c1")
    agent: Any = create_agent(
        Scripted(messages=iter([says(one), AIMessage("done")])),
        [plain_tool],
        middleware=[HumanInTheLoopMiddleware(allowed, interrupt_mode=mode), Looking()],
        checkpointer=InMemorySaver(),
    )
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    agent.invoke({"messages": [("user", "go")]}, config)
    edit = {"type": "edit", "edited_action": {"name": "plain_tool", "args": {"n": 2}}}
    agent.invoke(Command(resume={"decisions": [edit]} if mode == "batched" else edit), config)
    assert seen == [(mode == "per_call", {"c1"} if mode == "batched" else set())]


def test_toolnode_messages_key() -> None:
    assert _upstream.messages_key(ToolNode([plain_tool], messages_key="said")) == "said"


def test_toolnode_parse_input_names_its_forms() -> None:
    node, one = ToolNode([plain_tool]), call("plain_tool", {"n": 1}, id="c")
    message = AIMessage("", tool_calls=[one])
    assert _upstream.parse_calls(node, [message]) == ([one], "list")
    assert _upstream.parse_calls(node, {"messages": [message]}) == ([one], "dict")
    assert _upstream.parse_calls(node, [one]) == ([one], "tool_calls")
    forged = {"__type": "tool_call_with_context", "tool_call": one, "state": {}}
    assert _upstream.parse_calls(node, forged) == ([one], "tool_calls")


def test_toolnode_keeps_both_wrappers_of_its_calls() -> None:
    def wrap(request: Any, execute: Any) -> Any: ...

    async def awrap(request: Any, execute: Any) -> Any: ...

    node = ToolNode([plain_tool], wrap_tool_call=wrap, awrap_tool_call=awrap)
    assert _upstream.wrappers_of(node) == (wrap, awrap)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("sides", ["both", "sync", "async"])
def test_toolnode_hands_its_own_execution_to_its_wrapper(mode: str, sides: str) -> None:
    seen: list[Any] = []

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(_upstream.inside_of(execute))
        return execute(request)

    async def awrap(request: Any, execute: Any) -> Any:
        seen.append(_upstream.inside_of(execute))
        return await execute(request)

    node = ToolNode([plain_tool])
    _upstream.set_wrappers(
        node, None if sides == "async" else wrap, None if sides == "sync" else awrap
    )
    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
    given: Any = {"messages": [says(call("plain_tool", {"n": 1}))]}
    if mode == "async":
        asyncio.run(graph.ainvoke(given))
    else:
        graph.invoke(given)
    assert seen == ([] if (sides, mode) == ("async", "sync") else [[]])


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("traced", [False, True])
def test_create_agent_hands_over_who_stands_inside(
    mode: str, traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if traced:  # its wrappers then run inside spans
        monkeypatch.setenv("LANGSMITH_TRACING", "true")
        monkeypatch.setenv("LANGSMITH_TEST_TRACKING", "false")
        monkeypatch.setenv("LANGSMITH_ENDPOINT", "http://127.0.0.1:9")
    seen: dict[str, Any] = {}

    class Around(AgentMiddleware):
        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            seen[self.name] = _upstream.inside_of(handler)
            return handler(request)

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            seen[self.name] = _upstream.inside_of(handler)
            return await handler(request)

    class A(Around): ...

    class B(Around): ...

    class C(Around): ...

    model = Scripted(messages=iter([says(call("plain_tool", {"n": 1})), AIMessage("done")]))
    agent: Any = create_agent(model, [plain_tool], middleware=[A(), B(), C()])
    given = {"messages": [("user", "go")]}
    if mode == "async":
        asyncio.run(agent.ainvoke(given))
    else:
        agent.invoke(given)
    assert seen == {"A": ["B", "C"], "B": ["C"], "C": []}


def test_plain_toolnode_overrides_nothing() -> None:
    assert _upstream.overridden(ToolNode([plain_tool])) == []


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("checkpointer", [None, True, False])
def test_a_run_knows_whether_its_graphs_keep_checkpoints(checkpointer: Any, mode: str) -> None:
    seen: dict[str, Any] = {}

    def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        held = config["configurable"]
        seen.update(can_ask=_upstream.has_checkpointer(held), over=_upstream.starts_over(held))
        seen["path"] = _upstream.graph_path(held)
        return {}

    inner = StateGraph(State).add_node("node", node).add_edge(START, "node")
    middle = StateGraph(State).add_node("in", inner.compile(checkpointer=checkpointer))
    middle.add_edge(START, "in")
    outer = StateGraph(State).add_node("mid", middle.compile()).add_edge(START, "mid")
    graph = outer.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    given: Any = {"note": ""}
    if mode == "async":
        asyncio.run(graph.ainvoke(given, config))
    else:
        graph.invoke(given, config)
    forgets = checkpointer is False
    assert seen == {"can_ask": not forgets, "over": forgets, "path": "mid.in"}


def test_copied_toolnode_runs_its_own_tools_and_leaves_the_other_as_it_was() -> None:
    node = ToolNode([plain_tool])
    said = plain_tool.model_copy(update={"func": lambda n, **kwargs: "another"})
    made = _upstream.with_tools(node, {"plain_tool": said})
    assert _upstream.overridden(made) == []
    given = call("plain_tool", {"n": 1}, id="c")
    builder = StateGraph(MessagesState)
    builder.add_node("tools", made)
    builder.add_edge(START, "tools")
    state = builder.compile().invoke({"messages": [AIMessage("", tool_calls=[given])]})
    assert state["messages"][-1].content == "another"
    assert node.tools_by_name == {"plain_tool": plain_tool}


def test_toolnode_tools_by_name_is_the_dictionary_that_it_runs_from() -> None:
    node = ToolNode([plain_tool])
    node.tools_by_name["plain_tool"] = swapped = plain_tool.model_copy()
    assert node.tools_by_name["plain_tool"] is swapped


def test_toolnode_runs_tools_through_invoke_and_ainvoke() -> None:
    for name in ("_execute_tool_sync", "_execute_tool_async"):  # the conformance shim's place
        assert "invoke(" in inspect.getsource(getattr(ToolNode, name)), name


def test_to_args_and_kwargs_and_what_run_fills() -> None:
    assert _upstream.to_arguments(plain_tool, {"n": "1"}, None) == ((), {"n": 1})
    assert _upstream.filled_by_run(plain_tool) == {"config", "run_manager"}


def test_runnable_callable_takes_a_sync_and_an_async_body_and_a_name() -> None:
    names = set(inspect.signature(_upstream.RunnableCallable.__init__).parameters)
    assert {"func", "afunc", "name"} <= names


@pytest.mark.parametrize("saver", [None, InMemorySaver()], ids=["no saver", "saver"])
def test_configurable_keys_inside_a_run(saver: Any) -> None:
    seen: dict[str, Any] = {}

    def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        seen.update(config["configurable"])
        return {}

    builder = StateGraph(State).add_node("node", node).add_edge(START, "node")
    builder.compile(checkpointer=saver).invoke({"note": ""}, {"configurable": {"thread_id": "1"}})
    assert _upstream.has_checkpointer(seen) is (saver is not None)


def test_a_task_reads_and_writes_channels_and_says_whether_it_is_nested() -> None:
    nested: list[bool] = []

    def node(state: State, config: RunnableConfig) -> dict[str, Any]:
        nested.append(_upstream.is_nested(config["configurable"]))
        assert _upstream.write_channels(config, [("notes", ["first"])])
        assert _upstream.channel_value(config, "notes", fresh=False) == ["given"]
        assert _upstream.channel_value(config, "notes", fresh=True) == ["given", "first"]
        return {"notes": ["last"]}

    inner = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
    outer = StateGraph(State).add_node("inner", inner).add_edge(START, "inner").compile()
    assert inner.invoke({"notes": ["given"]})["notes"] == ["given", "first", "last"]
    assert outer.invoke({"notes": ["given"]})["notes"][1:] == ["given", "first", "last"]
    assert nested == [False, True]
    assert not _upstream.write_channels({}, [])
    assert _upstream.channel_value({}, "notes", fresh=True) is None


def test_a_sequence_in_a_node_is_one_step_of_its_graph() -> None:
    def body(state: State) -> dict[str, Any]:
        return {"note": state["note"] + "!"}

    first = _upstream.RunnableCallable(lambda input: {"note": "seen"}, name="n", trace=False)
    builder = StateGraph(State).add_node("node", body).add_edge(START, "node")
    spec = builder.nodes["node"]
    runnable: Any = spec.runnable
    sequence = _upstream.RunnableSeq(first, runnable)
    builder.nodes["node"] = dataclasses.replace(spec, runnable=sequence)
    parts = list(builder.compile().stream({"note": "given"}, stream_mode="updates"))
    assert parts == [{"node": {"note": "seen!"}}]


def test_stategraph_keeps_nodes_edges_and_branches_where_protect_moves_them() -> None:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([plain_tool]))
    builder.add_node("end", lambda state: {})
    builder.add_edge(START, "tools")
    builder.add_conditional_edges("tools", lambda state: END, [END])
    builder.add_edge(["tools", "end"], END)
    assert (START, "tools") in builder.edges
    assert list(builder.branches["tools"])
    assert builder.waiting_edges == {(("tools", "end"), END)}
    assert isinstance(builder.nodes["tools"].runnable, ToolNode)
    moved = {"runnable", "ends", "retry_policy", "cache_policy", "error_handler_node", "timeout",
             "defer", "metadata"}  # fmt: skip
    assert moved <= {one.name for one in fields(builder.nodes["tools"])}
    assert builder.compile().builder is builder


# --- the same as a plain tool -------------------------------------------------------------------


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    note: str
    notes: Annotated[list[str], operator.add]


@dataclass
class Case:
    """A tool, what it is called with, and what its Binding says besides its plain arguments."""

    make: Callable[[], BaseTool]
    args: dict[str, Any] = field(default_factory=lambda: {"n": 3})
    binding: dict[str, Any] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    only: str = ""


CASES: dict[str, Case] = {}
RAN: list[Any] = []
"""What the tool that was made last was run with."""


def case(name: str, **kwargs: Any) -> Callable[[Any], Any]:
    """A function that makes the tool of a case."""

    def register(make: Any) -> Any:
        CASES[name] = Case(make, **kwargs)
        return make

    return register


def answers(name: str, response_format: Any = "content", **kwargs: Any) -> Callable[[Any], Any]:
    """A case whose tool is this function under @tool."""

    def register(function: Any) -> Any:
        case(name, **kwargs)(lambda: tool("answer", response_format=response_format)(function))
        return function

    return register


@answers("str")
def _(n: int) -> str:
    """Answer."""
    RAN.append(n)
    return f"n is {n}"


@answers("mapping")
def _(n: int) -> dict[str, Any]:
    """Answer."""
    RAN.append(n)
    return {"n": n, "who": "Zoë"}


@answers("default", args={})
def _(n: int = 7) -> str:
    """Answer."""
    RAN.append(n)
    return str(n)


@answers("content blocks")
def _(n: int) -> list[Any]:
    """Answer."""
    RAN.append(n)
    return ["first", {"type": "text", "text": "second"}]


@answers("content and artifact", response_format="content_and_artifact")
def _(n: int) -> tuple[str, Any]:
    """Answer."""
    RAN.append(n)
    return "see", {"rows": [n]}


@answers("tool message")
def _(n: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
    """Answer."""
    RAN.append(n)
    return ToolMessage("mine", tool_call_id=tool_call_id, artifact={"n": n}, name="answer")


@answers("command", binding={"state": ["note"]})
def _(n: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
    """Answer."""
    RAN.append(n)
    said = ToolMessage("noted", tool_call_id=tool_call_id)
    return Command(update={"note": f"n{n}", "messages": [said]})


@answers("commands", binding={"state": ["notes"]})
def _(n: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> list[Any]:
    """Answer."""
    RAN.append(n)
    said = ToolMessage("noted", tool_call_id=tool_call_id)
    return [Command(update={"notes": ["a"]}), Command(update={"notes": ["b"]}), said]


@answers("async only", only="async")
async def _(n: int) -> str:
    """Answer."""
    RAN.append(n)
    return f"n is {n}"


@case("sync and async")
def _() -> BaseTool:
    def answer(n: int) -> str:
        RAN.append("sync")
        return "sync"

    async def aanswer(n: int) -> str:
        RAN.append("async")
        return "async"

    return StructuredTool.from_function(answer, aanswer, name="answer", description="Answer.")


@answers("injected state")
def _(
    n: int,
    state: Annotated[dict[str, Any], InjectedState],
    note: Annotated[str, InjectedState("note")],
) -> str:
    """Answer."""
    RAN.append(n)
    return f"{note} of {sorted(state)}, {len(state['messages'])} message"


@answers("injected store")
def _(n: int, store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Answer."""
    RAN.append(n)
    found = store.get(("numbers",), "one")
    return str(found and found.value)


@answers("tool runtime")
def _(n: int, runtime: ToolRuntime) -> str:
    """Answer."""
    RAN.append(n)
    runtime.stream_writer({"n": n})
    return f"{runtime.tool_call_id} {runtime.state['note']} {runtime.store is not None}"


@answers("config")
def _(n: int, config: RunnableConfig) -> str:
    """Answer."""
    RAN.append(n)
    return f"{config['metadata']['colour']} {sorted(config['tags'])}"


@case("callbacks")
def _() -> BaseTool:
    def answer(n: int, callbacks: Any = None) -> str:
        RAN.append(n)
        return type(callbacks).__name__

    class Schema(BaseModel):
        n: int

    return StructuredTool.from_function(
        answer, name="answer", description="Answer.", args_schema=Schema
    )


@case("single input", args={"n": "three"})
def _() -> BaseTool:
    class Schema(BaseModel):
        n: str

    def answer(n: str) -> str:
        RAN.append(n)
        return f"got {n}"

    return Tool(name="answer", func=answer, description="Answer.", args_schema=Schema)


@case("json schema")
def _() -> BaseTool:
    def answer(**given: Any) -> str:
        RAN.append(given)
        return str(given)

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return StructuredTool.from_function(
        answer, name="answer", description="Answer.", args_schema=schema
    )


@case("class")
def _() -> BaseTool:
    class Schema(BaseModel):
        n: int = Field(ge=0)

    class Answer(BaseTool):
        name: str = "answer"
        description: str = "Answer."
        args_schema: type[BaseModel] = Schema
        factor: int = 2

        def _run(self, n: int, run_manager: CallbackManagerForToolRun | None = None) -> str:
            RAN.append(n)
            return f"{n * self.factor} {type(run_manager).__name__}"

    return Answer(factor=5)


@answers("handled tool error", attributes={"handle_tool_error": lambda error: f"handled: {error}"})
def _(n: int) -> str:
    """Answer."""
    RAN.append(n)
    raise ToolException("no such number")


@answers("error that ToolNode handles", node={"handle_tool_errors": True})
@answers("error that nobody handles")
def _(n: int) -> str:
    """Answer."""
    RAN.append(n)
    raise ValueError("odd")


@answers("validation error", args={"n": "many"})
@answers(
    "handled validation error",
    args={"n": "many"},
    attributes={"handle_validation_error": "give a number"},
)
def _(n: int) -> str:
    """Answer."""
    RAN.append(n)
    return str(n)


def made(name: str) -> BaseTool:
    """The tool of a case, made anew; `RAN` begins again."""
    RAN.clear()
    one = CASES[name].make()
    for attribute, value in CASES[name].attributes.items():
        setattr(one, attribute, value)
    return one


class Heard(BaseCallbackHandler):
    """What a tool's callbacks were told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.events.append(("start", input_str))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.events.append(("end", str(getattr(output, "content", type(output).__name__))))

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.events.append(("error", type(error).__name__))


async def outcome(graph: Any, name: str, config: Any, mode: str) -> Any:
    """The final state of a run, message ids left out, or the exception; and what was heard."""
    heard = Heard()
    sent = says({**call("answer", dict(CASES[name].args), id="c1")}, id="m1")
    given = {"messages": [sent], "note": "before"}
    config = {**config, "callbacks": [heard], "metadata": {"colour": "red"}, "tags": ["t"]}
    try:
        if mode == "async":
            state = await graph.ainvoke(given, config)
        else:
            state = graph.invoke(given, config)
    except Exception as error:
        return type(error), str(error), heard.events
    said = [
        (type(m), m.content, m.artifact, m.status, m.name, m.tool_call_id)
        for m in state["messages"]
        if isinstance(m, ToolMessage)
    ]
    return said, state.get("note"), state.get("notes"), heard.events


def built(name: str, one: BaseTool) -> StateGraph[Any]:
    builder = StateGraph(State)
    builder.add_node("tools", ToolNode([one], **CASES[name].node))
    builder.add_edge(START, "tools")
    builder.add_edge("tools", END)
    return builder


RUNS = [(name, mode) for name, one in CASES.items() for mode in ("sync", "async")
        if one.only in ("", mode)]  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), RUNS)
async def test_a_permitted_call_comes_to_what_upstream_makes_of_it(
    studio: Studio, name: str, mode: str
) -> None:
    store = InMemoryStore()
    store.put(("numbers",), "one", {"n": 1})
    plain = built(name, made(name)).compile(store=store)
    expected = await outcome(plain, name, {}, mode)
    expected_runs = RAN.copy()

    one = made(name)
    arguments = list(CASES[name].args) or ["n"]
    studio.guard.bind(Binding(one, stage=None, plain=arguments, **CASES[name].binding))
    builder = protect(built(name, one), studio.guard, agents={"tools": "editor"})
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        config = job.config(thread_id="t")
        found = await outcome(
            builder.compile(store=store, checkpointer=InMemorySaver()), name, config, mode
        )
    assert found == expected
    assert expected_runs == RAN
    assert len(RAN) <= 1  # trap 14: a sync tool under ainvoke enters once


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_return_direct_ends_an_agent_s_turn_as_upstream(studio: Studio, mode: str) -> None:
    async def said(agent: Any, config: Any) -> list[Any]:
        given = {"messages": [("user", "go")]}
        state = (
            await agent.ainvoke(given, config) if mode == "async" else agent.invoke(given, config)
        )
        return [(message.type, message.content) for message in state["messages"]]

    @tool(return_direct=True)
    def answer(n: int) -> str:
        """Answer."""
        return f"n is {n}"

    def model() -> Any:
        class Model(GenericFakeChatModel):
            def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
                return self

        return Model(messages=iter([says(call("answer", {"n": 1}, id="c1")), AIMessage("never")]))

    studio.guard.bind(Binding(answer, stage=None, plain=["n"]))
    expected = await said(create_agent(model(), [answer]), {})
    guard = GuardMiddleware(studio.guard, agent="editor")
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        agent: Any = create_agent(model(), [answer], middleware=[guard])
        found = await said(agent, job.config(thread_id="t"))
    assert found == expected
    assert found[-1] == ("tool", "n is 1")


def test_custom_streams_and_updates_come_through(studio: Studio) -> None:
    @tool
    def answer(n: int, runtime: ToolRuntime) -> str:
        """Answer."""
        writer: StreamWriter = runtime.stream_writer
        for step in range(n):
            writer({"step": step})
        return "done"

    studio.guard.bind(Binding(answer, stage=None, plain=["n"]))
    builder = protect(built("str", answer), studio.guard, agents={"tools": "editor"})
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        streamed = builder.compile().stream(
            {"messages": [says(call("answer", {"n": 2}))]}, job.config(), stream_mode="custom"
        )
        assert list(streamed) == [{"step": 0}, {"step": 1}]


def test_a_guarded_tool_shows_the_model_what_the_plain_one_shows(studio: Studio) -> None:
    for name in CASES:
        one = made(name)
        arguments = list(CASES[name].args) or ["n"]
        studio.guard.bound.pop(one.name, None)
        studio.guard.bind(Binding(one, stage=None, plain=arguments, **CASES[name].binding))
        (copy,) = studio.guard.tools([one])
        assert invoker_of(copy) is not None
        assert isinstance(copy, type(one))
        shown: Any = copy.tool_call_schema
        expected: Any = one.tool_call_schema
        if not isinstance(expected, dict):
            shown, expected = shown.model_json_schema(), expected.model_json_schema()
        else:
            shown = {k: v for k, v in shown.items() if k != "additionalProperties"}
        assert shown == expected, name
