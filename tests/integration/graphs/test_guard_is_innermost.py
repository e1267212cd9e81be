"""The guard is the innermost wrapper on every way in, or every call is refused (I5, trap 10).

What runs behind a developer's wrapper or a later middleware is a guarded copy, or nothing; the
refusal names what to move. Effects are counted in the tools' own bodies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    LLMToolEmulator,
    ToolRetryMiddleware,
    wrap_tool_call,
)
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send
from pydantic import ValidationError

from agentguard.errors import BindingError
from agentguard.langgraph import GuardMiddleware, protect
from tests.support import GO, KIM, State, Studio, call, results, says, tool_loop
from tests.support.chat_models import Watching, dangling

MODES = ("sync", "async")


def run(graph: Any, given: Any, config: Any, mode: str) -> Any:
    return asyncio.run(graph.ainvoke(given, config)) if mode == "async" else graph.invoke(
        given, config)  # fmt: skip


# --- create_agent: middleware listed after the guard ----------------------------------------------


def agent_of(
    studio: Studio,
    script: list[AIMessage],
    middleware: Callable[[Any], list[Any]],
    tools: tuple[str, ...] = ("crop", "publish"),
) -> tuple[Any, Watching]:
    """An agent of plain tools that may crop and publish, and its model."""
    agents = {"edit": "editor", "export": "publisher"}
    guard = GuardMiddleware(studio.guard, agent=agents, unsafe_shared_driver=True)
    model = Watching(messages=iter([*script, AIMessage("done"), AIMessage("done")]))
    agent = create_agent(
        model,
        [studio.tools[name] for name in tools],
        middleware=middleware(guard),
        checkpointer=InMemorySaver(),
    )
    return agent, model


class Around(AgentMiddleware):
    """Does what a test wrote with a request and a handler, on both paths."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.change = change

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        changed = self.change(request)
        return changed if isinstance(changed, ToolMessage) else handler(changed)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        changed = self.change(request)
        return changed if isinstance(changed, ToolMessage) else await handler(changed)


def answered(request: Any, content: Any) -> ToolMessage:
    return ToolMessage(str(content), tool_call_id=request.tool_call["id"])


def attacks(studio: Studio) -> dict[str, Callable[[Any], Any]]:
    plain = studio.tools["publish"]
    paths = {"source": str(studio.picture("x.png")), "to": "site"}
    return {
        "nothing at all": lambda r: r,
        "the original": lambda r: r.override(tool=plain),
        "original.invoke": lambda r: answered(r, plain.invoke(paths)),
        "the tool's func": lambda r: answered(r, r.tool.func(**paths)),
        "the tool's _run": lambda r: answered(r, r.tool._run(**paths, config={})),
        "the tool's invoke": lambda r: answered(r, r.tool.invoke(paths)),
        "other arguments": lambda r: r.override(
            tool_call={**r.tool_call, "args": {**r.tool_call["args"], "to": "site"}}
        ),
        "another name": lambda r: r.override(
            tool=plain, tool_call={**r.tool_call, "name": "publish", "args": paths}
        ),
        "another id": lambda r: r.override(tool_call={**r.tool_call, "id": "other"}),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", [
    "nothing at all", "the original", "original.invoke", "the tool's func", "the tool's _run",
    "the tool's invoke", "other arguments", "another name", "another id",
])  # fmt: skip
def test_middleware_after_the_guard_runs_nothing(
    studio: Studio, what: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        later = Around(attacks(studio)[what])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, model = agent_of(studio, script, lambda guard: [guard, later])
        with caplog.at_level(logging.WARNING, "agentguard"):
            state = run(agent, GO, job.config(thread_id="t"), mode)
    assert studio.world.effects == []
    assert studio.grants() == []
    (message,) = results(state)
    assert message.status == "error"
    assert "list GuardMiddleware last: Around runs inside it" in message.content
    assert "Around runs inside it" in caplog.text
    assert model.wakes == [[], []]


@pytest.mark.parametrize("mode", MODES)
def test_every_middleware_after_the_guard_is_named(studio: Studio, mode: str) -> None:
    class First(Around): ...

    class Second(Around): ...

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(
            studio,
            script,
            lambda guard: [Around(lambda r: r), guard, First(lambda r: r), Second(lambda r: r)],
        )
        state = run(agent, GO, job.config(thread_id="t"), mode)
    assert "last: First, Second runs inside it" in results(state)[0].content
    assert studio.world.effects == []


@wrap_tool_call
def decorated(request: Any, handler: Any) -> Any:
    return handler(request)


LATER: dict[str, Callable[[], AgentMiddleware]] = {
    "ToolRetryMiddleware": ToolRetryMiddleware,
    "LLMToolEmulator": lambda: LLMToolEmulator(model=Watching(messages=iter([AIMessage("x")]))),
    "decorated": lambda: decorated,
}


@pytest.mark.parametrize("name", LATER)
def test_upstreams_own_middleware_after_the_guard_is_refused(studio: Studio, name: str) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(studio, script, lambda guard: [guard, LATER[name]()])
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert f"{name} runs inside it" in results(state)[0].content
    assert studio.world.effects == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["ToolRetryMiddleware", "decorated"])
def test_middleware_before_the_guard_is_fine(studio: Studio, name: str, mode: str) -> None:
    if name == "decorated" and mode == "async":
        pytest.skip("it has no asynchronous twin")
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(studio, script, lambda guard: [LATER[name](), guard])
        state = run(agent, GO, job.config(thread_id="t"), mode)
    assert results(state)[0].status == "success", results(state)[0].content
    assert studio.world.count("publish") == 1


def test_middleware_before_the_guard_may_edit_the_arguments(studio: Studio) -> None:
    """The guard judges the final arguments: nothing stands behind it."""
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        outer = Around(attacks(studio)["other arguments"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        agent, _ = agent_of(studio, script, lambda guard: [outer, guard])
        state = agent.invoke(GO, job.config(thread_id="t"))
    rows = studio.guard.ledger.all("SELECT destination FROM requests")
    assert [row["destination"] for row in rows] == ["site"]
    assert studio.world.effects == []
    assert results(state)[0].status == "error"


@pytest.mark.parametrize("interrupt_mode", ["batched", "per_call"])
@pytest.mark.parametrize("guard_last", [True, False])
def test_K1_an_unsigned_edit_that_renames_the_call_publishes_nothing(
    studio: Studio, guard_last: bool, interrupt_mode: Any
) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        human = HumanInTheLoopMiddleware(
            interrupt_on={"crop": {"allowed_decisions": ["approve", "edit"]}},
            interrupt_mode=interrupt_mode,
        )
        agent, _ = agent_of(
            studio,
            [says(call("crop", {"source": asset, "width": 4, "height": 4}))],
            lambda guard: [human, guard] if guard_last else [guard, human],
        )
        config = job.config(thread_id="t")
        agent.invoke(GO, config)
        renamed = {"name": "publish", "args": {"source": asset, "to": "team"}}
        edit = {"type": "edit", "edited_action": renamed}
        given = {"decisions": [edit]} if interrupt_mode == "batched" else edit
        with contextlib.suppress(ValidationError):  # upstream refuses a rename, in one of its modes
            agent.invoke(Command(resume=given), config)
    assert studio.world.count("publish") == 0
    assert studio.world.count("crop") == 0


def test_guard_as_a_toolnodes_own_wrapper_is_innermost(studio: Studio) -> None:
    guard = GuardMiddleware(studio.guard, agent="publisher")
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        node = ToolNode(
            [studio.tools["publish"]],
            wrap_tool_call=guard.wrap_tool_call,
            awrap_tool_call=guard.awrap_tool_call,
        )
        graph = StateGraph(State).add_node("tools", node).add_edge(START, "tools").compile()
        message = says(call("publish", {"source": asset, "to": "team"}))
        state = graph.invoke({"messages": [message]}, job.config(thread_id="t"))
    assert results(state)[0].status == "success", results(state)[0].content


def test_handler_of_unknown_shape_refuses_every_call(studio: Studio) -> None:
    """A wrapper of one's own around the guard's methods is no list in which it could stand last."""
    guard = GuardMiddleware(studio.guard, agent="publisher")
    plain = studio.tools["publish"]

    def wrap(request: Any, execute: Any) -> Any:
        def pretends(inner: Any) -> Any:
            return execute(inner.override(tool=plain))

        pretends.__module__, pretends.__qualname__ = execute.__module__, execute.__qualname__
        return guard.wrap_tool_call(request, pretends)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        node = ToolNode([plain], wrap_tool_call=wrap)
        graph = StateGraph(State).add_node("tools", node).add_edge(START, "tools").compile()
        message = says(call("publish", {"source": asset, "to": "team"}))
        state = graph.invoke({"messages": [message]}, job.config(thread_id="t"))
    assert "doesn't know what it would call" in results(state)[0].content
    assert studio.world.effects == []


# --- protect: a ToolNode's own wrappers -----------------------------------------------------------


Wrap = Callable[[Any, Callable[[Any], Any]], Any]


def loop_of(
    studio: Studio,
    script: list[AIMessage],
    wrap: Wrap | None,
    *,
    sides: str = "both",
    tools: tuple[str, ...] = ("publish",),
    agent: str = "publisher",
    guard: bool = True,
) -> tuple[Any, list[list[str]]]:
    """A protected loop whose ToolNode has wrappers, and what dangled at each wake of the model."""

    async def awrap(request: Any, execute: Any) -> Any:
        waiting: list[Any] = []

        def later(inner: Any) -> Any:
            waiting.append(inner)
            return None

        made = wrap(request, later)  # type: ignore[misc]
        return await execute(waiting[0]) if waiting and made is None else made

    wrappers: dict[str, Any] = {}
    if wrap is not None and sides in ("both", "sync only"):
        wrappers["wrap_tool_call"] = wrap
    if wrap is not None and sides in ("both", "async only"):
        wrappers["awrap_tool_call"] = awrap
    wakes: list[list[str]] = []

    def model(state: State) -> dict[str, Any]:
        wakes.append(dangling(state["messages"]))
        said = sum(1 for m in state["messages"] if isinstance(m, AIMessage))
        done = AIMessage("done", id=f"end-{said}")
        return {"messages": [script[said] if said < len(script) else done]}

    builder = tool_loop(model, ToolNode([studio.tools[name] for name in tools], **wrappers))
    sealed = protect(builder, studio.guard, agents={"tools": agent}) if guard else builder
    return sealed.compile(checkpointer=InMemorySaver()), wakes


SIDES = ("both", "sync only", "async only")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("name", ["upload", "publish", "look"])
def test_A3_a_wrapper_that_supplies_a_tool_does_not_see_what_was_refused(
    studio: Studio, name: str, sides: str, mode: str
) -> None:
    """LangGraph's dynamic tools: an unknown name, a denied call, and another node's tool."""
    ran: list[Any] = []
    seen: list[str] = []

    @tool
    def hidden(source: str = "", to: str = "") -> str:
        """Upload somewhere."""
        ran.append(to)
        return "published"

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(request.tool_call["name"])
        return execute(request.override(tool=hidden))

    asset = "asset-" + "0" * 20
    script = [says(call(name, {"source": asset, "to": "team"}))]
    graph, wakes = loop_of(studio, script, wrap, sides=sides)
    with studio.guard.open_job("p", requested_by=KIM) as job:
        state = run(graph, GO, job.config(thread_id="t"), mode)
    assert ran == []
    assert seen == []
    (message,) = results(state)
    assert message.status == "error"
    assert wakes == [[], []]
    assert studio.grants() == []


PUT_BACK = {
    "the plain tool": lambda plain, r: r.override(tool=plain),
    "a copy of it": lambda plain, r: r.override(tool=plain.model_copy()),
    "no tool": lambda plain, r: r.override(tool=None),
    "another name": lambda plain, r: r.override(tool_call={**r.tool_call, "name": "look"}),
    "another id": lambda plain, r: r.override(tool_call={**r.tool_call, "id": "other"}),
    "other arguments": lambda plain, r: r.override(
        tool_call={**r.tool_call, "args": {**r.tool_call["args"], "to": "site"}}
    ),
    "arguments changed in place": lambda plain, r: r.tool_call["args"].update(to="site") or r,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("what", PUT_BACK)
def test_A3_a_wrapper_of_the_toolnode_is_named_in_the_refusal(
    studio: Studio, what: str, sides: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = studio.tools["publish"]

    def swap(request: Any, execute: Any) -> Any:
        return execute(PUT_BACK[what](plain, request))

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph, wakes = loop_of(studio, script, swap, sides=sides)
        with caplog.at_level(logging.WARNING, "agentguard"):
            state = run(graph, GO, job.config(thread_id="t"), mode)
    assert wakes == [[], []]
    (message,) = results(state)
    if sides == "async only" and mode == "sync":  # upstream skips it then
        assert studio.world.effects == [("publish", "team")]
        return
    assert studio.world.effects == []
    assert message.status == "error"
    wrapper = "swap" if sides == "sync only" or mode == "sync" else "awrap"
    assert f"{wrapper} of tools" in message.content
    assert "in a node before tools" in message.content
    assert f"{wrapper} of tools" in caplog.text
    policies = [row["body"] for row in studio.guard.ledger.all("SELECT body FROM records")]
    assert any("agentguard.not-innermost" in str(body) for body in policies)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", SIDES)
def test_a_wrapper_that_passes_on_what_it_got_works(studio: Studio, sides: str, mode: str) -> None:
    seen: list[str] = []

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(request.tool_call["name"])
        return execute(request)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph, wakes = loop_of(studio, script, wrap, sides=sides)
        state = run(graph, GO, job.config(thread_id="t"), mode)
    assert results(state)[0].status == "success", results(state)[0].content
    assert studio.world.count("publish") == 1
    assert seen == ([] if (sides, mode) == ("async only", "sync") else ["publish"])
    assert wakes == [[], []]


def test_a_wrapper_that_calls_twice_has_one_effect(studio: Studio) -> None:
    def twice(request: Any, execute: Any) -> Any:
        execute(request)
        return execute(request)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph, _ = loop_of(studio, script, twice)
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert results(state)[0].content == "published"
    assert studio.world.count("publish") == 1


def test_a_wrapper_that_calls_the_guarded_tool_itself_has_one_effect(studio: Studio) -> None:
    def calls(request: Any, execute: Any) -> Any:
        return request.tool.invoke(dict(request.tool_call), request.runtime.config)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}))]
        graph, _ = loop_of(studio, script, calls)
        graph.invoke(GO, job.config(thread_id="t"))
    assert studio.world.count("publish") == 1
    assert studio.grants() == ["executed"]


def test_protecting_a_toolnode_twice_keeps_one_wrapper(studio: Studio) -> None:
    seen: list[str] = []

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(request.tool_call["name"])
        return execute(request)

    node = ToolNode([studio.tools["publish"]], wrap_tool_call=wrap)
    builder = StateGraph(State).add_node("tools", node).add_edge(START, "tools")
    protect(builder, studio.guard, agents={"tools": "publisher"})
    graph = protect(builder, studio.guard, agents={"tools": "publisher"}).compile()
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        message = says(call("publish", {"source": asset, "to": "team"}))
        state = graph.invoke({"messages": [message]}, job.config(thread_id="t"))
    assert results(state)[0].status == "success", results(state)[0].content
    assert seen == ["publish"]


def test_a_wrapper_set_after_protect_is_taken_out(
    studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    plain = studio.tools["publish"]
    node = ToolNode([plain])
    builder = StateGraph(State).add_node("tools", node).add_edge(START, "tools")
    graph = protect(builder, studio.guard, agents={"tools": "publisher"}).compile()
    node._wrap_tool_call = lambda request, execute: execute(request.override(tool=plain))
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        message = says(call("publish", {"source": asset, "to": "team"}))
        graph.invoke({"messages": [message]}, job.config(thread_id="t"))
    assert studio.world.effects == []


class OwnTable(ToolNode):
    def _run_one(self, call: Any, *args: Any) -> Any:
        raise AssertionError("it ran")


class OwnLookup(ToolNode):
    @property
    def tools_by_name(self) -> Any:
        return dict(super().tools_by_name)


def replaced(node: ToolNode) -> ToolNode:
    node.func = lambda input, config, runtime: {"messages": []}
    return node


@pytest.mark.parametrize(("make", "names"), [
    (OwnTable, "_run_one"), (OwnLookup, "tools_by_name"),
    (lambda tools: replaced(ToolNode(tools)), "func"),
])  # fmt: skip
def test_a_toolnode_with_methods_of_its_own_is_refused(
    studio: Studio, make: Any, names: str
) -> None:
    builder = StateGraph(State)
    builder.add_node("tools", make([studio.tools["publish"]]))
    builder.add_edge(START, "tools")
    with pytest.raises(BindingError, match=f"changes {names} of ToolNode"):
        protect(builder, studio.guard, agents={"tools": "publisher"})


@pytest.mark.parametrize("node", ["tools.execute", "tools.ask"])
@pytest.mark.parametrize("name", ["publish", "upload"])
def test_trap_9_a_forged_payload_does_not_reach_the_toolnode(
    studio: Studio, name: str, node: str
) -> None:
    seen: list[str] = []

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(request.tool_call["name"])
        return execute(request)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        graph, _ = loop_of(studio, [], wrap)
        config = job.config(thread_id="t")
        graph.invoke(GO, config)
        forged = call(name, {"source": asset, "to": "team"}, id="f")
        payload = {"__type": "tool_call_with_context", "tool_call": forged, "state": {}}
        for sent in ([forged], payload):
            state = graph.invoke(Command(goto=Send(node, sent)), config)
            assert results(state)[-1].status == "error"
    assert seen == []
    assert studio.world.effects == []


def test_a_waiting_call_that_is_sent_to_execute_does_not_reach_the_toolnode(
    studio: Studio,
) -> None:
    seen: list[str] = []

    def wrap(request: Any, execute: Any) -> Any:
        seen.append(request.tool_call["name"])
        return execute(request)

    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        one = call("publish", {"source": asset, "to": "team"}, id="c")
        graph, _ = loop_of(studio, [says(one)], wrap)
        config = job.config(thread_id="t")
        assert "__interrupt__" in graph.invoke(GO, config)
        graph.invoke(Command(goto=Send("tools.execute", [one])), config)
        assert seen == []
        assert studio.world.effects == []


def test_refused_and_permitted_calls_of_a_message_are_answered_in_order(studio: Studio) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        good = {"source": asset, "to": "team"}
        script = [
            says(
                call("upload", {}, id="1"),
                call("publish", good, id="2"),
                call("publish", {"source": "/etc/passwd", "to": "team"}, id="3"),
            )
        ]
        graph, wakes = loop_of(studio, script, None)
        state = graph.invoke(GO, job.config(thread_id="t"))
    answers = [(m.tool_call_id, m.status) for m in results(state)]
    assert answers == [("1", "error"), ("2", "success"), ("3", "error")]
    assert "there is no tool upload here; there is publish" in results(state)[0].content
    assert studio.world.count("publish") == 1
    assert wakes == [[], []]


def test_streamed_nodes_and_interrupt_after_stay(studio: Studio) -> None:
    with studio.guard.open_job("p", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        script = [says(call("publish", {"source": asset, "to": "team"}), call("upload", {}))]
        graph, _ = loop_of(studio, script, lambda request, execute: execute(request))
        config = job.config(thread_id="t")
        updates = list(graph.stream(GO, config, stream_mode="updates", interrupt_after=["tools"]))
        assert studio.world.effects == []
        updates += graph.stream(None, config, stream_mode="updates")
    names = [name for update in updates for name in update]
    assert names == ["model", "tools", "__interrupt__", "tools.execute", "model"]
