"""Every kind of tool through the two other ways in: `GuardMiddleware`, and the inline gate.

test_upstream.py compares each through `protect`; the tools are the same here.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.prebuilt import ToolRuntime
from langgraph.store.memory import InMemoryStore
from langgraph.types import Command

from agentguard.langgraph import GuardMiddleware
from tests.integration.graphs.test_upstream import CASES, RAN, Heard, made
from tests.support import KIM, Studio, call, says
from tests.support.bindings import Binding
from tests.support.chat_models import Scripted

# No ToolNode stands before an inline tool: nothing fills in state, store or runtime.
GRAPH_ONLY = ("injected state", "injected store", "tool runtime")

RUNS = [
    (name, mode)
    for name, case in CASES.items()
    for mode in ("sync", "async")
    if case.only in ("", mode) and not case.node  # an agent's ToolNode takes no options
]


class Noted(AgentState[Any]):
    note: str
    notes: Annotated[list[str], operator.add]


def bound(studio: Studio, name: str) -> Any:
    one = made(name)
    arguments = list(CASES[name].args) or ["n"]
    studio.guard.bind(Binding(one, stage=None, plain=arguments, **CASES[name].binding))
    return one


def message(one: Any) -> Any:
    """What a message or Command says, without ids."""
    if isinstance(one, list):
        return [message(item) for item in one]
    if isinstance(one, Command):
        update = {
            k: message(v) if k == "messages" else v for k, v in dict(one.update or {}).items()
        }
        return "command", update, one.goto, one.graph
    if isinstance(one, ToolMessage):
        return one.content, one.artifact, one.status, one.name, one.tool_call_id
    return one


async def outcome(graph: Any, given: Any, config: Any, mode: str) -> Any:
    """The final state and what callbacks heard of tools, or the exception."""
    heard = Heard()
    config = {**config, "callbacks": [heard], "metadata": {"colour": "red"}, "tags": ["t"]}
    try:
        if mode == "async":
            state = await graph.ainvoke(given, config)
        else:
            state = graph.invoke(given, config)
    except Exception as error:
        return type(error), str(error).partition("\nDuring task")[0], heard.events
    if isinstance(state, dict):
        state = {
            key: [message(one) for one in value if isinstance(one, ToolMessage)]
            if key == "messages"
            else value
            for key, value in state.items()
        }
    return message(state), heard.events


@pytest.mark.parametrize(("name", "mode"), RUNS)
async def test_an_agent_with_the_middleware_does_what_a_plain_one_does(
    studio: Studio, name: str, mode: str
) -> None:
    store = InMemoryStore()
    store.put(("numbers",), "one", {"n": 1})

    def agent(one: Any, *middleware: Any) -> Any:
        sent = says({**call("answer", dict(CASES[name].args), id="c1")}, id="m1")
        return create_agent(
            Scripted(messages=iter([sent, AIMessage("done", id="m2")])),
            [one],
            middleware=middleware,
            state_schema=Noted,
            store=store,
            checkpointer=InMemorySaver(),
        )

    given = {"messages": [("user", "go")], "note": "before", "notes": []}
    plain = agent(made(name))
    expected = await outcome(plain, given, {"configurable": {"thread_id": "t"}}, mode)
    expected_runs = RAN.copy()
    guarded = agent(bound(studio, name), GuardMiddleware(studio.guard, agent="editor"))
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        found = await outcome(guarded, given, job.config(thread_id="t"), mode)
    assert found == expected
    assert expected_runs == RAN


@pytest.mark.parametrize(("name", "mode"), [r for r in RUNS if r[0] not in GRAPH_ONLY])
async def test_an_inline_tool_does_what_a_plain_one_does(
    studio: Studio, name: str, mode: str
) -> None:
    def flow_of(one: Any) -> Any:
        sent = call("answer", dict(CASES[name].args), id="c1")
        if mode == "async":

            @entrypoint(checkpointer=InMemorySaver())
            async def aflow(given: str) -> Any:
                return await one.ainvoke(sent)

            return aflow

        @entrypoint(checkpointer=InMemorySaver())
        def flow(given: str) -> Any:
            return one.invoke(sent)

        return flow

    plain = flow_of(made(name))
    expected = await outcome(plain, "go", {"configurable": {"thread_id": "t"}}, mode)
    expected_runs = RAN.copy()
    one = bound(studio, name)
    (guarded,) = studio.guard.tools([one], agent="editor", gate="inline")
    with studio.guard.open_job("compare", requested_by=KIM) as job:
        found = await outcome(flow_of(guarded), "go", job.config(thread_id="t"), mode)
    assert found == expected
    assert expected_runs == RAN


def test_inline_tool_with_an_artifact_refuses_by_a_message(studio: Studio) -> None:
    """`run` returns what the caller reads: a message, and no pair of content and artifact."""

    @tool(response_format="content_and_artifact")
    def see(source: str, runtime: ToolRuntime) -> tuple[str, None]:
        """Look."""
        return "seen", None

    studio.bind(see, stage="review", assets=["source"])
    (inline,) = studio.guard.tools([see], agent="reviewer", gate="inline")
    asset = "asset-" + "0" * 20
    given = {"name": "see", "args": {"source": asset, "runtime": "forged"}, "id": "c1",
             "type": "tool_call"}  # fmt: skip
    answer = inline.invoke(given)
    assert isinstance(answer, ToolMessage)
    assert answer.status == "error"
    assert "no runtime, state or store" in answer.text
