"""A declared function runs outside of jobs as ever, and inside under its own claim only (I5)."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image

from agentguard import Asset, BindingError, Guard, Output, UnguardedTool, media_tool
from agentguard.langgraph import GuardMiddleware, protect
from tests.support import Clock, call, says, tool_loop, write_workspace
from tests.support.chat_models import Scripted

Picture = Annotated[str, Asset()]
RAN: list[str] = []


@media_tool(stage="edit")
def crop(source: Picture, width: int, file: Annotated[str, Output(".png")]) -> str:
    """Crop a picture."""
    RAN.append("crop")
    with Image.open(source) as picture:
        picture.crop((0, 0, width, width)).save(file)
    return "cropped"


@media_tool(stage="edit")
async def soften(source: Picture, file: Annotated[str, Output(".png")]) -> str:
    """Soften a picture."""
    RAN.append("soften")
    return "softened"


@media_tool(stage="edit")
def crop_twice(source: Picture, file: Annotated[str, Output(".png")]) -> str:
    """Crop a picture, and crop it again."""
    hidden = vars(sys.modules[__name__])["".join(("cr", "op"))]  # the search finds what is named
    return str(hidden(source, 8, file))


@pytest.fixture
def guard(tmp_path: Path) -> Any:
    RAN.clear()
    write_workspace(tmp_path)
    tools: list[Callable[..., Any]] = [crop, soften, crop_twice]
    with Guard.from_config(tmp_path / "agentguard.toml", tools=tools, clock=Clock()) as opened:
        yield opened


@pytest.fixture
def logo(tmp_path: Path) -> Path:
    path = tmp_path / "logo.png"
    Image.new("RGB", (32, 32), "navy").save(path)
    return path


def test_declared_function_keeps_its_signature_and_runs_in_tests(logo: Path) -> None:
    RAN.clear()
    file = logo.with_name("out.png")
    assert crop(str(logo), width=8, file=str(file)) == "cropped"
    assert list(inspect.signature(crop).parameters) == ["source", "width", "file"]
    assert inspect.iscoroutinefunction(soften)
    assert asyncio.run(soften(str(logo), str(file))) == "softened"
    assert not hasattr(crop, "__wrapped__")
    assert RAN == ["crop", "soften"]


def test_declared_function_refuses_inside_a_job(guard: Guard, logo: Path) -> None:
    with guard.open_job("crop", requested_by="kim@acme.example"):
        with pytest.raises(UnguardedTool, match="crop was called unguarded inside a job"):
            crop(str(logo), 8, "out.png")
        with pytest.raises(UnguardedTool, match="soften was called unguarded inside a job"):
            asyncio.run(soften(str(logo), "out.png"))
        copied = contextvars.copy_context()
        with pytest.raises(UnguardedTool):
            copied.run(crop, str(logo), 8, "out.png")
        with guard.unguarded("the test looks at it"):
            crop(str(logo), 8, str(logo.with_name("out.png")))
    copied.run(crop, str(logo), 8, str(logo.with_name("later.png")))  # the job is left
    assert RAN == ["crop", "crop"]


def records(guard: Guard) -> list[tuple[str, str, str]]:
    """Kind, tool and reason of what the log says of unguarded runs."""
    rows = guard.ledger.all("SELECT body FROM records ORDER BY rowid")
    found = [json.loads(row["body"]) for row in rows]
    return [
        (one["kind"], one["tool"], one.get("why", ""))
        for one in (each | each.get("body", {}) for each in found)
        if one["kind"].startswith("unguarded.")
    ]


def test_direct_call_that_is_stopped_is_recorded_and_marks_its_job(
    guard: Guard, logo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.open_job("crop", requested_by="kim@acme.example") as job:
        with pytest.raises(UnguardedTool):
            crop(str(logo), 8, "out.png")
        assert records(guard) == [("unguarded.stopped", "crop", "")]
        marked = guard.ledger.all("SELECT job, tool FROM unguarded_runs")
        assert [tuple(row.values()) for row in map(dict, marked)] == [(job.id, "crop")]
    assert "crop was called unguarded inside a job" in caplog.text
    guard.verify()


def test_direct_call_that_is_let_past_is_recorded_with_its_reason(guard: Guard, logo: Path) -> None:
    file = str(logo.with_name("out.png"))
    with guard.open_job("crop", requested_by="kim@acme.example"):
        with guard.unguarded("the test looks at it"):
            crop(str(logo), 8, file)
            asyncio.run(soften(str(logo), file))
            tool(crop).invoke({"source": str(logo), "width": 8, "file": file})
            asyncio.run(tool(soften).ainvoke({"source": str(logo), "file": file}))
        why = "the test looks at it"
        names = ["crop", "soften", "crop", "soften"]
        assert records(guard) == [("unguarded.allowed", name, why) for name in names]
    guard.verify()


def test_direct_call_in_another_guards_job_is_stopped(
    guard: Guard, logo: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    write_workspace(tmp_path / "other")
    with (
        Guard.from_config(tmp_path / "other" / "agentguard.toml") as other,
        guard.open_job("crop", requested_by="kim@acme.example"),
        other.unguarded("not this guard's to say"),
        pytest.raises(UnguardedTool),
    ):
        crop(str(logo), 8, "out.png")
    assert RAN == []
    assert records(guard) == [("unguarded.stopped", "crop", "")]


def lookalike() -> Any:
    """A function of the same name and signature with another body."""

    def crop(source: Picture, width: int, file: Annotated[str, Output(".png")]) -> str:
        """Crop a picture."""
        RAN.append("lookalike")
        return "stolen"

    return media_tool(stage="edit")(crop)


@pytest.mark.parametrize("how", ["agent", "graph"])
def test_plain_declared_function_is_taken_as_the_tool_that_was_declared(
    guard: Guard, logo: Path, how: str
) -> None:
    with guard.open_job("crop", requested_by="kim@acme.example") as job:
        asset = job.import_asset(logo, ["brand"])
        steps = [says(call("crop", {"source": asset, "width": 8})), AIMessage("done")]
        graph = agent_or_graph(guard, crop, steps, how)
        state = graph.invoke({"messages": [("user", "go")]}, job.config(thread_id="t"))
    assert RAN == ["crop"]
    assert "asset-" in state["messages"][-2].content


@pytest.mark.parametrize("how", ["agent", "graph"])
def test_another_function_of_that_name_names_the_way_out(
    guard: Guard, logo: Path, how: str
) -> None:
    with guard.open_job("crop", requested_by="kim@acme.example") as job:
        asset = job.import_asset(logo, ["brand"])
        steps = [says(call("crop", {"source": asset, "width": 8})), AIMessage("done")]
        with pytest.raises(BindingError, match=r"guard\.tools\(\)"):
            agent_or_graph(guard, lookalike(), steps, how).invoke(
                {"messages": [("user", "go")]}, job.config(thread_id="t")
            )
    assert RAN == []


def agent_or_graph(guard: Guard, tool: Any, steps: list[AIMessage], how: str) -> Any:
    model = Scripted(messages=iter(steps))
    saver = InMemorySaver()
    if how == "agent":
        middleware = [GuardMiddleware(guard, agent="editor")]
        return create_agent(model, [tool], middleware=middleware, checkpointer=saver)
    builder = tool_loop(lambda state: {"messages": [model.invoke(state["messages"])]}, [tool])
    return protect(builder, guard, agents={"tools": "editor"}).compile(checkpointer=saver)


def test_agent_without_guard_does_not_run_it(guard: Guard, logo: Path) -> None:
    steps = [says(call("crop", {"source": str(logo), "width": 8, "file": "x.png"}))]
    agent = create_agent(Scripted(messages=iter(steps)), [crop])
    job = guard.open_job("crop", requested_by="kim@acme.example")
    with job, pytest.raises(UnguardedTool):
        agent.invoke({"messages": [HumanMessage("crop")]}, job.config())
    assert not RAN


def drive(guard: Guard, *calls: Any) -> Any:
    builder = tool_loop([says(*calls)], guard.tools(agent="editor"))
    return protect(builder, guard, agents={"tools": "editor"}).compile(checkpointer=InMemorySaver())


def answers(guard: Guard, logo: Path, name: str, **args: Any) -> Any:
    with guard.open_job("crop", requested_by="kim@acme.example") as job:
        asset = job.import_asset(logo, ["brand"])
        graph = drive(guard, call(name, {"source": asset, **args}))
        state = graph.invoke({"messages": [("user", name)]}, job.config())
    return state["messages"][2]


def test_declared_function_runs_under_its_own_claim(guard: Guard, logo: Path) -> None:
    message = answers(guard, logo, "crop", width=8)
    assert "file: asset-" in message.content, message
    assert RAN == ["crop"]


def test_another_declared_tool_inside_a_claim_is_refused(
    guard: Guard, logo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message = answers(guard, logo, "crop_twice")
    assert message.status == "error"
    assert not RAN
    assert "put the shared code into a plain function" in caplog.text


def test_tools_are_handed_out_by_agent_and_by_name(guard: Guard) -> None:
    own = {"list_assets", "queue_for_release", "export_asset"}
    assert {tool.name for tool in guard.tools()} == {"crop", "soften", "crop_twice", *own}
    edits = {"crop", "soften", "crop_twice", "list_assets"}
    assert {tool.name for tool in guard.tools(agent="editor")} == edits
    assert {tool.name for tool in guard.inline_tools(agent="editor")} == edits
    assert [tool.name for tool in guard.tools(["crop", soften])] == ["crop", "soften"]
    with pytest.raises(BindingError, match="no agent 'nobody' is configured"):
        guard.tools(agent="nobody")
    with pytest.raises(BindingError, match="no tool 'paint' is bound; there are"):
        guard.tools(["paint"])


def test_mistakes_of_all_tools_are_told_when_the_guard_is_opened(tmp_path: Path) -> None:
    @media_tool(stage="edit")
    def one(source: str) -> str:
        """One."""
        return ""

    @media_tool(stage="generate")
    def two(prompt: Annotated[str, Output()]) -> str:
        """Two."""
        return ""

    write_workspace(tmp_path)
    with pytest.raises(BindingError) as told:
        Guard.from_config(tmp_path / "agentguard.toml", tools=[one, two])
    assert "one: 2 things to declare" in str(told.value)
    assert "two: say where its words and media go" in str(told.value)


def test_ended_job_is_over_and_a_left_one_too(guard: Guard) -> None:
    job = guard.open_job("crop", requested_by="kim@acme.example")
    with pytest.raises(ValueError, match="needs a reason"):
        job.end(" ")
    with job:
        job.end("the customer cancelled")
        assert crop.__name__ == "crop"
    assert job.is_left
    assert str(job.state) == "ended"
