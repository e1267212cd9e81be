"""A chat model that says what a test wrote, in agents and graphs of your own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentguard.langgraph import GuardMiddleware
from agentguard.testing import ScriptedModel, TestWorkspace, UndeclaredConnection, workspace
from tests.integration.testing.tools_under_test import REACHED, TOOLS

GO: Any = {"messages": [("user", "go")]}


def made(messages: list[BaseMessage]) -> str:
    """The id of the asset that the last result names."""
    return str(re.findall("asset-[0-9a-f]{20}", str(messages[-1].content))[-1])


def test_model_drives_a_guarded_agent(ws: TestWorkspace) -> None:
    with ws.job() as job:
        logo = ws.import_asset(labels=["brand"])
        model = ScriptedModel(
            [
                [("copy", {"source": logo}), ("list_assets", {})],
                lambda messages: ("copy", {"source": made(messages)}),
                "done",
            ]
        )
        agent = create_agent(
            model,
            ws.guard.tools(agent="editor"),
            middleware=[GuardMiddleware(ws.guard, agent="editor")],
            checkpointer=InMemorySaver(),
        )
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert state["messages"][-1].content == "done"
    results = [one for one in state["messages"] if isinstance(one, ToolMessage)]
    assert [one.name for one in results] == ["copy", "list_assets", "copy"]
    assert all(one.status == "success" for one in results)
    assert {"copy", "list_assets"} <= set(model.given)
    assert len(model.heard) == 3
    assert isinstance(model.heard[0][-1], HumanMessage)
    model.require_all_said()


async def test_model_is_awaited_as_well() -> None:
    assert (await ScriptedModel(["hello"]).ainvoke("hi")).content == "hello"


def test_what_is_left_unsaid_is_named() -> None:
    model = ScriptedModel(["one", ("crop", {"width": 4}), AIMessage("three")])
    assert model.invoke("hi").content == "one"
    assert len(model.unsaid) == 2
    with pytest.raises(AssertionError, match=r"2 of the model's messages left unsaid: \('crop'"):
        model.require_all_said()


def test_model_that_has_nothing_left_says_so() -> None:
    model = ScriptedModel(["one"])
    model.invoke("hi")
    with pytest.raises(AssertionError, match=r"woken 2 times and had 1 messages.*'and now'"):
        model.invoke("and now")


def test_two_models_share_nothing() -> None:
    one, other = ScriptedModel(["a"]), ScriptedModel(["b"])
    one.invoke("hi")
    assert (other.heard, other.unsaid) == ((), ("b",))


@pytest.mark.parametrize("steps", ["done", ("crop", {})])
def test_one_message_without_its_list_is_refused(steps: object) -> None:
    with pytest.raises(TypeError, match="is one message"):
        ScriptedModel(steps)  # type: ignore[arg-type]


def test_connection_in_an_agent_fails_the_test_at_the_end(config: Path, port: int) -> None:
    def run() -> None:
        with workspace(config, tools=TOOLS) as ws, ws.job() as job:
            logo = ws.import_asset(labels=["brand"])
            agent = create_agent(
                ScriptedModel([("phone_home", {"source": logo, "port": port}), "done"]),
                ws.guard.tools(agent="editor"),
                middleware=[GuardMiddleware(ws.guard, agent="editor")],
            )
            agent.invoke(GO, job.config(thread_id="t"))

    with pytest.raises(UndeclaredConnection, match=r"^phone_home"):
        run()
    assert REACHED == []
