"""The code of docs/how-to/ways-in.md and langgraph-server.md runs, and does what it says."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph_sdk.runtime import ServerRuntime
from mcp.shared.memory import create_connected_server_and_client_session as connected

from agentguard import Asset, Binding, McpTool, Plain, Text
from agentguard.bindings.mcp import origin
from agentguard.langgraph import GuardMiddleware, known, protect
from tests.support import GO, KIM, OMAR, Studio, build, call, results, says, scripted
from tests.support.chat_models import saying
from tests.support.mcp_servers import mcp_images

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "ways-in.md"
PAINT = call("paint", {"prompt": "the sea", "colour": "navy"})


GIVEN = {  # what the page's imports would give
    "Asset": Asset,
    "Binding": Binding,
    "Text": Text,
    "Plain": Plain,
    "END": END,
    "Any": Any,
    "GuardMiddleware": GuardMiddleware,
    "McpTool": McpTool,
    "MessagesState": MessagesState,
    "MultiServerMCPClient": MultiServerMCPClient,
    "RunnableConfig": RunnableConfig,
    "START": START,
    "ServerRuntime": ServerRuntime,
    "StateGraph": StateGraph,
    "ThreadPoolExecutor": ThreadPoolExecutor,
    "ToolMessage": ToolMessage,
    "ToolNode": ToolNode,
    "create_agent": create_agent,
    "create_deep_agent": create_deep_agent,
    "known": known,
    "entrypoint": entrypoint,
    "protect": protect,
    "sys": sys,
    "task": task,
    "tools_condition": tools_condition,
}


def code(heading: str) -> str:
    section = PAGE.read_text("utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return str(block)


def run(studio: Studio, heading: str, model: Any, **more: Any) -> dict[str, Any]:
    """What a block defines, given what the page says is given."""
    scope: dict[str, Any] = {
        **GIVEN,
        **studio.tools,
        "guard": studio.guard,
        "model": model,
        "saver": InMemorySaver(),
        **more,
    }
    block = scope.pop("block", None) or code(heading)
    exec(compile(block, str(PAGE), "exec"), scope)
    return scope


def test_a_state_graph(studio: Studio) -> None:
    def route(state: Any) -> str:
        calls = state["messages"][-1].tool_calls
        return END if not calls else "paint_tools" if calls[0]["name"] == "paint" else "edit_tools"

    graph = run(studio, "A StateGraph", scripted([says(PAINT)]), route=route)["graph"]
    with studio.guard.open_job("page", requested_by=KIM) as job:
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert results(state)[-1].status == "success"


def test_functions_that_call_tools_by_hand(studio: Studio) -> None:
    with studio.guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        cut = says(call("crop", {"source": asset, "width": 4, "height": 4}))
        heading = "Functions that call tools by hand"
        graph = run(studio, heading, scripted([cut]))["own_loop"]
        state = graph.invoke(GO, job.config(thread_id="t"))
    assert studio.world.count("crop") == 1
    assert results(state)[-1].status == "success"


def test_create_agent(studio: Studio) -> None:
    with studio.guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["brand"])
        model = saying(says(call("crop", {"source": asset, "width": 4, "height": 4})))
        agent = run(studio, "create_agent", model)["agent"]
        state = agent.invoke(GO, job.config(thread_id="t"))
    assert results(state)[-1].status == "success"


def test_deep_agents(studio: Studio) -> None:
    model = saying(
        says(call("task", {"description": "Paint the sea.", "subagent_type": "painter"})),
        says(PAINT),
    )
    deep = run(studio, "Deep agents", model)["deep"]
    with studio.guard.open_job("page", requested_by=KIM) as job:
        state = deep.invoke(GO, job.config(thread_id="t"))
    assert results(state)[-1].content == "done"
    assert studio.world.count("paint") == 1


def test_the_functional_api(studio: Studio) -> None:
    flow = run(studio, "The functional API", None)["flow"]
    with studio.guard.open_job("page", requested_by=KIM) as job:
        asset = job.import_asset(studio.picture(), ["likeness"])
        config = job.config(thread_id="t")
        assert flow.invoke(asset, config)["__interrupt__"]
        studio.answer(studio.pending().request, OMAR)
        assert flow.invoke(None, config) == "published"


async def origin_of(name: str) -> Any:
    async with connected(mcp_images.make()._mcp_server) as session:
        tools = await load_mcp_tools(session, server_name="images")
    return next(origin(tool) for tool in tools if tool.name == name)


def test_mcp_servers(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(mcp_images.__file__), studio.folder / "images_server.py")
    monkeypatch.chdir(studio.folder)
    known = asyncio.run(origin_of("sketch"))
    assert known is not None
    model = saying(says(call("sketch", {"prompt": "a boat"})))
    block = code("MCP servers").replace("sha256:…", known.schema)
    scope = run(studio, "MCP servers", model, block=block)
    assert "image/png 16x16" in asyncio.run(scope["main"]())


def test_threads_tasks_and_child_graphs(studio: Studio) -> None:
    graph = build(studio, [says(PAINT)])
    scope = run(studio, "Threads, tasks and child graphs", None, graph=graph)
    for state in scope["posters"](["a", "b"]):
        assert results(state)[-1].status == "success"


async def test_a_langgraph_server(studio: Studio) -> None:
    graph = build(studio, [says(PAINT)])
    job = studio.guard.open_job("page", requested_by=KIM)

    def job_of(thread: str, person: str) -> Any:
        return job if person == KIM else None

    page = PAGE.with_name("langgraph-server.md").read_text("utf-8")
    (_, block) = re.findall(r"```python.*?\n(.*?)```", page, flags=re.DOTALL)
    made = block.partition("# changed\n")[2]  # the graph is the studio's
    served = run(studio, "", None, graph=graph, job_of=job_of, block=made)["served"]
    config: Any = {"configurable": {"thread_id": "t"}}
    runtime = SimpleNamespace(execution_runtime=None, user=SimpleNamespace(identity=OMAR))
    assert await served(config, runtime) is graph
    runtime.execution_runtime = runtime
    state = await (await served(config, runtime)).ainvoke(GO, config)
    assert "belongs to no job" in results(state)[-1].content
    runtime.user.identity = KIM
    config["configurable"]["thread_id"] = "t2"
    state = await (await served(config, runtime)).ainvoke(GO, config)
    assert results(state)[-1].status == "success"
